//! The program as a newcomer meets it: what it says of itself, of slips, and of a server that does not let it in.

use std::process::Stdio;
use std::time::Duration;

use crate::support::jobs::{self, Action, Job};
use crate::support::letters::{DEAD, bury_many};
use crate::support::{Cli, Kind, Server, Setup, eventually, run_program};

const PATIENCE: Duration = Duration::from_secs(30);

async fn run(redis: &mut redis::aio::MultiplexedConnection, command: &str) -> redis::Value {
    let mut words = command.split(' ');
    let mut cmd = redis::cmd(words.next().expect("a command"));
    let answer = cmd.arg(words.collect::<Vec<_>>()).query_async(redis).await;
    answer.expect(command)
}

/// A user's program, called as they like.
#[test]
#[ignore = "run by other tests"]
fn warehouse() {
    let program = streamhand::cli::Program::new(jobs::registry()).name("warehouse");
    run_program(program);
}

on_both_servers! {
    /// What it says is to be typed can be typed.
    async fn a_program_of_another_name_tells_of_its_own_commands(server: Server) {
        let cli = Cli::new(&server, "").of_test("program::warehouse");
        let mut redis = server.connect().await;
        run(&mut redis, "XGROUP CREATE orders fulfilment 0 MKSTREAM").await;
        let mut said = vec![cli.run(&["status"]).await.ok(), cli.run(&["dlq", "purge"]).await.failed(2)];
        let resumed = cli.run(&["resume", "orders"]).await.ok();
        said.extend([resumed, cli.run(&["dlq", "replay", "1-1"]).await.failed(1)]);
        let _ = cli.run(&["pause", "orders"]).await.ok();
        said.push(cli.run(&["status"]).await.ok());
        let told = ["warehouse run", "warehouse dlq list", "warehouse status", "warehouse dlq show", "warehouse resume orders"];
        for (said, told) in said.iter().zip(told) {
            assert!(said.contains(told) && !said.contains("streamhand "), "no {told:?} in {said}");
        }
        for command in ["aggregate history", "aggregate append", "publish"] {
            let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
            let help = cli.run(&args).await.ok();
            let (_, examples) = help.split_once("Examples:").expect("examples");
            assert!(examples.contains(&format!("  warehouse {command} ")) && !examples.contains("streamhand "), "{help}");
        }
    }

    async fn help_is_complete(server: Server) {
        let cli = Cli::new(&server, "");
        let help = cli.run(&["--help"]).await.ok();
        insta::allow_duplicates! { insta::assert_snapshot!(help, @r##"
        A small shop: orders, and the stock that is reserved for them

        Usage: shop [OPTIONS] <COMMAND>

        Commands:
          run          Work: read entries, hand them to handlers, settle them, until SIGTERM, SIGINT or SIGHUP
          publish      Publish an event, or many
          scheduled    List events that are to be published later, or cancel them
          cancel       Cancel an event wherever it stands: scheduled, unread, parked, or with a worker, whose handler is told
          cron         List what happens again and again, look ahead, pause it, run it by hand
          find         Find events by what is in them: in streams, dead letters, what was replayed, what is scheduled
          entry        Show the life of one entry: where it stands, its attempts, what caused it and what it has caused
          dlq          Look through dead letters, replay or delete them
          aggregate    Show aggregates and their history, append to them, verify them
          status       Show how far the group is, what waits, and who works
          web          Serve the pages to watch and operate a group by
          alerts       Tell what is wrong with the group: look once, watch, or print the rules for Prometheus and Grafana
          redis        Show how Redis itself is: its memory, what it does when that is full, what it keeps, what was slow
          doctor       Look for what will go wrong, or does: the server, its settings and rights, the group, its workers
          conformance  Hold what publishers wrote, in any language, against what workers read
          pause        Stop handling a stream, or one type of its events, in the whole group until it is resumed
          limit        Limit how often a handler starts, or how many of it run, in the whole group, until it is cleared
          resume       Go on with what was paused
          topic        Show how many partitions a topic has, or spread it over more
          top          Watch the group work: streams, types, workers, and what is wrong, in the terminal
          worker       List workers and what they run; quiet or stop them, have them log more, or run more at once
          projection   List projections, or build one's view anew
          exporter     Serve the group's gauges, to Prometheus and to scalers
          health       Say whether the workers of this machine live, for a probe
          config       Check the configuration, or show what is in force
          completions  Print a shell's completion script
          order        Create, ship or cancel an order of the shop, and count them
          demo         Show the whole story on a server of its own: a fleet, a crash, retries, dead letters
          help         Print this message or the help of the given subcommand(s)

        Options:
          -h, --help     Print help
          -V, --version  Print version

        Options of every command:
              --config <FILE>  The configuration [default: config.toml, where there is one] [env: STREAMHAND_CONFIG]
              --redis <URL>    The server, in place of redis.url [env: STREAMHAND_REDIS]

        Settings come from config.toml, from the environment (STREAMHAND_WORKER__LEASE=10s is worker.lease) and
        from options, the later ones winning. The log goes to standard error: STREAMHAND_LOG=debug tells more,
        STREAMHAND_LOG_FORMAT=json is for a collector. Exit codes: 0 done, 1 failed, 2 wrong use or configuration.
        "##) };
        let publish = cli.run(&["publish", "--help"]).await.ok();
        insta::allow_duplicates! { insta::assert_snapshot!(publish, @r##"
        Publish an event, or many

        Usage: shop publish [OPTIONS] <STREAM> [TYPE] [DATA]

        Arguments:
          <STREAM>  The stream
          [TYPE]    The events' type, such as order.created
          [DATA]    The event's data as JSON; "-" reads events from standard input, one a line

        Options:
          -f, --file <FILE>              Read events from a file, one JSON value a line: each is the data of one event
              --envelopes                The lines are whole events, which say their own type
              --id <ID>                  The event's id [default: a new UUIDv7]
              --subject <SUBJECT>        What the events are about: the ordering key
              --source <SOURCE>          Who publishes them
              --schema-version <NUMBER>  The version of the data's schema
              --expires <TIME>           Start no handler for them after this: a time, or so long from now (10m)
              --max-attempts <NUMBER>    At most so many attempts, within those that their handler has
              --replicas <NUMBER>        Acknowledge events once so many replicas have them [default: redis.replicas]
              --delay <DURATION>         Publish so much later than Redis gets the events: 90s, 10m, 1d
              --at <TIME>                Publish at this time: 2026-01-31T12:00:00Z, 2026-01-31T13:00:00+01:00
              --replace                  Take the place of what waits for its time under the same id, its data and its time; with --delay or --at
              --debounce <DURATION>      As --delay with --replace: each call puts the event off, and it comes so long after the last one
              --once                     Publish nothing whose id was published by --once before; for --id and --envelopes
              --once-within <DURATION>   How long ago "before" is at most [default: 1d]
              --json-data                Keep the data as JSON instead of encoding it as MessagePack
              --json                     Say what was published as one JSON value
          -h, --help                     Print help

        Options of every command:
              --config <FILE>  The configuration [default: config.toml, where there is one] [env: STREAMHAND_CONFIG]
              --redis <URL>    The server, in place of redis.url [env: STREAMHAND_REDIS]

        Examples:
          shop publish orders order.created '{"order_id":"o-1","amount":12}'
          shop publish orders order.created --file orders.ndjson
          jq -c '.[]' orders.json | shop publish orders order.created -
          shop publish orders --envelopes --file events.ndjson
          shop publish orders order.overdue '{"order_id":"o-1"}' --delay 10m
          shop publish orders order.created '{"order_id":"o-1"}' --id o-1-created --once
          shop publish carts cart.changed '{"items":3}' --id cart-7 --debounce 5s

        A whole event has `type` and `data`, and may have `id`, `source`, `subject`, `time`, `schemaversion`,
        `traceparent`, `expires`, `maxattempts` and fields of your own: {"type":"order.created","data":{"order_id":"o-1"}}
        "##) };
        for command in ["run", "scheduled list", "scheduled cancel", "dlq list", "dlq show", "dlq stats", "dlq replay", "dlq purge", "status",
            "exporter", "health", "config check", "config show", "completions", "order create", "order ship", "order cancel", "order counts"] {
            let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
            let help = cli.run(&args).await.ok();
            assert!(help.contains(&format!("Usage: shop {command} [OPTIONS]")), "{help}");
            let mut lines = help.lines().peekable();
            while let Some(line) = lines.next() {
                assert!(line.chars().count() <= 120, "too long for a terminal: {line}");
                let bare = line.starts_with("  ") && line.trim_end().ends_with('>');
                // Where one has much to say, all of them say it on lines of their own.
                let below = lines.peek().is_some_and(|below| below.starts_with("          "));
                assert!(!bare || below, "an argument without a word on it: {line}");
            }
        }
        let script = cli.run(&["completions", "bash"]).await.ok();
        assert!(script.contains("complete -F _shop"), "{script}");
        let none = cli.run(&[]).await;
        assert_eq!((none.code, none.err.contains("Usage: shop [OPTIONS] <COMMAND>")), (2, true));
    }

    async fn what_is_wrong_with_data_is_said(server: Server) {
        let cli = Cli::new(&server, "");
        let mut said = String::new();
        for data in ["", "{\"a\":", "{a:1}", "hello", "{\"n\":99999999999999999999}"] {
            said += &cli.run(&["publish", "orders", "order.created", data]).await.failed(2);
        }
        insta::allow_duplicates! { insta::assert_snapshot!(said, @r##"
        error: DATA is empty; write {} where there is nothing to say
        error: DATA is no whole JSON value: EOF while parsing a value
        error: DATA is no JSON at column 2: key must be a string (the shell takes quotes away: write '{"order_id":"o-1"}')
        error: DATA is no JSON at column 1: expected value (text is JSON in its own quotes: write '"o-1"')
        error: DATA has the number 99999999999999999999, which MessagePack can't carry; write it in quotes, or keep the data as it is by --json-data
        "##) };
        let mut redis = server.connect().await;
        assert_eq!(run(&mut redis, "DBSIZE").await, redis::Value::Int(0));
    }

    async fn a_reader_that_has_had_enough_is_no_failure(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 100).await;
        let cli = Cli::new(&server, "");
        for command in ["--help", "completions bash", "completions zsh", "config show", "config check", "status",
            "status --json", "dlq list", "dlq list --json", "dlq stats", "dlq replay --all --dry-run",
            "publish orders order.created {}"] {
            let args: Vec<&str> = command.split(' ').collect();
            for both in [false, true] {
                let (reader, writer) = std::io::pipe().unwrap();
                drop(reader);
                let mut started = cli.command(&args);
                if both {
                    started.stderr(Stdio::from(writer.try_clone().unwrap()));
                }
                let started = started.stdout(writer).stdin(Stdio::null()).spawn().unwrap();
                let output = started.wait_with_output().await.unwrap();
                let errors = String::from_utf8_lossy(&output.stderr);
                assert_eq!((output.status.code(), &errors[..]), (Some(0), ""), "{command}");
            }
        }
        // Where nobody hears an error, there is one all the same.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = cli.command(&["dlq", "show", "1-1"]).stderr(writer).status().await.unwrap();
        assert_eq!(status.code(), Some(1));
    }

    async fn many_are_replayed_where_the_question_is_answered_yes(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 101).await;
        let cli = Cli::new(&server, "");
        for (answer, code, said) in [
            ("n\n", 1, "nothing was replayed"),
            ("\u{4}", 1, "nothing was replayed"),
            ("perhaps\n", 1, "nothing was replayed"),
            ("y\n", 0, "replayed 101 dead letters"),
        ] {
            let ran = cli.on_terminal(&["dlq", "replay", "--all"], answer).await;
            assert_eq!((ran.code, ran.out.contains(said)), (code, true), "{answer:?}: {ran:?}");
            assert!(ran.out.contains("Replay 101 dead letters of orders? [y/N]"), "{ran:?}");
        }
        assert_eq!(run(&mut redis, &format!("XLEN {DEAD}")).await, redis::Value::Int(0));
    }

    async fn a_log_on_a_terminal_is_coloured_unless_that_is_unwanted(server: Server) {
        let cli = Cli::new(&server, "[handlers.\"order.craeted\"]\ntimeout = \"1s\"\n[streams.ordres]\n");
        let mut redis = server.connect().await;
        run(&mut redis, "SET {orders}:fulfilment:protocol 99").await;
        // Another release has this group: the worker says so and ends.
        let coloured = cli.on_terminal(&["run"], "").await;
        assert!(coloured.out.contains("\u{1b}[33m WARN"), "{coloured:?}");
        let plain = cli.with_env("NO_COLOR", "1").on_terminal(&["run"], "").await;
        assert!(plain.out.contains(" WARN") && !plain.out.contains('\u{1b}'), "{plain:?}");
        for said in ["[handlers.\"order.craeted\"] has no effect here", "[streams.\"ordres\"] has no effect here"] {
            assert!(plain.out.contains(said), "{plain:?}");
        }
    }

    async fn a_server_that_asks_for_a_password_says_so_to_every_command(kind: Kind) {
        let server = Server::builder(kind).password("secret").start().await;
        let url = format!("redis://127.0.0.1:{}", server.port());
        let cli = Cli::at(&url, "");
        std::fs::write(cli.file("many"), "{\"order_id\":\"o-1\"}\n".repeat(1000)).unwrap();
        std::fs::write(cli.file("password"), "secret\n").unwrap();
        for command in ["status", "dlq list", "dlq replay --all", "publish orders order.created {}",
            "publish orders order.created --file many", "order create o-1 --item tea=1"] {
            let args: Vec<&str> = command.split(' ').collect();
            let said = cli.run(&args).await.failed(1);
            assert!(said.contains("refuses us: NOAUTH") && said.contains("set redis.password"), "{command}: {said}");
        }
        let mut worker = Setup::at(url).process();
        worker.wait_for_log("refuses us: NOAUTH", PATIENCE).await;
        let wrong = cli.run(&["--redis", &format!("redis://:wrong@127.0.0.1:{}", server.port()), "status"]).await;
        assert!(wrong.failed(1).contains("check redis.username and redis.password"));
        // The three ways to tell it.
        cli.run(&["--redis", &server.url(), "status"]).await.ok();
        cli.with_env("STREAMHAND_REDIS__PASSWORD", "secret").run(&["status"]).await.ok();
        cli.with_env("STREAMHAND_REDIS__PASSWORD_FILE", "password").run(&["status"]).await.ok();
    }

    async fn what_a_server_refuses_is_explained_to_each_in_its_own_terms(server: Server) {
        let mut redis = server.connect().await;
        bury_many(&mut redis, 1).await;
        let cli = Cli::new(&server, "");
        run(&mut redis, "SET taken x").await;
        let said = cli.run(&["publish", "taken", "order.created", "{}"]).await.failed(1);
        assert!(said.contains("WRONGTYPE Operation against") && said.contains("(this key is no stream:"), "{said}");
        run(&mut redis, "CONFIG SET maxmemory 1").await;
        for command in ["publish orders order.created {}", "dlq replay --all"] {
            let args: Vec<&str> = command.split(' ').collect();
            let said = cli.run(&args).await.failed(1);
            assert!(said.contains("OOM command not allowed") && said.contains("give it memory"), "{said}");
            assert!(!said.contains("nothing is lost"), "it is not published: {said}");
        }
        run(&mut redis, "CONFIG SET maxmemory 0").await;
        run(&mut redis, &format!("DEL {DEAD}")).await;
        run(&mut redis, &format!("SET {DEAD} x")).await;
        let said = cli.run(&["dlq", "list"]).await.failed(1);
        assert!(said.contains("the command `status` says which"), "{said}");
        let status = cli.run(&["status"]).await.ok();
        assert!(status.contains(&format!("{DEAD} is a string that is in the way of the group")), "{status}");
    }

    /// The rule in the README is all that a worker and the commands need, and no more than they are told.
    async fn a_user_by_the_rule_in_the_readme_can_do_everything(server: Server) {
        let mut redis = server.connect().await;
        let readme = include_str!("../README.md");
        let rule = readme.lines().find(|line| line.starts_with("ACL SETUSER")).expect("the rule");
        let mine = rule.replace("orders", "jobs").replace(" on ", " on ~test:* ");
        run(&mut redis, &mine).await;
        let url = format!("redis://worker:secret@127.0.0.1:{}", server.port());
        let (setup, own) = (Setup::at(url.clone()), "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]");
        let cli = Cli::at(&url, own);
        let (mut worker, dying) = (setup.process(), setup.process());
        for (id, action) in [("good", Action::Succeed), ("again", Action::Fail(1)), ("bad", Action::FailForGood)] {
            let data = serde_json::to_string(&Job::new(id, action)).unwrap();
            cli.run(&["publish", "jobs", "test.job", &data]).await.ok();
        }
        drop(dying);
        let dead = async || cli.run(&["dlq", "stats", "--json"]).await.json()["total"] == 1;
        eventually(PATIENCE, "the bad one to be dead", dead).await;
        cli.run(&["dlq", "replay", "--all"]).await.ok();
        eventually(PATIENCE, "it to be dead again", dead).await;
        cli.run(&["dlq", "purge", "--all", "--yes", "--export", "out"]).await.ok();
        eventually(PATIENCE, "all to be handled", async || jobs::handled(&mut redis).await.len() == 2).await;
        cli.run(&["status"]).await.ok();
        worker.terminate();
        assert!(worker.wait(PATIENCE).await.success(), "{}", worker.log());
        assert_eq!(run(&mut redis, "ACL LOG").await, redis::Value::Array(Vec::new()));
        let noisy = worker.log().contains("NOGROUP");
        assert!(!noisy, "a replay is nothing to warn of:\n{}", worker.log());

        run(&mut redis, "ACL SETUSER worker -@scripting").await;
        let said = cli.run(&["status"]).await.failed(1);
        assert!(said.contains("NOPERM") && said.contains("README.md has the rule"), "{said}");
        run(&mut redis, "ACL SETUSER worker +@scripting -time").await;
        let said = cli.run(&["status"]).await.failed(1);
        assert!(said.contains("README.md has the rule"), "in a script: {said}");
    }
}
