//! The schema: which settings there are and where they stand. Reads a tree into [`Settings`] and
//! notes everything in it that is no setting or no value of one.

use super::error::Problem;
use super::section::{Reader, Section};
use super::tree::{KeyPath, Tree};
use super::{
    BreakerSettings, CronSettings, HandlerSettings, ProjectionSettings, Settings, StreamSettings,
    TargetSettings, WebSettings, WebUser,
};
use crate::retry::Backoff;

/// Reads what `tree` says over the defaults. A setting whose value is refused keeps its default.
pub(super) fn settings(tree: &Tree) -> (Settings, Vec<Problem>) {
    let mut reader = Reader {
        tree,
        problems: Vec::new(),
        known: Vec::new(),
        all: known,
    };
    let settings = reader.settings();
    (settings, reader.problems)
}

/// Every setting with a fixed place, which is all but those of single handlers, single streams and
/// `[app]`.
pub(super) fn known() -> Vec<KeyPath> {
    let tree = Tree::default();
    let mut reader = Reader {
        tree: &tree,
        problems: Vec::new(),
        known: Vec::new(),
        all: known,
    };
    let _ = reader.settings();
    reader.known
}

impl Reader<'_> {
    fn settings(&mut self) -> Settings {
        let mut read = Settings::default();
        let tree = self.tree;
        let mut root = Section {
            reader: self,
            path: KeyPath::default(),
            table: Some(&tree.root),
            keys: Vec::new(),
        };
        root.section("redis", |redis| {
            redis.setting("url", &mut read.redis.url);
            redis.setting("username", &mut read.redis.username);
            redis.setting("password", &mut read.redis.password);
            redis.setting("password_file", &mut read.redis.password_file);
            redis.setting("tls_ca", &mut read.redis.tls_ca);
            redis.setting("tls_cert", &mut read.redis.tls_cert);
            redis.setting("tls_key", &mut read.redis.tls_key);
            redis.setting("pool_size", &mut read.redis.pool_size);
            redis.setting("replicas", &mut read.redis.replicas);
            redis.setting("replicas_timeout", &mut read.redis.replicas_timeout);
            redis.setting("mode", &mut read.redis.mode);
            redis.setting("nodes", &mut read.redis.nodes);
            let sentinel = &mut read.redis.sentinel;
            redis.section("sentinel", |section| {
                section.setting("master", &mut sentinel.master);
                section.setting("nodes", &mut sentinel.nodes);
                section.setting("username", &mut sentinel.username);
                section.setting("password", &mut sentinel.password);
                section.setting("password_file", &mut sentinel.password_file);
                section.setting("tls", &mut sentinel.tls);
                section.setting("tls_ca", &mut sentinel.tls_ca);
                section.setting("tls_cert", &mut sentinel.tls_cert);
                section.setting("tls_key", &mut sentinel.tls_key);
            });
        });
        root.section("worker", |worker| {
            worker.setting("group", &mut read.worker.group);
            worker.setting("streams", &mut read.worker.streams);
            worker.setting("concurrency", &mut read.worker.concurrency);
            worker.setting("prefetch", &mut read.worker.prefetch);
            worker.setting("lease", &mut read.worker.lease);
            worker.setting("drain", &mut read.worker.drain);
            worker.setting("unhandled", &mut read.worker.unhandled);
            worker.setting("unhandled_after", &mut read.worker.unhandled_after);
            worker.setting("start", &mut read.worker.start);
        });
        root.section("retry", |retry| {
            retry.setting("max_attempts", &mut read.retry.max_attempts);
            retry.backoff(&mut read.retry.backoff);
            retry.setting("on_crash", &mut read.retry.on_crash);
        });
        root.section("defaults", |defaults| {
            defaults.setting("timeout", &mut read.defaults.timeout);
            defaults.setting("grace", &mut read.defaults.grace);
            defaults.setting("deduplicate", &mut read.defaults.deduplicate);
            defaults.limits(&mut read.defaults);
            let mut breaker = BreakerSettings::default();
            let is_there = defaults.has("circuit_breaker");
            defaults.section("circuit_breaker", |section| section.breaker(&mut breaker));
            read.defaults.circuit_breaker = is_there.then_some(breaker);
        });
        let inherited = (read.retry.backoff, read.defaults.circuit_breaker);
        root.sections("handlers", |name, section| {
            let handler = section.handler(inherited);
            read.handlers.insert(name.to_owned(), handler);
        });
        root.sections("targets", |name, section| {
            let mut target = TargetSettings::default();
            target.read(section);
            read.targets.insert(name.to_owned(), target);
        });
        root.sections("breakers", |name, section| {
            let mut breaker = BreakerSettings::default();
            section.breaker(&mut breaker);
            read.breakers.insert(name.to_owned(), breaker);
        });
        root.sections("cron", |name, section| {
            let mut cron = CronSettings::default();
            cron.read(section);
            read.cron.insert(name.to_owned(), cron);
        });
        root.sections("projections", |name, section| {
            let mut projection = ProjectionSettings::default();
            section.setting("on_bad_event", &mut projection.on_bad_event);
            read.projections.insert(name.to_owned(), projection);
        });
        root.sections("streams", |name, section| {
            let mut stream = StreamSettings::default();
            section.setting("start", &mut stream.start);
            section.setting("retention", &mut stream.retention);
            section.setting("force", &mut stream.force);
            section.setting("partitions", &mut stream.partitions);
            section.setting("order", &mut stream.order);
            section.setting("on_dead", &mut stream.on_dead);
            read.streams.insert(name.to_owned(), stream);
        });
        root.section("dead_letters", |dead| {
            dead.setting("keep", &mut read.dead_letters.keep);
            dead.setting("warn_at", &mut read.dead_letters.warn_at);
        });
        root.section("telemetry", |telemetry| {
            telemetry.setting("listen", &mut read.telemetry.listen);
            telemetry.setting("token", &mut read.telemetry.token);
            telemetry.setting("token_file", &mut read.telemetry.token_file);
            telemetry.setting("trace", &mut read.telemetry.trace);
            let otlp = &mut read.telemetry.otlp;
            telemetry.section("otlp", |section| {
                section.setting("endpoint", &mut otlp.endpoint);
                section.setting("headers", &mut otlp.headers);
                section.setting("headers_file", &mut otlp.headers_file);
                section.setting("tls_ca", &mut otlp.tls_ca);
                section.setting("interval", &mut otlp.interval);
                section.setting("timeout", &mut otlp.timeout);
                section.setting("sample", &mut otlp.sample);
                section.setting("service", &mut otlp.service);
            });
        });
        root.section("web", |web| web.web(&mut read.web));
        root.section("alerts", |alerts| read.alerts.read(alerts));
        root.section("pulse", |pulse| {
            pulse.setting("enabled", &mut read.pulse.enabled);
            pulse.setting("every", &mut read.pulse.every);
        });
        root.free("app", &mut read.app);
        root.finish();
        read
    }
}

impl Section<'_, '_> {
    /// Reads a backoff; what it does not say stays as it is.
    fn backoff(&mut self, into: &mut Backoff) {
        self.section("backoff", |section| {
            section.setting("initial", &mut into.initial);
            section.setting("factor", &mut into.factor);
            section.setting("max", &mut into.max);
            section.setting("jitter", &mut into.jitter);
        });
    }

    /// Reads a circuit breaker; what it does not say stays as it is.
    fn breaker(&mut self, into: &mut BreakerSettings) {
        self.setting("enabled", &mut into.enabled);
        self.setting("failures", &mut into.failures);
        self.setting("failure_rate", &mut into.failure_rate);
        self.setting("window", &mut into.window);
        self.setting("minimum", &mut into.minimum);
        self.setting("open_for", &mut into.open_for);
        self.setting("probes", &mut into.probes);
        self.setting("scope", &mut into.scope);
        self.setting("counts", &mut into.counts);
    }

    fn limits(&mut self, into: &mut HandlerSettings) {
        self.setting("concurrency", &mut into.concurrency);
        self.setting("concurrency_scope", &mut into.concurrency_scope);
        self.setting("rate", &mut into.rate);
        self.setting("rate_scope", &mut into.rate_scope);
    }

    fn web(&mut self, into: &mut WebSettings) {
        self.setting("listen", &mut into.listen);
        self.setting("prefix", &mut into.prefix);
        self.setting("hosts", &mut into.hosts);
        self.setting("proxies", &mut into.proxies);
        self.setting("identity_header", &mut into.identity_header);
        self.setting("role", &mut into.role);
        self.setting("redact", &mut into.redact);
        self.section("redis", |redis| {
            redis.setting("url", &mut into.redis.url);
            redis.setting("username", &mut into.redis.username);
            redis.setting("password", &mut into.redis.password);
            redis.setting("password_file", &mut into.redis.password_file);
        });
        self.sections("users", |name, section| {
            let mut user = WebUser::default();
            section.setting("role", &mut user.role);
            section.setting("password_hash", &mut user.password_hash);
            section.setting("token", &mut user.token);
            section.setting("token_file", &mut user.token_file);
            section.values("streams", |stream, role| {
                user.streams.insert(stream.to_owned(), role);
            });
            into.users.insert(name.to_owned(), user);
        });
    }

    fn handler(&mut self, inherited: (Backoff, Option<BreakerSettings>)) -> HandlerSettings {
        let mut handler = HandlerSettings::default();
        self.setting("target", &mut handler.target);
        self.setting("timeout", &mut handler.timeout);
        self.setting("grace", &mut handler.grace);
        self.setting("deduplicate", &mut handler.deduplicate);
        self.setting("max_attempts", &mut handler.max_attempts);
        self.setting("on_crash", &mut handler.on_crash);
        self.limits(&mut handler);
        self.section("batch", |batch| {
            batch.setting("size", &mut handler.batch.size);
            batch.setting("bytes", &mut handler.batch.bytes);
            batch.setting("wait", &mut handler.batch.wait);
        });
        if self.has("backoff") {
            let mut backoff = inherited.0;
            self.backoff(&mut backoff);
            handler.backoff = Some(backoff);
        } else {
            self.keys.push("backoff");
        }
        if self.has("circuit_breaker") {
            let mut breaker = inherited.1.unwrap_or_default();
            self.section("circuit_breaker", |section| section.breaker(&mut breaker));
            handler.circuit_breaker = Some(breaker);
        } else {
            self.keys.push("circuit_breaker");
        }
        handler
    }
}
