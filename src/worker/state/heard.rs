//! What operators ask of this worker, as it hears of it with each look for due entries: see [`crate::pulse::orders`].

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::pulse::orders::Asked;
use crate::sync::lock;

/// What was heard, stream by stream.
#[derive(Default)]
pub(crate) struct Heard {
    /// Whether there is anything at all: most of the time there is not.
    any: AtomicBool,
    streams: Mutex<BTreeMap<String, Said>>,
    changed: Notify,
    /// What has been carried out, for the next pulse to say.
    done: Mutex<Vec<u64>>,
    pulse_now: Notify,
}

/// What one stream's key said, and when.
struct Said {
    asked: Asked,
    /// The server's time then,
    now_ms: u64,
    /// and ours.
    at: Instant,
}

impl Said {
    /// What the server's clock shows by now.
    fn now_ms(&self) -> u64 {
        self.now_ms + self.at.elapsed().as_millis() as u64
    }
}

impl Heard {
    /// What a stream's key says, at the server's time.
    pub fn learn(&self, stream: &str, now_ms: u64, fields: &[(String, String)]) {
        if fields.is_empty() && !self.any.load(Ordering::Relaxed) {
            return;
        }
        let asked = Asked::of(fields).at(now_ms);
        let mut streams = lock(&self.streams);
        let before = streams.get(stream).map(|said| &said.asked);
        let is_news = before.unwrap_or(&Asked::default()) != &asked;
        if asked == Asked::default() {
            streams.remove(stream);
        } else {
            let at = Instant::now();
            streams.insert(stream.to_owned(), Said { asked, now_ms, at });
        }
        self.any.store(!streams.is_empty(), Ordering::Relaxed);
        if is_news {
            self.changed.notify_one();
            self.pulse_now.notify_one();
        }
    }

    /// Nobody here listens to what is asked at this stream any more.
    pub fn forget(&self, stream: &str) {
        let mut streams = lock(&self.streams);
        if streams.remove(stream).is_some() {
            self.any.store(!streams.is_empty(), Ordering::Relaxed);
            self.changed.notify_one();
        }
    }

    /// What stands by now, of all streams, and how long it is until that changes by itself.
    pub fn standing(&self) -> (Asked, Option<Duration>) {
        let (mut all, mut changes) = (Asked::default(), None::<u64>);
        for said in lock(&self.streams).values() {
            let now_ms = said.now_ms();
            let asked = said.asked.clone().at(now_ms);
            let ends = asked.orders.iter().map(|standing| standing.until_ms);
            let next = ends.chain(asked.watched_until_ms).min();
            let next = next.map(|next| next.saturating_sub(now_ms));
            changes = changes.into_iter().chain(next).min();
            all.merge(asked);
        }
        (all, changes.map(Duration::from_millis))
    }

    /// Whether somebody looks.
    pub fn is_watched(&self) -> bool {
        self.any.load(Ordering::Relaxed) && self.standing().0.watched_until_ms.is_some()
    }

    /// Waits until something else is asked.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// These orders have been carried out: the next pulse says so, soon.
    pub fn carried_out(&self, orders: Vec<u64>) {
        let mut done = lock(&self.done);
        if *done != orders {
            *done = orders;
            self.pulse_now.notify_one();
        }
    }

    pub fn done(&self) -> Vec<u64> {
        lock(&self.done).clone()
    }

    /// Waits for a reason to pulse now.
    pub fn pulse_wanted(&self) -> Notified<'_> {
        self.pulse_now.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, until: u64, order: &str) -> (String, String) {
        (name.to_owned(), format!("{until} {order}"))
    }

    #[test]
    fn what_stands_is_what_streams_say_until_it_is_over() {
        let heard = Heard::default();
        assert_eq!(heard.standing(), (Asked::default(), None));
        let quiet = "{\"to\":null,\"what\":\"quiet\",\"by\":\"alice\"}";
        let fields = [
            field("order:7", 61_000, quiet),
            field("watch", 1_001_000, ""),
        ];
        heard.learn("orders", 1000, &fields);
        heard.learn("mails", 1000, &fields);
        let (asked, changes) = heard.standing();
        assert_eq!(asked.orders.len(), 1);
        assert!(heard.is_watched() && asked.wanted_of("anybody").is_quiet);
        assert!(changes.is_some_and(|wait| wait <= Duration::from_secs(60)));
        heard.learn("orders", 62_000, &fields);
        assert_eq!(
            heard.standing().0.orders.len(),
            1,
            "the other stream says so"
        );
        heard.learn("mails", 62_000, &fields);
        assert_eq!(heard.standing().0.orders.len(), 0);
        heard.learn("orders", 63_000, &[]);
        heard.learn("mails", 63_000, &[]);
        assert!(!heard.is_watched());
    }
}
