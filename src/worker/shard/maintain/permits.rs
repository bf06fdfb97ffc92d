//! Permits of the whole group: how many runs of a handler this worker may have, where the group's are limited. What this
//! worker has it keeps while it is used, so that an entry asks for nothing; it is renewed, and given back once nothing runs or
//! waits. What a worker had that is gone is free when its time is over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::reconnect::{Complaint, Pause};
use crate::stream::{Connector, Link, PermitsAsked, Trouble, permits_key};
use crate::worker::run::concurrency::ConcurrencyLimit;
use crate::worker::run::routes::Routes;
use crate::worker::shard::links::Links;
use crate::worker::state::identity::Identity;
use crate::worker::state::signals::Signals;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// The longest that permits stand which nobody renews.
const LONGEST: Duration = Duration::from_secs(10);
/// How often more are asked for if there are too few, and how soon at most it is asked again.
const WANTING: Duration = Duration::from_millis(100);
const LEAST: Duration = Duration::from_millis(30);
/// What is not used for so long is given back: an entry that comes now and then has its place at once.
const IDLE: Duration = Duration::from_secs(1);

/// What this worker has for a handler.
#[derive(Clone, Copy)]
struct Held {
    permits: usize,
    until: Instant,
    /// How many runs had ended when it was asked for,
    ended: u64,
    /// and when any ran or had ended last.
    used: Instant,
}

/// Asks for permits.
pub(crate) struct Permits {
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    routes: Arc<Routes>,
    connector: Connector,
    /// In a cluster each is counted in a slot of its own, over a connection that leads there.
    links: HashMap<String, Link>,
    /// For how long they stand.
    lasts: Duration,
    /// By the places of handlers.
    held: HashMap<usize, Held>,
    complaint: Complaint,
    pause: Pause,
}

impl Permits {
    pub fn new(
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        routes: Arc<Routes>,
        links: &Links,
        lease: Duration,
    ) -> Self {
        Permits {
            identity,
            signals,
            routes,
            connector: links.connector.clone(),
            links: HashMap::new(),
            lasts: lease.min(LONGEST),
            held: HashMap::new(),
            complaint: Complaint::default(),
            pause: Pause::new(),
        }
    }

    /// Asks until it is dropped.
    pub async fn run(mut self) {
        self.signals.joined().await;
        let routes = self.routes.clone();
        loop {
            let wanted = routes.limits.wanted();
            let next = self.turn().await;
            tokio::time::sleep(LEAST).await;
            tokio::select! {
                () = wanted => {}
                () = tokio::time::sleep(next.unwrap_or(Duration::from_secs(3600))) => {}
            }
        }
    }

    /// Asks for what is needed. Returns when it is to be looked again, if it is.
    async fn turn(&mut self) -> Option<Duration> {
        let routes = self.routes.clone();
        let mut next: Option<Duration> = None;
        for bound in routes.all() {
            let limit = &bound.concurrency_limit;
            let Some(most) = limit.of_group() else {
                self.held.remove(&bound.place);
                continue;
            };
            let wait = self.ask(bound.place, &bound.gate.name, limit, most).await;
            next = next.into_iter().chain(wait).min();
        }
        next
    }

    async fn ask(
        &mut self,
        place: usize,
        handler: &str,
        limit: &ConcurrencyLimit,
        most: usize,
    ) -> Option<Duration> {
        let (running, waiting, ended) = limit.demand();
        let held = self.held.get(&place).copied();
        let (has, until) = held.map_or((0, Instant::now()), |held| (held.permits, held.until));
        let is_used = running > 0 || held.is_some_and(|held| held.ended != ended);
        let used = match held {
            Some(held) if !is_used => held.used,
            _ => Instant::now(),
        };
        let wanted = match self.signals.is_stopping() {
            true => running,
            // What is quick is not to ask for each anew; of what is slow it may take twice as many as run, for what waits
            // unread is not known.
            false if is_used => most.min(has.max(2 * running).max(running + waiting)),
            false if used.elapsed() < IDLE => most.min(has.max(waiting)),
            false => most.min(waiting),
        };
        if wanted == 0 && has == 0 {
            return None;
        }
        let sent = Instant::now();
        match self.request(handler, most, running, wanted).await {
            Ok(may) => {
                self.pause.reset();
                let held = Held {
                    permits: may,
                    until: sent + self.lasts,
                    ended,
                    used,
                };
                self.held.insert(place, held);
                if wanted == 0 {
                    self.held.remove(&place);
                    limit.set_permits(0);
                    return None;
                }
                if limit.set_permits(may) {
                    self.routes.limits.change();
                }
                Some(
                    if may < wanted || running == 0 || self.signals.is_stopping() {
                        WANTING
                    } else {
                        (self.lasts / 4).min(Duration::from_secs(1))
                    },
                )
            }
            Err(trouble) => {
                if let Trouble::Refused(refused) = &trouble {
                    let refused = refused.to_string();
                    self.complaint
                        .warn(format!("{refused}; what needs it waits"));
                } else {
                    tracing::debug!("{}", trouble.error());
                }
                self.links.clear();
                // They may be others' by now. What runs runs on.
                if Instant::now() >= until {
                    self.held.remove(&place);
                    limit.set_permits(0);
                }
                Some(self.pause.next().min(self.lasts / 4).max(WANTING))
            }
        }
    }

    async fn request(
        &mut self,
        handler: &str,
        most: usize,
        running: usize,
        wanted: usize,
    ) -> Result<usize, Trouble> {
        let key = permits_key(&self.identity.group, handler);
        let at = match self.connector.is_cluster() {
            true => key.clone(),
            false => String::new(),
        };
        let mut link = match self.links.get(&at).filter(|link| !link.is_over()) {
            Some(link) => link.clone(),
            None => {
                let name = format!("streamhand:{}:permits", self.identity.group);
                let connector = self.connector.at(&key);
                let link = connector.connect(&name, ANSWER).await;
                let link = link.map_err(Trouble::Broken)?;
                self.links.insert(at, link.clone());
                link
            }
        };
        let asked = PermitsAsked {
            key: &key,
            me: &self.identity.name,
            most,
            running,
            wanted,
            lasts: self.lasts,
        };
        link.permits(&asked).await
    }
}
