//! What is being told of: which cases there are, since when, and what of them somebody is still to hear.
//!
//! All of it is kept in Redis between two looks, as JSON, for the next look may be another process'. What is owed is kept
//! before it is sent, and struck off after it was: who dies between the two has it told twice, and never not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::evidence::Finding;
use super::rule::{RULES, Rule};

/// A case is over if nothing was seen of it for so many looks: what comes and goes is told of once.
const QUIET: u32 = 4;
/// So many kinds of failures are known at most; the ones longest unseen are forgotten.
const KINDS: usize = 2000;
/// The lag is noted once a minute, for so many minutes.
const LAGS: usize = 16;
const MINUTE_MS: u64 = 60_000;

/// Everything that is kept between two looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Standing {
    cases: Vec<Case>,
    /// Lags of each stream, a minute apart,
    lags: BTreeMap<String, Vec<u64>>,
    /// and when the last of them was noted.
    lags_at: u64,
    /// Kinds of failures that were seen, and when last; none before the first look.
    kinds: Option<BTreeMap<String, u64>>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Case {
    /// The name of its rule,
    pub rule: String,
    pub labels: BTreeMap<String, String>,
    pub text: String,
    /// When it was seen first and last, in milliseconds since 1970.
    pub since: u64,
    pub seen: u64,
    /// Whether it has lasted for as long as its rule says.
    pub fires: bool,
    /// When it was told of last.
    #[serde(default)]
    pub told: Option<u64>,
    /// Whether it is over: it goes once that is told.
    #[serde(default)]
    pub over: bool,
}

impl Case {
    /// One that says that nothing is wrong.
    pub fn test(now: u64) -> Self {
        Case {
            rule: "waiting".to_owned(),
            labels: BTreeMap::from([("test".to_owned(), "true".to_owned())]),
            text: "this is a test: nothing is wrong".to_owned(),
            since: now,
            seen: now,
            fires: true,
            told: None,
            over: false,
        }
    }

    /// Its rule, unless that is one of another release.
    pub fn rule(&self) -> Option<&'static Rule> {
        RULES.iter().find(|rule| rule.name == self.rule)
    }
}

impl Standing {
    /// Takes in what a look has found, of looks that are `every` so often.
    pub fn look(&mut self, found: Vec<(&'static Rule, Finding)>, every: Duration, now: u64) {
        // An hour is an hour: what a clock that was set back says of the future is as of now.
        for case in &mut self.cases {
            case.since = case.since.min(now);
            case.seen = case.seen.min(now);
        }
        for (rule, finding) in found {
            let labels: BTreeMap<String, String> = finding
                .labels
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            let is_this = |case: &&mut Case| case.rule == rule.name && case.labels == labels;
            match self.cases.iter_mut().find(is_this) {
                Some(case) => {
                    case.text = finding.text;
                    case.seen = now;
                    // It has come again before anybody heard that it was over.
                    case.over = false;
                }
                None => self.cases.push(Case {
                    rule: rule.name.to_owned(),
                    labels,
                    text: finding.text,
                    since: now,
                    seen: now,
                    fires: false,
                    told: None,
                    over: false,
                }),
            }
        }
        self.cases.retain_mut(|case| {
            let Some(rule) = case.rule() else {
                return false;
            };
            if case.seen == now {
                case.fires |= ms(rule.lasting) <= now - case.since;
                return true;
            }
            case.over = now - case.seen >= ms(every * QUIET);
            // What was never told of needs no word of its end, and neither does what happened once.
            case.fires && !(case.over && rule.is_once() && case.told.is_some())
        });
    }

    /// What is to be told now: what has begun or is over since it was last told of, and what lasts for longer than
    /// `repeat`.
    pub fn owed(&self, repeat: Duration, now: u64) -> Vec<&Case> {
        let is_owed = |case: &&Case| {
            let again = |told: u64| now.saturating_sub(told) >= ms(repeat) && !case.is_once();
            case.fires && (case.over || case.told.is_none_or(again))
        };
        self.cases.iter().filter(is_owed).collect()
    }

    /// Everything that fires.
    pub fn firing(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(|case| case.fires)
    }

    /// What was owed at `now` has been told.
    pub fn told(&mut self, repeat: Duration, now: u64) {
        let owed: Vec<Case> = self.owed(repeat, now).into_iter().cloned().collect();
        self.cases
            .retain(|case| !(case.over && owed.contains(case)));
        for case in &mut self.cases {
            if owed.contains(case) {
                case.told = Some(now);
            }
        }
    }

    /// Notes how many entries of each stream are unread, once a minute.
    pub fn note_lags(&mut self, lags: impl IntoIterator<Item = (String, u64)>, now: u64) {
        let since = now.saturating_sub(self.lags_at);
        if since < MINUTE_MS {
            return;
        }
        // Between two notes that are further apart nothing is known.
        if since >= 2 * MINUTE_MS {
            self.lags.clear();
        }
        self.lags_at = now;
        let mut before = std::mem::take(&mut self.lags);
        for (stream, lag) in lags {
            let mut noted = before.remove(&stream).unwrap_or_default();
            noted.push(lag);
            noted.drain(..noted.len().saturating_sub(LAGS));
            self.lags.insert(stream, noted);
        }
    }

    pub fn lags(&self) -> &BTreeMap<String, Vec<u64>> {
        &self.lags
    }

    /// Whether no kinds of failures have been looked at yet.
    pub fn is_first_look(&self) -> bool {
        self.kinds.is_none()
    }

    /// Which of these kinds of failures were never seen before. At the first look none is new: what there is has been
    /// there.
    pub fn new_kinds(&mut self, kinds: impl IntoIterator<Item = String>, now: u64) -> Vec<String> {
        let is_first = self.kinds.is_none();
        let known = self.kinds.get_or_insert_default();
        let mut new = Vec::new();
        for kind in kinds {
            if known.insert(kind.clone(), now).is_none() && !is_first {
                new.push(kind);
            }
        }
        if known.len() > KINDS {
            let mut seen: Vec<u64> = known.values().copied().collect();
            seen.sort_unstable();
            let oldest = seen[seen.len() - KINDS];
            known.retain(|_, seen| *seen >= oldest);
        }
        new
    }
}

impl Case {
    fn is_once(&self) -> bool {
        self.rule().is_some_and(Rule::is_once)
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(30);
    const REPEAT: Duration = Duration::from_secs(3600);

    fn rule(name: &str) -> &'static Rule {
        RULES.iter().find(|rule| rule.name == name).expect(name)
    }

    fn found(name: &str, stream: &str) -> (&'static Rule, Finding) {
        let labels = vec![("stream", stream.to_owned())];
        let text = "it is wrong".to_owned();
        (rule(name), Finding { labels, text })
    }

    /// What is told at `seconds`, having found this: `+` begins or lasts, `-` is over.
    fn told(standing: &mut Standing, seconds: u64, found: &[(&'static Rule, Finding)]) -> String {
        // As it is kept.
        let kept = serde_json::to_string(standing).expect("JSON");
        *standing = serde_json::from_str(&kept).expect("what was kept");
        let now = 1_700_000_000_000 + seconds * 1000;
        standing.look(found.to_vec(), EVERY, now);
        let owed = standing.owed(REPEAT, now).into_iter();
        let said: Vec<String> = owed
            .map(|case| {
                let sign = if case.over { '-' } else { '+' };
                format!("{sign}{} {}", case.rule, case.labels["stream"])
            })
            .collect();
        standing.told(REPEAT, now);
        said.join(", ")
    }

    #[test]
    fn a_case_is_told_once_it_has_lasted_again_after_a_while_and_when_it_is_over() {
        let mut standing = Standing::default();
        let is = &[found("waiting", "orders")];
        assert_eq!(told(&mut standing, 0, is), "");
        assert_eq!(told(&mut standing, 30, is), "");
        assert_eq!(told(&mut standing, 60, is), "+waiting orders");
        assert_eq!(told(&mut standing, 90, is), "");
        assert_eq!(told(&mut standing, 3659, is), "");
        assert_eq!(told(&mut standing, 3660, is), "+waiting orders");
        assert_eq!(told(&mut standing, 3690, &[]), "");
        assert_eq!(told(&mut standing, 3720, is), "", "it was not over yet");
        assert_eq!(told(&mut standing, 3750, &[]), "");
        assert_eq!(told(&mut standing, 3840, &[]), "-waiting orders");
        assert_eq!(told(&mut standing, 3870, &[]), "");
        assert_eq!(standing.cases, []);
    }

    #[test]
    fn what_does_not_last_is_never_told() {
        let mut standing = Standing::default();
        let is = &[found("waiting", "orders")];
        assert_eq!(told(&mut standing, 0, is), "");
        assert_eq!(told(&mut standing, 30, &[]), "");
        assert_eq!(told(&mut standing, 60, is), "");
        assert_eq!(told(&mut standing, 90, is), "", "it began anew");
        assert_eq!(told(&mut standing, 120, is), "+waiting orders");
    }

    #[test]
    fn cases_are_told_apart_by_their_labels() {
        let mut standing = Standing::default();
        let both = &[found("dead", "orders"), found("dead", "payments")];
        assert_eq!(told(&mut standing, 0, both), "+dead orders, +dead payments");
        assert_eq!(told(&mut standing, 120, &both[..1]), "-dead payments");
        assert_eq!(told(&mut standing, 240, &[]), "-dead orders");
    }

    #[test]
    fn what_nobody_could_be_told_is_owed_until_somebody_is() {
        let mut standing = Standing::default();
        let now = 1_700_000_000_000;
        standing.look(vec![found("dead", "orders")], EVERY, now);
        assert_eq!(standing.owed(REPEAT, now).len(), 1);
        standing.look(vec![found("dead", "orders")], EVERY, now + 30_000);
        assert_eq!(standing.owed(REPEAT, now + 30_000).len(), 1);
        standing.look(Vec::new(), EVERY, now + 200_000);
        let owed = standing.owed(REPEAT, now + 200_000);
        assert!(owed.len() == 1 && owed[0].over, "{owed:?}");
        standing.told(REPEAT, now + 200_000);
        assert_eq!(standing.cases, []);
    }

    #[test]
    fn a_kind_of_failure_is_new_once_and_never_at_the_first_look() {
        let mut standing = Standing::default();
        let mut new = |kinds: &[&str], now| {
            standing.new_kinds(kinds.iter().map(|kind| (*kind).to_owned()), now)
        };
        assert!(new(&["a", "b"], 1).is_empty());
        assert_eq!(new(&["a", "c"], 2), ["c"]);
        assert!(new(&["c", "b"], 3).is_empty());
        let many: Vec<String> = (0..KINDS).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(|kind| &kind[..]).collect();
        assert_eq!(new(&many, 4).len(), KINDS);
        assert_eq!(new(&["a"], 5), ["a"], "it was forgotten");
    }

    #[test]
    fn a_kind_of_failure_is_told_once_and_not_that_it_is_over() {
        let mut standing = Standing::default();
        let is = &[found("new_failure", "orders")];
        assert_eq!(told(&mut standing, 0, is), "+new_failure orders");
        assert_eq!(told(&mut standing, 30, &[]), "");
        assert_eq!(told(&mut standing, 300, &[]), "");
        assert_eq!(standing.cases, []);
    }

    #[test]
    fn lags_are_noted_a_minute_apart_and_not_over_a_gap() {
        let mut standing = Standing::default();
        let mut note = |seconds: u64, lag| {
            let now = 1_700_000_000_000 + seconds * 1000;
            standing.note_lags([("orders".to_owned(), lag)], now);
            standing.lags()["orders"].clone()
        };
        assert_eq!(note(0, 5), [5]);
        assert_eq!(note(30, 6), [5]);
        assert_eq!(note(60, 7), [5, 7]);
        for minute in 2..30 {
            note(minute * 60, minute);
        }
        assert_eq!(note(29 * 60, 0), (14..30).collect::<Vec<u64>>());
        assert_eq!(note(60 * 60, 9), [9]);
    }
}
