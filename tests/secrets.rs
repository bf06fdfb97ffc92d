//! Secrets are told to nobody: not by what servers say, not by what is shown, not by files.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::letters::{DEAD, bury_many};
use crate::support::{Cli, Kind, Server, Setup};

const PATIENCE: Duration = Duration::from_secs(30);

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

on_both_servers! {
    /// It quotes what it does not understand, which is how we log in.
    async fn a_server_that_does_not_know_how_to_log_in_tells_no_password(kind: Kind) {
        let deaf = ["--rename-command", "AUTH", "", "--rename-command", "HELLO", ""];
        let server = Server::builder(kind).args(deaf).start().await;
        let long = "hunter2".repeat(40);
        for (url, password) in [
            (format!("redis://bob:hunter2@127.0.0.1:{}", server.port()), ""),
            (format!("redis://bob:hunter2@127.0.0.1:{}?protocol=resp3", server.port()), ""),
            (format!("redis://127.0.0.1:{}", server.port()), &long[..]),
        ] {
            let own = match password {
                "" => String::new(),
                password => format!("username = \"bob\"\npassword = \"{password}\""),
            };
            let cli = Cli::at(&url, &own);
            for command in ["status", "dlq list", "publish orders order.created {}", "aggregate show order:o-1"] {
                let args: Vec<&str> = command.split(' ').collect();
                let said = cli.run(&args).await.failed(1);
                assert!(!said.contains("hunter2"), "{command}: {said}");
                assert!(said.contains("it does not accept the user or the password"), "{command}: {said}");
            }
        }
        let url = format!("redis://bob:hunter2@127.0.0.1:{}?protocol=resp3", server.port());
        let mut worker = Setup::at(url).process();
        worker.wait_for_log("it does not accept the user or the password", PATIENCE).await;
        assert!(!worker.log().contains("hunter2"), "{}", worker.log());
    }

    /// In whatever words: here it lets us in and then says what it was told.
    async fn what_a_server_says_of_a_password_is_hidden(kind: Kind) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://bob:hunter2@{}", listener.local_addr().unwrap());
        let words = match kind {
            Kind::Redis => "-ERR unknown command 'INFO', with args beginning with: 'server' 'hun\r\n",
            Kind::Valkey => "-ERR bob logged in with hunter2, and that is that\r\n",
        };
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut asked = [0; 4096];
                    while let Ok(read @ 1..) = socket.read(&mut asked).await {
                        let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
                        for command in asked.split('*').skip(1) {
                            let answer = if command.contains("AUTH") { "+OK\r\n" } else { words };
                            let _ = socket.write_all(answer.as_bytes()).await;
                        }
                    }
                });
            }
        });
        let cli = Cli::at(&url, "");
        for command in ["status", "dlq list", "publish orders order.created {}", "aggregate show order:o-1"] {
            let args: Vec<&str> = command.split(' ').collect();
            let said = cli.run(&args).await.failed(1);
            assert!(said.contains("ERR ") && !said.contains("hun"), "{command}: {said}");
        }
        let mut worker = Setup::at(url).process();
        worker.wait_for_log("ERR ", PATIENCE).await;
        assert!(!worker.log().contains("hun"), "{}", worker.log());
    }

    async fn of_the_users_own_settings_only_what_is_listed_is_shown(server: Server) {
        let app = "[app]\nauthorization = \"Bearer hunter2\"\nconn = \"Server=db;Password=hunter2\"\ngreeting = \"hello\"\n\
                   pin = 4711\nsmtp = { host = \"mail\", user = \"hunter2\" }\n";
        let shown = Cli::new(&server, app).of_test("configuration::program").run(&["config", "show"]).await.ok();
        let (_, app) = shown.split_once("[app]\n").expect("the user's own");
        insta::allow_duplicates! { insta::assert_snapshot!(app, @r#"
        authorization = "***"
        conn = "***"
        greeting = "hello"
        pin = "***"

        [app.smtp]
        host = "mail"
        user = "***"
        "#) };
    }

    async fn a_file_with_a_secret_that_everyone_can_read_is_warned_of(server: Server) {
        let cli = Cli::new(&server, "password_file = \"password\"\n[app]\napi_key = \"hunter2\"\n");
        let (config, password) = (cli.file("config.toml"), cli.file("password"));
        std::fs::write(&password, "secret\n").unwrap();
        let warned = async || {
            let ran = cli.run(&["config", "check"]).await;
            let warnings = ran.err.lines().map(|line| {
                line.strip_prefix("warning: ").unwrap_or_else(|| panic!("{line}")).to_owned()
            });
            warnings.collect::<Vec<_>>()
        };
        set_mode(&config, 0o640);
        set_mode(&password, 0o600);
        assert_eq!(warned().await, [""; 0]);
        set_mode(&password, 0o644);
        let told = warned().await;
        assert!(told.len() == 1 && told[0].ends_with(
            "redis.password_file: everyone on this machine can read the password: password has mode 0644; chmod 600 it, \
             or 640 for a group"), "{told:?}");
        set_mode(&config, 0o604);
        let told = warned().await;
        assert!(told.len() == 2 && told.contains(
            &"config.toml: everyone on this machine can read app.api_key: it has mode 0604; chmod 600 it, or 640 for a group"
                .to_owned()), "{told:?}");
        // Without a secret it is anybody's.
        let plain = Cli::new(&server, "[app]\ngreeting = \"hello\"\n");
        set_mode(&plain.file("config.toml"), 0o644);
        assert_eq!(plain.run(&["config", "check"]).await.err, "");
    }

    async fn exported_letters_are_their_owners_alone(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 3).await;
        let cli = Cli::new(&server, "");
        // Nothing that is there is written to, and no link is followed.
        let (aim, link) = (cli.file("aim"), cli.file("link"));
        symlink(&aim, &link).unwrap();
        let said = cli.run(&["dlq", "purge", "--all", "--yes", "--export", "link"]).await.failed(1);
        assert!(said.contains("can't export to link: ") && !aim.exists(), "{said}");
        let left: u64 = redis::cmd("XLEN").arg(DEAD).query_async(&mut redis).await.unwrap();
        assert_eq!(left, 3);
        cli.run(&["dlq", "purge", "--all", "--yes", "--export", "letters"]).await.ok();
        assert_eq!(mode(&cli.file("letters")), 0o600);
    }
}
