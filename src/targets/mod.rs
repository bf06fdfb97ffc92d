//! Targets: handlers in any language, by the configuration alone. A target is an address that events are posted to, or a
//! command whose processes take them. Each handler that names one is registered here as if it were a function, so that
//! retries, breakers, rates and all the rest hold for it as for any other.
//!
//! How an event gets there and back is of its kind; what comes of it is the same for all: an [`Outcome`].

mod answer;
mod command;
mod http;
mod judge;
mod once;
mod outcome;
mod output;
mod pool;
mod process;
mod request;
mod transcode;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::breaker::Said;
use crate::config::{HandlerPolicy, Settings, TargetSettings};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::failure::Failure;
use crate::handler::Registry;
use crate::sync::lock;
use outcome::Outcome;
use request::Request;

/// How long it may take to find out whether a target can be connected to.
const CONNECT: Duration = Duration::from_secs(5);

/// Who handles events in place of a function.
struct Target {
    name: String,
    kind: Kind,
    /// What it answered, and since when, if it is no target at all.
    wrong: Mutex<Option<Wrong>>,
    /// For how long events wait for one that is wrong to be mended.
    unhandled_after: Duration,
}

struct Wrong {
    since: Instant,
    why: String,
}

enum Kind {
    Http(Box<http::Http>),
    Command(Arc<command::Command>),
}

/// Registers the handlers whose settings name a target. Those of a registry that has been here stay as they are.
///
/// # Errors
/// If a target can't be made by its settings.
pub(crate) fn register(mut registry: Registry, settings: &Settings) -> Result<Registry> {
    if registry.has_targets() {
        return Ok(registry);
    }
    let mut targets: HashMap<&str, Arc<Target>> = HashMap::new();
    for (event_type, handler) in &settings.handlers {
        let Some(name) = &handler.target else {
            continue;
        };
        let target = match targets.get(&name[..]) {
            Some(target) => target.clone(),
            None => {
                let target = Arc::new(Target::new(name, settings)?);
                if let Kind::Command(command) = &target.kind {
                    registry = registry.with_companion(command.clone());
                }
                targets.insert(name, target.clone());
                target
            }
        };
        let policy = settings.policy(event_type);
        registry = registry.on_raw(event_type, move |_, ctx| {
            let target = target.clone();
            async move { target.handle(&ctx, &policy).await }
        });
    }
    Ok(registry.with_targets())
}

/// Whether any handler is a target's.
pub(crate) fn any(settings: &Settings) -> bool {
    let mut handlers = settings.handlers.values();
    handlers.any(|handler| handler.target.is_some())
}

/// Which targets of handlers can't be connected to, and why. No event is sent.
pub(crate) async fn connect(settings: &Settings) -> Result<Vec<String>> {
    let handlers = settings.handlers.values();
    let names: BTreeSet<&str> = handlers
        .filter_map(|handler| handler.target.as_deref())
        .collect();
    let mut wrong = Vec::new();
    for name in names {
        let target = Target::new(name, settings)?;
        if let Err(why) = target.kind.connect(CONNECT).await {
            wrong.push(format!("the target {name}: {why}"));
        }
    }
    Ok(wrong)
}

impl Target {
    fn new(name: &str, settings: &Settings) -> Result<Self> {
        let invalid = |why: String| {
            let message = format!("the target {name:?}: {why}");
            Error::new(ErrorKind::Invalid, message)
        };
        let Some(of_target) = settings.targets.get(name) else {
            return Err(invalid(format!("there is no section [targets.{name}]")));
        };
        Ok(Target {
            name: name.to_owned(),
            kind: Kind::new(name, of_target).map_err(invalid)?,
            wrong: Mutex::new(None),
            unhandled_after: settings.worker.unhandled_after,
        })
    }

    /// Has it handle an event, as a handler here would.
    async fn handle(&self, ctx: &Context, policy: &HandlerPolicy) -> Result<(), Failure> {
        let call = async {
            let request = Request::of(ctx, policy.timeout);
            self.kind.call(&request, ctx, policy.timeout).await
        };
        let breaker = ctx.breaker(&self.name);
        let outcome = match breaker
            .call_judged(call, |outcome| self.said(outcome))
            .await
        {
            Ok(outcome) => outcome,
            Err(retry_in) => return Err(self.is_open(ctx, retry_in)),
        };
        if outcome.shows_it_right() {
            *lock(&self.wrong) = None;
        }
        match outcome {
            Outcome::Answered(answer) => answer.follow(ctx),
            Outcome::Permanent(why) => Err(Failure::permanent(why)),
            Outcome::Later { after, why } => {
                let backoff = policy.backoff.delay(ctx.attempt(), fastrand::f64());
                Err(Failure::later(after.max(backoff), why))
            }
            Outcome::Failed { why, counts } => {
                let failure = Failure::retry(why);
                Err(if counts { failure } else { failure.uncounted() })
            }
            Outcome::WrongTarget(why) => {
                let wrong = &mut *lock(&self.wrong);
                let since = wrong
                    .as_ref()
                    .map_or_else(Instant::now, |wrong| wrong.since);
                let wrong = wrong.insert(Wrong { since, why });
                Err(self.waits(ctx, wrong, breaker.open_for()))
            }
        }
    }

    /// What an outcome says to the target's breaker.
    fn said(&self, outcome: &Outcome) -> Said {
        match outcome {
            Outcome::Answered(_) | Outcome::Permanent(_) => Said::Works,
            Outcome::Later { .. } | Outcome::Failed { counts: false, .. } => Said::Nothing,
            Outcome::Failed { .. } => Said::Fails,
            Outcome::WrongTarget(why) => Said::Opens(why.clone()),
        }
    }

    /// The breaker is open: nothing was tried.
    fn is_open(&self, ctx: &Context, retry_in: Duration) -> Failure {
        match &*lock(&self.wrong) {
            Some(wrong) => self.waits(ctx, wrong, retry_in),
            None => {
                let error = format!("the circuit breaker {} is open", self.name);
                Failure::breaker_open(retry_in, error)
            }
        }
    }

    /// The event waits for the target to be mended, and is buried once both have been waiting for long enough.
    fn waits(&self, ctx: &Context, wrong: &Wrong, retry_in: Duration) -> Failure {
        let error = format!("the target {} is wrong: {}", self.name, wrong.why);
        let waited = wrong.since.elapsed().min(ctx.age());
        match self.unhandled_after.checked_sub(waited) {
            None | Some(Duration::ZERO) => Failure::unhandled(error),
            // A whole second more, for ages are counted in them.
            Some(left) => {
                let left = left + Duration::from_secs(1);
                Failure::breaker_open(retry_in.min(left), error)
            }
        }
    }
}

impl Kind {
    fn new(name: &str, settings: &TargetSettings) -> std::result::Result<Self, String> {
        match settings.address()? {
            Some(address) => Ok(Kind::Http(Box::new(http::Http::new(&address, settings)?))),
            None if settings.command.is_empty() => {
                Err("it has neither an address nor a command".to_owned())
            }
            None => Ok(Kind::Command(Arc::new(command::Command::new(
                name, settings,
            )))),
        }
    }

    async fn connect(&self, timeout: Duration) -> std::result::Result<(), String> {
        match self {
            Kind::Http(http) => http.connect(timeout).await,
            Kind::Command(command) => command.is_there(),
        }
    }

    async fn call(&self, request: &Request, ctx: &Context, timeout: Duration) -> Outcome {
        match self {
            Kind::Http(http) => http.call(request, timeout).await,
            Kind::Command(command) => command.call(request, ctx).await,
        }
    }
}
