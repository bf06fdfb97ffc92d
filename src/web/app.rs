//! What the pages have in common.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::command::CommandLine;
use super::problem::Problem;
use super::redact::Redaction;
use super::said::Said;
use super::visit::{Visit, Wants};
use crate::admin::{Admin, Aggregates, Status};
use crate::config::Settings;
use crate::error::Result;

/// What was read is not read again for so long: an open page is made anew each second, and many may be open.
const FRESH: Duration = Duration::from_millis(900);

/// What the pages have in common. Cheap to clone.
#[derive(Clone)]
pub(super) struct App(Arc<Inner>);

struct Inner {
    admin: Admin,
    settings: Settings,
    access: Access,
    redaction: Redaction,
    said: Said,
    status: Shared<Status>,
    stop: CancellationToken,
    aggregates: Option<Aggregates>,
}

/// What all who look share: read once, by the first of them, for all who ask within a second.
pub(super) struct Shared<T>(Mutex<Option<(Instant, Result<Arc<T>, Problem>)>>);

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
        Ok(App(Arc::new(Inner {
            admin: Admin::new(&own)?,
            access: Access::new(&own.web)?,
            redaction: Redaction::new(&own.web.redact),
            said: Said::default(),
            status: Shared::default(),
            settings: own,
            stop,
            aggregates,
        })))
    }

    /// The group that the pages show.
    pub fn admin(&self) -> &Admin {
        &self.0.admin
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

    /// Is over when the pages are to stop.
    pub fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// How the group is doing, shared by all who look.
    pub async fn status(&self) -> Result<Arc<Status>, Problem> {
        self.0.status.get(|| self.0.admin.status()).await
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
    pub async fn get<F>(&self, read: impl FnOnce() -> F) -> Result<Arc<T>, Problem>
    where
        F: Future<Output = Result<T>>,
    {
        let mut known = self.0.lock().await;
        if let Some((at, known)) = &*known
            && at.elapsed() < FRESH
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
