//! Asks Redis which entries are copies of events that are done, or that are with another entry.

use std::sync::Arc;

use super::hold_up::HoldUp;
use super::links::Links;
use super::refusals::{Chore, Refusals};
use crate::reconnect::sleep_until;
use crate::stream::{Claim, Claimed, Trouble};
use crate::worker::run::dedup::{Answer, Copies};
use crate::worker::state::signals::Signals;
use crate::worker::state::source::Source;

/// Asks over the connection that entries are settled on.
pub(crate) struct Claims {
    links: Arc<Links>,
    signals: Arc<Signals>,
    hold_up: HoldUp,
    refusals: Refusals,
}

impl Claims {
    pub fn new(links: Arc<Links>, signals: Arc<Signals>) -> Self {
        Claims {
            links,
            hold_up: HoldUp::new(signals.clone()),
            signals,
            refusals: Refusals::default(),
        }
    }

    async fn claim(&self, source: &Source, claims: &[Claim<'_>]) -> Result<Vec<Claimed>, Trouble> {
        let link = self.links.settle_link().await;
        let mut link = link.map_err(Trouble::Broken)?;
        let claimed = link
            .claim(&source.keys, &source.surroundings.group, claims)
            .await;
        if claimed.as_ref().is_err_and(Trouble::ends_the_link) {
            self.links.settle_link_broke(&link).await;
        }
        claimed
    }
}

impl Copies for Claims {
    async fn ask(&mut self, source: &Source, claims: &[Claim<'_>]) -> Option<Vec<Answer>> {
        let signals = self.signals.clone();
        let stream = &source.keys.stream;
        loop {
            if let Some(wait) = self.refusals.wait(Chore::Claim, stream) {
                return Some(vec![Answer::Refused(wait); claims.len()]);
            }
            let answer = tokio::select! {
                biased;
                () = signals.stopped() => return None,
                answer = self.claim(source, claims) => answer,
            };
            let answer = match answer {
                // It concerns the server, and no entry has to go back for it.
                Err(trouble @ (Trouble::Elsewhere(_) | Trouble::Wait(_))) => Err(trouble),
                answer => self.refusals.heard(Chore::Claim, stream, answer),
            };
            match answer {
                Ok(Some(answers)) => {
                    self.hold_up.is_over();
                    return Some(answers.into_iter().map(Answer::Is).collect());
                }
                // The others that come here have nothing to do with it.
                Ok(None) => {}
                Err(trouble) => {
                    self.hold_up.begin(&trouble);
                    tokio::select! {
                        () = sleep_until(self.hold_up.until()) => {}
                        () = signals.stopped() => return None,
                    }
                }
            }
        }
    }
}
