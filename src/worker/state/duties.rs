//! Whether a shard is on duty: reads its stream, and keeps what belongs to it as it should be. Off duty it does nothing but
//! visit now and then: see [`crate::worker::pace::duty`].

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::partition::Partition;
use crate::sync::lock;
use crate::worker::pace::duty::{self, Duty, Standing};

/// One shard's duty. It is on until it is told otherwise.
pub(crate) struct Duties {
    duty: Mutex<Duty>,
    is_on: watch::Sender<bool>,
    /// The same, and whether others do without it, for the fetcher, which asks before each round.
    on: AtomicBool,
    may_leave: AtomicBool,
    /// The same of all its shards.
    share: Mutex<Arc<Share>>,
    /// Its place among those that are visited first.
    place: AtomicUsize,
}

/// How many shards of a worker there are that may be off duty, and at how many of them it is on.
#[derive(Default)]
pub(crate) struct Share {
    all: AtomicUsize,
    on: AtomicUsize,
}

impl Default for Duties {
    fn default() -> Self {
        Duties {
            duty: Mutex::new(Duty::new(true, true)),
            is_on: watch::Sender::new(true),
            on: AtomicBool::new(true),
            may_leave: AtomicBool::new(false),
            share: Mutex::default(),
            place: AtomicUsize::new(0),
        }
    }
}

impl Duties {
    /// Says of each shard, by its streams, whether the worker `me` is on duty there as it begins. Shards of anything but a
    /// single partition of a topic always are. The same of those that come later, which have the same `share`.
    pub fn begin(all: &[(&[String], &Duties)], me: &str, share: &Arc<Share>) {
        let mut among: Vec<(&str, &Duties)> = Vec::new();
        for (streams, duties) in all {
            if let [stream] = streams
                && Partition::parse(stream).is_some()
            {
                among.push((stream, duties));
            }
        }
        let streams: Vec<&str> = among.iter().map(|(stream, _)| *stream).collect();
        let (on, known) = (&share.on, &share.all);
        let known = known.fetch_add(streams.len(), Ordering::Relaxed);
        let most = duty::begins_with(streams.len(), on.load(Ordering::Relaxed), known);
        let begins = duty::highest(&streams, me, most);
        let own = duty::own(&streams, me);
        // Not all workers of a fleet go through them in the same order.
        let mut places: Vec<usize> = (0..streams.len()).collect();
        fastrand::shuffle(&mut places);
        let all = among.iter().zip(own.into_iter().zip(begins));
        for (((_, duties), (is_own, begins_on)), place) in all.zip(places) {
            let duty = Duty::new(is_own, begins_on);
            if duty.is_on() {
                on.fetch_add(1, Ordering::Relaxed);
            }
            duties.is_on.send_replace(duty.is_on());
            duties.on.store(duty.is_on(), Ordering::Relaxed);
            duties.place.store(place, Ordering::Relaxed);
            *lock(&duties.share) = share.clone();
            *lock(&duties.duty) = duty;
        }
    }

    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Waits until it is on duty.
    pub async fn on(&self) {
        // The sender is here.
        let _ = self.is_on.subscribe().wait_for(|is_on| *is_on).await;
    }

    /// It has looked who reads the stream.
    pub fn sees(&self, standing: Standing) {
        self.change(|duty| {
            duty.sees(standing);
        });
    }

    /// Whether others do without it.
    pub fn may_leave(&self) -> bool {
        self.may_leave.load(Ordering::Relaxed)
    }

    /// It is off duty from now on.
    pub fn leaves(&self) {
        self.change(Duty::leaves);
    }

    /// It is on duty, whoever else is.
    pub fn begins(&self) {
        self.change(Duty::begins);
    }

    /// How long it is until the first visit.
    pub fn first_visit_in(&self) -> Duration {
        duty::first_visit_in(self.place.load(Ordering::Relaxed))
    }

    /// How long it is until the next visit, if so many read the stream.
    pub fn visit_in(&self, readers: usize) -> Duration {
        let share = lock(&self.share).clone();
        let on = share.on.load(Ordering::Relaxed);
        let all = share.all.load(Ordering::Relaxed);
        duty::visit_in(readers, on, all.saturating_sub(on))
    }

    fn change(&self, change: impl FnOnce(&mut Duty)) {
        let mut duty = lock(&self.duty);
        let was_on = duty.is_on();
        change(&mut duty);
        let is_on = duty.is_on();
        self.may_leave.store(duty.may_leave(), Ordering::Relaxed);
        if was_on == is_on {
            return;
        }
        let on = &lock(&self.share).on;
        match is_on {
            true => on.fetch_add(1, Ordering::Relaxed),
            false => on.fetch_sub(1, Ordering::Relaxed),
        };
        self.on.store(is_on, Ordering::Relaxed);
        self.is_on.send_replace(is_on);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(count: usize) -> Vec<Duties> {
        more(count, "", &Arc::default())
    }

    fn more(count: usize, of: &str, share: &Arc<Share>) -> Vec<Duties> {
        let streams: Vec<Vec<String>> = (0..count)
            .map(|n| vec![format!("{{orders:{of}{n}}}")])
            .collect();
        let duties: Vec<Duties> = (0..count).map(|_| Duties::default()).collect();
        let all: Vec<_> = streams.iter().map(|of| &of[..]).zip(&duties).collect();
        Duties::begin(&all, "sh2-30000-host-1-x", share);
        duties
    }

    fn on(duties: &[Duties]) -> usize {
        duties.iter().filter(|duties| duties.is_on()).count()
    }

    #[test]
    fn a_few_partitions_are_read_at_once_and_of_many_a_few() {
        assert_eq!(on(&begun(20)), 20);
        let many = begun(1000);
        assert_eq!(on(&many), 8);
        let off = many.iter().find(|duties| !duties.is_on()).unwrap();
        assert!(off.first_visit_in() <= Duration::from_secs(10));
        let nobody = Standing {
            readers: 0,
            before: 0,
        };
        off.sees(nobody);
        assert_eq!(on(&many), 9);
        off.leaves();
        assert_eq!(on(&many), 8);
    }

    #[test]
    fn of_partitions_that_come_later_as_many_are_read_as_fit_what_is_read_by_then() {
        let share = Arc::default();
        let first = more(20, "", &share);
        assert_eq!(on(&more(100, "2.", &share)), 100);
        first.iter().for_each(Duties::leaves);
        assert_eq!(share.on.load(Ordering::Relaxed), 100);
        assert_eq!(on(&more(300, "3.", &share)), 250);
    }

    #[test]
    fn what_is_no_partition_is_always_read() {
        let duties = Duties::default();
        let enough = Standing {
            readers: 100,
            before: 100,
        };
        let streams = ["orders".to_owned()];
        Duties::begin(&[(&streams, &duties)], "me", &Arc::default());
        (0..9).for_each(|_| duties.sees(enough));
        assert!(duties.is_on() && !duties.may_leave());
    }
}
