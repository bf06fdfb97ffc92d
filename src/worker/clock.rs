//! The server's clock, as its answers tell it, against what has really passed: whether it was set in between.
//!
//! Set ahead, it makes everything look old; for a lease nobody is taken for dead, and what is kept for a time is kept for
//! longer. Set back, what it noted meanwhile lies in the future: those notes are brought back.

use std::time::{Duration, Instant};

/// Less is no step: clocks do not go alike.
const LEAST: Duration = Duration::from_secs(1);

/// The server's clock.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// What it showed, at some time between two instants.
    seen: Option<(u64, Instant, Instant)>,
    ahead: Duration,
}

/// It was set, by so much at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Ahead(Duration),
    Back(Duration),
}

impl Clock {
    /// It showed `ms`, in the answer to what was sent at `sent` and came at `answered`. Answers whether it was set since
    /// the last time; what an answer took on its way is no step.
    pub fn saw(&mut self, ms: u64, sent: Instant, answered: Instant) -> Option<Step> {
        let (before, begun, ended) = self.seen.replace((ms, sent, answered))?;
        let least = before + sent.saturating_duration_since(ended).as_millis() as u64;
        let most = before + answered.saturating_duration_since(begun).as_millis() as u64;
        let ahead = Duration::from_millis(ms.saturating_sub(most));
        let back = Duration::from_millis(least.saturating_sub(ms));
        if ahead > LEAST {
            self.ahead += ahead;
            Some(Step::Ahead(ahead))
        } else if back > LEAST {
            self.ahead = self.ahead.saturating_sub(back);
            Some(Step::Back(back))
        } else {
            None
        }
    }

    /// What it shows now, unless the server has stood still meanwhile: then it is later there. 0 where it was never seen.
    pub fn now(&self) -> u64 {
        self.seen.map_or(0, |(ms, _, answered)| {
            ms + answered.elapsed().as_millis() as u64
        })
    }

    /// How far it was set ahead since this worker began.
    pub fn ahead(&self) -> Duration {
        self.ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_from_an_answer_that_took_its_time() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut clock = Clock::default();
        assert_eq!(clock.saw(1_000_000, at(0), at(1)), None);
        assert_eq!(clock.saw(1_000_800, at(800), at(801)), None);
        // Read at once and answered late; then asked early and read late.
        assert_eq!(clock.saw(1_001_600, at(1_600), at(9_600)), None);
        assert_eq!(clock.saw(1_019_000, at(9_601), at(19_001)), None);
        let hour = 3_600_000;
        assert_eq!(
            clock.saw(1_020_000 + hour, at(20_000), at(20_001)),
            Some(Step::Ahead(Duration::from_millis(hour - 400)))
        );
        assert!(clock.ahead() > Duration::from_secs(3_500));
        let stepped = clock.saw(1_020_800, at(20_800), at(20_801));
        assert!(matches!(stepped, Some(Step::Back(by)) if by.as_secs() == 3_599));
        assert!(clock.ahead() < Duration::from_secs(2));
    }
}
