//! The bench tells no password, whatever a server says.

use crate::support::{Cli, Kind, Server};

on_both_servers! {
    /// It quotes what it does not understand, which is how we log in.
    async fn a_server_that_does_not_know_how_to_log_in_tells_no_password(kind: Kind) {
        let deaf = ["--rename-command", "AUTH", "", "--rename-command", "HELLO", ""];
        let server = Server::builder(kind).args(deaf).start().await;
        for end in ["", "?protocol=resp3"] {
            let url = format!("redis://bob:hunter2@127.0.0.1:{}{end}", server.port());
            let said = Cli::at(&url, "").run(&["--small"]).await.failed(1);
            assert!(!said.contains("hunter2"), "{said}");
            assert!(said.contains("it does not accept the user or the password"), "{said}");
        }
    }
}
