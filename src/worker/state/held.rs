//! What the shards of a worker hold together. Each takes what it wants as long as there is room for all of it; where there
//! is not, each has its share.

use std::sync::{Arc, RwLock, Weak};

use super::inflight::Inflight;
use crate::sync::{read, write};

/// What all shards of a worker hold.
#[derive(Default)]
pub(crate) struct Held(RwLock<Vec<Weak<Inflight>>>);

/// What the other shards hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Others {
    /// How many shards there are, besides the one that asks.
    pub shards: usize,
    pub entries: usize,
    pub bytes: usize,
}

impl Held {
    /// By this shard as well.
    pub fn by(&self, shard: &Arc<Inflight>) {
        write(&self.0).push(Arc::downgrade(shard));
    }

    /// What each of them holds.
    pub fn all(&self) -> Vec<Arc<Inflight>> {
        read(&self.0).iter().filter_map(Weak::upgrade).collect()
    }

    /// What shards hold besides this one. Of a worker with one shard that is nothing, and costs nothing.
    pub fn besides(&self, me: &Arc<Inflight>) -> Others {
        let mut others = Others::default();
        let shards = read(&self.0);
        if shards.len() < 2 {
            return others;
        }
        for shard in shards.iter().filter_map(Weak::upgrade) {
            if !Arc::ptr_eq(&shard, me) {
                others.shards += 1;
                others.entries += shard.entries();
                others.bytes += shard.bytes();
            }
        }
        others
    }
}

impl Others {
    /// How much of `all` is left for the one that asks: what others leave, and its share at least.
    pub fn leave(&self, all: usize, taken: usize) -> usize {
        let share = all / (self.shards + 1);
        all.saturating_sub(taken).max(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_all_that_others_leave_and_its_share_at_least() {
        let others = |entries| Others {
            shards: 3,
            entries,
            bytes: 0,
        };
        assert_eq!(Others::default().leave(100, 0), 100);
        assert_eq!(others(0).leave(100, 0), 100);
        assert_eq!(others(40).leave(100, 40), 60);
        assert_eq!(others(99).leave(100, 99), 25);
    }
}
