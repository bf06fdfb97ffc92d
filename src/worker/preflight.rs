//! What is known of a worker before it connects: what it is refused for, and what is set up for nothing. A worker that
//! starts and `config check` both ask here, so that they can't come to differ.

use crate::config::{Settings, nearest};
use crate::error::{Error, ErrorKind, Result};
use crate::eventstore::projection::Registered;
use crate::handler::{self, Registry};
use crate::stream::Connector;

/// What was found.
pub(crate) struct Preflight {
    /// Why no worker can be made of this.
    pub refused: Vec<Error>,
    /// What one can be made of and is most likely not meant: a name is misspelt.
    pub warnings: Vec<String>,
}

/// Looks through the settings, the registry, and whether they fit together.
pub(crate) fn preflight(settings: &Settings, registry: &Registry) -> Preflight {
    let projections = registry.projections();
    let checks = [
        is_set("group", settings.worker.group.is_empty(), "\"shipping\""),
        is_set(
            "streams",
            settings.worker.streams.is_empty(),
            "[\"orders\"]",
        ),
        registry.check(),
        registry.aggregates().check_group(&settings.worker),
        handler::crons(settings, registry.crons(), "").map(drop),
        can_tell(settings),
        can_call(settings),
        can_batch(settings, registry),
        Connector::new(&settings.redis).map(drop),
        #[cfg(feature = "telemetry")]
        crate::otlp::check(&settings.telemetry.otlp),
    ];
    let of_projections = projections
        .iter()
        .map(|projection| check_projection(projection, &settings.worker.group));
    Preflight {
        refused: checks
            .into_iter()
            .chain(of_projections)
            .filter_map(Result::err)
            .collect(),
        warnings: idle(settings, registry),
    }
}

impl Preflight {
    /// The warnings; all that was refused is one error.
    pub fn passed(self) -> Result<Vec<String>> {
        let mut refused = self.refused.into_iter();
        let Some(first) = refused.next() else {
            return Ok(self.warnings);
        };
        let rest: Vec<String> = refused.map(|error| error.to_string()).collect();
        if rest.is_empty() {
            return Err(first);
        }
        let message = format!("{first}\n{}", rest.join("\n"));
        Err(Error::new(first.kind(), message))
    }
}

/// Refuses what has no default, for nobody but the user knows it.
fn is_set(key: &str, is_unset: bool, example: &str) -> Result<()> {
    if !is_unset {
        return Ok(());
    }
    let (flag, variable) = (key.trim_end_matches('s'), key.to_uppercase());
    let message = format!(
        "worker.{key} is not set: write `{key} = {example}` in [worker] of config.toml, set STREAMHAND_WORKER__{variable}, \
         or give run a --{flag}"
    );
    Err(Error::new(ErrorKind::Invalid, message))
}

/// Refuses to be silent where it was asked to tell.
fn can_tell(settings: &Settings) -> Result<()> {
    let is_asked = settings.telemetry.listen.address().is_some();
    if !is_asked || cfg!(feature = "telemetry") {
        return Ok(());
    }
    let message = "telemetry.listen is set, and this program was built without the feature `telemetry` of streamhand";
    Err(Error::new(ErrorKind::Invalid, message))
}

/// Refuses handlers in other languages where nothing can call them.
fn can_call(settings: &Settings) -> Result<()> {
    let of_targets = settings.handlers.iter();
    let mut of_targets = of_targets.filter(|(_, handler)| handler.target.is_some());
    let Some((event_type, _)) = of_targets.next().filter(|_| !cfg!(feature = "telemetry")) else {
        return Ok(());
    };
    let message = format!(
        "handlers.{event_type:?}.target is set, and this program was built without the feature `telemetry` of streamhand"
    );
    Err(Error::new(ErrorKind::Invalid, message))
}

/// Refuses batches that can't be, and those of handlers that take events one by one.
fn can_batch(settings: &Settings, registry: &Registry) -> Result<()> {
    let mut wrong = Vec::new();
    for (event_type, own) in &settings.handlers {
        let route = registry.route(event_type);
        if !own.batch.is_unset() && route.is_some_and(|route| route.batch.is_none()) {
            wrong.push(format!(
                "[handlers.{event_type:?}] batch has no effect: its handler takes events one by one; a function that takes \
                 many is registered by on_batch"
            ));
        }
    }
    for (event_type, batch, place) in registry.batches() {
        let limits = settings.batch(event_type, batch.limits);
        for (key, why) in limits.wrong(settings.worker.lease, settings.worker.prefetch) {
            wrong.push(format!(
                "{place}: the batches of {event_type}: {key}: {why}"
            ));
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Invalid, wrong.join("\n"))),
    }
}

fn check_projection(projection: &Registered, group: &str) -> Result<()> {
    projection.public()?;
    if projection.name == group {
        let message = format!(
            "{}: the projection {group} is called like worker.group: rename one of them",
            projection.place
        );
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

fn idle(settings: &Settings, registry: &Registry) -> Vec<String> {
    let mut warnings = Vec::new();
    let projections = || registry.projections().iter().map(|one| one.name);
    if registry.event_types().next().is_none() && projections().next().is_none() {
        warnings.push("no handler is registered: no event can be handled here".to_owned());
    }
    for name in settings.handlers.keys() {
        if registry.route(name).is_none() {
            let meant = meant(nearest::of(name, registry.event_types()));
            warnings.push(format!(
                "[handlers.{name:?}] has no effect here: no handler is registered for that type{meant}"
            ));
        }
    }
    for name in settings.projections.keys() {
        if !projections().any(|known| known == name) {
            let meant = meant(nearest::of(name, projections()));
            warnings.push(format!(
                "[projections.{name:?}] has no effect here: no such projection is registered{meant}"
            ));
        }
    }
    for (name, cron) in &settings.cron {
        let event_type = &cron.event_type;
        if registry.route(event_type).is_none() && !registry.is_ignored(event_type) {
            let meant = meant(nearest::of(event_type, registry.event_types()));
            warnings.push(format!(
                "[cron.{name:?}] publishes {event_type}, and no handler is registered for that type{meant}"
            ));
        }
    }
    let streams = &settings.worker.streams;
    for (name, of) in &settings.streams {
        // How many partitions a topic has is said to whoever publishes to it as well.
        if !streams.contains(name) && of.partitions.is_none() {
            let meant = meant(nearest::of(name, streams.iter().map(String::as_str)));
            warnings.push(format!(
                "[streams.{name:?}] has no effect here: worker.streams does not name it{meant}"
            ));
        }
    }
    warnings
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}
