//! The values that a setting cannot have, alone or together with others.
//!
//! Works on [`Settings`] however they came about. Only what cannot work is refused: a `prefetch`
//! below the `concurrency` can, both being upper limits, of which the lower one holds.

use std::time::Duration;

use super::findings::{Finding, Findings};
use super::stream_name::stream_name;
use super::tree::KeyPath;
use super::{
    BreakerSettings, Counts, HandlerSettings, Keep, OtlpSettings, RedisSettings, Retention,
    Settings, StreamSettings, TelemetrySettings, WorkerSettings, batch, check_web, targets, tls,
    topology,
};
use crate::delay::LONGEST;
use crate::duration;
use crate::event_type;
use crate::partition::{self, Partition};
use crate::retry::Backoff;

/// Handlers and entries of one process; more is a slip, and would be reserved for in advance.
const MOST_AT_ONCE: usize = 1_000_000;
/// Pooled connections of one process; a server refuses more than 10,000 from all together.
const MOST_CONNECTIONS: usize = 1_000;
/// A lease is renewed every third of it: below this, a pause of a process or of the network that
/// nobody would notice takes its entries away.
const SHORTEST_LEASE: Duration = Duration::from_millis(500);
/// For so long nobody takes over what a dead worker held.
const LONGEST_LEASE: Duration = Duration::from_secs(24 * 60 * 60);
/// What Redis' times can tell apart; and a wait of nothing would be a retry in a tight loop.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Below a second nothing would be kept but what is on its way.
const SHORTEST_KEPT: Duration = Duration::from_secs(1);
/// Beyond a century an age is a slip.
const LONGEST_KEPT: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

/// More often a pulse is not worth its cost; less often its worker is taken for gone.
/// Answers are not waited for as long as twice that.
const REPLICAS_TIMEOUT: (Duration, Duration) = (SHORTEST_WAIT, Duration::from_secs(5));
const PULSE_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Everything in `settings` that cannot work.
pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings = Findings::default();
    redis(&settings.redis, &mut findings);
    worker(&settings.worker, &mut findings);
    let retry = KeyPath::plain("retry");
    findings.attempts(retry.key("max_attempts"), settings.retry.max_attempts);
    backoff(
        &retry.key("backoff"),
        &settings.retry.backoff,
        &mut findings,
    );
    defaults(&settings.defaults, &mut findings);
    for (name, own) in &settings.handlers {
        let path = KeyPath::plain("handlers").key(name);
        if let Err(refusal) = event_type::check(name) {
            findings.add(path.clone(), format!("the event type {refusal}"));
        }
        handler(&path, own, &mut findings);
        let worker = (settings.worker.lease, settings.worker.prefetch);
        batch::check(&path, own.batch, worker, &mut findings);
    }
    let of_targets = settings.handlers.iter();
    let of_targets = of_targets
        .filter_map(|(event_type, handler)| Some((&event_type[..], handler.target.as_deref()?)));
    targets::check(&settings.targets, of_targets, &mut findings);
    for (name, settings) in &settings.breakers {
        let path = KeyPath::plain("breakers").key(name);
        breaker(&path, settings, &mut findings);
    }
    for (name, cron) in &settings.cron {
        let path = KeyPath::plain("cron").key(name);
        if let Err(refusal) = group_name(name) {
            findings.add(path.clone(), format!("the cron's name {refusal}"));
        }
        for (key, message) in cron.problems(&settings.worker.streams, false) {
            findings.add(path.key(key), message);
        }
    }
    for name in settings.projections.keys() {
        if let Err(refusal) = group_name(name) {
            let path = KeyPath::plain("projections").key(name);
            findings.add(path, format!("the projection's name {refusal}"));
        }
    }
    for (name, settings) in &settings.streams {
        let path = KeyPath::plain("streams").key(name);
        if let Err(refusal) = stream_name(name) {
            findings.add(path.clone(), format!("the stream name {refusal}"));
        }
        stream(&path, settings, &mut findings);
        partitions(&path, name, settings, &mut findings);
    }
    if let Some(kept) = settings.dead_letters.keep {
        keep(KeyPath::plain("dead_letters.keep"), kept, &mut findings);
    }
    if settings.dead_letters.warn_at == 0 {
        let path = KeyPath::plain("dead_letters.warn_at");
        findings.add(path, "0 is too few; at least 1");
    }
    telemetry(&settings.telemetry, &mut findings);
    check_web::check(&settings.web, &mut findings);
    settings.alerts.check(&mut findings);
    let every = KeyPath::plain("pulse.every");
    findings.duration(every, settings.pulse.every, PULSE_EVERY.0, PULSE_EVERY.1);
    findings.0
}

/// Refuses what cannot be the name of a consumer group here, with the end of a sentence about it.
pub(crate) fn group_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    match name
        .chars()
        .find(|c| *c == ':' || c.is_whitespace() || c.is_control())
    {
        Some(':') => Err("has a ':', which parts the names of its keys".to_owned()),
        Some(space) if space.is_whitespace() => Err(format!("has the white space {space:?}")),
        Some(control) => Err(format!("has the control character {control:?}")),
        None if matches!(name, "scheduled" | "published" | "trimmed") => {
            Err("is what keys of the streams themselves are called".to_owned())
        }
        None => Ok(()),
    }
}

fn redis(redis: &RedisSettings, findings: &mut Findings) {
    let at = |key| KeyPath::plain("redis").key(key);
    findings.count(at("pool_size"), redis.pool_size, MOST_CONNECTIONS);
    let (least, most) = REPLICAS_TIMEOUT;
    let timeout = redis.replicas_timeout;
    findings.duration(at("replicas_timeout"), timeout, least, most);
    findings.text(at("username"), redis.username.as_deref());
    let password = redis.password.as_ref().map(|password| password.expose());
    findings.text(at("password"), password);
    let file = redis.password_file.as_ref().and_then(|path| path.to_str());
    findings.text(at("password_file"), file);
    tls(redis, findings);
    sentinel(redis, findings);
    for wrong in topology::topology(redis).err().unwrap_or_default() {
        let path = wrong
            .key
            .split('.')
            .fold(KeyPath::plain("redis"), |path, key| {
                match key.strip_suffix(']').and_then(|key| key.split_once('[')) {
                    Some((key, at)) => path.key(key).index(at.parse().unwrap_or_default()),
                    None => path.key(key),
                }
            });
        let with = wrong.with.map(at).into_iter().collect();
        findings.add_with(path, with, wrong.message);
    }

    let named = if redis.username.is_some() {
        "username"
    } else if redis.url.has_user() {
        "url"
    } else {
        return;
    };
    let any = password.is_some() || redis.password_file.is_some() || redis.url.has_password();
    if !any {
        findings.add_with(
            at(named),
            vec![at("url"), at("password"), at("password_file")],
            "names a user without a password, which is never sent; set redis.password or \
             redis.password_file, or write a password alone as \"redis://:password@host\"",
        );
    }
}

/// How to log in to sentinels. Their addresses are checked with the mode.
fn sentinel(redis: &RedisSettings, findings: &mut Findings) {
    let sentinel = &redis.sentinel;
    let at = |key| KeyPath::plain("redis.sentinel").key(key);
    findings.text(at("username"), sentinel.username.as_deref());
    let password = sentinel.password.as_ref().map(|password| password.expose());
    findings.text(at("password"), password);
    let file = sentinel.password_file.as_ref();
    findings.text(at("password_file"), file.and_then(|path| path.to_str()));
    if sentinel.username.is_some() && password.is_none() && file.is_none() {
        findings.add_with(
            at("username"),
            vec![at("password"), at("password_file")],
            "names a user without a password, which is never sent; set redis.sentinel.password or \
             redis.sentinel.password_file",
        );
    }
    let is_tls = sentinel.tls.unwrap_or_else(|| redis.url.is_tls());
    for (key, path) in [
        ("tls_ca", &sentinel.tls_ca),
        ("tls_cert", &sentinel.tls_cert),
        ("tls_key", &sentinel.tls_key),
    ] {
        findings.text(at(key), path.as_ref().and_then(|path| path.to_str()));
        if path.is_some() && !is_tls {
            findings.add_with(
                at(key),
                vec![at("tls")],
                "is for TLS, which the sentinels do not speak by redis.sentinel.tls; set that to true",
            );
        }
    }
    for (key, is_set, other, has_other) in [
        (
            "tls_cert",
            sentinel.tls_cert.is_some(),
            "tls_key",
            sentinel.tls_key.is_some(),
        ),
        (
            "tls_key",
            sentinel.tls_key.is_some(),
            "tls_cert",
            sentinel.tls_cert.is_some(),
        ),
    ] {
        if is_set && !has_other {
            let message = format!("stands alone; set redis.sentinel.{other} too");
            findings.add(at(key), message);
        }
    }
}

fn tls(redis: &RedisSettings, findings: &mut Findings) {
    let at = |key| KeyPath::plain("redis").key(key);
    for (key, path) in tls::settings(redis) {
        findings.text(at(key), path.and_then(|path| path.to_str()));
        if path.is_some() && !redis.url.is_tls() {
            findings.add_with(
                at(key),
                vec![at("url")],
                "is for TLS, which redis.url does not ask for; write \"rediss://host:6379\"",
            );
        }
    }
    for (key, other, has) in [
        ("tls_cert", "tls_key", "certificate without its key"),
        ("tls_key", "tls_cert", "key without its certificate"),
    ] {
        let is_set = |key| {
            tls::settings(redis)
                .iter()
                .any(|(known, path)| *known == key && path.is_some())
        };
        if is_set(key) && !is_set(other) {
            findings.add(at(key), format!("is a {has}; set redis.{other} too"));
        }
    }
}

fn worker(worker: &WorkerSettings, findings: &mut Findings) {
    let at = |key| KeyPath::plain("worker").key(key);
    // Unset is for a worker to refuse.
    if !worker.group.is_empty()
        && let Err(refusal) = group_name(&worker.group)
    {
        findings.add(at("group"), format!("the group name {refusal}"));
    }
    streams(&worker.streams, &worker.group, findings);
    findings.count(at("concurrency"), worker.concurrency, MOST_AT_ONCE);
    findings.count(at("prefetch"), worker.prefetch, MOST_AT_ONCE);
    findings.duration(at("lease"), worker.lease, SHORTEST_LEASE, LONGEST_LEASE);
    findings.duration(at("drain"), worker.drain, Duration::ZERO, LONGEST);
    let after = worker.unhandled_after;
    findings.duration(at("unhandled_after"), after, Duration::ZERO, LONGEST);
}

fn streams(names: &[String], group: &str, findings: &mut Findings) {
    let path = KeyPath::plain("worker.streams");
    for (index, name) in names.iter().enumerate() {
        let at = path.index(index);
        if let Err(refusal) = stream_name(name) {
            findings.add(at, format!("the stream name {refusal}"));
        } else if names[..index].contains(name) {
            findings.add(at, format!("{name:?} is in the list twice"));
        } else if let Some(twin) = names[..index].iter().find(|other| same_keys(name, other)) {
            findings.add(
                at,
                format!("{name:?} and {twin:?} would share their keys; rename one of them"),
            );
        } else if let Some(of) =
            topic_of(name).filter(|topic| names.iter().any(|name| name == topic))
        {
            let message = format!("{name:?} is a partition of {of:?}, which is in the list too");
            findings.add(at, message);
        } else if is_own_key(name, group) {
            findings.add(
                at,
                format!("{name:?} is a key that the group {group:?} keeps for itself"),
            );
        } else if is_key_of_a_stream(name) {
            findings.add(
                at,
                format!("{name:?} is a key in which events of another stream are kept"),
            );
        }
    }
}

/// The topic that a stream is a partition of, by its name.
fn topic_of(name: &str) -> Option<&str> {
    Partition::parse(name).map(|partition| partition.topic)
}

/// The keys of `orders` are named after `{orders}`, which is what `{orders}` keeps.
fn same_keys(a: &str, b: &str) -> bool {
    a.strip_prefix('{').and_then(|a| a.strip_suffix('}')) == Some(b)
        || b.strip_prefix('{').and_then(|b| b.strip_suffix('}')) == Some(a)
}

/// What a group's keys are called, behind the stream and the group.
pub(crate) const OWN: [&str; 16] = [
    "retry",
    "dead",
    "again",
    "failures",
    "position",
    "paused",
    "kept",
    "protocol",
    "breakers",
    "tidied",
    "tidied_to",
    "clock",
    "commits",
    "guards",
    "projection",
    "rebuild",
];

/// Another group may read the dead letters of this one; this one would chase its own.
fn is_own_key(name: &str, group: &str) -> bool {
    let own = |key: &&str| name.ends_with(&format!(":{group}:{key}"));
    let mark = format!(":{group}:seen:");
    name.contains('{') && (OWN.iter().any(own) || name.contains(&mark))
}

/// Scheduled events, and marks of what was published, belong to a stream and to no group.
fn is_key_of_a_stream(name: &str) -> bool {
    let own = name.ends_with(":scheduled") || name.ends_with(":scheduled:events");
    name.contains('{') && (own || name.contains(":published:"))
}

fn defaults(defaults: &HandlerSettings, findings: &mut Findings) {
    let path = KeyPath::plain("defaults");
    if defaults.max_attempts.is_some() {
        let with = "has no effect here; set retry.max_attempts";
        findings.add(path.key("max_attempts"), with);
    }
    if defaults.backoff.is_some() {
        findings.add(path.key("backoff"), "has no effect here; set retry.backoff");
    }
    if defaults.on_crash.is_some() {
        let with = "has no effect here; set retry.on_crash";
        findings.add(path.key("on_crash"), with);
    }
    if !defaults.batch.is_unset() {
        let with = "has no effect here; set it for the handler of one event type";
        findings.add(path.key("batch"), with);
    }
    handler(&path, defaults, findings);
}

fn handler(path: &KeyPath, settings: &HandlerSettings, findings: &mut Findings) {
    if let Some(timeout) = settings.timeout {
        findings.duration(path.key("timeout"), timeout, SHORTEST_WAIT, LONGEST);
    }
    if let Some(grace) = settings.grace {
        findings.duration(path.key("grace"), grace, Duration::ZERO, LONGEST);
    }
    if let Some(window) = settings.deduplicate {
        findings.duration(path.key("deduplicate"), window, Duration::ZERO, LONGEST);
    }
    if let Some(attempts) = settings.max_attempts {
        findings.attempts(path.key("max_attempts"), attempts);
    }
    if let Some(settings) = &settings.backoff {
        backoff(&path.key("backoff"), settings, findings);
    }
    if let Some(concurrency) = settings.concurrency {
        findings.count(path.key("concurrency"), concurrency, MOST_AT_ONCE);
    }
    if let Some(rate) = settings.rate {
        let path = path.key("rate");
        if rate.count == 0 {
            let message =
                "0 would let nothing start; leave it out for no limit, and see the command `pause`";
            findings.add(path, message);
        } else {
            findings.duration(path, rate.per, SHORTEST_WAIT, LONGEST);
        }
    }
    if let Some(settings) = &settings.circuit_breaker {
        breaker(&path.key("circuit_breaker"), settings, findings);
    }
}

fn breaker(path: &KeyPath, breaker: &BreakerSettings, findings: &mut Findings) {
    let BreakerSettings {
        enabled,
        failures,
        failure_rate,
        window,
        minimum,
        open_for,
        probes,
        scope: _,
        counts,
    } = *breaker;
    if !enabled {
        return;
    }
    if failures == 0 && failure_rate == 0.0 {
        let message =
            "0 without a failure_rate would never open it; set one of them, or enabled = false";
        findings.add_with(
            path.key("failures"),
            vec![path.key("failure_rate")],
            message,
        );
    }
    if !(0.0..=1.0).contains(&failure_rate) {
        let message =
            format!("{failure_rate} is no part of the calls; from 0, which looks at none, to 1");
        findings.add(path.key("failure_rate"), message);
    }
    findings.duration(path.key("window"), window, SHORTEST_WAIT, LONGEST);
    findings.duration(path.key("open_for"), open_for, SHORTEST_WAIT, LONGEST);
    for (key, value) in [("minimum", minimum), ("probes", probes)] {
        if value == 0 {
            findings.add(path.key(key), "0 is too few; at least 1");
        }
    }
    if counts == Counts::NONE {
        findings.add(
            path.key("counts"),
            "is empty, and would never open it; set enabled = false",
        );
    }
}

fn stream(path: &KeyPath, settings: &StreamSettings, findings: &mut Findings) {
    if let Some(Retention::Beyond(kept)) = settings.retention {
        keep(path.key("retention"), kept, findings);
    }
    if settings.force == Some(true) && !matches!(settings.retention, Some(Retention::Beyond(_))) {
        findings.add_with(
            path.key("force"),
            vec![path.key("retention")],
            "needs a retention by age or number, which it trims to whatever a group has not settled",
        );
    }
}

fn partitions(path: &KeyPath, name: &str, settings: &StreamSettings, findings: &mut Findings) {
    if let Some(many) = settings.partitions
        && let Err(why) = partition::check(name, many)
    {
        findings.add(path.key("partitions"), format!("can't be {many}: {why}"));
    }
}

fn telemetry(telemetry: &TelemetrySettings, findings: &mut Findings) {
    let at = |key| KeyPath::plain("telemetry").key(key);
    let token = telemetry.token.as_ref().map(|token| token.expose());
    let file = telemetry.token_file.as_ref();
    findings.text(at("token"), token);
    findings.text(at("token_file"), file.and_then(|path| path.to_str()));
    if token.is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
        let message = "has white space or characters beyond ASCII, which no header can carry";
        findings.add(at("token"), message);
    }
    otlp(&telemetry.otlp, findings);
    if let Some(address) = telemetry.listen.beyond_this_machine()
        && token.is_none()
        && file.is_none()
    {
        let message = format!(
            "{address} would show the metrics to whoever can reach it; set telemetry.token_file, or listen on 127.0.0.1"
        );
        let with = vec![at("token"), at("token_file")];
        findings.add_with(at("listen"), with, message);
    }
}

fn otlp(otlp: &OtlpSettings, findings: &mut Findings) {
    let at = |key| KeyPath::plain("telemetry.otlp").key(key);
    let file = otlp.headers_file.as_ref();
    findings.text(at("headers_file"), file.and_then(|path| path.to_str()));
    let ca = otlp.tls_ca.as_ref();
    findings.text(at("tls_ca"), ca.and_then(|path| path.to_str()));
    findings.text(at("service"), otlp.service.as_deref());
    match otlp.pairs() {
        Err(why) => findings.add(at("headers"), why),
        Ok(pairs) => {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let is_value = |byte: u8| (b' '..=b'~').contains(&byte);
            for (name, value) in pairs {
                if name.is_empty() || !name.bytes().all(is_name) {
                    findings.add(at("headers"), format!("{name:?} is no name of a header"));
                } else if !value.bytes().all(is_value) {
                    let message =
                        format!("the value of {name} has characters that no header can carry");
                    findings.add(at("headers"), message);
                }
            }
        }
    }
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    findings.duration(
        at("interval"),
        otlp.interval,
        Duration::from_millis(100),
        hour,
    );
    findings.duration(
        at("timeout"),
        otlp.timeout,
        Duration::from_millis(100),
        60 * second,
    );
    if !(0.0..=1.0).contains(&otlp.sample) {
        let sample = otlp.sample;
        findings.add(
            at("sample"),
            format!("{sample} is no part of all; from 0 to 1, 0.1 being a tenth"),
        );
    }
}

fn keep(path: KeyPath, kept: Keep, findings: &mut Findings) {
    match kept {
        Keep::For(age) => findings.duration(path, age, SHORTEST_KEPT, LONGEST_KEPT),
        Keep::Last(0) => findings.add(path, "0 is too few; at least 1"),
        Keep::Last(_) => {}
    }
}

fn backoff(path: &KeyPath, backoff: &Backoff, findings: &mut Findings) {
    let Backoff {
        initial,
        factor,
        max,
        jitter,
    } = *backoff;
    findings.duration(path.key("initial"), initial, SHORTEST_WAIT, LONGEST);
    findings.duration(path.key("max"), max, SHORTEST_WAIT, LONGEST);
    if initial > max {
        let (initial, max) = (duration::format(initial), duration::format(max));
        findings.add_with(
            path.key("initial"),
            vec![path.key("max")],
            format!("{initial} is longer than the longest wait, max = \"{max}\""),
        );
    }
    if !(factor.is_finite() && factor >= 1.0) {
        findings.add(
            path.key("factor"),
            format!("{factor} is not a factor to grow by; at least 1"),
        );
    }
    if !(0.0..=1.0).contains(&jitter) {
        findings.add(
            path.key("jitter"),
            format!("{jitter} is not a share; from 0 to 1"),
        );
    }
}
