//! Dead letters counted by what they have in common, for all who look. A page never waits long for it: the first count of a
//! million letters takes half a minute, and goes on behind the pages, which show what was counted last, and when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Mutex, watch};

use super::problem::Problem;
use crate::dead_letters::{DeadLetters, Filter, Groups, LeftOut};
use crate::sync::lock;

/// So long a page waits for a count: less than a page may take.
const WAITS: Duration = Duration::from_millis(40);
/// What was counted is not counted again for so long.
const FRESH: Duration = Duration::from_millis(900);
/// Nor for so many times as long as it took: a user that may not write has all letters gone through each time.
const PAUSE: u32 = 10;
/// What is older is said to be.
const OLD: Duration = Duration::from_secs(5);

/// The counts of the streams that somebody may look at.
#[derive(Default)]
pub(super) struct Counting(StdMutex<BTreeMap<Vec<String>, Arc<Count>>>);

/// What was counted, and when if that is a while ago.
pub(super) struct Counted {
    pub groups: Arc<Groups>,
    pub left_out: Vec<LeftOut>,
    pub as_of: Option<SystemTime>,
}

/// One count, which is made by one at a time.
struct Count {
    turn: Arc<Mutex<()>>,
    last: watch::Sender<Option<Last>>,
}

#[derive(Clone)]
struct Last {
    at: Instant,
    took: Duration,
    is_over: bool,
    groups: Result<Arc<Groups>, Problem>,
    left_out: Vec<LeftOut>,
}

impl Counting {
    /// The groups of what is alike; None as long as they were never counted to the end.
    ///
    /// # Errors
    /// If counting failed.
    pub async fn get(&self, dead: &DeadLetters) -> Result<Option<Counted>, Problem> {
        let streams = dead.streams().map(str::to_owned).collect();
        let count = Arc::clone(lock(&self.0).entry(streams).or_default());
        let mut last = count.last.subscribe();
        let fresh = last.borrow().clone().filter(Last::is_fresh);
        if let Some(fresh) = fresh {
            return fresh.told().map(Some);
        }
        if let Ok(turn) = Arc::clone(&count.turn).try_lock_owned() {
            let (count, dead) = (Arc::clone(&count), dead.clone());
            tokio::spawn(async move {
                let since = Instant::now();
                let groups = dead.groups(Filter::new()).await;
                count.last.send_replace(Some(Last {
                    at: Instant::now(),
                    took: since.elapsed(),
                    is_over: false,
                    groups: groups.map(Arc::new).map_err(Problem::from),
                    left_out: dead.left_out(),
                }));
                drop(turn);
            });
        }
        // What is known by then is shown, whether it is this count or the one before.
        let _ = tokio::time::timeout(WAITS, last.changed()).await;
        let known = last.borrow().clone();
        known.map(Last::told).transpose()
    }

    /// What was counted is not true any more.
    pub fn forget(&self) {
        for count in lock(&self.0).values() {
            count.last.send_if_modified(|last| {
                if let Some(last) = last {
                    last.is_over = true;
                }
                false
            });
        }
    }
}

impl Default for Count {
    fn default() -> Self {
        Count {
            turn: Arc::default(),
            last: watch::Sender::new(None),
        }
    }
}

impl Last {
    fn is_fresh(&self) -> bool {
        !self.is_over && self.at.elapsed() < FRESH.max(self.took * PAUSE)
    }

    fn told(self) -> Result<Counted, Problem> {
        let age = self.at.elapsed();
        Ok(Counted {
            as_of: (age > OLD).then(|| SystemTime::now() - age),
            groups: self.groups?,
            left_out: self.left_out,
        })
    }
}
