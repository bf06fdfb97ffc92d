//! What holds for every configuration: it prints and reads back equal, a slip is told with the
//! key that was meant, secrets stay hidden, and nothing makes the loader panic.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use toml::{Table, Value};

use super::*;
use crate::event_type;
use crate::retry::Backoff;

const SECRET: &str = "hunter2";

/// As [`Settings::to_toml`], with the secrets.
fn print_with_secrets(settings: &Settings) -> String {
    let mut table = Table::try_from(settings).expect("printable settings");
    let redis = table["redis"].as_table_mut().expect("a table");
    redis.insert("url".to_owned(), settings.redis.url.expose().into());
    if let Some(password) = &settings.redis.password {
        redis.insert("password".to_owned(), password.expose().into());
    }
    table.insert("app".to_owned(), Value::Table(settings.app.clone()));
    if let Some(token) = &settings.telemetry.token {
        let telemetry = table["telemetry"].as_table_mut().expect("a table");
        telemetry.insert("token".to_owned(), token.expose().into());
    }
    if let Some(webhook) = &settings.alerts.webhook {
        let alerts = table["alerts"].as_table_mut().expect("a table");
        alerts.insert("webhook".to_owned(), webhook.expose().into());
    }
    if let Some(headers) = &settings.telemetry.otlp.headers {
        let otlp = table["telemetry"]["otlp"].as_table_mut().expect("a table");
        otlp.insert("headers".to_owned(), headers.expose().into());
    }
    toml::to_string(&table).expect("printable settings")
}

fn wait(least: Duration, most: Duration) -> impl Strategy<Value = Duration> {
    let nanos = (least.as_nanos() as u64)..=(most.as_nanos() as u64);
    let millis = (least.as_millis() as u64)..=(most.as_millis() as u64);
    prop_oneof![
        nanos.prop_map(Duration::from_nanos),
        millis.prop_map(Duration::from_millis),
    ]
}

fn any_wait() -> impl Strategy<Value = Duration> {
    wait(
        Duration::from_millis(1),
        Duration::from_secs(365 * 24 * 3600),
    )
}

fn redis() -> impl Strategy<Value = RedisSettings> {
    let url = select(vec![
        "redis://127.0.0.1:6379",
        "rediss://[::1]:6380/3",
        "redis://worker:hunter2@redis.internal",
        "unix:///run/redis.sock?pass=hunter2&user=worker",
    ]);
    let url = url.prop_map(|url| RedisUrl::parse(url).expect(url));
    let password = prop_oneof![Just(SECRET.to_owned()), ".{1,12}"];
    let replicas = (
        0..100_u32,
        wait(Duration::from_millis(1), Duration::from_secs(5)),
    );
    let password = proptest::option::of(password);
    (url, ".{1,8}", password, 1..100_usize, replicas).prop_map(
        |(url, user, password, pool_size, (replicas, replicas_timeout))| RedisSettings {
            url,
            username: password.is_some().then_some(user),
            password: password.map(Secret::new),
            password_file: None,
            pool_size,
            replicas,
            replicas_timeout,
            mode: RedisMode::Single,
            ..RedisSettings::default()
        },
    )
}

fn stream() -> impl Strategy<Value = String> {
    r"[a-zé][a-z0-9.:_ -]{0,8}|[a-z]{0,3}\{[a-z]{1,4}\}[a-z.]{1,4}"
}

fn start() -> impl Strategy<Value = Start> {
    select(vec![Start::Beginning, Start::End])
}

fn worker() -> impl Strategy<Value = WorkerSettings> {
    (
        "[a-zé][a-z0-9_.{}-]{0,8}",
        proptest::collection::btree_set(stream(), 1..4),
        1..=1_000_000_usize,
        1..=1_000_000_usize,
        wait(Duration::from_millis(500), Duration::from_secs(24 * 3600)),
        wait(Duration::ZERO, Duration::from_secs(3600)),
        select(vec![Unhandled::Bury, Unhandled::Ack]),
        wait(Duration::ZERO, Duration::from_secs(3600)),
        start(),
    )
        .prop_map(
            |(group, streams, concurrency, prefetch, lease, drain, unhandled, after, start)| {
                WorkerSettings {
                    group,
                    streams: streams.into_iter().collect(),
                    concurrency,
                    prefetch,
                    lease,
                    drain,
                    unhandled,
                    unhandled_after: after,
                    start,
                }
            },
        )
}

fn backoff() -> impl Strategy<Value = Backoff> {
    (any_wait(), any_wait(), 1.0..1e9_f64, 0.0..=1.0_f64).prop_map(|(a, b, factor, jitter)| {
        Backoff {
            initial: a.min(b),
            factor,
            max: a.max(b),
            jitter,
        }
    })
}

fn on_crash() -> impl Strategy<Value = OnCrash> {
    select(vec![OnCrash::RunAgain, OnCrash::Bury])
}

fn handler() -> impl Strategy<Value = HandlerSettings> {
    use proptest::option::of;
    (
        of(any_wait()),
        of(any_wait()),
        of(1..=u32::MAX),
        of(backoff()),
        of(on_crash()),
        (
            of(1..1000_usize),
            of(select(vec![RateScope::Worker, RateScope::Group])),
        ),
        of((1..=u32::MAX, any_wait()).prop_map(|(count, per)| Rate { count, per })),
        of(select(vec![RateScope::Worker, RateScope::Group])),
        of(breaker()),
        of(wait(Duration::ZERO, Duration::from_secs(24 * 3600))),
        of(1..=8_u64 << 10),
    )
        .prop_map(
            |(
                timeout,
                grace,
                max_attempts,
                backoff,
                on_crash,
                (concurrency, concurrency_scope),
                rate,
                rate_scope,
                breaker,
                window,
                bytes,
            )| {
                HandlerSettings {
                    target: None,
                    timeout,
                    grace,
                    max_attempts,
                    backoff,
                    on_crash,
                    concurrency,
                    concurrency_scope,
                    rate,
                    rate_scope,
                    circuit_breaker: breaker,
                    deduplicate: window,
                    batch: BatchSettings {
                        bytes: bytes.map(|kib| ByteSize::new(kib << 10)),
                        ..BatchSettings::default()
                    },
                }
            },
        )
}

fn breaker() -> impl Strategy<Value = BreakerSettings> {
    (
        (any::<bool>(), any::<bool>()),
        1..=u32::MAX,
        0.0..=1.0_f64,
        any_wait(),
        1..=u32::MAX,
        any_wait(),
        1..=u32::MAX,
        any::<(bool, bool, bool)>(),
    )
        .prop_map(
            |(
                (enabled, of_group),
                failures,
                failure_rate,
                window,
                minimum,
                open_for,
                probes,
                counts,
            )| {
                BreakerSettings {
                    enabled,
                    failures,
                    failure_rate,
                    window,
                    minimum,
                    open_for,
                    probes,
                    scope: match of_group {
                        true => BreakerScope::Group,
                        false => BreakerScope::Worker,
                    },
                    counts: Counts {
                        error: true,
                        timeout: counts.0,
                        panic: counts.1,
                        permanent: counts.2,
                    },
                }
            },
        )
}

fn keep() -> impl Strategy<Value = Keep> {
    prop_oneof![
        wait(Duration::from_secs(1), Duration::from_secs(365 * 24 * 3600)).prop_map(Keep::For),
        (1..=u64::MAX).prop_map(Keep::Last),
    ]
}

fn stream_settings() -> impl Strategy<Value = StreamSettings> {
    use proptest::option::of;
    let retention = prop_oneof![
        Just((Some(Retention::Acked), Some(false))),
        (keep(), of(any::<bool>()))
            .prop_map(|(keep, force)| (Some(Retention::Beyond(keep)), force)),
        Just((None, None)),
    ];
    let order = of(Just(Order::Subject));
    let order = (order, of(select(vec![OnDead::Hold, OnDead::Release])));
    let partitions = of(1..=16384_u32);
    (of(start()), retention, partitions, order).prop_map(
        |(start, (retention, force), partitions, (order, on_dead))| StreamSettings {
            start,
            retention,
            force,
            partitions,
            order,
            on_dead,
            generations: Vec::new(),
        },
    )
}

/// A topic's name has no tag.
fn without_tags(mut streams: BTreeMap<String, StreamSettings>) -> BTreeMap<String, StreamSettings> {
    let tagged = streams.iter_mut().filter(|(name, _)| name.contains('{'));
    tagged.for_each(|(_, stream)| stream.partitions = None);
    streams
}

fn projection() -> impl Strategy<Value = ProjectionSettings> {
    let on_bad_event = select(vec![OnBadEvent::Bury, OnBadEvent::Stop]);
    proptest::option::of(on_bad_event).prop_map(|on_bad_event| ProjectionSettings { on_bad_event })
}

fn dead_letters() -> impl Strategy<Value = DeadLetterSettings> {
    let warn_at = 1..=i64::MAX as u64;
    let kept = proptest::option::of(keep());
    (kept, warn_at).prop_map(|(keep, warn_at)| DeadLetterSettings { keep, warn_at })
}

fn telemetry() -> impl Strategy<Value = TelemetrySettings> {
    let listen = select(vec!["", "127.0.0.1:9464", "[::1]:0", "0.0.0.0:9464"]);
    let token = prop_oneof![Just(SECRET.to_owned()), "[!-~]{1,12}"];
    (listen, proptest::option::of(token), otlp()).prop_map(|(listen, token, otlp)| {
        let listen: Listen = listen.parse().expect(listen);
        let is_open = listen.beyond_this_machine().is_some();
        TelemetrySettings {
            listen,
            token: token
                .or(is_open.then(|| SECRET.to_owned()))
                .map(Secret::new),
            trace: if otlp.sample > 0.5 {
                TraceMode::Child
            } else {
                TraceMode::Link
            },
            otlp,
            ..TelemetrySettings::default()
        }
    })
}

fn alerts() -> impl Strategy<Value = AlertSettings> {
    let webhook = proptest::option::of(Just(Secret::new("https://hooks.example.com/a")));
    let off = select(vec![vec![], vec!["paused".to_owned()]]);
    (webhook, any::<bool>(), 1..=100_u64, off).prop_map(|(webhook, all, seconds, off)| {
        let within = Duration::from_secs(seconds);
        AlertSettings {
            webhook,
            webhook_file: None,
            alertmanager: all.then(|| "http://127.0.0.1:9093".to_owned()),
            oldest: within,
            end_to_end: all.then_some(within),
            budget: seconds as f64 / 200.0,
            every: within,
            repeat: within * 60,
            off,
        }
    })
}

fn pulse() -> impl Strategy<Value = PulseSettings> {
    (any::<bool>(), 1000..=60_000u64).prop_map(|(enabled, every)| PulseSettings {
        enabled,
        every: Duration::from_millis(every),
    })
}

fn otlp() -> impl Strategy<Value = OtlpSettings> {
    let endpoint = select(vec!["", "http://collector:4318", "https://[::1]/otlp"]);
    let headers = proptest::option::of(Just(format!("authorization=Bearer {SECRET},x-tenant=t")));
    let waits = (1..3600_u64, 1..60_u64);
    (endpoint, headers, waits, 0.0..=1.0).prop_map(|(endpoint, headers, waits, sample)| {
        OtlpSettings {
            endpoint: endpoint.parse().expect(endpoint),
            headers: headers.map(Secret::new),
            interval: Duration::from_secs(waits.0),
            timeout: Duration::from_secs(waits.1),
            sample,
            ..OtlpSettings::default()
        }
    })
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        any::<i64>().prop_map(Value::Integer),
        any::<f64>()
            .prop_filter("equal to itself", |number| !number.is_nan())
            .prop_map(Value::Float),
        ".{0,8}".prop_map(Value::String),
        Just("1979-05-27T07:32:00Z".parse().expect("a date")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|table| Value::Table(table.into_iter().collect())),
        ]
    })
}

fn cron() -> impl Strategy<Value = CronSettings> {
    let lines = select(vec![
        "30 2 * * *",
        "@daily",
        "every 15m",
        "0 9-17 * * MON-FRI",
    ]);
    let zone = select(vec!["UTC", "Europe/Berlin", "Pacific/Apia"]);
    let catch_up = select(vec![CatchUp::None, CatchUp::Last]);
    let overlap = select(vec![Overlap::Allow, Overlap::Skip, Overlap::Queue]);
    let more = (
        zone,
        catch_up,
        overlap,
        select(vec![0, 600_u64]),
        proptest::option::of(any_wait()),
    );
    (lines, proptest::option::of(Just("@yearly")), more).prop_map(
        |(line, other, (zone, catch_up, overlap, jitter, within))| {
            let cron = CronSettings::new(line)
                .zone(zone)
                .event_type("report.due")
                .catch_up(catch_up)
                .overlap(overlap)
                .jitter(Duration::from_secs(jitter));
            let cron = match other {
                // Two lines close together leave no room for jitter.
                Some(other) => cron.and(other).jitter(Duration::ZERO),
                None => cron,
            };
            match within.filter(|_| catch_up == CatchUp::Last) {
                Some(within) => cron.catch_up_within(within),
                None => cron,
            }
        },
    )
}

fn cron_data() -> impl Strategy<Value = BTreeMap<String, Value>> {
    // A date is none any more once it has gone through serde.
    let value = prop_oneof![
        any::<i64>().prop_map(Value::Integer),
        ".{0,8}".prop_map(Value::String),
        proptest::collection::vec(any::<bool>().prop_map(Value::Boolean), 0..3)
            .prop_map(Value::Array),
    ];
    proptest::collection::btree_map(".{0,6}", value, 0..3)
}

fn settings() -> impl Strategy<Value = Settings> {
    let event_type = r"[a-z][a-z0-9_-]{0,3}(\.[a-z0-9][a-z0-9_-]{0,3}){1,2}";
    (
        redis(),
        worker(),
        (1..=u32::MAX, backoff(), on_crash()),
        (any_wait(), any_wait(), proptest::option::of(breaker())),
        proptest::collection::btree_map(event_type, handler(), 0..3),
        proptest::collection::btree_map("[a-z.]{1,6}", breaker(), 0..3),
        proptest::collection::btree_map("[a-z]{1,6}", projection(), 0..3),
        (
            proptest::collection::btree_map(stream(), stream_settings(), 0..3)
                .prop_map(without_tags),
            proptest::collection::btree_map("[a-z.]{1,6}", (cron(), cron_data()), 0..3),
        ),
        (dead_letters(), telemetry(), alerts(), pulse()),
        proptest::collection::btree_map(".{0,6}", value(), 0..4),
    )
        .prop_map(
            |(
                redis,
                worker,
                retry,
                defaults,
                handlers,
                breakers,
                projections,
                (streams, crons),
                (dead_letters, telemetry, alerts, pulse),
                app,
            )| {
                let cron = crons.into_iter().map(|(name, (cron, data))| {
                    let stream = worker.streams[0].clone();
                    (name, cron.stream(stream).data(data.into_iter().collect()))
                });
                let cron = cron.collect();
                Settings {
                    redis,
                    worker,
                    retry: RetrySettings {
                        max_attempts: retry.0,
                        backoff: retry.1,
                        on_crash: retry.2,
                    },
                    defaults: HandlerSettings {
                        timeout: Some(defaults.0),
                        grace: Some(defaults.1),
                        circuit_breaker: defaults.2,
                        ..HandlerSettings::default()
                    },
                    handlers,
                    targets: BTreeMap::new(),
                    breakers,
                    cron,
                    projections,
                    streams,
                    dead_letters,
                    telemetry,
                    web: WebSettings::default(),
                    alerts,
                    pulse,
                    app: app.into_iter().collect(),
                }
            },
        )
}

/// Every table of the configuration with the keys it may have.
fn levels() -> Vec<(String, Vec<String>)> {
    let mut levels = BTreeMap::<String, Vec<String>>::new();
    for path in read::known() {
        let keys: Vec<&str> = path.keys().collect();
        let (key, above) = keys.split_last().expect("a key");
        let level = levels.entry(above.join(".")).or_default();
        level.push((*key).to_owned());
    }
    let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    let of_handler = owned(&[
        "timeout",
        "grace",
        "deduplicate",
        "max_attempts",
        "backoff",
        "on_crash",
    ]);
    let of_backoff = levels["retry.backoff"].clone();
    levels.insert("handlers.\"order.created\"".to_owned(), of_handler);
    levels.insert("handlers.\"order.created\".backoff".to_owned(), of_backoff);
    levels.insert(
        "streams.orders".to_owned(),
        owned(&[
            "start",
            "retention",
            "force",
            "partitions",
            "order",
            "on_dead",
        ]),
    );
    levels.insert(
        "projections.orders-by-status".to_owned(),
        owned(&["on_bad_event"]),
    );
    let top = "redis worker retry defaults handlers projections streams dead_letters telemetry web alerts pulse app";
    levels.insert(String::new(), top.split(' ').map(str::to_owned).collect());
    levels
        .get_mut("retry")
        .expect("a table")
        .push("backoff".to_owned());
    levels.into_iter().collect()
}

/// One slip of the finger somewhere in `word`.
fn slip(word: &str, kind: u8, at: Index, letter: char) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let at = at.index(letters.len());
    match kind {
        0 => letters.insert(at, letter),
        1 => letters[at] = letter,
        2 => drop(letters.remove(at)),
        _ => {
            let at = at.min(letters.len() - 2);
            letters.swap(at, at + 1);
        }
    }
    letters.into_iter().collect()
}

#[test]
fn no_depth_of_nesting_makes_the_loader_panic() {
    for (open, close) in [
        ("[", ""),
        ("[", "]"),
        ("{a=", "}"),
        ("a.", ""),
        ("[a.", "]"),
        ("[[a.", "]]"),
    ] {
        let nested = format!("{}{}", open.repeat(100_000), close.repeat(100_000));
        for text in [
            nested.clone(),
            format!("[app]\na = {nested}"),
            format!("[app]\n{nested}b = 1"),
        ] {
            let _ = Settings::from_toml_str(&text);
        }
        let _ = Settings::load(Sources {
            default_file: PathBuf::from("/nowhere/config.toml"),
            environment: vec![
                ("STREAMHAND_WORKER__STREAMS".to_owned(), nested.clone()),
                (
                    format!("STREAMHAND_APP{}", "__A".repeat(100_000)),
                    String::new(),
                ),
            ],
            overrides: vec![(nested.clone(), nested)],
            ..Sources::default()
        });
    }
}

proptest! {
    #[test]
    fn valid_settings_print_and_read_back_equal(settings in settings()) {
        prop_assert_eq!(settings.check(), Ok(()));
        let text = print_with_secrets(&settings);
        prop_assert_eq!(Settings::from_toml_str(&text), Ok(settings), "{}", text);
    }

    #[test]
    fn what_is_shown_reads_back_and_holds_no_secret(mut settings in settings()) {
        settings.app.insert("password".to_owned(), SECRET.into());
        settings.redis.password = settings.redis.password.map(|_| Secret::new(SECRET));
        settings.telemetry.token = settings.telemetry.token.map(|_| Secret::new(SECRET));
        settings.alerts.webhook = settings.alerts.webhook.map(|_| Secret::new(SECRET));
        let shown = settings.to_toml();
        let debug = format!("{settings:?}");
        prop_assert!(!shown.contains(SECRET) && !debug.contains(SECRET), "{}{}", shown, debug);
        let again = Settings::from_toml_str(&shown).expect(&shown);
        prop_assert_eq!(again.worker, settings.worker);
        prop_assert_eq!(again.handlers, settings.handlers);
    }

    #[test]
    fn a_slip_in_a_key_is_refused_with_the_nearest_valid_key(
        (level, keys) in select(levels()), key: Index, kind in 0..4_u8, at: Index, letter in "[a-z_]"
    ) {
        let key = key.get(&keys);
        let letter = letter.chars().next().expect("a letter");
        let wrong = slip(key, kind, at, letter);
        prop_assume!(!wrong.is_empty() && !keys.contains(&wrong));

        let path = if level.is_empty() { wrong.clone() } else { format!("{level}.{wrong}") };
        let error = Settings::from_toml_str(&format!("{path} = 1")).expect_err("unknown");
        let [problem] = error.problems() else { panic!("one slip: {error}") };
        prop_assert_eq!(problem.kind(), ProblemKind::UnknownKey);
        prop_assert_eq!(problem.key(), Some(path.as_str()));

        let named = problem.message().trim_end_matches("`?");
        let named = named.rsplit(['`', '.']).next().expect("a key");
        let distance = |key: &str| strsim::damerau_levenshtein(&wrong, key);
        let least = keys.iter().map(|key| distance(key)).min();
        prop_assert!(keys.iter().any(|key| key == named), "{} names no key", problem);
        prop_assert_eq!(Some(distance(named)), least, "{}", problem);
    }

    #[test]
    fn a_slip_in_the_grammar_of_an_event_type_is_refused(name in ".{0,12}") {
        let mut settings = Settings::default();
        settings.handlers.insert(name.clone(), HandlerSettings::default());
        let text = print_with_secrets(&settings);
        let accepted = Settings::from_toml_str(&text).is_ok();
        prop_assert_eq!(accepted, event_type::is_valid(&name), "{}", text);
    }

    #[test]
    fn no_text_makes_the_loader_panic(text in "\\PC{0,60}|(.|\n){0,60}") {
        let _ = Settings::from_toml_str(&text);
    }

    #[test]
    fn no_heap_of_toml_tokens_makes_the_loader_panic(
        tokens in proptest::collection::vec(select(vec![
            "[", "]", "[[", "]]", "{", "}", "=", ",", ".", "\n", " ", "\"", "\"\"\"", "'", "#", "-",
            "1", "0x", "1e9", "nan", "inf", "true", "1979-05-27", "\"30s\"", "\"redis://h\"", "\u{feff}",
            "redis", "url", "worker", "lease", "streams", "retry", "backoff", "initial", "max",
            "handlers", "\"order.created\"", "defaults", "app", "é", "\r\n", "\\u00e9", "\\",
        ]), 0..40)
    ) {
        let _ = Settings::from_toml_str(&tokens.concat());
    }

    #[test]
    fn no_damage_to_a_good_file_makes_the_loader_panic(
        damage in proptest::collection::vec((any::<Index>(), any::<Index>(), ".{0,3}"), 1..6)
    ) {
        let mut text: Vec<char> = include_str!("../../config.toml").chars().collect();
        for (from, to, with) in damage {
            let (from, to) = (from.index(text.len() + 1), to.index(text.len() + 1));
            text.splice(from.min(to)..from.max(to).min(from.min(to) + 20), with.chars());
        }
        let _ = Settings::from_toml_str(&text.into_iter().collect::<String>());
    }

    #[test]
    fn no_variable_and_no_flag_makes_the_loader_panic(
        names in proptest::collection::vec(
            prop_oneof![
                select(read::known()).prop_map(|path| path.to_string()),
                "(app|handlers|worker|retry)(\\.[a-z\"_]{0,6}){0,3}|.{0,12}",
            ],
            0..5,
        ),
        values in proptest::collection::vec("\\PC{0,12}|\\[.{0,8}\\]|[0-9]{1,20}(s|ms)?", 5),
    ) {
        let variable = |name: &String| format!("STREAMHAND_{}", name.replace('.', "__").to_uppercase());
        let values = || values.iter().cloned();
        let _ = Settings::load(Sources {
            default_file: PathBuf::from("/nowhere/config.toml"),
            environment: names.iter().map(variable).zip(values()).collect(),
            overrides: names.iter().cloned().zip(values()).collect(),
            ..Sources::default()
        });
    }
}
