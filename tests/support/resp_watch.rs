//! When requests were passed on to a server, and when it answered them.

use std::sync::{Arc, Mutex, PoisonError};

use super::resp_traps::Exchange;

/// As much of a request as is kept of it.
const HEAD: usize = 512;

/// Exchanges of one kind that a proxy has seen. More come as long as it stands.
pub struct Watched(Arc<Mutex<Vec<Seen>>>);

/// A request that the server answered, with no error. By [`monotonic`] time it was done after `asked` and before
/// `answered`.
#[derive(Clone, Debug)]
pub struct Seen {
    pub asked: u64,
    pub answered: u64,
    /// How the request begins.
    pub head: Vec<u8>,
}

impl Watched {
    /// All that were answered so far, in that order.
    pub fn seen(&self) -> Vec<Seen> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Nanoseconds by a clock that nobody sets, and that all processes of this machine share.
pub fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What a proxy watches.
#[derive(Default)]
pub(super) struct Watches(Mutex<Vec<Watch>>);

type Watch = (Exchange, Arc<Mutex<Vec<Seen>>>);

impl Watches {
    pub fn add(&self, exchange: Exchange) -> Watched {
        let seen = Arc::default();
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watches.push((exchange, Arc::clone(&seen)));
        Watched(seen)
    }

    pub fn answered(&self, asked: u64, request: &[u8], reply: &[u8]) {
        if reply.first() == Some(&b'-') {
            return;
        }
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (exchange, seen) in watches.iter() {
            let head = &request[..request.len().min(HEAD)];
            if exchange.is_asked_by(head) {
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Seen {
                        asked,
                        answered: monotonic(),
                        head: head.to_vec(),
                    });
            }
        }
    }
}
