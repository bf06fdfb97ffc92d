//! What was acknowledged of late. A failover can lose an acknowledgement: then an entry comes back from the new server
//! that has been handled already. It can also lose the entry itself and give its id to another one; so an acknowledged
//! entry is known by its id and by a mark of the event it was.

use std::collections::{HashMap, VecDeque};
use std::hash::Hasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustc_hash::FxHasher;

use super::source::Source;
use crate::event::{EntryId, Envelope};
use crate::sync::lock;

/// Most acknowledgements that are remembered. A replica is behind by milliseconds, seldom by more than this many.
const MOST: usize = 1 << 16;

/// Acknowledged entries of all streams.
#[derive(Default)]
pub(crate) struct RecentAcks {
    recalling: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    recent: VecDeque<Lot>,
    entries: usize,
    /// After a change of server: what may come back.
    recalled: Vec<(Arc<Source>, HashMap<EntryId, u32>)>,
    recalled_at: Option<Instant>,
}

/// What one step acknowledged of one stream.
struct Lot {
    at: Instant,
    source: Arc<Source>,
    entries: Vec<(EntryId, u32)>,
}

impl RecentAcks {
    /// Redis has acknowledged these entries, each with its mark. They are forgotten after a lease.
    pub fn acknowledged(
        &self,
        source: &Arc<Source>,
        entries: Vec<(EntryId, u32)>,
        lease: Duration,
    ) {
        let (at, source) = (Instant::now(), source.clone());
        let mut inner = lock(&self.inner);
        inner.entries += entries.len();
        inner.recent.push_back(Lot {
            at,
            source,
            entries,
        });
        while let Some(oldest) = inner.recent.front()
            && (inner.entries > MOST || at.duration_since(oldest.at) > lease)
        {
            inner.entries -= oldest.entries.len();
            inner.recent.pop_front();
        }
        if inner
            .recalled_at
            .is_some_and(|since| at.duration_since(since) > lease)
        {
            self.recalling.store(false, Ordering::SeqCst);
            (inner.recalled, inner.recalled_at) = (Vec::new(), None);
        }
    }

    /// Another server answers from now on, which may know less.
    pub fn recall(&self) {
        let mut inner = lock(&self.inner);
        inner.recalled_at = Some(Instant::now());
        let Inner {
            recent, recalled, ..
        } = &mut *inner;
        recalled.clear();
        for lot in recent {
            let of = match recalled
                .iter()
                .position(|(of, _)| Arc::ptr_eq(of, &lot.source))
            {
                Some(known) => &mut recalled[known].1,
                None => {
                    recalled.push((lot.source.clone(), HashMap::new()));
                    &mut recalled.last_mut().expect("it was pushed").1
                }
            };
            of.extend(lot.entries.iter().copied());
        }
        self.recalling.store(true, Ordering::SeqCst);
    }

    /// Whether this event had been acknowledged, as the entry with this id, before the server changed. Costs one load
    /// where none has.
    pub fn knows(&self, source: &Arc<Source>, id: EntryId, event: &Envelope) -> bool {
        if !self.recalling.load(Ordering::SeqCst) {
            return false;
        }
        let mark = mark(event);
        let inner = lock(&self.inner);
        inner
            .recalled
            .iter()
            .any(|(of, known)| Arc::ptr_eq(of, source) && known.get(&id) == Some(&mark))
    }
}

/// Tells events apart that have the same entry id: by their type, and by their source and their own id where they have
/// one, else by their data.
pub(crate) fn mark(envelope: &Envelope) -> u32 {
    let mut hasher = FxHasher::default();
    hasher.write(envelope.type_bytes());
    hasher.write(envelope.source_bytes());
    match envelope.id_bytes() {
        Some(id) => hasher.write(id),
        None => hasher.write(envelope.data()),
    }
    hasher.finish() as u32
}
