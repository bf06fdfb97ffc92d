//! The installed program has no handlers, takes no events, and operates any group.

use crate::support::{Cli, Server};

const STREAMHAND: &str = env!("CARGO_BIN_EXE_streamhand");

on_both_servers! {
    async fn it_takes_no_event_and_says_what_to_do(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "[worker]\ngroup = \"shipping\"\nstreams = [\"orders\"]").of_program(STREAMHAND);
        cli.run(&["publish", "orders", "order.created", "{}"]).await.ok();
        let said = cli.run(&["run"]).await.failed(2);
        assert!(said.contains("this program has no handlers") && said.contains("streamhand::cli::run"), "{said}");
        let groups: Vec<redis::Value> = redis::cmd("XINFO").arg("GROUPS").arg("orders").query_async(&mut redis).await.unwrap();
        assert_eq!(groups, [], "it has read nothing, and made no group");
    }

    async fn it_operates_any_group(server: Server) {
        let config = "[worker]\ngroup = \"shipping\"\nstreams = [\"orders\"]\n[handlers.\"order.created\"]\ntimeout = \"1s\"";
        let cli = Cli::new(&server, config).of_program(STREAMHAND);
        cli.run(&["publish", "orders", "order.created", "{}"]).await.ok();
        assert!(cli.run(&["status"]).await.ok().contains("orders"));
        cli.run(&["pause", "orders"]).await.ok();
        assert_eq!(cli.run(&["dlq", "list", "--json"]).await.json(), serde_json::json!([]));
        // Whether there is such a handler is for the program to say that has them.
        let checked = cli.run(&["config", "check"]).await;
        assert_eq!((checked.code, &checked.err[..]), (0, ""), "{checked:?}");
    }
}
