//! What comes now: one connection follows a group's pulses for all who look in this process, and has its workers pulse each
//! second for as long as anybody does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use super::orders::{WATCH, WATCHED_FOR};
use super::slot::{Came, Slot};
use crate::error::Result;
use crate::event::EntryId;
use crate::reconnect::Pause;
use crate::stream::{Keys, Pool, PulseKeys};
use crate::sync::lock;

/// How often it is said that somebody looks: so that one that is lost does not matter.
const SAY: Duration = Duration::from_secs(5);
/// So many pulses may a slow watcher be behind.
const BEHIND: usize = 1024;

/// A group's pulses as they come, for any number of watchers.
pub(crate) struct Live {
    pool: Pool,
    keys: PulseKeys,
    streams: Vec<Keys>,
    sender: broadcast::Sender<Arc<Came>>,
    /// What follows them while anybody looks; it takes itself away when nobody does any more.
    following: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// One who looks, until it is dropped.
pub(crate) struct Watching {
    receiver: broadcast::Receiver<Arc<Came>>,
    /// It goes on as long as somebody has it.
    _live: Arc<Live>,
}

impl Live {
    /// Of a group's workers on these streams. Nothing is asked for before somebody looks.
    pub fn new(pool: Pool, group: &str, streams: &[String]) -> Arc<Self> {
        let streams = streams.iter().map(|stream| Keys::new(stream, group));
        Arc::new(Live {
            pool,
            keys: PulseKeys::new(group),
            streams: streams.collect(),
            sender: broadcast::channel(BEHIND).0,
            following: Arc::default(),
        })
    }

    /// Looks: from now on pulses come, each second as soon as workers have heard of it. Has to be called within a runtime.
    pub fn watch(self: &Arc<Self>) -> Watching {
        let mut following = lock(&self.following);
        let receiver = self.sender.subscribe();
        if following.as_ref().is_none_or(JoinHandle::is_finished) {
            // It has the parts alone: with all of it, it would keep itself alive.
            let (pool, keys, streams) =
                (self.pool.clone(), self.keys.clone(), self.streams.clone());
            let (sender, itself) = (self.sender.clone(), self.following.clone());
            let follow = async move {
                tokio::select! {
                    () = say(&pool, &streams) => {}
                    () = follow(&pool, &keys, &sender) => {}
                    () = until_nobody_looks(&sender, &itself) => {}
                }
            };
            *following = Some(tokio::spawn(follow));
        }
        Watching {
            receiver,
            _live: self.clone(),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(following) = lock(&self.following).take() {
            following.abort();
        }
    }
}

impl Watching {
    /// The next pulse. Who is too slow misses some.
    pub async fn next(&mut self) -> Arc<Came> {
        loop {
            match self.receiver.recv().await {
                Ok(came) => return came,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                // The live has a sender as long as this has it.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Says that somebody looks. Who may not only sees less often how things are.
async fn say(pool: &Pool, streams: &[Keys]) {
    loop {
        for keys in streams {
            if let Err(error) = pool.ask(keys, WATCH, "", WATCHED_FOR).await {
                tracing::debug!("{error}");
            }
        }
        tokio::time::sleep(SAY).await;
    }
}

async fn follow(pool: &Pool, keys: &PulseKeys, sender: &broadcast::Sender<Arc<Came>>) {
    let (mut pause, mut after) = (Pause::new(), None);
    loop {
        if let Err(error) = follow_on(pool, keys, sender, &mut after, &mut pause).await {
            tracing::debug!("{error}");
        }
        tokio::time::sleep(pause.next()).await;
    }
}

async fn follow_on(
    pool: &Pool,
    keys: &PulseKeys,
    sender: &broadcast::Sender<Arc<Came>>,
    after: &mut Option<EntryId>,
    pause: &mut Pause,
) -> Result<()> {
    let from = match after {
        Some(after) => *after,
        None => pool.last_pulse(keys).await?.unwrap_or_default(),
    };
    *after = Some(from);
    let mut follower = pool.follow_pulses(from).await?;
    loop {
        for raw in follower.next(keys).await? {
            *after = Some(raw.id);
            let _ = sender.send(Arc::new(Came::of(&raw)));
        }
        pause.reset();
    }
}

async fn until_nobody_looks(
    sender: &broadcast::Sender<Arc<Came>>,
    following: &Mutex<Option<JoinHandle<()>>>,
) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Whoever comes to look has the lock: it finds this going on, or begins anew.
        let mut following = lock(following);
        if sender.receiver_count() == 0 {
            *following = None;
            return;
        }
    }
}

/// The last seconds, each as a slot of its own.
pub(crate) struct Recent {
    seconds: VecDeque<Slot>,
    most: usize,
    numbers: BTreeMap<String, u64>,
}

impl Recent {
    /// So many seconds at most in which anything came.
    pub fn new(most: usize) -> Self {
        Recent {
            seconds: VecDeque::new(),
            most,
            numbers: BTreeMap::new(),
        }
    }

    /// Takes a pulse in.
    pub fn take(&mut self, came: &Came) {
        let Ok(pulse) = &came.pulse else { return };
        let number = self.numbers.entry(came.worker.clone()).or_default();
        if came.number <= *number {
            return;
        }
        *number = came.number;
        let at_ms = came.ms - came.ms % 1000;
        if self.seconds.back().is_none_or(|last| last.at_ms < at_ms) {
            self.seconds.push_back(Slot {
                at_ms,
                ..Slot::default()
            });
            if self.seconds.len() > self.most {
                self.seconds.pop_front();
            }
        }
        if let Some(second) = self.seconds.back_mut() {
            second.pulses += 1;
            second.counted.merge(&pulse.counted);
        }
    }

    /// The seconds, the earliest first.
    pub fn seconds(&self) -> impl Iterator<Item = &Slot> {
        self.seconds.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Pulse;
    use super::*;
    use crate::metrics::snapshot::{Value, of};
    use crate::metrics::table::Id;

    fn came(ms: u64, number: u64, count: u64) -> Came {
        let mut pulse = Pulse::default();
        let labels = of(&["orders", "shop", "order.created", "acked"]);
        pulse
            .counted
            .add(Id::Settled, labels, Value::Counter(count));
        Came {
            ms,
            worker: "a".to_owned(),
            number,
            pulse: Ok(pulse),
        }
    }

    #[test]
    fn seconds_add_up_and_a_repeat_counts_once_and_the_oldest_go() {
        let mut recent = Recent::new(2);
        for (ms, number, count) in [(1000, 1, 5), (1900, 2, 7), (1950, 2, 7), (2000, 3, 1)] {
            recent.take(&came(ms, number, count));
        }
        let seconds = |recent: &Recent| {
            let second = |slot: &Slot| (slot.at_ms, slot.counted.total(Id::Settled, &[]));
            recent.seconds().map(second).collect::<Vec<_>>()
        };
        assert_eq!(seconds(&recent), [(1000, 12.0), (2000, 1.0)]);
        recent.take(&came(9000, 4, 2));
        assert_eq!(seconds(&recent), [(2000, 1.0), (9000, 2.0)]);
    }
}
