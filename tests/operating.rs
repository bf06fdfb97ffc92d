//! The installed program has no handlers, takes no events, and operates any group. A program of a user's has its own name.

use std::time::Duration;

use crate::support::{Cli, Server, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

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

    async fn a_program_has_its_own_name_version_and_description(server: Server) {
        let cli = Cli::new(&server, "");
        assert_eq!(cli.run(&["-V"]).await.ok(), concat!("shop ", env!("CARGO_PKG_VERSION"), "\n"));
        let help = cli.run(&["publish", "--help"]).await.ok();
        assert!(help.contains("shop publish orders order.created") && !help.contains("streamhand publish"), "{help}");
        let installed = cli.of_program(STREAMHAND);
        assert_eq!(installed.run(&["-V"]).await.ok(), concat!("streamhand ", env!("CARGO_PKG_VERSION"), "\n"));
        let script = installed.run(&["completions", "bash"]).await.ok();
        assert!(script.contains("complete -F _streamhand"), "{script}");
    }

    async fn a_worker_asks_for_its_streams_and_its_group_is_called_like_the_program(server: Server) {
        let mut redis = server.connect().await;
        let cli = Cli::new(&server, "").with_nothing_set();
        let said = cli.run(&["run"]).await.failed(2);
        assert!(said.contains("worker.streams is not set") && said.contains("--stream"), "{said}");
        for args in [&["run", "--stream", "orders", "--stream", "payments"][..], &["run", "--group", "mine", "--stream", "orders"]] {
            let mut worker = cli.command(args).spawn().unwrap();
            let group = if args.contains(&"--group") { "mine" } else { "shop" };
            eventually(PATIENCE, "the group", async || {
                let groups: redis::RedisResult<redis::streams::StreamInfoGroupsReply> =
                    redis::cmd("XINFO").arg("GROUPS").arg("orders").query_async(&mut redis).await;
                groups.is_ok_and(|found| found.groups.iter().any(|one| one.name == group))
            })
            .await;
            let pid = rustix::process::Pid::from_raw(worker.id().unwrap().cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            assert_eq!(worker.wait().await.unwrap().code(), Some(0), "{args:?}");
        }
        let payments: redis::streams::StreamInfoGroupsReply =
            redis::cmd("XINFO").arg("GROUPS").arg("payments").query_async(&mut redis).await.unwrap();
        assert_eq!(payments.groups.len(), 1);
        // An operator's program has no group of its own.
        let installed = cli.of_program(STREAMHAND);
        let said = installed.run(&["status"]).await.failed(2);
        assert!(said.contains("worker.group is not set"), "{said}");
    }
}
