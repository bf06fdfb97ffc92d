//! Visiting a stream that this shard does not read: who reads it is looked at, and nothing else asked. See
//! [`crate::worker::pace::duty`].

use std::sync::Arc;
use std::time::Duration;

use crate::stream::{ConsumerInfo, Link, Trouble, Wants, Wish};
use crate::worker::pace::duty::{self, Standing};
use crate::worker::shard::unit::Shard;
use crate::worker::state::heard::Heard;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::Inflight;
use crate::worker::state::signals::Signals;
use crate::worker::state::source::{Source, Sources};

/// Goes off duty, and visits meanwhile.
pub(crate) struct Visitor {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    sources: Arc<Sources>,
    inflight: Arc<Inflight>,
    heard: Arc<Heard>,
    /// How long it is until the next visit, if that is known.
    next: Option<Duration>,
}

impl Visitor {
    pub fn new(shard: &Shard) -> Self {
        Visitor {
            identity: shard.identity.clone(),
            signals: shard.signals.clone(),
            sources: shard.sources.clone(),
            inflight: shard.inflight.clone(),
            heard: shard.heard.clone(),
            next: None,
        }
    }

    /// Whether it is time to go off duty: others do without it, and nothing is held here.
    pub fn may_leave(&self) -> bool {
        let has = |source: &Arc<Source>| {
            let order = source.order.as_ref();
            order.is_some_and(|order| order.epoch().is_some())
        };
        self.signals.duties.may_leave()
            && self.inflight.entries() == 0
            && !self.sources.named().iter().any(has)
    }

    /// Goes off duty: takes itself off the list of those who read. If something is pending with it that it does not hold,
    /// it stays, and adopts that.
    pub async fn leave(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let (duties, me) = (&self.signals.duties, &self.identity.name);
        let mut readers = 0;
        for source in self.sources.named().iter() {
            let group = &source.surroundings.group;
            let consumers = link.consumers(&source.keys, group).await;
            let forgotten = match &consumers {
                Ok(_) => link.forget(&source.keys, group, me, None).await,
                Err(_) => Ok(false),
            };
            if !matches!(forgotten, Ok(true)) {
                // It has to see anew that it is not needed.
                duties.begins();
                self.signals.adopt_soon();
                forgotten?;
                return consumers.map(drop);
            }
            let standing = match source.order {
                Some(_) => self.stands_by(link, source).await?,
                None => standing(&self.identity, source, &consumers.unwrap_or_default()),
            };
            readers = readers.max(standing.readers);
            self.heard.forget(&source.surroundings.stream);
        }
        duties.leaves();
        self.next = Some(duties.visit_in(readers));
        Ok(())
    }

    /// Waits until the next visit, or until the worker stops.
    pub async fn wait(&mut self) {
        let wait = self.next.take();
        let wait = wait.unwrap_or_else(|| self.signals.duties.first_visit_in());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.signals.stopped() => {}
        }
    }

    /// Looks who reads the stream. If they are too few, or there is no group, this shard is on duty.
    pub async fn visit(&mut self, link: &mut Link) -> Result<(), Trouble> {
        let duties = &self.signals.duties;
        let mut readers = 0;
        for source in self.sources.named().iter() {
            let group = &source.surroundings.group;
            let looked = match source.order {
                Some(_) => self.stands_by(link, source).await,
                None => {
                    let consumers = link.consumers(&source.keys, group).await;
                    consumers.map(|consumers| standing(&self.identity, source, &consumers))
                }
            };
            let standing = match looked {
                Ok(standing) => standing,
                Err(trouble) if trouble.ends_the_link() => return Err(trouble),
                // Whoever joins the group finds out what is wrong with it.
                Err(_) => {
                    duties.begins();
                    return Ok(());
                }
            };
            readers = readers.max(standing.readers);
            duties.sees(standing);
        }
        // Nothing more has to be done for it.
        self.signals.set_joined();
        self.next = Some(duties.visit_in(readers));
        Ok(())
    }

    /// Where it stands among those that are there to have a stream whose events have an order; it is not, off duty.
    async fn stands_by(&self, link: &mut Link, source: &Source) -> Result<Standing, Trouble> {
        let (me, lease) = (&self.identity.name, self.identity.lease);
        let wish = Wish {
            is_there: false,
            wants: Wants::Release,
            clock: None,
        };
        let crew = link.own(&source.keys, me, lease, wish).await?.crew;
        Ok(duty::among(&source.keys.stream, me, &crew))
    }

    /// It could not be visited, and is once that is over.
    pub fn later(&mut self, wait: Duration) {
        self.next = Some(wait);
    }
}

/// Where this worker stands among those that read a stream.
pub(super) fn standing(
    identity: &Identity,
    source: &Source,
    consumers: &[ConsumerInfo],
) -> Standing {
    let others = consumers.iter().filter(|other| {
        other.lease_ms().is_some() && !other.is_alone() && !identity.is_me(&other.name)
    });
    let others = others.map(|other| {
        let (idle, lease) = (other.idle_ms, other.lease_ms().unwrap_or_default());
        let seen = duty::seen(
            Duration::from_millis(idle),
            Duration::from_millis(lease),
            source.is_read(),
        );
        (&other.name[..], seen)
    });
    duty::standing(&source.keys.stream, &identity.name, others)
}
