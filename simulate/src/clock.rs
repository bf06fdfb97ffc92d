//! Virtual time, and what is to happen when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// What happens next, in the order of time; at the same time in the order in which it was said.
#[derive(Debug)]
pub struct Clock<E> {
    base: Instant,
    now_us: u64,
    said: u64,
    queue: BinaryHeap<Reverse<(u64, u64, E)>>,
}

impl<E: Ord> Clock<E> {
    pub fn new() -> Self {
        Clock {
            base: Instant::now(),
            now_us: 0,
            said: 0,
            queue: BinaryHeap::new(),
        }
    }

    pub fn now(&self) -> Instant {
        self.base + Duration::from_micros(self.now_us)
    }

    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    pub fn at(&mut self, at: Instant, event: E) {
        let us = at.saturating_duration_since(self.base).as_micros() as u64;
        self.said += 1;
        let us = us.max(self.now_us);
        self.queue.push(Reverse((us, self.said, event)));
    }

    pub fn after(&mut self, wait: Duration, event: E) {
        self.at(self.now() + wait, event);
    }

    /// The next event before `until_us`, which it then is the time of; nothing, and that time, if there is none.
    pub fn next(&mut self, until_us: u64) -> Option<E> {
        match self.queue.peek() {
            Some(Reverse((us, _, _))) if *us <= until_us => {
                let Reverse((us, _, event)) = self.queue.pop()?;
                self.now_us = us;
                Some(event)
            }
            _ => {
                self.now_us = self.now_us.max(until_us);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sooner_comes_first_and_time_goes_on_without_it() {
        let mut clock = Clock::new();
        clock.after(Duration::from_millis(2), 'b');
        clock.after(Duration::from_millis(1), 'a');
        clock.after(Duration::from_millis(2), 'c');
        assert_eq!(clock.next(1_500), Some('a'));
        assert_eq!((clock.next(1_500), clock.now_us()), (None, 1_500));
        assert_eq!((clock.next(9_000), clock.now_us()), (Some('b'), 2_000));
        assert_eq!((clock.next(9_000), clock.next(9_000)), (Some('c'), None));
        assert_eq!(clock.now_us(), 9_000);
    }
}
