//! What a pool and the keepers of its children have in common: who waits and who has what, and whether there is anybody to
//! wait for.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::desk::{Desk, Request};
use super::ended::Ended;
use super::outbox::Outbox;
use super::recycling::Recycling;
use crate::context::Context;
use crate::sync::lock;
use crate::targets::process::CommandLine;

/// What a pool is made of.
#[derive(Clone, Debug)]
pub(crate) struct PoolSettings {
    /// The target's name.
    pub target: String,
    pub command: CommandLine,
    pub processes: usize,
    /// A child has to have said hello by then.
    pub start_timeout: Duration,
    pub recycling: Recycling,
}

/// What a pool and the keepers of its children have in common.
pub(super) struct Shared {
    pub settings: PoolSettings,
    pub state: Mutex<State>,
    pub children: AtomicU64,
    pub requests: AtomicU64,
    pub stopping: CancellationToken,
}

pub(super) struct State {
    pub desk: Desk<Outbox>,
    pub broken: Option<String>,
    pub is_stopping: bool,
}

impl Shared {
    pub fn new(settings: PoolSettings) -> Self {
        Shared {
            settings,
            state: Mutex::new(State {
                desk: Desk::new(),
                broken: None,
                is_stopping: false,
            }),
            children: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            stopping: CancellationToken::new(),
        }
    }

    /// An event waits for a child from now on. Returns where its end is told, or that end, if it is known already.
    pub fn hand_in(
        &self,
        ctx: &Context,
        id: u64,
        request: impl FnOnce(u64) -> Vec<u8>,
    ) -> Result<oneshot::Receiver<Ended>, Ended> {
        let mut line = request(id);
        line.push(b'\n');
        let mut state = lock(&self.state);
        if state.is_stopping {
            return Err(Ended::NotBegun("the worker stops".to_owned()));
        }
        if let Some(why) = &state.broken {
            return Err(Ended::WrongTarget(why.clone()));
        }
        let (reply, replied) = oneshot::channel();
        state.desk.wait(Request {
            id,
            line,
            alone: ctx.attempt() > 1 && ctx.is_last_attempt(),
            ctx: ctx.clone(),
            reply,
        });
        state.assign();
        Ok(replied)
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    pub fn stop(&self) {
        let mut state = lock(&self.state);
        state.is_stopping = true;
        state
            .desk
            .dismiss(|| Ended::NotBegun("the worker stops".to_owned()));
        self.stopping.cancel();
    }

    /// No child can be started: what waits is not for this worker, for now.
    pub fn is_broken(&self, why: &str) {
        let mut state = lock(&self.state);
        if !state.desk.has_children() {
            state.broken = Some(why.to_owned());
            state.desk.dismiss(|| Ended::WrongTarget(why.to_owned()));
        }
    }
}

impl State {
    pub fn assign(&mut self) {
        self.desk.assign(|outbox, line| outbox.send(line));
    }
}
