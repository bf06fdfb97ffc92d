//! What the pages have in common.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex as StdMutex, RwLock};
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::response::{IntoResponse, Response};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::command::CommandLine;
use super::counting::Counting;
use super::past::Past;
use super::problem::Problem;
use super::range;
use super::redact::Redaction;
use super::said::Said;
use super::seconds::Seconds;
use super::trend::{Samples, Waited};
use super::visit::{Visit, Wants};
use crate::admin::{Admin, Aggregates, Fleet, StandingOrder, Status, StreamStatus};
use crate::config::Settings;
use crate::error::Result;
use crate::handler::Registry;
use crate::sync::{lock, read, write};

/// What was read is not read again for so long: an open page is made anew each second, and many may be open.
const FRESH: Duration = Duration::from_millis(900);
/// Nor what goes back for days, for so long.
const LONGEST_FRESH: Duration = Duration::from_secs(60);
/// The slot that has just begun belongs to it as well.
const FUTURE: Duration = Duration::from_secs(60);

/// What the pages have in common. Cheap to clone.
#[derive(Clone)]
pub(super) struct App(Arc<Inner>);

struct Inner {
    /// With what its topics had grown to when that was last looked at.
    admin: RwLock<Arc<Admin>>,
    grown: Shared<()>,
    settings: Settings,
    access: Access,
    redaction: Redaction,
    said: Said,
    status: Shared<Status>,
    fleet: Shared<Fleet>,
    orders: Shared<Vec<StandingOrder>>,
    pasts: StdMutex<BTreeMap<&'static str, Arc<Shared<Past>>>>,
    seconds: Arc<Seconds>,
    /// What waited when, by stream.
    waited: StdMutex<Waited>,
    stop: CancellationToken,
    aggregates: Option<Aggregates>,
    /// Dead letters by what they have in common.
    counting: Counting,
    /// Whose handlers say whether they could decode an edited letter.
    registry: std::sync::OnceLock<Arc<Registry>>,
}

/// What all who look share: read once, by the first of them, for all who ask within a second.
pub(super) struct Shared<T>(Mutex<Option<Read<T>>>);

/// When it was read, and what came of it.
type Read<T> = (Instant, Result<Arc<T>, Problem>);

/// Something that is done, and why.
pub(super) struct Act {
    /// What does the same.
    pub command: CommandLine,
    pub reason: String,
    /// The page to go on with, as `visit.to` has it.
    pub back: String,
}

impl App {
    /// # Errors
    /// Where the settings can't be used.
    pub fn new(
        settings: &Settings,
        aggregates: Option<Aggregates>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let mut own = settings.clone();
        own.redis = settings.web.redis.over(&settings.redis);
        if let Some(file) = &own.redis.password_file
            && settings.web.redis.password_file.is_some()
        {
            let read = crate::config::password_in(file);
            let read = read.map_err(|(_, why)| {
                let message = format!("web.redis.password_file: {why}");
                crate::Error::new(crate::ErrorKind::Invalid, message)
            })?;
            own.redis.password = Some(read);
        }
        let admin = Admin::new(&own)?;
        Ok(App(Arc::new(Inner {
            access: Access::new(&own.web)?,
            redaction: Redaction::new(&own.web.redact),
            said: Said::default(),
            status: Shared::default(),
            fleet: Shared::default(),
            orders: Shared::default(),
            pasts: StdMutex::default(),
            seconds: Arc::new(Seconds::new(admin.live())),
            waited: StdMutex::default(),
            admin: RwLock::new(Arc::new(admin)),
            grown: Shared::default(),
            settings: own,
            stop,
            aggregates,
            counting: Counting::default(),
            registry: std::sync::OnceLock::new(),
        })))
    }

    /// The group that the pages show.
    pub fn admin(&self) -> Arc<Admin> {
        read(&self.0.admin).clone()
    }

    /// Looks whether topics have grown, for all who come within a second.
    pub async fn follow_topics(&self) {
        let look = || async {
            let (admin, grown) = (self.admin(), self.admin().as_grown().await);
            if grown.streams() != admin.streams() {
                *write(&self.0.admin) = Arc::new(grown);
            }
            Ok(())
        };
        // It does not fail.
        let _ = self.0.grown.get(FRESH, look).await;
    }

    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub fn access(&self) -> &Access {
        &self.0.access
    }

    /// The names that the pages are reached by.
    pub fn hosts(&self) -> &[String] {
        &self.0.settings.web.hosts
    }

    /// What nobody is shown of events.
    pub fn redaction(&self) -> &Redaction {
        &self.0.redaction
    }

    pub fn said(&self) -> &Said {
        &self.0.said
    }

    /// The aggregates that the program knows; None where it knows none.
    pub fn aggregates(&self) -> Option<&Aggregates> {
        self.0.aggregates.as_ref()
    }

    /// Has its handlers say whether they could decode an edited letter.
    pub fn know(&self, registry: Arc<Registry>) {
        let _ = self.0.registry.set(registry);
    }

    pub fn registry(&self) -> Option<&Registry> {
        self.0.registry.get().map(|registry| &**registry)
    }

    /// Dead letters by what they have in common, shared by all who look.
    pub fn counting(&self) -> &Counting {
        &self.0.counting
    }

    /// Is over when the pages are to stop.
    pub fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// How the group is doing, shared by all who look.
    pub async fn status(&self) -> Result<Arc<Status>, Problem> {
        self.follow_topics().await;
        let admin = self.admin();
        let status = self.0.status.get(FRESH, || admin.status()).await?;
        if let Some(now) = status.streams.iter().map(|stream| stream.now).max() {
            let at = now.duration_since(UNIX_EPOCH).unwrap_or_default();
            let streams = status.streams.iter();
            let runnable = streams.map(|stream| (stream.stream.clone(), runnable(stream)));
            lock(&self.0.waited).take(at.as_millis() as u64, runnable.collect());
        }
        Ok(status)
    }

    /// What waited of late, of these streams together.
    pub fn waited(&self, streams: &[&str]) -> Samples {
        lock(&self.0.waited).of(streams)
    }

    /// The group's workers, shared by all who look.
    pub async fn fleet(&self) -> Result<Arc<Fleet>, Problem> {
        let admin = self.admin();
        self.0.fleet.get(FRESH, || admin.fleet()).await
    }

    /// What was asked of them.
    pub async fn orders(&self) -> Result<Arc<Vec<StandingOrder>>, Problem> {
        let admin = self.admin();
        self.0.orders.get(FRESH, || admin.orders()).await
    }

    /// Says that somebody looks at what lives: workers tell of themselves each second.
    pub fn look(&self) {
        self.0.seconds.look();
    }

    /// The past as far as a page goes back, shared by all who look.
    pub async fn past(&self, scope: &range::Scope) -> Result<Arc<Past>, Problem> {
        if scope.is_live() {
            return Ok(Arc::new(self.0.seconds.past()));
        }
        self.look();
        let shared = Arc::clone(lock(&self.0.pasts).entry(scope.range).or_default());
        // A day does not change within a second.
        let fresh = FRESH.max((scope.span / 3600).min(LONGEST_FRESH));
        let admin = self.admin();
        let read = || async {
            let now = admin.now().await?;
            let history = admin.history(now - scope.span, now + FUTURE, None).await?;
            Ok(Past::from(history))
        };
        shared.get(fresh, read).await
    }

    /// Does something, which `doing` is, with a note in the audit before it; then leads back with what it said.
    ///
    /// # Errors
    /// Where there is no reason, where the audit can't be written (then nothing was done), or where it fails (then the
    /// audit says so).
    pub async fn act<E: Into<Problem>>(
        &self,
        visit: &Visit,
        act: Act,
        doing: impl Future<Output = Result<String, E>>,
    ) -> Result<Response, Problem> {
        let Act {
            command,
            reason,
            back,
        } = act;
        if reason.trim().is_empty() {
            return Err(Problem::wrong("say why: the reason stands in the audit"));
        }
        let admin = self.admin();
        let who = &visit.who;
        admin
            .audit(who, &command.to_string(), reason.trim(), None)
            .await?;
        let done = doing.await.map_err(Into::into);
        let words = match done {
            Ok(words) => words,
            Err(problem) => {
                let failed = Some(&problem.message[..]);
                // The error itself is what the visitor has to know.
                let _ = admin
                    .audit(who, &command.to_string(), reason.trim(), failed)
                    .await;
                return Err(problem);
            }
        };
        self.0.status.forget().await;
        self.0.fleet.forget().await;
        self.0.orders.forget().await;
        self.0.counting.forget();
        if visit.wants == Wants::Json {
            return Ok(axum::Json(serde_json::json!({ "said": words })).into_response());
        }
        let joint = if back.contains('?') { '&' } else { '?' };
        let number = self.said().keep(words);
        Ok(visit.lead_to(&format!("{back}{joint}said={number}")))
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Shared(Mutex::default())
    }
}

impl<T> Shared<T> {
    /// What was read of late, or else what `read` reads, for all who wait for it.
    pub async fn get<F>(&self, fresh: Duration, read: impl FnOnce() -> F) -> Result<Arc<T>, Problem>
    where
        F: Future<Output = Result<T>>,
    {
        let mut known = self.0.lock().await;
        if let Some((at, known)) = &*known
            && at.elapsed() < fresh
        {
            return known.clone();
        }
        let result = read().await.map(Arc::new).map_err(Problem::from);
        *known = Some((Instant::now(), result.clone()));
        result
    }

    /// What was read is not true any more.
    pub async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

/// What a worker could take up now of a stream.
pub(super) fn runnable(stream: &StreamStatus) -> u64 {
    let group = stream.group.as_ref();
    let lag = group.map_or(stream.length, |group| {
        group.lag.unwrap_or(group.lag_at_least)
    });
    let is_due = stream.next_due == Some(Duration::ZERO);
    lag + stream.replayed + u64::from(is_due)
}
