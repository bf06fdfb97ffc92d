//! Looks at the next new entries of streams of which not all may come, if that has to be known before they are read: see
//! [`crate::worker::state::look_ahead`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flow_control::{is_limited, rooms};
use crate::stream::{Link, Trouble};
use crate::worker::run::routes::Routes;
use crate::worker::shard::refusals::{Chore, Refusals};
use crate::worker::state::look_ahead::{LOOK, LookAhead};
use crate::worker::state::signals::Signals;
use crate::worker::state::source::Sources;

/// How often that is if something waits for others' sake, for each stream: they are not to wait for it.
const SOON: Duration = Duration::from_millis(20);

/// Looks ahead on all streams.
pub(crate) struct LooksAhead {
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    routes: Arc<Routes>,
    refusals: Refusals,
}

impl LooksAhead {
    pub fn new(signals: Arc<Signals>, sources: Arc<Sources>, routes: Arc<Routes>) -> Self {
        LooksAhead {
            signals,
            sources,
            routes,
            refusals: Refusals::default(),
        }
    }

    /// Looks at the streams of which that has to be known now.
    pub async fn look(&mut self, link: &Link) -> Result<(), Trouble> {
        let routes = &self.routes;
        let sources = self.sources.fetched();
        let rest = match routes.sharing.is_limited() {
            true => (SOON * sources.len() as u32).min(LOOK),
            false => LOOK,
        };
        for source in sources {
            if !is_limited(
                routes,
                self.signals.has_released(),
                std::slice::from_ref(&source),
            ) {
                continue;
            }
            let (rooms, since) = (rooms(routes, &source), Instant::now());
            let Some(known) = source.ahead().looks(&rooms, since) else {
                continue;
            };
            let group = &source.surroundings.group;
            let stream = &source.keys.stream;
            let seen = match self.refusals.wait(Chore::LookAhead, stream) {
                Some(_) => None,
                None => {
                    let seen = link.clone().look_ahead(&source.keys, group, known).await;
                    self.refusals.heard(Chore::LookAhead, stream, seen)?
                }
            };
            let Some(seen) = seen else {
                // What can't be looked at is read.
                *source.ahead() = LookAhead::default();
                continue;
            };
            let place = |kind: &[u8]| routes.place(kind);
            let times = (since.elapsed(), rest);
            source.ahead().looked(&seen, &rooms, place, times);
        }
        Ok(())
    }
}
