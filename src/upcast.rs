//! Upcasters: the steps that bring the data of an older version of an event to the version its handler takes.
//!
//! A step goes from encoded data to encoded data, in the format the event came in, and its user's types say how it is
//! read and written between: what MessagePack can hold and JSON can't (bytes, maps by number) survives if they have
//! room for it, and is refused, not bent, if they have none.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, Format};
use crate::event::Envelope;
use crate::failure::{Failure, panic_message};

/// The upcasters of every type that has some.
#[derive(Default)]
pub(crate) struct Upcasters {
    chains: HashMap<String, Chain>,
    problems: Vec<String>,
}

/// The upcasters of one type.
struct Chain {
    event_type: String,
    /// The version they lead to.
    version: u32,
    /// By the version they begin at.
    steps: BTreeMap<u32, Step>,
}

struct Step {
    place: &'static Location<'static>,
    run: Run,
}

/// From data of one version to data of the next, in the same format, or why not.
type Run = Box<dyn Fn(Format, &[u8]) -> Result<Vec<u8>, String> + Send + Sync>;

impl Upcasters {
    /// Adds the step from version `from` to the next of a type whose version is `version` by now.
    pub fn add<In, Out, F>(
        &mut self,
        event_type: &str,
        version: u32,
        from: u32,
        place: &'static Location<'static>,
        step: F,
    ) where
        In: DeserializeOwned,
        Out: Serialize,
        F: Fn(In) -> Result<Out, Failure> + Send + Sync + 'static,
    {
        let chain = self
            .chains
            .entry(event_type.to_owned())
            .or_insert_with(|| Chain {
                event_type: event_type.to_owned(),
                version,
                steps: BTreeMap::new(),
            });
        let mut refuse = |why: String| self.problems.push(format!("{place}: {event_type} {why}"));
        if version != chain.version {
            let known = chain.version;
            refuse(format!(
                "has the version {version} here and {known} at another of its upcasters"
            ));
        } else if from == 0 || from >= version {
            refuse(format!(
                "has no upcaster from version {from}: they begin at 1 to {}, below Event::VERSION, {version}",
                version.saturating_sub(1)
            ));
        } else if let Some(first) = chain.steps.get(&from) {
            let first = first.place;
            refuse(format!(
                "has an upcaster from version {from} already, registered at {first}"
            ));
        } else {
            let run: Run = Box::new(move |format, data| run(&step, format, data));
            chain.steps.insert(from, Step { place, run });
        }
    }

    /// All that is wrong with them. `handler` answers the version that a type's handler takes, None if there is
    /// none, and [`u32::MAX`] where it takes the data undecoded.
    pub fn problems(&self, handler: impl Fn(&str) -> Option<u32>) -> Vec<String> {
        let mut problems = self.problems.clone();
        let mut chains: Vec<_> = self.chains.values().collect();
        chains.sort_by_key(|chain| &chain.event_type);
        for chain in chains {
            let Chain {
                event_type,
                version,
                steps,
            } = chain;
            for (from, step) in steps {
                let (place, next) = (step.place, from + 1);
                if next < *version && !steps.contains_key(&next) {
                    problems.push(format!(
                        "{place}: {event_type} has an upcaster to version {next}, and none from there to {}",
                        next + 1
                    ));
                }
            }
            let Some(place) = steps.values().next().map(|step| step.place) else {
                continue;
            };
            match handler(event_type) {
                Some(taken) if taken == *version => {}
                Some(u32::MAX) => problems.push(format!(
                    "{place}: {event_type} has upcasters, and a handler that takes its data as it is"
                )),
                Some(taken) => problems.push(format!(
                    "{place}: {event_type} has upcasters to version {version}, and a handler of version {taken}"
                )),
                None => problems.push(format!(
                    "{place}: {event_type} has upcasters, and no handler or aggregate"
                )),
            }
        }
        problems
    }

    /// The version that the upcasters of a type lead to.
    pub fn version(&self, event_type: &str) -> Option<u32> {
        self.chains.get(event_type).map(|chain| chain.version)
    }

    /// The event's data as it is in the version its type's upcasters lead to, in its own format; None if it is of
    /// that version, or its type has no upcasters.
    pub fn upcast(&self, envelope: &Envelope) -> Result<Option<Vec<u8>>, Failure> {
        match self.chains.get(envelope.event_type()) {
            Some(chain) => chain.upcast(envelope),
            None => Ok(None),
        }
    }
}

impl Chain {
    fn upcast(&self, envelope: &Envelope) -> Result<Option<Vec<u8>>, Failure> {
        let version = envelope.version();
        if version >= self.version {
            return Ok(None);
        }
        let event_type = &self.event_type;
        let format = codec::format(envelope.content_type()).map_err(Failure::undecodable)?;
        let mut upcast = None;
        if !self.steps.contains_key(&version) {
            return Err(Failure::undecodable(format!(
                "version {version} of {event_type} is older than all its upcasters"
            )));
        }
        for (from, step) in self.steps.range(version..) {
            let data = upcast.as_deref().unwrap_or(envelope.data());
            let next = (step.run)(format, data).map_err(|error| {
                let (to, place) = (from + 1, step.place);
                Failure::undecodable(format!(
                    "the upcaster of {event_type} from version {from} to {to} ({place}) failed: {error}"
                ))
            })?;
            upcast = Some(next);
        }
        Ok(upcast)
    }
}

fn run<In: DeserializeOwned, Out: Serialize>(
    step: &impl Fn(In) -> Result<Out, Failure>,
    format: Format,
    data: &[u8],
) -> Result<Vec<u8>, String> {
    // What a panic leaves behind is the step's own business, as with a handler.
    catch_unwind(AssertUnwindSafe(|| {
        let old = codec::decode_as(format, data).map_err(|error| error.to_string())?;
        let new = step(old).map_err(|failure| failure.to_string())?;
        codec::encode(format, &new).map_err(|error| error.to_string())
    }))
    .unwrap_or_else(|panic| Err(format!("it panicked: {}", panic_message(panic))))
}
