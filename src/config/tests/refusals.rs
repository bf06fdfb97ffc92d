//! What is refused, and what is said about it.

use super::*;

#[test]
fn everything_wrong_in_all_sources_is_told_at_once() {
    let (guard, path) = file(
        r#"
[worker]
leese = "30s"
concurrency = "64"
drain = 25
streams = ["orders", "{orders}", "a}b"]

[retry]
backoff = { initial = "10m", jitter = 1.5 }

[handlers."Order.created"]
timeout = "0s"

[handers."order.shipped"]
"#,
    );
    let sources = Sources {
        file: Some(path),
        environment: pairs(&[
            ("STREAMHAND_WORKER_LEASE", "10s"),
            ("STREAMHAND_WORKER__PREFETCH", "many"),
            ("STREAMHAND_REDIS__POOL_SIZE", ""),
        ]),
        overrides: pairs(&[("redis.url", "127.0.0.1:6379"), ("worker.leas", "1s")]),
        ..Sources::default()
    };
    let mut notes = Vec::new();
    let error = Settings::load_noting(sources, |note| notes.push(note.to_string()))
        .expect_err("much is wrong")
        .to_string();
    let near = "STREAMHAND_WORKER_LEASE: sets nothing; did you mean STREAMHAND_WORKER__LEASE?";
    assert_eq!(notes, [near]);
    let error = error.replace(&guard.path().display().to_string(), "/etc");
    insta::assert_snapshot!(error, @r#"
    14 problems in the configuration:
      /etc/config.toml:3:1: worker.leese: unknown key; did you mean `worker.lease`?
      /etc/config.toml:4:15: worker.concurrency: expected a whole number; write 64 without quotes
      /etc/config.toml:5:9: worker.drain: a duration needs a unit; write "25s"
      /etc/config.toml:6:22: worker.streams[1]: "{orders}" and "orders" would share their keys; rename one of them
      /etc/config.toml:6:34: worker.streams[2]: the stream name has braces that are not one tag; write none, or one pair as in "{shop}.orders"
      /etc/config.toml:9:23: retry.backoff.initial: 10m is longer than the longest wait, max = "5m"
      /etc/config.toml:9:39: retry.backoff.jitter: 1.5 is not a share; from 0 to 1
      /etc/config.toml:11:1: handlers."Order.created": the event type has the upper-case letter 'O' at position 1; write "order.created"
      /etc/config.toml:12:11: handlers."Order.created".timeout: 0s is too short; at least 1ms
      /etc/config.toml:14:2: handers: unknown key; did you mean `handlers`?
      STREAMHAND_REDIS__POOL_SIZE: redis.pool_size: is empty; unset it or give it a value
      STREAMHAND_WORKER__PREFETCH: worker.prefetch: expected a whole number, found "many"
      command line: redis.url: is not a URL (it has no scheme); write "redis://host:6379", with special characters of a password percent-encoded
      command line: worker.leas: unknown key; did you mean `worker.lease`?
    "#);
}

#[test]
fn unknown_keys_are_refused_with_what_was_meant() {
    insta::assert_snapshot!(refusal(r#"
lease = "30s"
[Worker]
[worker]
pool_size = 4
colour = "red"
unhandled-after = "1m"
[defaults]
max_attempts = 3
[handlers."order.created".backoff]
inital = "1s"
[streams.orders]
begin = "end"
"#), @r#"
    8 problems in the configuration:
      line 2, column 1: lease: unknown key; did you mean `worker.lease`?
      line 3, column 2: Worker: unknown key; did you mean `worker`?
      line 5, column 1: worker.pool_size: unknown key; did you mean `redis.pool_size`?
      line 6, column 1: worker.colour: unknown key; known here: group, streams, concurrency, prefetch, lease, drain, unhandled, unhandled_after, start
      line 7, column 1: worker.unhandled-after: unknown key; did you mean `worker.unhandled_after`?
      line 9, column 1: defaults.max_attempts: unknown key; did you mean `retry.max_attempts`?
      line 11, column 1: handlers."order.created".backoff.inital: unknown key; did you mean `handlers."order.created".backoff.initial`?
      line 13, column 1: streams.orders.begin: unknown key; known here: start, retention, force, partitions, order, on_dead
    "#);
}

#[test]
fn names_with_dots_that_are_not_quoted_are_told_so() {
    let text = "[handlers.order.created]\ntimeout = \"1s\"\n[streams.shop.orders]\n";
    insta::assert_snapshot!(refusal(text), @r#"
    2 problems in the configuration:
      line 1, column 17: handlers.order.created: a name with dots needs quotes; write [handlers."order.created"]
      line 3, column 15: streams.shop.orders: a name with dots needs quotes; write [streams."shop.orders"]
    "#);
}

#[test]
fn wrong_types_are_refused_with_the_right_one() {
    insta::assert_snapshot!(refusal(r#"
retry = 5
app = "mine"
[redis]
url = 6379
password = 4711
password_file = true
pool_size = 4.0
[worker]
group = ["fulfilment"]
streams = "orders"
concurrency = "64"
prefetch = 99999999999999999999
lease = 30
drain = 2.5
unhandled = "burry"
unhandled_after = "10"
start = false
[defaults]
timeout = 1979-05-27
grace = "1 parsec"
[handlers]
"order.created" = "10s"
[handlers."order.shipped".backoff]
factor = "2.0"
jitter = true
[streams.orders]
start = "now"
"#), @r#"
    21 problems in the configuration:
      line 2, column 9: retry: expected a section, [retry], found a whole number
      line 3, column 7: app: expected a section, [app], found text
      line 5, column 7: redis.url: expected a URL in quotes, as in "redis://127.0.0.1:6379", found a whole number
      line 6, column 12: redis.password: expected text in quotes, found a whole number
      line 7, column 17: redis.password_file: expected a path in quotes, found true or false
      line 8, column 13: redis.pool_size: expected a whole number, found a number
      line 10, column 9: worker.group: expected text in quotes, found a list
      line 11, column 11: worker.streams: expected a list, found text; write ["orders"]
      line 12, column 15: worker.concurrency: expected a whole number; write 64 without quotes
      line 13, column 12: worker.prefetch: is too large a number
      line 14, column 9: worker.lease: a duration needs a unit; write "30s"
      line 15, column 9: worker.drain: a duration needs a unit; write "2.5s"
      line 16, column 13: worker.unhandled: expected "bury" or "ack", found "burry"; did you mean "bury"?
      line 17, column 19: worker.unhandled_after: "10" has no unit; write "10s"
      line 18, column 9: worker.start: expected "beginning" or "end", found true or false
      line 20, column 11: defaults.timeout: expected a duration, as in "30s", found a date
      line 21, column 9: defaults.grace: "1 parsec" has the unknown unit "parsec"; the units are ms, s, m, h and d
      line 23, column 19: handlers."order.created": expected a section, [handlers."order.created"], found text
      line 25, column 10: handlers."order.shipped".backoff.factor: expected a number; write 2.0 without quotes
      line 26, column 10: handlers."order.shipped".backoff.jitter: expected a number, as in 1.5, found true or false
      line 28, column 9: streams.orders.start: expected "beginning" or "end", found "now"
    "#);
}

#[test]
fn impossible_values_are_refused_with_what_is_possible() {
    insta::assert_snapshot!(refusal(r#"
[redis]
url = "redis://worker@host"
password = ""
pool_size = 0
replicas_timeout = "6s"
[worker]
group = "a:b"
streams = ["", "orders", "orders", "{orders}", "a{}", "{a}{b}", "}a{", "x\ty", "{a}:a:b:retry", "{a}.x"]
concurrency = 0
prefetch = -1
lease = "499ms"
drain = "2000d"
[retry]
max_attempts = 0
backoff = { initial = "0s", factor = 0.5, max = "10y", jitter = -0.1 }
[handlers.ordercreated]
max_attempts = 0
[handlers."order.created"]
timeout = "0s"
backoff = { initial = "1h", max = "1m" }
[handlers."order.shipped"]
backoff = { factor = nan }
[streams."a{"]
"#), @r#"
    27 problems in the configuration:
      line 4, column 12: redis.password: is empty; leave it out where there is none
      line 5, column 13: redis.pool_size: 0 is too few; at least 1
      line 6, column 20: redis.replicas_timeout: 6s is too long; at most 5s
      line 8, column 9: worker.group: the group name has a ':', which parts the names of its keys
      line 9, column 12: worker.streams[0]: the stream name is empty
      line 9, column 26: worker.streams[2]: "orders" is in the list twice
      line 9, column 36: worker.streams[3]: "{orders}" and "orders" would share their keys; rename one of them
      line 9, column 48: worker.streams[4]: the stream name has an empty tag; write something between the braces, or none
      line 9, column 55: worker.streams[5]: the stream name has braces that are not one tag; write none, or one pair as in "{shop}.orders"
      line 9, column 65: worker.streams[6]: the stream name has braces that are not one tag; write none, or one pair as in "{shop}.orders"
      line 9, column 72: worker.streams[7]: the stream name has the control character '\t'
      line 9, column 80: worker.streams[8]: "{a}:a:b:retry" is a key that the group "a:b" keeps for itself
      line 10, column 15: worker.concurrency: 0 is too few; at least 1
      line 11, column 12: worker.prefetch: -1 is less than 0
      line 12, column 9: worker.lease: 499ms is too short; at least 500ms
      line 13, column 9: worker.drain: 2000d is too long; at most 365d
      line 15, column 16: retry.max_attempts: 0 attempts would bury every entry unseen; write 1 for no retries
      line 16, column 23: retry.backoff.initial: 0s is too short; at least 1ms
      line 16, column 38: retry.backoff.factor: 0.5 is not a factor to grow by; at least 1
      line 16, column 49: retry.backoff.max: 3652d 12h is too long; at most 365d
      line 16, column 65: retry.backoff.jitter: -0.1 is not a share; from 0 to 1
      line 17, column 1: handlers.ordercreated: the event type has no dot; write a noun and what happened to it, as in "order.created"
      line 18, column 16: handlers.ordercreated.max_attempts: 0 attempts would bury every entry unseen; write 1 for no retries
      line 20, column 11: handlers."order.created".timeout: 0s is too short; at least 1ms
      line 21, column 23: handlers."order.created".backoff.initial: 1h is longer than the longest wait, max = "1m"
      line 23, column 22: handlers."order.shipped".backoff.factor: NaN is not a factor to grow by; at least 1
      line 24, column 1: streams."a{": the stream name has braces that are not one tag; write none, or one pair as in "{shop}.orders"
    "#);
}

#[test]
fn what_is_kept_is_refused_with_what_can_be() {
    insta::assert_snapshot!(refusal(r#"
[streams.a]
retention = "akced"
[streams.b]
retention = 1000000
[streams.c]
retention = "7 dogs"
force = "true"
[streams.d]
retention = "0"
[streams.e]
retention = "1ms"
[streams.f]
retention = "99999999999999999999"
[streams.g]
retention = "acked"
force = true
[streams.h]
force = true
[streams.i]
retention = ["7d"]
[dead_letters]
keep = "acked"
warn_at = 0
"#), @r#"
    12 problems in the configuration:
      line 3, column 13: streams.a.retention: expected "acked", an age as in "7d", or a number as in "1000000", found "akced"
      line 5, column 13: streams.b.retention: expected text in quotes; write "1000000" for a number, or "1000000d" for an age
      line 7, column 13: streams.c.retention: "7 dogs" has the unknown unit "dogs"; the units are ms, s, m, h and d
      line 8, column 9: streams.c.force: expected true or false; write true without quotes
      line 10, column 13: streams.d.retention: 0 is too few; at least 1
      line 12, column 13: streams.e.retention: 1ms is too short; at least 1s
      line 14, column 13: streams.f.retention: 99999999999999999999 is too large
      line 17, column 9: streams.g.force: needs a retention by age or number, which it trims to whatever a group has not settled
      line 19, column 9: streams.h.force: needs a retention by age or number, which it trims to whatever a group has not settled
      line 21, column 13: streams.i.retention: expected "acked", an age as in "7d", or a number as in "1000000", found a list
      line 23, column 8: dead_letters.keep: expected an age as in "30d", or a number as in "100000", found "acked"
      line 24, column 11: dead_letters.warn_at: 0 is too few; at least 1
    "#);
}

#[test]
fn a_wait_may_be_made_impossible_by_what_is_inherited() {
    insta::assert_snapshot!(refusal("[handlers.\"a.b\"]\nbackoff = { initial = \"6m\" }"), @r#"line 2, column 23: handlers."a.b".backoff.initial: 6m is longer than the longest wait, max = "5m""#);
    let sources = environment(&[("STREAMHAND_RETRY__BACKOFF__MAX", "500ms")]);
    insta::assert_snapshot!(Settings::load(sources).unwrap_err(), @r#"STREAMHAND_RETRY__BACKOFF__MAX: retry.backoff.initial: 1s is longer than the longest wait, max = "500ms""#);
}

#[test]
fn what_is_inherited_is_judged_where_it_stands() {
    let text = "[retry]\nbackoff = { factor = 0 }\n[handlers.\"a.b\"]\nbackoff = { jitter = 0 }";
    insta::assert_snapshot!(refusal(text), @"line 2, column 22: retry.backoff.factor: 0 is not a factor to grow by; at least 1");
}

#[test]
fn what_is_no_toml_is_told_with_its_place_and_nothing_more_is_guessed() {
    let text = "[redis]\npassword = hunter2\n[worker]\nconcurrency = 0\nlease = \"1s\n";
    let error = refusal(text);
    assert!(!error.contains("hunter2"), "{error}");
    insta::assert_snapshot!(error, @r#"
    2 problems in the configuration:
      line 2, column 12: string values must be quoted, expected literal string
      line 5, column 12: invalid basic string, expected `"`
    "#);
}

#[test]
fn a_bracket_that_is_not_closed_does_not_flood_what_is_told() {
    let text = format!("[worker]\nstreams = [\"a\"\n{}", "lease = 1\n".repeat(100));
    let error = Settings::from_toml_str(&text).expect_err("no TOML");
    assert_eq!(error.problems()[0].origin().to_string(), "line 3, column 1");
    assert!(error.problems().len() <= 10, "{error}");
}

#[test]
fn a_key_that_stands_twice_is_refused_where_it_stands_again() {
    insta::assert_snapshot!(refusal("[worker]\nlease = \"1s\"\nlease = \"2s\"\n[worker]\n"), @"
    2 problems in the configuration:
      line 3, column 1: duplicate key
      line 4, column 2: duplicate key
    ");
}

#[test]
fn columns_are_counted_in_characters() {
    insta::assert_snapshot!(refusal("app = { \"größe\" = 1 }\nworker = { \"größe\" = 1 }\r\nx = 1"), @r#"
    2 problems in the configuration:
      line 2, column 12: worker."größe": unknown key; known here: group, streams, concurrency, prefetch, lease, drain, unhandled, unhandled_after, start
      line 3, column 1: x: unknown key; known here: redis, worker, retry, defaults, handlers, targets, breakers, cron, projections, streams, dead_letters, telemetry, web, alerts, pulse, app
    "#);
}

#[test]
fn two_names_for_one_setting_are_refused() {
    let sources = environment(&[
        ("STREAMHAND_REDIS", "redis://a"),
        ("STREAMHAND_REDIS__URL", "redis://b"),
    ]);
    insta::assert_snapshot!(Settings::load(sources).unwrap_err(), @"STREAMHAND_REDIS__URL: redis.url: is set by STREAMHAND_REDIS too; unset one of them");
}

#[test]
fn a_key_of_the_command_line_is_one_key() {
    let sources = Sources {
        overrides: pairs(&[
            ("worker.lease = \"1s\" #", "2s"),
            ("worker.lease\nworker.drain", "2s"),
            ("", "2s"),
            ("worker.lease.x", "2s"),
            ("worker", "2s"),
        ]),
        ..environment(&[])
    };
    insta::assert_snapshot!(Settings::load(sources).unwrap_err(), @r#"
    4 problems in the configuration:
      command line: "worker.lease = \"1s\" #" is not a dotted key; write it as in worker.lease
      command line: "worker.lease\nworker.drain" is not a dotted key; write it as in worker.lease
      command line: "" is not a dotted key; write it as in worker.lease
      command line: worker: expected a section, [worker], found text
    "#);
}

#[test]
fn settings_made_by_a_program_are_checked_too() {
    let mut settings = Settings::default();
    assert_eq!(settings.check(), Ok(()));
    settings.worker.prefetch = 1;
    assert_eq!(settings.check(), Ok(()), "both are upper limits");
    settings.worker.concurrency = usize::MAX;
    settings.defaults.backoff = Some(Backoff::default());
    insta::assert_snapshot!(settings.check().unwrap_err(), @"
    2 problems in the configuration:
      worker.concurrency: 18446744073709551615 is too many; at most 1000000
      defaults.backoff: has no effect here; set retry.backoff
    ");
}

#[test]
fn whose_runs_are_counted_is_one_of_two() {
    let text = "[defaults]\nconcurrency = 8\nconcurrency_scope = \"grupp\"\n";
    let expected = "line 3, column 21: defaults.concurrency_scope: expected \"worker\" or \"group\", found \"grupp\"";
    assert!(
        refusal(text).to_string().contains(expected),
        "{}",
        refusal(text)
    );
}

#[test]
fn limits_that_cannot_work_are_told_with_what_would() {
    let text = "[defaults]\nconcurrency = 0\nrate = \"often\"\nrate_scope = \"grupp\"\n\
                [defaults.circuit_breaker]\nfailures = 0\nprobes = 0\ncounts = [\"panics\"]\n\
                [handlers.\"a.b\"]\nrate = \"0/s\"\ncircuit_breaker = { failure_rate = 1.5, window = \"0s\" }\n\
                [breakers.payments]\nopen = \"1m\"\n";
    insta::assert_snapshot!(refusal(text), @r#"
    10 problems in the configuration:
      line 2, column 15: defaults.concurrency: 0 is too few; at least 1
      line 3, column 8: defaults.rate: "often" is not a rate; write a number and a time, as in "100/s", "30/m" or "5/10s"
      line 4, column 14: defaults.rate_scope: expected "worker" or "group", found "grupp"
      line 6, column 12: defaults.circuit_breaker.failures: 0 without a failure_rate would never open it; set one of them, or enabled = false
      line 7, column 10: defaults.circuit_breaker.probes: 0 is too few; at least 1
      line 8, column 10: defaults.circuit_breaker.counts: "panics" is no kind of failure; did you mean "panic"?; there are "error", "timeout", "panic", "permanent"
      line 10, column 8: handlers."a.b".rate: 0 would let nothing start; leave it out for no limit, and see the command `pause`
      line 11, column 36: handlers."a.b".circuit_breaker.failure_rate: 1.5 is no part of the calls; from 0, which looks at none, to 1
      line 11, column 50: handlers."a.b".circuit_breaker.window: 0s is too short; at least 1ms
      line 13, column 1: breakers.payments.open: unknown key; known here: enabled, failures, failure_rate, window, minimum, open_for, probes, scope, counts
    "#);
}

#[test]
fn a_rate_is_a_number_and_a_time() {
    let rate = |text: &str| Rate::parse(text).map(|rate| (rate.count, rate.per.as_secs()));
    assert_eq!(rate("100/s"), Ok((100, 1)));
    assert_eq!(rate("30 / m"), Ok((30, 60)));
    assert_eq!(rate("5/10s"), Ok((5, 10)));
    assert_eq!(rate("1000/1h 30m"), Ok((1000, 5400)));
    for wrong in [
        "",
        "100",
        "100/",
        "/s",
        "-1/s",
        "100/fortnight",
        "1.5/s",
        "a/b",
    ] {
        let refused = rate(wrong);
        assert!(
            refused.as_ref().is_err_and(|why| why.contains("as in")),
            "{wrong:?}: {refused:?}"
        );
    }
}

#[test]
fn keys_of_streams_are_neither_streams_nor_groups() {
    let refused = refusal(
        r#"
[worker]
group = "published"
streams = ["{orders}:scheduled", "eu:{orders}:scheduled:events", "{orders}:published:e-1", "scheduled", "{a}.published"]
"#,
    );
    insta::assert_snapshot!(refused, @r#"
    4 problems in the configuration:
      line 3, column 9: worker.group: the group name is what keys of the streams themselves are called
      line 4, column 12: worker.streams[0]: "{orders}:scheduled" is a key in which events of another stream are kept
      line 4, column 34: worker.streams[1]: "eu:{orders}:scheduled:events" is a key in which events of another stream are kept
      line 4, column 66: worker.streams[2]: "{orders}:published:e-1" is a key in which events of another stream are kept
    "#);
}

#[test]
fn what_shows_data_to_other_machines_needs_a_token() {
    let refusals = [
        "[telemetry]\nlisten = \"0.0.0.0:9464\"",
        "[telemetry]\nlisten = \"[::]:9464\"\ntoken = \"\"",
        "[telemetry]\nlisten = \"9464\"",
        "[telemetry]\nlisten = 9464",
        "[telemetry]\ntoken = \"hunter 2\"",
        "[telemetry]\ntoken_file = \"/nowhere/token\"",
        "[telemetry]\ntoken = \"hunter2\"\ntoken_file = \"/nowhere/token\"",
    ]
    .map(refusal)
    .join("\n");
    assert!(!refusals.contains("hunter"), "{refusals}");
    insta::assert_snapshot!(refusals, @r#"
    line 2, column 10: telemetry.listen: 0.0.0.0:9464 would show the metrics to whoever can reach it; set telemetry.token_file, or listen on 127.0.0.1
    line 3, column 9: telemetry.token: is empty; leave it out where there is none
    line 2, column 10: telemetry.listen: "9464" is no address to listen on: write an address of this machine and a port, as in "127.0.0.1:9464"; "0.0.0.0:9464" is every address of it, and "" turns it off
    line 2, column 10: telemetry.listen: expected an address in quotes, as in "127.0.0.1:9464", found a whole number
    line 2, column 9: telemetry.token: has white space or characters beyond ASCII, which no header can carry
    line 2, column 14: telemetry.token_file: cannot read /nowhere/token: No such file or directory (os error 2)
    line 3, column 14: telemetry.token_file: stands beside telemetry.token; leave one of them out
    "#);
    for right in [
        "listen = \"\"",
        "listen = \"127.0.0.1:9464\"",
        "listen = \"0.0.0.0:9464\"\ntoken = \"hunter2\"",
    ] {
        let text = format!("[telemetry]\n{right}");
        let settings = Settings::from_toml_str(&text).expect(right);
        assert!(!settings.to_toml().contains("hunter2"), "{settings:?}");
        assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    }
}

#[test]
fn a_collector_that_nothing_can_be_sent_to_is_refused() {
    let refusals = [
        "endpoint = \"collector:4318\"",
        "endpoint = \"grpc://collector:4317\"",
        "endpoint = \"http://\"",
        "endpoint = \"http://collector:4318/v1/traces\"",
        "endpoint = \"http://user:hunter2@collector?key=hunter2\"",
        "headers = \"hunter2\"",
        "headers = \"author ization=hunter2\"",
        "headers = \"authorization=hunter2\\n\"\nheaders_file = \"/nowhere/headers\"",
        "headers_file = \"/nowhere/headers\"",
        "sample = 10",
        "sample = \"0.1\"",
        "interval = \"1ms\"",
        "timeout = 5",
        "endpiont = \"http://collector:4318\"",
    ]
    .map(|line| refusal(&format!("[telemetry.otlp]\n{line}")))
    .join("\n");
    assert!(!refusals.contains("hunter"), "{refusals}");
    insta::assert_snapshot!(refusals, @r#"
    line 2, column 12: telemetry.otlp.endpoint: begins with neither http:// nor https://; write the address of a collector, as in "http://collector:4318"
    line 2, column 12: telemetry.otlp.endpoint: begins with neither http:// nor https://; write the address of a collector, as in "http://collector:4318"
    line 2, column 12: telemetry.otlp.endpoint: is no address (empty host); write the address of a collector, as in "http://collector:4318"
    line 2, column 12: telemetry.otlp.endpoint: ends in /v1/traces, which is added to it; leave that out
    line 2, column 12: telemetry.otlp.endpoint: has a '?' or a '#'; write the address of a collector, as in "http://collector:4318"
    line 2, column 11: telemetry.otlp.headers: have no '=' in number 1; write "name=value,name=value", with %2C for a comma in a value
    line 2, column 11: telemetry.otlp.headers: "author ization" is no name of a header
    line 3, column 16: telemetry.otlp.headers_file: stands beside telemetry.otlp.headers; leave one of them out
    line 2, column 16: telemetry.otlp.headers_file: cannot read /nowhere/headers: No such file or directory (os error 2)
    line 2, column 10: telemetry.otlp.sample: 10 is no part of all; from 0 to 1, 0.1 being a tenth
    line 2, column 10: telemetry.otlp.sample: expected a number; write 0.1 without quotes
    line 2, column 12: telemetry.otlp.interval: 1ms is too short; at least 100ms
    line 2, column 11: telemetry.otlp.timeout: a duration needs a unit; write "5s"
    line 2, column 1: telemetry.otlp.endpiont: unknown key; did you mean `telemetry.otlp.endpoint`?
    "#);
}

#[test]
fn a_token_comes_from_a_file_or_from_the_stronger_source() {
    let (guard, path) = file("hunter2\n");
    let from_file = format!("[telemetry]\nlisten = \"0.0.0.0:1\"\ntoken_file = {path:?}\n");
    let settings = Settings::from_toml_str(&from_file).expect("a token");
    assert_eq!(settings.telemetry.token, Some(Secret::new("hunter2")));
    assert_eq!(Settings::from_toml_str(&settings.to_toml()), Ok(settings));
    let (_other, config) = file(&from_file);
    let sources = Sources {
        file: Some(config),
        environment: pairs(&[("STREAMHAND_TELEMETRY__TOKEN", "tr0ub4dor")]),
        ..Sources::default()
    };
    let settings = Settings::load(sources).expect("a token").telemetry;
    assert_eq!(
        (settings.token, settings.token_file),
        (Some(Secret::new("tr0ub4dor")), None)
    );
    drop(guard);
}

#[test]
fn alerts_that_nobody_could_be_told_are_refused_without_telling_the_address() {
    let text = "[alerts]\nwebhook = \"hooks.example.com/secret\"\nalertmanager = \"ftp://x\"\noldest = \"1ms\"\n\
                budget = 1\nrepeat = \"1s\"\noff = [\"pausd\", \"everything\"]";
    insta::assert_snapshot!(refusal(text), @r#"
    6 problems in the configuration:
      line 2, column 11: alerts.webhook: is no address; write "https://host/path"
      line 3, column 16: alerts.alertmanager: is no address; write "https://host/path"
      line 4, column 10: alerts.oldest: 1ms is too short; at least 1s
      line 5, column 10: alerts.budget: 1 is no share that may be late; above 0, at most 0.5
      line 6, column 10: alerts.repeat: 1s is too short; at least 1m
      line 7, column 7: alerts.off: "pausd" is no alert; did you mean "paused"?
    "#);
    let missing = "[alerts]\nwebhook = \"http://x/y\"\nwebhook_file = \"/run/missing\"";
    insta::assert_snapshot!(refusal(missing), @"line 3, column 16: alerts.webhook_file: stands beside alerts.webhook; leave one of them out");
}

#[test]
fn a_target_that_cannot_work_is_told_with_what_would_be_right() {
    for (text, said) in [
        (
            "[targets.a]",
            "line 1, column 1: targets.a: says neither where events are sent",
        ),
        (
            "[targets.a]\nurl = \"https://h/\"\ncommand = [\"x\"]",
            "targets.a: has an address and a command",
        ),
        (
            "[targets.a]\nurl = \"h/secret\"",
            "targets.a.url: has no scheme",
        ),
        (
            "[targets.a]\nurl = \"ftp://h/secret\"",
            "neither http nor https",
        ),
        ("[targets.a]\nurl = \"http://h:0/secret\"", "has port 0"),
        ("[targets.a]\nurl = \"http://h/secret#a\"", "has a fragment"),
        (
            "[targets.a]\nurl = \"http://h\"\nurl_file = \"/run/missing\"",
            "targets.a.url_file: cannot read",
        ),
        (
            "[targets.a]\nurl = \"http://h\"\nmode = \"pool\"",
            "targets.a.mode: is for a target that is a command",
        ),
        (
            "[targets.a]\nurl = \"http://h\"\nprocesses = 4",
            "targets.a.processes: is for a target that is a command",
        ),
        (
            "[targets.a]\ncommand = [\"x\"]\nallow = [\"10.0.0.0/8\"]",
            "targets.a.allow: is for a target with an address",
        ),
        (
            "[targets.a]\ncommand = [\"x\"]\nprocesses = 0",
            "targets.a.processes: 0 is too few; at least 1",
        ),
        (
            "[targets.a]\ncommand = [\"\"]",
            "targets.a.command[0]: is empty; the first is the program",
        ),
        (
            "[targets.a]\ncommand = [\"x\"]\nmode = \"pol\"",
            "did you mean \"pool\"?",
        ),
        (
            "[targets.a]\nmode = \"once\"",
            "says neither where events are sent",
        ),
        (
            "[targets.a]\nurl = \"http://h\"\ncontract = \"dapper\"",
            "found \"dapper\"; did you mean \"dapr\"?",
        ),
        (
            "[targets.a]\nurl = \"http://h\"\nallow = [\"localhost\"]",
            "\"localhost\" is not an address",
        ),
        (
            "[targets.a]\nurl = \"http://h\"\ntoken_file = \"/run/missing\"",
            "targets.a.token_file: cannot read /run/missing",
        ),
        (
            "[targets.a]\nurl = \"http://h\"\nsecret_files = [\"/run/missing\"]",
            "targets.a.secret_files: cannot read",
        ),
        (
            "[targets.a]\nurl = \"https://h\"\ntls_cert = \"/run/missing\"",
            "targets.a.tls_cert: cannot read",
        ),
        (
            "[targets.\"a b\"]\nurl = \"http://h\"",
            "the target's name may have letters, digits",
        ),
        (
            "[targets.a]\nurl = \"http://h\"\nurls = 1",
            "unknown key; did you mean `targets.a.url`?",
        ),
        (
            "[targets.billing]\nurl = \"http://h\"\n[handlers.\"a.b\"]\ntarget = \"bililng\"",
            "line 4, column 10: handlers.\"a.b\".target: \"bililng\" is no target; did you mean \"billing\"?",
        ),
        (
            "[handlers.\"a.b\"]\ntarget = \"mail\"",
            "\"mail\" is no target; write a section [targets.mail]",
        ),
    ] {
        let error = refusal(text);
        assert!(error.contains(said), "{text}: {error}");
        assert!(!error.contains("secret\""), "{error}");
    }
}

#[test]
fn an_address_of_a_target_is_shown_without_what_may_be_secret_in_it() {
    let (_guard, path) = file("https://h/hunter2");
    let text = format!(
        "[targets.a]\nurl = \"https://me:hunter2@h:8080/p?key=hunter2\"\n[targets.b]\nurl_file = {path:?}"
    );
    let settings = Settings::from_toml_str(&text).expect("targets");
    let shown = format!("{}\n{settings:?}", settings.to_toml());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("https://me:***@h:8080/p?***"), "{shown}");
    let url = settings.targets["a"].url.as_ref().expect("an address");
    assert_eq!(url.expose().password(), Some("hunter2"));
    let url = settings.targets["b"].address().expect("an address");
    assert_eq!(url.expect("an address").expose().path(), "/hunter2");
    let _ = Settings::from_toml_str(&settings.to_toml()).expect("what is shown can be read");
}

#[test]
fn crons_that_can_not_work_are_told_with_their_lines_and_what_would_be_right() {
    let refused = |cron: &str| {
        let toml = format!(
            "[worker]\nstreams = [\"orders\"]\n[cron.nightly]\ntype = \"report.due\"\n{cron}\n"
        );
        let error = Settings::from_toml_str(&toml).expect_err(cron).to_string();
        // The next times go by today.
        let error = error.split("; its next times are ").next().unwrap();
        error.to_owned()
    };
    let with = |line: &str| refused(&format!("schedule = \"@daily\"\n{line}"));
    let said = [
        refused(""),
        refused("schedule = []"),
        refused("schedule = \"0 30 2 * * *\""),
        refused("schedule = \"0 0 30 2 *\""),
        refused("schedule = [\"@daily\", \"61 * * * *\"]"),
        refused("schedule = \"every 0s\""),
        refused("schedule = \"@nightly\""),
        with("zone = \"Europe/Berln\""),
        with("jitter = \"25h\""),
        with("catch_up_within = \"1h\""),
        with("stream = \"invoices\""),
        with("catch_up = \"most\""),
        with("overlap = \"replace\""),
        with("subject = \"\""),
        refused("schedule = \"every 1m\"\ncatch_up = \"all\""),
        Settings::from_toml_str("[cron.\"a:b\"]\nschedule = \"@daily\"\n")
            .expect_err("a name")
            .to_string(),
    ];
    insta::assert_snapshot!(said.join("\n"), @r#"
    line 3, column 1: cron.nightly.schedule: an empty list: a schedule says at least one time
    line 5, column 12: cron.nightly.schedule: an empty list: a schedule says at least one time
    line 5, column 12: cron.nightly.schedule: `0 30 2 * * *`: 6 fields: a pattern has five, and none for seconds; write `every 30s` for what is more often than each minute
    line 5, column 12: cron.nightly.schedule: `0 0 30 2 *`: a date that never comes: no month of `2` has a day `30`
    line 5, column 12: cron.nightly.schedule: `61 * * * *`: `61`: the minute is 0 to 59
    line 5, column 12: cron.nightly.schedule: `every 0s`: an interval is whole seconds, from 1s to 365d, as `every 15m`
    line 5, column 12: cron.nightly.schedule: `@nightly`: unknown name; known are @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually
    line 6, column 8: cron.nightly.zone: "Europe/Berln" is an unknown time zone; did you mean "Europe/Berlin"?
    line 6, column 10: cron.nightly.jitter: 1d 1h is longer than the 1d between two of its times
    line 6, column 19: cron.nightly.catch_up_within: has no effect with catch_up = "none"; set that to "last" or "all"
    line 6, column 10: cron.nightly.stream: "invoices" is none that the worker reads; put it into worker.streams
    line 6, column 12: cron.nightly.catch_up: expected "none" or "last" or "all", found "most"
    line 6, column 11: cron.nightly.overlap: expected "allow" or "skip" or "queue", found "replace"
    line 6, column 11: cron.nightly.subject: is empty; leave it out where there is none
    line 6, column 12: cron.nightly.catch_up: "all" within 1d would catch up with more than 1000 of its times; set a shorter catch_up_within, or "last"
    2 problems in the configuration:
      line 1, column 1: cron."a:b": the cron's name has a ':', which parts the names of its keys
      line 1, column 1: cron."a:b".type: is not set; say of which type its events are, as "report.due"
    "#);
}

#[test]
fn a_refused_jitter_shows_the_next_five_times() {
    let toml = "[cron.often]\ntype = \"a.b\"\nschedule = \"*/5 * * * *\"\njitter = \"6m\"\n";
    let error = Settings::from_toml_str(toml)
        .expect_err("jitter")
        .to_string();
    assert_eq!(error.matches("[UTC]").count(), 5, "{error}");
}
