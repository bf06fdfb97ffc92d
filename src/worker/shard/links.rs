//! The connections of a worker to one server: how they are made, and what they notice about the server.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::TryFutureExt;

use crate::error;
use crate::reconnect::connected;
use crate::stream::{Connector, Greeting, Link, Reader, ServerIdentity, Trouble};
use crate::sync::lock;
use crate::worker::state::identity::Identity;
use crate::worker::state::inflight::Inflight;
use crate::worker::state::recent_acks::RecentAcks;
use crate::worker::state::signals::Signals;

/// How long a settlement may take to be answered.
const SETTLE_ANSWER: Duration = Duration::from_secs(10);
/// How long what no entry waits for may take to be answered.
const TIDY_ANSWER: Duration = Duration::from_secs(10);
/// The least and the most that a third of the lease comes to where the answer to a read is waited for, beyond the time
/// it blocks. An answer that got lost leaves entries pending with this worker: they are to be found before it is over.
const READ_ANSWER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Makes connections, and notices when they lead to another server, or to another run of it.
pub(crate) struct Links {
    pub connector: Connector,
    identity: Arc<Identity>,
    signals: Arc<Signals>,
    inflight: Arc<Inflight>,
    recent_acks: Arc<RecentAcks>,
    server: Mutex<Server>,
    /// What all that settles goes over.
    settle: tokio::sync::Mutex<Option<Link>>,
    /// What all goes over that no entry waits for.
    tidy: tokio::sync::Mutex<Option<Link>>,
}

#[derive(Default)]
struct Server {
    met: Option<ServerIdentity>,
    /// Until then an acknowledgement makes sure that the id is still the entry's.
    fenced_until: Option<Instant>,
}

impl Links {
    pub fn new(
        connector: Connector,
        identity: Arc<Identity>,
        signals: Arc<Signals>,
        inflight: Arc<Inflight>,
        recent_acks: Arc<RecentAcks>,
    ) -> Self {
        Links {
            connector,
            identity,
            signals,
            inflight,
            recent_acks,
            server: Mutex::default(),
            settle: tokio::sync::Mutex::default(),
            tidy: tokio::sync::Mutex::default(),
        }
    }

    /// A connection for one part of the worker.
    pub async fn connect(&self, part: &str, response_timeout: Duration) -> error::Result<Link> {
        let name = format!("streamhand:{}:{part}", self.identity.group);
        let link = self.connector.connect(&name, response_timeout).await?;
        self.greeted(&link.greeting);
        Ok(link)
    }

    /// The connection that new entries are read on.
    pub async fn connect_reader(&self) -> error::Result<Reader> {
        let name = format!("streamhand:{}:read", self.identity.group);
        let patience = (self.identity.lease / 3).clamp(READ_ANSWER.0, READ_ANSWER.1);
        let reader = self.connector.reader(&name, patience).await?;
        self.greeted(&reader.greeting);
        Ok(reader)
    }

    /// The connection that entries are settled on.
    pub async fn settle_link(&self) -> error::Result<Link> {
        let mut known = self.settle.lock().await;
        match &*known {
            Some(link) if !link.is_over() => Ok(link.clone()),
            _ => {
                let link = self.connect("settle", SETTLE_ANSWER).await?;
                *known = Some(link.clone());
                Ok(link)
            }
        }
    }

    /// The connection that entries are settled on is of no more use.
    pub async fn settle_link_broke(&self, broken: &Link) {
        let mut known = self.settle.lock().await;
        known.take_if(|link| link.greeting.client == broken.greeting.client);
    }

    /// The connection for what no entry waits for: repair, trimming, pulses.
    pub async fn tidy_link(&self) -> error::Result<Link> {
        let mut known = self.tidy.lock().await;
        match &*known {
            Some(link) if !link.is_over() => Ok(link.clone()),
            _ => {
                let link = self.connect("tidy", TIDY_ANSWER).await?;
                *known = Some(link.clone());
                Ok(link)
            }
        }
    }

    /// That connection is of no more use.
    pub async fn tidy_link_broke(&self, broken: &Link) {
        let mut known = self.tidy.lock().await;
        known.take_if(|link| link.greeting.client == broken.greeting.client);
    }

    /// Whether ids may by now be other entries': after a failover, for a lease.
    pub fn is_fenced(&self) -> bool {
        let server = lock(&self.server);
        server
            .fenced_until
            .is_some_and(|until| Instant::now() < until)
    }

    fn greeted(&self, greeting: &Greeting) {
        let mut server = lock(&self.server);
        // Of one that does not say who it is nobody knows.
        let is_another = |before: &ServerIdentity| {
            greeting.server.is_another_than(before) || !greeting.server.is_known()
        };
        if server.met.as_ref().is_some_and(is_another) {
            server.fenced_until = Some(Instant::now() + self.identity.lease);
            self.inflight.lapse_all();
            self.recent_acks.recall();
            self.signals.renew_soon();
        }
        server.met = Some(greeting.server.clone());
    }
}

/// The connection of one part: made when it is needed, and gone once it is of no more use.
pub(crate) struct KeptLink {
    links: Arc<Links>,
    part: &'static str,
    answer: Duration,
    link: Option<Link>,
}

impl KeptLink {
    /// An answer on it may take as long as `answer`.
    pub fn new(links: Arc<Links>, part: &'static str, answer: Duration) -> Self {
        KeptLink {
            links,
            part,
            answer,
            link: None,
        }
    }

    /// The connection, made if there is none.
    pub async fn get(&mut self) -> Result<&mut Link, Trouble> {
        self.link.take_if(|link| link.is_over());
        let connecting = self.links.connect(self.part, self.answer);
        connected(&mut self.link, connecting.map_err(Trouble::Broken)).await
    }

    /// It is of no more use.
    pub fn broke(&mut self) {
        self.link = None;
    }
}
