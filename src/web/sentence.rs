//! How a group is doing, in a sentence that says why and until when. A pure function of what is known.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::filters::{roughly, thousands};

/// What is known of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The server's time, in ms since 1970.
    pub now_ms: u64,
    /// Entries that a worker could take now: not read yet, due, replayed.
    pub runnable: u64,
    /// Entries that were delivered and are not settled, without those that are parked.
    pub running: u64,
    pub parked: u64,
    /// When the first of them is due, in ms from now.
    pub next_due: Option<Duration>,
    pub dead: u64,
    pub workers: u64,
    /// Streams and types that are paused, and by whom.
    pub paused: Vec<String>,
    /// Circuit breakers that are open, and when they let probes through, in ms since 1970.
    pub breakers: Vec<(String, Option<u64>)>,
    /// What can't be looked at, or is wrong.
    pub troubles: Vec<String>,
    /// What is known of the last minutes.
    pub trend: Option<Trend>,
    /// Whether it has ever worked.
    pub is_new: bool,
}

/// What history says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Trend {
    /// Entries a second: published for the group, and settled by it.
    pub coming: f64,
    pub going: f64,
    /// The part of attempts that failed lately.
    pub failing: f64,
    /// What fails most: a type.
    pub failing_type: Option<String>,
    /// Dead letters a second.
    pub dying: f64,
    /// Since when it is behind or failing, in ms since 1970.
    pub since_ms: Option<u64>,
    /// The version that came within a minute before.
    pub with_version: Option<String>,
}

/// What the sentence comes to; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mood {
    /// Something is wrong that does not mend itself.
    Failing,
    /// It falls behind.
    Behind,
    /// Something holds it up on purpose.
    Waiting,
    /// It catches up.
    Catching,
    Fine,
}

/// How it is, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Sentence {
    pub mood: Mood,
    pub text: String,
}

impl Mood {
    /// One word, for who does not see colours.
    pub fn word(self) -> &'static str {
        match self {
            Mood::Failing => "failing",
            Mood::Behind => "behind",
            Mood::Waiting => "waiting",
            Mood::Catching => "catching up",
            Mood::Fine => "fine",
        }
    }
}

/// From so much on a rate says something.
const SOME: f64 = 0.05;
/// From this part of attempts on failures are what there is to say.
const MANY: f64 = 0.5;

impl Facts {
    /// The sentence.
    pub fn sentence(&self) -> Sentence {
        let waits = || format!("{} wait", thousands(&self.runnable.to_string()));
        let say = |mood, text| Sentence { mood, text };
        if let Some(trouble) = self.troubles.first() {
            return say(Mood::Failing, format!("in trouble: {trouble}"));
        }
        if self.workers == 0 {
            return match (self.runnable, self.is_new) {
                (0, true) => say(Mood::Waiting, "new: no worker has been here yet".to_owned()),
                (0, false) => say(
                    Mood::Waiting,
                    "no worker is here, and nothing waits".to_owned(),
                ),
                _ => say(
                    Mood::Failing,
                    format!("stopped: no worker is here, {}", waits()),
                ),
            };
        }
        let trend = self.trend.clone().unwrap_or_default();
        if trend.failing >= MANY && trend.going + trend.dying > SOME {
            return say(Mood::Failing, self.failing(&trend));
        }
        if let Some((breaker, until)) = self.breakers.first() {
            let until = match until {
                Some(ms) if *ms > self.now_ms => {
                    format!(" until {}", clock(*ms))
                }
                _ => ", probing".to_owned(),
            };
            let more = match self.breakers.len() {
                1 => String::new(),
                more => format!(" and {} more", more - 1),
            };
            let how = if trend.going > SOME { "slowed" } else { "idle" };
            let held = self.runnable + self.parked;
            let held = thousands(&held.to_string());
            return say(
                Mood::Waiting,
                format!("{how}: breaker {breaker}{more} open{until}, {held} wait"),
            );
        }
        if let Some(paused) = self.paused.first() {
            let more = match self.paused.len() {
                1 => String::new(),
                more => format!(" and {} more", more - 1),
            };
            return say(
                Mood::Waiting,
                format!("paused: {paused}{more}, {}", waits()),
            );
        }
        self.moving(&trend)
    }

    /// Nothing holds it up: it keeps up, or it does not.
    fn moving(&self, trend: &Trend) -> Sentence {
        let say = |mood, text| Sentence { mood, text };
        let runnable = thousands(&self.runnable.to_string());
        let gain = trend.going - trend.coming;
        if self.runnable == 0 {
            return self.at_rest(trend);
        }
        if self.trend.is_none() {
            return say(Mood::Catching, format!("working: {runnable} wait"));
        }
        if gain < -SOME && self.runnable as f64 > trend.coming.max(1.0) {
            let since = self.since(trend);
            return say(
                Mood::Behind,
                format!(
                    "falling behind by {}/s{since}, {runnable} wait",
                    rate(-gain)
                ),
            );
        }
        if gain > SOME {
            let left = self.runnable as f64 / gain;
            if left < 2.0 {
                return say(
                    Mood::Fine,
                    format!(
                        "keeping up with {} a second, {runnable} in hand",
                        rate(trend.coming)
                    ),
                );
            }
            let text = match at(self.now_ms, left) {
                Some(at) => format!("caught up at {at} at this rate, {runnable} wait"),
                None => format!(
                    "catching up by {}/s, {runnable} wait: that takes days",
                    rate(gain)
                ),
            };
            return say(Mood::Catching, text);
        }
        if trend.going > SOME {
            let text = format!(
                "neither gaining nor losing at {}/s, {runnable} wait",
                rate(trend.going)
            );
            return say(Mood::Catching, text);
        }
        say(
            Mood::Behind,
            format!(
                "stalled: nothing is handled{}, {runnable} wait",
                self.since(trend)
            ),
        )
    }

    /// Nothing waits for a worker.
    fn at_rest(&self, trend: &Trend) -> Sentence {
        let in_hand = match self.running {
            0 => String::new(),
            running => format!(", {} in hand", thousands(&running.to_string())),
        };
        let parked = match (self.parked, self.next_due) {
            (0, _) => String::new(),
            (parked, next) => {
                let next = next.map(|next| format!(", the next in {}", roughly(next)));
                let parked = thousands(&parked.to_string());
                format!(" {parked} wait for their retry{}", next.unwrap_or_default())
            }
        };
        let text = if trend.coming > SOME || trend.going > SOME {
            let rate = rate(trend.coming.max(trend.going));
            let failing = match (trend.failing * 100.0).round() {
                part if part >= 5.0 => format!(", {part} % of attempts fail"),
                _ => String::new(),
            };
            let parked = if parked.is_empty() {
                parked
            } else {
                format!(",{parked}")
            };
            format!("keeping up with {rate} a second{failing}{in_hand}{parked}")
        } else if !parked.is_empty() {
            format!("idle:{parked}{in_hand}")
        } else if self.running > 0 {
            format!("working: nothing waits{in_hand}")
        } else {
            "idle: nothing waits".to_owned()
        };
        let mood = Mood::Fine;
        Sentence { mood, text }
    }

    fn failing(&self, trend: &Trend) -> String {
        let part = (trend.failing * 100.0).round();
        let what = match &trend.failing_type {
            Some(one) => format!(", most of them {one}"),
            None => String::new(),
        };
        let dying = match trend.dying {
            dying if dying > SOME => format!(", {}/s die", rate(dying)),
            _ => String::new(),
        };
        format!(
            "failing: {part} % of attempts{}{what}{dying}",
            self.since(trend)
        )
    }

    fn since(&self, trend: &Trend) -> String {
        let since = match trend.since_ms {
            Some(ms) => format!(" since {}", moment(ms, self.now_ms)),
            None => String::new(),
        };
        match &trend.with_version {
            Some(version) => format!("{since}, with version {version}"),
            None => since,
        }
    }
}

/// Entries a second: three digits say enough.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        // A sum of nothing is below zero by its sign.
        0.0 => "0".to_owned(),
        rate if rate >= 10.0 => thousands(&format!("{rate:.0}")),
        rate if rate >= 1.0 => format!("{rate:.1}"),
        rate => format!("{rate:.2}"),
    }
}

/// When so many seconds are over; None beyond a day, which nobody should promise.
fn at(now_ms: u64, seconds: f64) -> Option<String> {
    (seconds < 86_400.0).then(|| clock(now_ms + (seconds * 1000.0) as u64))
}

/// A time of day: 14:02, by UTC.
pub(super) fn clock(ms: u64) -> String {
    let text =
        humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
    text.to_string().get(11..16).unwrap_or_default().to_owned()
}

/// A time of day, with its date where it is not today's.
pub(super) fn moment(ms: u64, now_ms: u64) -> String {
    let text = |ms| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        humantime::format_rfc3339_seconds(at).to_string()
    };
    let (day, today) = (text(ms), text(now_ms));
    match (day.get(..10), today.get(..10)) {
        (Some(day), Some(today)) if day == today => clock(ms),
        (Some(day), _) => format!("{day} {}", clock(ms)),
        (None, _) => clock(ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30 14:20:00.
    const NOW: u64 = 1_796_048_400_000;

    fn facts() -> Facts {
        Facts {
            now_ms: NOW,
            workers: 2,
            ..Facts::default()
        }
    }

    fn said(facts: &Facts) -> (Mood, String) {
        let Sentence { mood, text } = facts.sentence();
        (mood, text)
    }

    fn trend(coming: f64, going: f64) -> Option<Trend> {
        Some(Trend {
            coming,
            going,
            ..Trend::default()
        })
    }

    #[test]
    fn it_says_by_how_much_since_when_and_with_what() {
        let mut behind = facts();
        behind.runnable = 50_000;
        behind.trend = Some(Trend {
            coming: 320.0,
            going: 200.0,
            since_ms: Some(NOW - 18 * 60_000),
            with_version: Some("0.3.1".to_owned()),
            ..Trend::default()
        });
        let text = "falling behind by 120/s since 14:02, with version 0.3.1, 50,000 wait";
        assert_eq!(said(&behind), (Mood::Behind, text.to_owned()));
        behind.trend.as_mut().expect("a trend").since_ms = Some(NOW - 86_400_000);
        assert!(
            said(&behind).1.contains("since 2026-11-29 14:20"),
            "{behind:?}"
        );
    }

    #[test]
    fn it_says_until_when() {
        let mut catching = facts();
        (catching.runnable, catching.trend) = (120_000, trend(100.0, 200.0));
        let text = "caught up at 14:40 at this rate, 120,000 wait";
        assert_eq!(said(&catching), (Mood::Catching, text.to_owned()));
        catching.runnable = 100_000_000;
        assert!(said(&catching).1.ends_with("that takes days"));
        let mut idle = facts();
        (idle.runnable, idle.parked) = (8_000, 112);
        idle.breakers = vec![("payments".to_owned(), Some(NOW + 60_000))];
        let text = "idle: breaker payments open until 14:21, 8,112 wait";
        assert_eq!(said(&idle), (Mood::Waiting, text.to_owned()));
    }

    #[test]
    fn it_says_what_is_wrong_first() {
        let mut all = facts();
        all.runnable = 7;
        all.paused = vec!["orders by alice".to_owned()];
        all.breakers = vec![("a".to_owned(), None), ("b".to_owned(), None)];
        all.trend = Some(Trend {
            coming: 1.0,
            going: 9.0,
            failing: 0.8,
            failing_type: Some("order.created".to_owned()),
            dying: 2.0,
            ..Trend::default()
        });
        assert_eq!(
            said(&all),
            (
                Mood::Failing,
                "failing: 80 % of attempts, most of them order.created, 2.0/s die".to_owned()
            )
        );
        all.trend = trend(1.0, 9.0);
        assert_eq!(
            said(&all).1,
            "slowed: breaker a and 1 more open, probing, 7 wait"
        );
        all.breakers.clear();
        assert_eq!(
            said(&all),
            (Mood::Waiting, "paused: orders by alice, 7 wait".to_owned())
        );
        all.workers = 0;
        assert_eq!(
            said(&all),
            (
                Mood::Failing,
                "stopped: no worker is here, 7 wait".to_owned()
            )
        );
        all.troubles = vec!["orders is a hash, not a stream".to_owned()];
        assert_eq!(said(&all).1, "in trouble: orders is a hash, not a stream");
    }

    #[test]
    fn it_says_that_all_is_well() {
        assert_eq!(
            said(&facts()),
            (Mood::Fine, "idle: nothing waits".to_owned())
        );
        let mut busy = facts();
        (busy.running, busy.trend) = (12, trend(1234.0, 1230.0));
        assert_eq!(said(&busy).1, "keeping up with 1,234 a second, 12 in hand");
        (busy.runnable, busy.trend) = (3, trend(10.0, 20.0));
        assert_eq!(said(&busy).0, Mood::Fine);
        let mut parked = facts();
        (parked.parked, parked.next_due) = (2, Some(Duration::from_secs(30)));
        assert_eq!(
            said(&parked).1,
            "idle: 2 wait for their retry, the next in 30 s"
        );
        parked.trend = trend(25.0, 25.0);
        parked.trend.as_mut().expect("a trend").failing = 0.18;
        assert_eq!(
            said(&parked).1,
            "keeping up with 25 a second, 18 % of attempts fail, 2 wait for their retry, the next in 30 s"
        );
        let mut new = facts();
        (new.workers, new.is_new) = (0, true);
        assert_eq!(
            said(&new),
            (Mood::Waiting, "new: no worker has been here yet".to_owned())
        );
    }

    #[test]
    fn it_says_that_nothing_moves() {
        let mut stalled = facts();
        (stalled.runnable, stalled.trend) = (9, trend(0.0, 0.0));
        assert_eq!(
            said(&stalled),
            (
                Mood::Behind,
                "stalled: nothing is handled, 9 wait".to_owned()
            )
        );
        stalled.trend = trend(50.0, 50.0);
        assert_eq!(
            said(&stalled).1,
            "neither gaining nor losing at 50/s, 9 wait"
        );
        stalled.trend = None;
        assert_eq!(
            said(&stalled),
            (Mood::Catching, "working: 9 wait".to_owned())
        );
    }
}
