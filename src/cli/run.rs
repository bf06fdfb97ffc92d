//! `run`: works until it is told to stop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use clap::Args;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{CommandError, told_to_stop};
use crate::alerts::Alerts;
use crate::config::Settings;
use crate::handler::Registry;
use crate::web::Web;
use crate::worker::{Observer, Summary, Worker};

/// What `run` does besides: who watches it, and what goes before and after its work.
#[derive(Default)]
pub(super) struct Hooks {
    pub observer: Option<Arc<dyn Observer>>,
    pub on_start: Vec<Hook<Settings>>,
    pub on_stop: Vec<Hook<Summary>>,
}

pub(super) type Hook<T> = Box<dyn FnOnce(T) -> CommandFuture>;

pub(super) type CommandFuture = Pin<Box<dyn Future<Output = Result<(), CommandError>>>>;

#[derive(Args)]
pub(super) struct RunArgs {
    /// The group to work in, in place of worker.group
    #[arg(long)]
    group: Option<String>,
    /// A stream to read, in place of worker.streams; may be given several times
    #[arg(long, value_name = "STREAM")]
    stream: Vec<String>,
}

impl RunArgs {
    /// What is set by them.
    pub fn settings(&self) -> Vec<(String, String)> {
        let mut set = Vec::new();
        if let Some(group) = &self.group {
            set.push(("worker.group".to_owned(), group.clone()));
        }
        if !self.stream.is_empty() {
            let streams = toml::Value::from(self.stream.clone());
            set.push(("worker.streams".to_owned(), streams.to_string()));
        }
        set
    }
}

/// What a program has to say that has nothing to run.
pub(super) fn no_handlers() -> CommandError {
    CommandError::usage(
        "this program has no handlers, so it would take no event: name a target for a type of events in its configuration, \
         `[handlers.\"order.created\"] target = \"billing\"` and `[targets.billing] url = \"https://host/path\"`; or make a \
         program of your own with the crate streamhand: \
         `fn main() -> ExitCode { streamhand::cli::run(Registry::new().on(handler)) }`",
    )
}

pub(super) async fn run(
    settings: Settings,
    registry: Registry,
    version: Option<&str>,
    hooks: Hooks,
) -> Result<(), CommandError> {
    let Hooks {
        observer,
        on_start,
        on_stop,
    } = hooks;
    let pages = match settings.web.listen {
        Some(_) => Some(Web::new(&settings)?.knowing(&registry)?),
        None => None,
    };
    let mut worker = Worker::new(settings.clone(), registry)?
        .watched_by(observer)
        .telling_systemd();
    if let Some(version) = version {
        worker = worker.version(version);
    }
    let stop = told_to_stop("; other workers take over what was running")?;
    for hook in on_start {
        hook(settings.clone()).await?;
    }
    let pages = pages.map(Pages::serve);
    let watching = Alerts::new(&settings)?.map(Alerts::beside).transpose()?;
    let summary = worker.run(stop).await;
    drop(watching);
    if let Some(pages) = pages {
        pages.stop().await;
    }
    let summary = summary?;
    let mut ended = Ok(());
    for hook in on_stop {
        let result = hook(summary).await;
        ended = ended.and(result);
    }
    ended?;
    match summary.unsettled {
        0 => Ok(()),
        unsettled => Err(CommandError::failed(format!(
            "{unsettled} entries could not be settled before the end; other workers take them over"
        ))),
    }
}

/// The pages that are served beside the work.
struct Pages {
    stop: oneshot::Sender<()>,
    served: JoinHandle<crate::Result<()>>,
}

impl Pages {
    fn serve(web: Web) -> Self {
        tracing::info!(address = %web.address(), "serving the pages to watch and operate the group by");
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(web.run(async {
            let _ = stopped.await;
        }));
        Pages { stop, served }
    }

    /// They are there until the worker has ended: one sees it drain.
    async fn stop(self) {
        drop(self.stop);
        // The worker is what this program is for.
        if let Ok(Err(error)) = self.served.await {
            tracing::warn!("the pages are gone: {error}");
        }
    }
}
