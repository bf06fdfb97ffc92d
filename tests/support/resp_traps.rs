//! Traps for single exchanges between a client and its server, as the proxy sets them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// An exchange, a request and its reply, as a trap tells it from others.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// What a request may have in it; any request where there is none.
    parts: Vec<Vec<u8>>,
    reply: Vec<u8>,
    skip: usize,
}

impl Exchange {
    /// One whose request has `part` in it: the name of a command, the hash of a script, a key.
    pub fn of(part: impl AsRef<[u8]>) -> Self {
        Exchange::default().or_of(part)
    }

    /// One whose reply has `part` in it.
    pub fn answered(part: impl AsRef<[u8]>) -> Self {
        Exchange::default().and_answered(part)
    }

    /// Also one whose request has `part` in it.
    pub fn or_of(mut self, part: impl AsRef<[u8]>) -> Self {
        self.parts.push(part.as_ref().to_vec());
        self
    }

    /// Only where the reply has `part` in it, too. What stops a request knows no reply, and heeds
    /// only the request.
    pub fn and_answered(mut self, part: impl AsRef<[u8]>) -> Self {
        self.reply = part.as_ref().to_vec();
        self
    }

    /// Not the next one, but the one after it.
    pub fn second(mut self) -> Self {
        self.skip = 1;
        self
    }

    pub(super) fn is_asked_by(&self, request: &[u8]) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|part| contains(request, part))
    }
}

/// What becomes of a trapped exchange.
pub(super) enum Fate {
    /// The request never reaches the server; the connection breaks.
    CutBefore,
    /// The request waits until it is released; the connection stays open.
    HoldRequest(oneshot::Receiver<()>),
    /// Nothing is passed on for so long, on any connection, from the request on, which arrives when that is over.
    FallSilent(Duration),
    /// The reply never reaches the client; the connection breaks.
    CutAfter,
    /// The reply, and what comes after it, never reaches the client; the connection stays open.
    HoldReply,
    /// The reply alone never reaches the client.
    Swallow,
    /// The reply, and what comes after it, reaches the client so much later.
    Delay(Duration),
}

/// Tells when a trap was sprung.
pub struct Caught(oneshot::Receiver<()>);

impl Caught {
    /// Waits until the exchange has come and met its fate.
    pub async fn within(self, deadline: Duration) {
        match timeout(deadline, self.0).await {
            Ok(caught) => caught.expect("the proxy to outlive its traps"),
            Err(_) => panic!("no such exchange after {deadline:?}"),
        }
    }
}

impl Caught {
    /// Waits for the exchange; `false` where the proxy is gone before it comes.
    pub async fn sprung(self) -> bool {
        self.0.await.is_ok()
    }
}

/// A request that is held back from the server, or will be.
pub struct Held {
    pub(super) caught: Caught,
    pub(super) release: oneshot::Sender<()>,
}

impl Held {
    /// Waits until the request is held.
    pub async fn within(self, deadline: Duration) -> Release {
        self.caught.within(deadline).await;
        Release(self.release)
    }
}

/// Lets a held request go, when told to or dropped.
pub struct Release(oneshot::Sender<()>);

impl Release {
    pub fn now(self) {
        // Its client may have given up meanwhile.
        let _ = self.0.send(());
    }
}

/// The traps that are set, in the order in which they were.
#[derive(Default)]
pub(super) struct Traps(Mutex<Vec<Trap>>);

pub(super) struct Trap {
    exchange: Exchange,
    fate: Fate,
    caught: oneshot::Sender<()>,
}

impl Trap {
    /// It is sprung: tells so, and what is to be done.
    pub fn spring(self) -> Fate {
        // Nobody has to be waiting for it.
        let _ = self.caught.send(());
        self.fate
    }
}

impl Traps {
    pub fn set(&self, exchange: Exchange, fate: Fate) -> Caught {
        let (caught, receiver) = oneshot::channel();
        self.locked().push(Trap {
            exchange,
            fate,
            caught,
        });
        Caught(receiver)
    }

    /// The trap that stops this request; it is set no more.
    pub fn for_request(&self, request: &[u8]) -> Option<Trap> {
        self.first(|trap| trap.stops_requests() && trap.exchange.is_asked_by(request))
    }

    /// The trap that this reply falls into; it is set no more.
    pub fn for_reply(&self, request: &[u8], reply: &[u8]) -> Option<Trap> {
        self.first(|trap| {
            let exchange = &trap.exchange;
            !trap.stops_requests()
                && exchange.is_asked_by(request)
                && contains(reply, &exchange.reply)
        })
    }

    fn first(&self, matches: impl Fn(&Trap) -> bool) -> Option<Trap> {
        let mut traps = self.locked();
        let found = traps.iter().position(matches)?;
        match &mut traps[found].exchange.skip {
            0 => Some(traps.remove(found)),
            skip => {
                *skip -= 1;
                None
            }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<Trap>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trap {
    fn stops_requests(&self) -> bool {
        matches!(
            self.fate,
            Fate::CutBefore | Fate::HoldRequest(_) | Fate::FallSilent(_)
        )
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}
