//! Where settings come from, which of them wins, and how they are shown.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::retry::Backoff;

mod refusals;
mod tls;
mod topology;

const DEFAULT_FILE: &str = include_str!("../../config.toml");

fn refusal(text: &str) -> String {
    match Settings::from_toml_str(text) {
        Ok(settings) => panic!("{text:?} was accepted: {settings:?}"),
        Err(error) => error.to_string(),
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    pairs.iter().map(owned).collect()
}

/// A file with `text` in it; the directory goes when the guard does.
fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("config.toml");
    std::fs::write(&path, text).expect("a file in it");
    (directory, path)
}

/// Nothing but what `environment` says, wherever the test runs.
fn environment(variables: &[(&str, &str)]) -> Sources {
    Sources {
        default_file: PathBuf::from("/nowhere/config.toml"),
        environment: pairs(variables),
        ..Sources::default()
    }
}

#[test]
fn the_file_at_the_top_of_the_repository_says_the_defaults() {
    assert_eq!(
        Settings::from_toml_str(DEFAULT_FILE),
        Ok(Settings::default())
    );
}

#[test]
fn the_file_at_the_top_of_the_repository_has_every_setting() {
    let lines: Vec<&str> = DEFAULT_FILE
        .lines()
        .map(|l| l.trim_start_matches('#'))
        .collect();
    for path in read::known() {
        let key = path.last().expect("a key");
        let said = lines.iter().any(|line| {
            line.starts_with(&format!("{key} = ")) || line.contains(&format!(" {key} = "))
        });
        assert!(said, "{path} is missing");
    }
}

#[test]
fn the_samples_in_the_file_are_valid_when_they_are_uncommented() {
    let sample = |line: &str| line.starts_with('#') && !line.starts_with("# ");
    let uncommented: String = DEFAULT_FILE
        .lines()
        // The files that samples name are not there.
        .filter(|line| !line.starts_with("#password_file") && !line.starts_with("#tls_"))
        .filter(|line| !line.starts_with("#token_file") && !line.starts_with("#webhook_file"))
        .filter(|line| !line.starts_with("#headers_file") && !line.starts_with("#url_file"))
        .filter(|line| !line.starts_with("#secret_files"))
        .map(|line| if sample(line) { &line[1..] } else { line })
        .map(|line| format!("{line}\n"))
        .collect();
    let settings = Settings::from_toml_str(&uncommented).expect(&uncommented);
    assert_eq!(settings.redis.username.as_deref(), Some("worker"));
    assert_eq!(settings.start("orders"), Start::End);
    let days = |days: u64| Keep::For(Duration::from_secs(days * 24 * 3600));
    let orders = &settings.streams["orders"];
    assert_eq!(
        (orders.retention, orders.force),
        (Some(Retention::Beyond(days(7))), Some(false))
    );
    assert_eq!(settings.dead_letters.keep, Some(days(30)));
    let billing = settings.handlers["order.created"].target.as_deref();
    let billing = &settings.targets[billing.expect("a target")];
    assert_eq!(billing.format, Some(TargetFormat::Binary));
    assert_eq!(settings.targets["mail"].processes, Some(4));
    let policy = settings.policy("order.created");
    assert_eq!((policy.timeout.as_secs(), policy.max_attempts), (10, 8));
    assert_eq!(policy.backoff.initial, Duration::from_secs(2));
    assert_eq!(policy.backoff.max, Duration::from_secs(300));
}

#[test]
fn the_environment_wins_over_the_file_and_the_command_line_over_both() {
    let (_guard, path) = file("[worker]\nlease = \"10s\"\ndrain = \"11s\"\nprefetch = 12\n");
    let sources = Sources {
        file: Some(path),
        environment: pairs(&[
            ("STREAMHAND_WORKER__DRAIN", "20s"),
            ("STREAMHAND_WORKER__PREFETCH", "21"),
            ("STREAMHAND_WORKER__STREAMS", "orders, invoices"),
            ("STREAMHAND_WORKER__UNHANDLED", "ack"),
            ("STREAMHAND_RETRY__BACKOFF__FACTOR", "3"),
            ("STREAMHAND_LOG", "debug"),
            ("HOME", "/root"),
        ]),
        overrides: pairs(&[
            ("worker.prefetch", "30"),
            ("handlers.\"order.created\".timeout", "31s"),
        ]),
        ..Sources::default()
    };
    let settings = Settings::load(sources).expect("valid sources");
    let worker = &settings.worker;
    assert_eq!(
        (
            worker.lease.as_secs(),
            worker.drain.as_secs(),
            worker.prefetch
        ),
        (10, 20, 30)
    );
    assert_eq!(worker.streams, ["orders", "invoices"]);
    assert_eq!(worker.unhandled, Unhandled::Ack);
    assert_eq!(worker.group, "", "unset");
    assert_eq!(settings.retry.backoff.factor, 3.0);
    assert_eq!(settings.policy("order.created").timeout.as_secs(), 31);
}

#[test]
fn a_list_in_the_environment_may_be_toml() {
    let sources = environment(&[("STREAMHAND_WORKER__STREAMS", "[\"a,b\", 'c']")]);
    let settings = Settings::load(sources).expect("valid sources");
    assert_eq!(settings.worker.streams, ["a,b", "c"]);
}

#[test]
fn the_default_file_may_be_missing_and_the_one_asked_for_may_not() {
    assert_eq!(Settings::load(environment(&[])), Ok(Settings::default()));
    let sources = Sources {
        file: Some(PathBuf::from("/nowhere/config.toml")),
        ..environment(&[("STREAMHAND_WORKER__LEASE", "0s")])
    };
    let error = Settings::load(sources).expect_err("no file");
    assert_eq!(error.problems()[0].kind(), ProblemKind::Unreadable);
    insta::assert_snapshot!(error, @"
    2 problems in the configuration:
      /nowhere/config.toml: cannot be read: No such file or directory (os error 2)
      STREAMHAND_WORKER__LEASE: worker.lease: 0s is too short; at least 500ms
    ");
}

#[test]
fn a_default_file_that_is_there_is_read() {
    let (_guard, path) = file("[worker]\ngroup = \"billing\"\n");
    let sources = Sources {
        default_file: path,
        ..environment(&[])
    };
    let settings = Settings::load(sources).expect("a valid file");
    assert_eq!(settings.worker.group, "billing");
}

#[test]
fn the_users_own_settings_are_taken_as_they_are_and_overridden_by_type() {
    let (_guard, path) = file(
        "[app]\nname = \"shop\"\nport = 25\nratio = 0.5\nhosts = [\"a\"]\nsmtp = { tls = true }\n",
    );
    let sources = |port: &str| Sources {
        file: Some(path.clone()),
        environment: pairs(&[
            ("STREAMHAND_APP__NAME", "007"),
            ("STREAMHAND_APP__PORT", port),
            ("STREAMHAND_APP__RATIO", "2"),
            ("STREAMHAND_APP__HOSTS", "b, c"),
            ("STREAMHAND_APP__SMTP__TLS", "false"),
            ("STREAMHAND_APP__DATABASE__URL", "postgres://db"),
        ]),
        ..Sources::default()
    };
    let app = Settings::load(sources("26")).expect("valid sources").app;
    let expected: toml::Table = "name = \"007\"\nport = 26\nratio = 2.0\nhosts = [\"b\", \"c\"]\n\
                                 smtp = { tls = false }\ndatabase = { url = \"postgres://db\" }"
        .parse()
        .expect("TOML");
    assert_eq!(app, expected);
    let error = Settings::load(sources("many")).expect_err("not a number");
    insta::assert_snapshot!(error, @"STREAMHAND_APP__PORT: app.port: expected a whole number, as in the file");
}

#[test]
fn a_password_comes_from_a_file_without_its_last_newline() {
    let (_guard, path) = file("hunter2\n");
    let text = format!(
        "[redis]\nusername = \"worker\"\npassword_file = {:?}\n",
        path
    );
    let settings = Settings::from_toml_str(&text).expect("a valid file");
    assert_eq!(settings.redis.password, Some(Secret::new("hunter2")));
    assert_eq!(
        settings.redis.password_file.as_deref(),
        Some(path.as_path())
    );
    assert_eq!(Settings::from_toml_str(&settings.to_toml()), Ok(settings));
}

#[test]
fn a_password_file_that_cannot_be_used_says_why() {
    let (guard, empty) = file("\n");
    let missing = guard.path().join("missing");
    let errors = [&empty, &missing].map(|path| {
        let path = path.to_str().expect("a path in Unicode");
        let sources = environment(&[("STREAMHAND_REDIS__PASSWORD_FILE", path)]);
        let error = Settings::load(sources)
            .expect_err("no password")
            .to_string();
        error.replace(&guard.path().display().to_string(), "/run")
    });
    insta::assert_snapshot!(errors.join("\n"), @"
    STREAMHAND_REDIS__PASSWORD_FILE: redis.password_file: /run/config.toml is empty; write the password into it
    STREAMHAND_REDIS__PASSWORD_FILE: redis.password_file: cannot read /run/missing: No such file or directory (os error 2)
    ");
}

#[test]
fn the_credentials_of_the_stronger_source_win_however_they_are_given() {
    let (_guard, secret) = file("from the file");
    let text = format!("[redis]\npassword_file = {secret:?}\n");
    let (_guard, path) = file(&text);
    let sources = |environment: &[(&str, &str)]| Sources {
        file: Some(path.clone()),
        environment: pairs(environment),
        ..Sources::default()
    };
    let redis = |environment| {
        Settings::load(sources(environment))
            .expect("valid sources")
            .redis
    };

    let redis_of_file = redis(&[]);
    assert_eq!(redis_of_file.password, Some(Secret::new("from the file")));
    let overridden = redis(&[("STREAMHAND_REDIS__PASSWORD", "other")]);
    assert_eq!(overridden.password, Some(Secret::new("other")));
    assert_eq!(overridden.password_file, None);
    let by_url = redis(&[("STREAMHAND_REDIS", "redis://:other@host")]);
    assert_eq!((by_url.password, by_url.password_file), (None, None));
    let by_url = redis(&[("STREAMHAND_REDIS", "redis://host")]);
    assert_eq!(by_url.password, Some(Secret::new("from the file")));

    let both = refusal(&format!(
        "[redis]\npassword = \"a\"\npassword_file = {secret:?}\n"
    ));
    insta::assert_snapshot!(both, @"line 3, column 17: redis.password_file: stands beside redis.password; leave one of them out");
}

#[test]
fn a_policy_is_the_handlers_own_then_the_defaults() {
    let settings = Settings::from_toml_str(
        r#"
[retry]
max_attempts = 3
backoff = { initial = "2s", max = "1m" }
[defaults]
timeout = "20s"
[handlers."order.created"]
max_attempts = 8
backoff = { jitter = 0 }
"#,
    )
    .expect("valid settings");
    let inherited = settings.policy("order.shipped");
    assert_eq!(
        (inherited.timeout.as_secs(), inherited.grace.as_secs()),
        (20, 1)
    );
    assert_eq!(
        (inherited.max_attempts, inherited.backoff),
        (3, settings.retry.backoff)
    );
    let own = settings.policy("order.created");
    assert_eq!((own.timeout.as_secs(), own.max_attempts), (20, 8));
    let backoff = Backoff {
        jitter: 0.0,
        ..settings.retry.backoff
    };
    assert_eq!(own.backoff, backoff);
}

#[test]
fn what_is_in_force_is_shown_without_secrets() {
    let settings = Settings::from_toml_str(
        r#"
[redis]
url = "redis://worker:hunter2@host:6379"
password = "hunter2"
[handlers."order.created"]
timeout = "26h"
backoff = { initial = "2s" }
[streams."{shop}.orders"]
start = "end"
retention = " 48h "
force = true
[dead_letters]
keep = "0100000"
[app]
token = "hunter2"
"#,
    )
    .expect("valid settings");
    let debug = format!("{settings:?} {settings:#?}");
    assert!(!debug.contains("hunter2"), "{debug}");
    insta::assert_snapshot!(settings.to_toml(), @r#"
    [redis]
    url = "redis://worker:***@host:6379"
    password = "***"
    pool_size = 4
    replicas = 0
    replicas_timeout = "1s"
    mode = "auto"

    [worker]
    group = ""
    streams = []
    concurrency = 64
    prefetch = 1000
    lease = "30s"
    drain = "25s"
    unhandled = "bury"
    unhandled_after = "10m"
    start = "beginning"

    [retry]
    max_attempts = 5
    on_crash = "run_again"

    [retry.backoff]
    initial = "1s"
    factor = 2.0
    max = "5m"
    jitter = 0.2

    [defaults]
    timeout = "5m"
    grace = "1s"

    [handlers."order.created"]
    timeout = "1d 2h"

    [handlers."order.created".backoff]
    initial = "2s"
    factor = 2.0
    max = "5m"
    jitter = 0.2

    [streams."{shop}.orders"]
    start = "end"
    retention = "2d"
    force = true

    [dead_letters]
    keep = "100000"
    warn_at = 10000

    [pulse]
    enabled = true
    every = "10s"

    [app]
    token = "***"
    "#);
}

#[test]
fn a_program_makes_settings_as_a_file_does() {
    let text = "[redis]\nurl = \"redis://redis.internal\"\npassword = \"hunter2\"\npool_size = 8\nreplicas = 1\n\
                [worker]\ngroup = \"billing\"\nstreams = [\"orders\", \"payments\"]\nlease = \"10s\"\n\
                [retry]\nmax_attempts = 3\nbackoff = { initial = \"2s\", factor = 3.0 }\n\
                [handlers.\"order.created\"]\ntimeout = \"5s\"\nrate = \"100/s\"\nmax_attempts = 2\n\
                [breakers.payments]\nfailures = 9\n[streams.orders]\nretention = \"acked\"\n\
                [dead_letters]\nwarn_at = 7\n[pulse]\nevery = \"5s\"\n[app]\ngreeting = \"hello\"\n";
    let file = Settings::from_toml_str(text).expect("right settings");
    let url: RedisUrl = "redis://redis.internal".parse().expect("a URL");
    let seconds = Duration::from_secs;
    let handler = HandlerSettings::default()
        .timeout(seconds(5))
        .rate("100/s".parse().expect("a rate"))
        .max_attempts(2);
    let made = Settings::default()
        .redis(
            RedisSettings::new(url)
                .password("hunter2")
                .pool_size(8)
                .replicas(1),
        )
        .worker(
            WorkerSettings::default()
                .group("billing")
                .streams(["orders", "payments"])
                .lease(seconds(10)),
        )
        .retry(
            RetrySettings::default()
                .max_attempts(3)
                .backoff(Backoff::new(seconds(2)).factor(3.0)),
        )
        .handler("order.created", handler)
        .breaker("payments", BreakerSettings::default().failures(9))
        .stream(
            "orders",
            StreamSettings::default().retention(Retention::Acked),
        )
        .dead_letters(DeadLetterSettings::default().warn_at(7))
        .pulse(PulseSettings::default().every(seconds(5)))
        .with_app(&BTreeMap::from([("greeting", "hello")]))
        .expect("a table");
    assert_eq!(made, file);
    assert_eq!(made.check(), Ok(()));
}

#[test]
fn what_the_user_has_set_of_their_own_comes_as_their_type_and_is_not_quoted() {
    #[derive(Debug, serde::Deserialize)]
    struct App {
        port: u16,
    }
    let app = |text: &str| {
        Settings::from_toml_str(text)
            .expect("right settings")
            .app::<App>()
    };
    assert_eq!(app("[app]\nport = 26").expect("an App").port, 26);
    let refusals = [
        app("[app]\nport = \"hunter2\""),
        app("[app]\nports = \"hunter2\""),
        app(""),
    ]
    .map(|refused| refused.expect_err("no App"));
    for refused in &refusals {
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
    }
    let refusals = refusals.map(|refused| refused.to_string()).join("\n");
    insta::assert_snapshot!(refusals, @r#"
    the settings in [app]: invalid type: string ***, expected u16
    the settings in [app]: missing field `port`
    the settings in [app]: missing field `port`
    "#);
    let error = Settings::default().with_app(&17).expect_err("no table");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn an_address_is_read_and_refused_without_quoting_it() {
    let url: RedisUrl = "redis://:hunter2@redis.internal".parse().expect("a URL");
    assert_eq!(url.expose(), "redis://:hunter2@redis.internal");
    for refused in ["hunter2", "http://:hunter2@redis.internal"] {
        let error = refused.parse::<RedisUrl>().expect_err(refused);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(
            error.to_string().starts_with("the address of Redis "),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn a_command_is_set_and_its_environment_is_not_shown() {
    let text = "[targets.mail]\ncommand = [\"sh\", \"mail.sh\"]\nstart_timeout = \"2m\"\nrecycle_after = 10\nmax_age = \"1h\"\n\
                max_memory = \"512MiB\"\npass_env = [\"HOME\"]\n[targets.mail.env]\nTOKEN = \"hunter2\"\n";
    let settings = Settings::from_toml_str(text).expect("right settings");
    let mail = &settings.targets["mail"];
    assert_eq!(mail.env["TOKEN"].expose(), "hunter2");
    assert_eq!(mail.max_memory.map(ByteSize::bytes), Some(512 << 20));
    let shown = format!("{settings:?} {}", toml::to_string(&settings).expect("TOML"));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("max_memory = \"512MiB\""), "{shown}");

    let wrong = |line: &str| {
        let text = format!("[targets.mail]\ncommand = [\"sh\"]\n{line}");
        Settings::from_toml_str(&text).expect_err(line).to_string()
    };
    for (line, says) in [
        ("mode = \"once\"\nmax_age = \"1h\"", "these live for one"),
        ("max_memory = \"512MB\"", "write \"512MiB\""),
        ("max_memory = \"1KiB\"", "at least \"1MiB\""),
        ("recycle_after = 0", "at least 1"),
        ("start_timeout = \"1ms\"", "is too short"),
        ("pass_env = [\"A=B\"]", "no name of a variable"),
        ("env = { \"A=B\" = \"c\" }", "no name of a variable"),
        ("directory = \"\"", "is empty"),
        (
            "recycle_afer = 5",
            "did you mean `targets.mail.recycle_after`",
        ),
    ] {
        let said = wrong(line);
        assert!(said.contains(says), "{line}: {said}");
    }
}
