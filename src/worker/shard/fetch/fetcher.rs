//! The fetcher: brings entries to this worker, round by round, over connections that it makes anew when they break.

use std::sync::Arc;
use std::time::Duration;

use super::rounds::{Downstream, Rounds};
use super::visit::Visitor;
use crate::config::Settings;
use crate::reconnect::{Complaint, Pause};
use crate::stream::{Link, Reader, Trouble};
use crate::worker::shard::links::Links;
use crate::worker::shard::unit::Shard;
use crate::worker::state::precedence::Precedence;
use crate::worker::state::signals::Signals;

/// How long anything but a read may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Brings entries to this worker.
pub(crate) struct Fetcher {
    signals: Arc<Signals>,
    precedence: Arc<Precedence>,
    links: Arc<Links>,
    /// The connections, gone after an error.
    lines: Option<Lines>,
    complaint: Complaint,
    pause: Pause,
    rounds: Rounds,
    visitor: Visitor,
}

/// What the fetcher speaks to Redis over.
struct Lines {
    /// New entries come this way, and nothing else does.
    reader: Reader,
    /// Everything else. It also wakes a read that blocks, which can't be cancelled without losing its answer.
    link: Link,
}

impl Fetcher {
    pub fn new(shard: &Shard, settings: &Settings, downstream: Downstream) -> Self {
        Fetcher {
            signals: shard.signals.clone(),
            precedence: downstream.capacity.precedence.clone(),
            links: shard.links.clone(),
            lines: None,
            complaint: Complaint::default(),
            pause: Pause::new(),
            visitor: Visitor::new(shard),
            rounds: Rounds::new(shard, settings, downstream),
        }
    }

    /// Fetches until the worker stops. The ways to the executor close with it.
    pub async fn run(mut self) {
        while !self.signals.is_stopping() {
            // In a cluster a link that has ended is not broken: others use the connection as well.
            let lines = self.lines.take().filter(|lines| !lines.link.is_over());
            let result = match lines {
                _ if !self.signals.duties.is_on() => {
                    self.visitor.wait().await;
                    self.visit().await
                }
                Some(mut lines) if self.visitor.may_leave() => {
                    let left = self.visitor.leave(&mut lines.link).await;
                    let stays = self.signals.duties.is_on() && left.is_ok();
                    self.lines = stays.then_some(lines);
                    left
                }
                Some(mut lines) => {
                    let result = self.rounds.round(&mut lines.reader, &mut lines.link).await;
                    if let Err(Trouble::Broken(_)) = result {
                        self.rounds.cut();
                    }
                    if result.is_ok() {
                        self.pause.reset();
                    }
                    // After a broken connection, or if an answer is still to come, new ones begin by adopting what
                    // may have been lost.
                    let usable = !result.as_ref().is_err_and(Trouble::ends_the_link);
                    self.lines = (usable && !lines.reader.is_waiting()).then_some(lines);
                    result
                }
                None => self.connect().await,
            };
            let Err(trouble) = result else { continue };
            // Lanes are not to leave slots to what can't come.
            self.precedence.answer(false);
            if trouble.is_final() {
                return self.signals.fail(trouble.into_error());
            }
            match &trouble {
                Trouble::NoGroup(_) => {
                    self.signals.rejoin();
                    tracing::warn!("{}", trouble.error());
                }
                // One stream may be in the way of reading all of them: joining each tells which.
                _ if trouble.is_about_a_key() => {
                    self.signals.rejoin();
                    self.complaint.warn(trouble.error().to_string());
                }
                _ => self.complaint.warn(trouble.error().to_string()),
            }
            tokio::select! {
                () = tokio::time::sleep(self.pause.next()) => {}
                () = self.signals.stopped() => {}
            }
        }
        self.rounds.end();
    }

    /// Looks whether this shard is needed, over a connection that others have as well.
    async fn visit(&mut self) -> Result<(), Trouble> {
        if self.signals.is_stopping() {
            return Ok(());
        }
        let visited = match self.links.connect("fetch", ANSWER).await {
            Ok(mut link) => self.visitor.visit(&mut link).await,
            Err(error) => Err(Trouble::Broken(error)),
        };
        match &visited {
            Ok(()) => self.pause.reset(),
            // The pause that follows is wait enough.
            Err(_) => self.visitor.later(Duration::ZERO),
        }
        visited
    }

    async fn connect(&mut self) -> Result<(), Trouble> {
        self.signals.takes_up_nothing();
        let connecting = self.links.connect("fetch", ANSWER).await;
        let mut link = connecting.map_err(Trouble::Broken)?;
        let connecting = self.links.connect_reader().await;
        let reader = connecting.map_err(Trouble::Broken)?;
        self.rounds.join(&mut link).await?;
        self.signals.set_joined();
        if self.complaint.clear() {
            tracing::info!(
                "connected to Redis at {} again",
                self.links.connector.address
            );
        }
        self.lines = Some(Lines { reader, link });
        Ok(())
    }
}
