//! The checker tried on records that are right, and on the same with one thing wrong in them, for each of its rules.

use bytes::Bytes;

use super::super::history::{History, Life, Published, Renewal, Stored};
use super::super::plan::{Act, Job, NewEvent, Way};
use super::super::publishing::envelope;
use super::super::records::{How, Line, What};
use super::check;
use crate::support::Entry;

const SECOND: u64 = 1_000_000_000;

/// Records of a small run, as a test tells it.
struct Story {
    history: History,
    runs: u64,
}

/// A run that has begun.
#[derive(Clone)]
struct Begun {
    life: String,
    run: u64,
}

impl Story {
    /// Two workers that live for a minute and renew all the time.
    fn new() -> Story {
        let mut history = History::default();
        for name in ["0.0", "1.0"] {
            let mut life = Life::new(name.to_owned(), 0);
            life.ending = "0".to_owned();
            life.ended = Some(60 * SECOND);
            life.renewals = (0..100).map(|n| renewal(n as f64 * 0.6, false)).collect();
            history.lives.insert(name.to_owned(), life);
        }
        Story { history, runs: 0 }
    }

    /// An event that was published, acknowledged and is in the stream: its entry.
    fn publish(&mut self, id: &str, event_type: &'static str, effect: bool) -> String {
        let act = Act::Succeed;
        let event = NewEvent {
            id: id.to_owned(),
            stream: "jobs",
            way: Way::Now,
            event_type,
            job: Job { effect, act },
        };
        let id_of_it = format!("{}-0", self.history.entries.len() + 1);
        let entry = format!("jobs/{id_of_it}");
        let job = serde_json::to_vec(&event.job).unwrap();
        assert_eq!(envelope(&event).data(), job);
        let fields = [
            ("type", event_type.as_bytes().to_vec()),
            ("id", id.as_bytes().to_vec()),
            ("note", "as it is, \0 and all".as_bytes().to_vec()),
            ("data", job),
        ];
        let fields = fields
            .into_iter()
            .map(|(name, value)| (Bytes::from(name), Bytes::from(value)))
            .collect();
        let id = id_of_it.parse().unwrap();
        self.history.entries.push(Stored {
            stream: "jobs",
            entry: Entry { id, fields },
        });
        self.history.published.push(Published {
            event,
            known: true,
            entry: Some(entry.clone()),
            asked: 0,
        });
        entry
    }

    fn begins(&mut self, life: &str, entry: &str, attempt: u32, at: f64) -> Begun {
        self.begins_so(life, entry, attempt, at, false)
    }

    fn begins_so(
        &mut self,
        life: &str,
        entry: &str,
        attempt: u32,
        at: f64,
        crash_check: bool,
    ) -> Begun {
        let of = |one: &&Stored| one.key() == entry;
        let of = self.history.entries.iter().find(of).unwrap();
        let (event, event_type) = (
            super::field(&of.entry, "id"),
            super::field(&of.entry, "type"),
        );
        let entry = entry.to_owned();
        let run = self.runs;
        self.runs += 1;
        self.line(
            life,
            run,
            at,
            What::Start {
                entry,
                event,
                event_type,
                attempt,
                crash_check,
            },
        );
        let life = life.to_owned();
        Begun { life, run }
    }

    fn ends(&mut self, begun: &Begun, how: How, at: f64) {
        let (stopping, lease_lost) = (false, false);
        let what = What::End {
            how,
            stopping,
            lease_lost,
        };
        self.line(&begun.life.clone(), begun.run, at, what);
    }

    fn line(&mut self, life: &str, run: u64, at: f64, what: What) {
        let (life, at) = (life.to_owned(), (at * SECOND as f64) as u64);
        self.history.lines.push(Line {
            at,
            life,
            run,
            what,
        });
    }

    /// A run from its start to its end.
    fn runs(&mut self, life: &str, entry: &str, attempt: u32, from: f64, how: How, until: f64) {
        let begun = self.begins(life, entry, attempt, from);
        self.ends(&begun, how, until);
    }

    /// An event of that type that is handled as it should be, at that second.
    fn handles(&mut self, id: &str, event_type: &'static str, effect: bool, at: f64) -> String {
        let entry = self.publish(id, event_type, effect);
        self.runs("0.0", &entry, 1, at, How::Ok, at + 0.1);
        if effect {
            self.takes_effect(id);
        }
        entry
    }

    fn takes_effect(&mut self, event: &str) {
        *self.history.counted.entry(event.to_owned()).or_default() += 1;
        self.emits(event);
    }

    fn emits(&mut self, event: &str) {
        let id = format!("{}-0", self.history.emitted.len() + 1);
        let fields = [
            ("type", "chaos.done"),
            ("source", "workers"),
            ("causationid", event),
        ];
        let fields = fields.map(|(name, value)| (Bytes::from(name), Bytes::from(value.to_owned())));
        self.history.emitted.push(Entry {
            id: id.parse().unwrap(),
            fields: fields.to_vec(),
        });
    }

    fn buries(&mut self, entry: &str, reason: &str, attempts: u32) {
        let of = |one: &&Stored| one.key() == entry;
        let of = self.history.entries.iter().find(of).unwrap();
        let mut fields = of.entry.fields.clone();
        for (name, value) in [
            ("dead.reason", reason.to_owned()),
            ("dead.attempts", attempts.to_string()),
            ("dead.stream", "jobs".to_owned()),
            ("dead.entry", of.entry.id.to_string()),
        ] {
            fields.push((Bytes::from(name), Bytes::from(value)));
        }
        let id = format!("{}-9", self.history.letters.len() + 1)
            .parse()
            .unwrap();
        self.history.letters.push(Entry { id, fields });
    }

    fn life(&mut self, name: &str) -> &mut Life {
        self.history.lives.get_mut(name).unwrap()
    }

    /// The worker renews nothing between these seconds.
    fn is_silent(&mut self, life: &str, from: f64, until: f64) {
        let between = |one: &Renewal| one.asked < seconds(from) || one.asked > seconds(until);
        self.life(life).renewals.retain(between);
    }

    fn is_right(&self) {
        let wrong = check(&self.history).wrong;
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// One thing is wrong, and this is said of it.
    fn is_wrong(&self, words: &str) {
        let wrong = check(&self.history).wrong;
        assert!(
            wrong.len() == 1 && wrong[0].what.contains(words),
            "no {words:?} in {wrong:#?}"
        );
    }
}

fn seconds(seconds: f64) -> u64 {
    (seconds * SECOND as f64) as u64
}

fn renewal(at: f64, alone: bool) -> Renewal {
    let (asked, answered) = (seconds(at), seconds(at + 0.01));
    Renewal {
        asked,
        answered,
        stream: "jobs",
        alone,
    }
}

/// One that is handled, one that fails at first, and one that is buried.
fn sound() -> (Story, [String; 3]) {
    let mut story = Story::new();
    let handled = story.handles("a", "chaos.plain", true, 1.0);
    let flaky = story.publish("b", "chaos.flaky", true);
    story.runs("0.0", &flaky, 1, 2.0, How::Failed, 2.1);
    story.runs("1.0", &flaky, 2, 3.0, How::Ok, 3.1);
    story.takes_effect("b");
    let buried = story.publish("c", "chaos.hopeless", true);
    for attempt in 1..=3 {
        let from = 4.0 + f64::from(attempt);
        story.runs("1.0", &buried, attempt, from, How::Failed, from + 0.1);
    }
    story.buries(&buried, "failed", 3);
    (story, [handled, flaky, buried])
}

#[test]
fn what_is_right_is_left_alone() {
    sound().0.is_right();
}

#[test]
fn what_was_acknowledged_and_is_neither_handled_nor_dead_is_lost() {
    let (mut story, _) = sound();
    story.publish("d", "chaos.plain", false);
    story.is_wrong("lost");
}

#[test]
fn what_only_began_is_lost() {
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.plain", false);
    story.begins("0.0", &entry, 1, 9.0);
    story.is_wrong("lost");
}

#[test]
fn what_was_acknowledged_is_in_the_stream() {
    let (mut story, _) = sound();
    let mut published = story.history.published[0].clone();
    published.entry = Some("jobs/77-0".to_owned());
    published.known = false;
    story.history.published.push(published);
    story.is_wrong("77-0, which is not in the stream");
}

#[test]
fn what_was_not_acknowledged_may_be_in_the_stream_once() {
    let (mut story, _) = sound();
    story.history.published[0].entry = None;
    story.history.published[0].known = false;
    story.is_right();
    let mut again = story.history.published[0].clone();
    again.event.id = "unheard-of".to_owned();
    story.history.published.push(again);
    story.is_right();
    let mut twice = story.history.entries[0].clone();
    twice.entry.id = "88-0".parse().unwrap();
    story.history.entries.push(twice);
    let wrong = check(&story.history).wrong;
    let words = "published 1 times, and 2 times in the stream";
    assert!(
        wrong.iter().any(|one| one.what.contains(words)),
        "{wrong:?}"
    );
}

#[test]
fn what_was_scheduled_is_there_and_not_before_its_time() {
    let (mut story, _) = sound();
    story.handles("d", "chaos.plain", false, 9.0);
    let published = story.history.published.last_mut().unwrap();
    (published.entry, published.event.way) = (None, Way::Later(4));
    story.is_right();
    story.history.published.last_mut().unwrap().event.way = Way::Later(5);
    story.is_wrong("came before its time");
    let (mut story, _) = sound();
    story.handles("d", "chaos.plain", false, 9.0);
    story.history.published.last_mut().unwrap().entry = None;
    story.history.lines.truncate(12);
    story.history.entries.pop();
    story.is_wrong("acknowledged 1 times, and 0 times in the stream");
}

#[test]
fn what_nobody_published_is_seen() {
    let (mut story, _) = sound();
    story.handles("d", "chaos.plain", false, 9.0);
    story.history.published.pop();
    story.is_wrong("published by nobody");
}

#[test]
fn what_is_not_as_it_was_published_is_seen() {
    let (mut story, _) = sound();
    story.history.entries[0].entry.fields[2].1 = Bytes::from("changed");
    story.is_wrong("is not what was published");
}

#[test]
fn a_letter_is_the_entry_whole_and_there_is_one() {
    let (mut story, [_, _, buried]) = sound();
    story.history.letters[0].fields[2].1 = Bytes::from("changed");
    story.is_wrong("not the entry, whole");
    let (mut story, _) = sound();
    story.history.letters[0]
        .fields
        .push((Bytes::from("more"), Bytes::new()));
    story.is_wrong("not the entry, whole");
    let (mut story, _) = sound();
    story.buries(&buried, "failed", 3);
    story.is_wrong("2 dead letters");
    let (mut story, _) = sound();
    let mut of_none = story.history.letters[0].clone();
    of_none.fields.last_mut().unwrap().1 = Bytes::from("99-0");
    story.history.letters.push(of_none);
    story.is_wrong("of no entry");
}

#[test]
fn a_letter_has_its_reason_and_its_attempts() {
    let (mut story, _) = sound();
    let reason = story.history.letters[0].fields.len() - 4;
    story.history.letters[0].fields[reason].1 = Bytes::from("permanent");
    story.is_wrong("buried as permanent, which it is not");
    for attempts in ["2", "4"] {
        let (mut story, _) = sound();
        story.history.letters[0].fields[reason + 1].1 = Bytes::from(attempts);
        story.is_wrong("of 3 attempts");
    }
}

#[test]
fn what_always_fails_is_buried_and_nothing_else() {
    let (mut story, _) = sound();
    story.handles("d", "chaos.hopeless", false, 9.0);
    story.is_wrong("it is no dead letter, and has to be one");
}

#[test]
fn who_is_buried_as_crashed_has_lost_a_worker() {
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.plain", false);
    story.runs("0.0", &entry, 8, 9.0, How::Failed, 9.1);
    story.buries(&entry, "crashed", 8);
    story.is_wrong("no worker died");
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.plain", false);
    story.begins("0.0", &entry, 8, 59.9);
    story.buries(&entry, "crashed", 8);
    story.is_right();
}

#[test]
fn what_was_never_run_has_not_failed() {
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.plain", false);
    story.buries(&entry, "failed", 8);
    story.is_wrong("never ran");
}

#[test]
fn what_has_surely_succeeded_is_not_buried() {
    let (mut story, [handled, ..]) = sound();
    story.buries(&handled, "crashed", 8);
    let wrong = check(&story.history).wrong;
    let says = |words: &str| wrong.iter().any(|one| one.what.contains(words));
    assert!(
        says("had succeeded") && says("took place 1 times, not 0"),
        "{wrong:?}"
    );
}

/// Whether its acknowledgement was on its way when another worker took it over, or was sent later: what a stop cuts off then
/// comes back, or is known to have succeeded.
#[test]
fn what_succeeds_late_is_not_buried_by_whoever_a_stop_cuts_off() {
    for ends in [5.0, 7.5] {
        let (mut story, _) = sound();
        let entry = story.publish("d", "chaos.plain", false);
        story.is_silent("0.0", 4.5, 12.0);
        let first = story.begins("0.0", &entry, 1, 4.4);
        let second = story.begins("1.0", &entry, 2, 6.8);
        story.ends(&first, How::Ok, ends);
        story.ends(&second, How::Dropped, 9.5);
        story.life("1.0").told_to_stop = Some(seconds(8.5));
        story.buries(&entry, "failed", 2);
        story.is_wrong("buried as failed after 2 of 8 attempts");
    }
}

#[test]
fn effects_take_place_once() {
    let (mut story, _) = sound();
    story.history.counted.insert("a".to_owned(), 2);
    story.is_wrong("its effect took place 2 times, not 1");
    let (mut story, _) = sound();
    story.history.counted.remove("a");
    story.is_wrong("its effect took place 0 times, not 1");
    let (mut story, _) = sound();
    story.history.counted.insert("c".to_owned(), 1);
    story.is_wrong("its effect took place 1 times, not 0");
    let (mut story, _) = sound();
    story.history.counted.insert("nobody's".to_owned(), 1);
    story.is_wrong("its effect took place 1 times, not 0");
}

#[test]
fn events_are_emitted_once() {
    let (mut story, _) = sound();
    story.emits("a");
    story.is_wrong("it emitted 2 times, not 1");
    let (mut story, _) = sound();
    story.history.emitted.pop();
    story.is_wrong("it emitted 0 times, not 1");
    let (mut story, _) = sound();
    story.emits("c");
    story.is_wrong("it emitted 1 times, not 0");
    let (mut story, _) = sound();
    story.history.emitted[0].fields[1].1 = Bytes::from("somebody else");
    story.is_wrong("is not whole");
}

#[test]
fn none_runs_beside_one_that_keeps_its_lease() {
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.slow", false);
    let first = story.begins("0.0", &entry, 1, 10.0);
    let second = story.begins("1.0", &entry, 2, 15.0);
    story.ends(&first, How::Ok, 16.0);
    story.ends(&second, How::Ok, 17.0);
    story.is_wrong("beside run 0.0");
    // Nor a moment before the lease is over.
    let mut close = Story::new();
    std::mem::swap(&mut close.history, &mut story.history);
    close.is_silent("0.0", 13.3, 20.0);
    close.is_wrong("beside run 0.0");
    // But after it.
    close.is_silent("0.0", 12.5, 20.0);
    close.is_right();
}

#[test]
fn what_runs_alone_has_renewals_of_its_own() {
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.slow", false);
    let first = story.begins("0.0", &entry, 3, 10.0);
    story.begins("1.0", &entry, 4, 15.0);
    story.ends(&first, How::Ok, 16.0);
    story.life("0.0").renewals.push(renewal(10.5, true));
    story.is_right();
    story.life("0.0").renewals.extend([
        renewal(11.5, true),
        renewal(12.9, true),
        renewal(14.5, true),
    ]);
    story.is_wrong("beside run 0.0");
}

#[test]
fn who_was_in_trouble_when_it_began_may_have_lost_its_lease_unseen() {
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.slow", false);
    story.begins("0.0", &entry, 1, 10.0);
    story.runs("1.0", &entry, 2, 11.0, How::Ok, 11.1);
    story.is_wrong("beside run 0.0");
    story.life("0.0").troubles.add(seconds(9.0), seconds(9.5));
    story.is_right();
}

#[test]
fn what_a_stop_cuts_off_may_run_elsewhere_when_its_drain_time_is_over() {
    for (at, is_right) in [(10.9, false), (11.2, true)] {
        let (mut story, _) = sound();
        let entry = story.publish("d", "chaos.slow", false);
        story.begins("0.0", &entry, 1, 9.0);
        story.life("0.0").told_to_stop = Some(seconds(10.0));
        story.runs("1.0", &entry, 1, at, How::Ok, at + 0.1);
        match is_right {
            true => story.is_right(),
            false => story.is_wrong("beside run 0.0"),
        }
    }
}

#[test]
fn nothing_runs_again_that_was_settled() {
    for how in [How::Ok, How::Permanent] {
        let (mut story, _) = sound();
        let entry = story.publish("d", "chaos.permanent", false);
        story.runs("0.0", &entry, 1, 9.0, how, 9.1);
        story.runs("1.0", &entry, 2, 10.0, How::Permanent, 10.1);
        story.buries(&entry, "permanent", 2);
        let wrong = check(&story.history).wrong;
        let says = |words: &str| wrong.iter().any(|one| one.what.contains(words));
        assert!(says("has ended it"), "{wrong:?}");
    }
}

#[test]
fn nothing_runs_again_that_was_settled_long_ago_though_its_worker_is_gone() {
    let (mut story, [handled, ..]) = sound();
    story.life("0.0").ended = Some(seconds(20.0));
    story.is_silent("0.0", 20.0, 60.0);
    story.runs("1.0", &handled, 2, 30.0, How::Ok, 30.1);
    story.is_wrong("has ended it");
}

#[test]
fn what_was_not_known_to_be_settled_runs_again_when_its_worker_is_gone() {
    let (mut story, [handled, ..]) = sound();
    story.life("0.0").ended = Some(seconds(1.2));
    story.is_silent("0.0", 1.2, 60.0);
    story.runs("1.0", &handled, 2, 4.0, How::Ok, 4.1);
    // Its other runs were another worker's.
    story
        .history
        .lines
        .retain(|line| line.life == "1.0" || line.at < seconds(1.5));
    story.is_right();
}

#[test]
fn no_attempt_comes_twice() {
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.flaky", false);
    story.runs("0.0", &entry, 1, 9.0, How::Failed, 9.1);
    story.runs("0.0", &entry, 1, 10.0, How::Ok, 10.1);
    story.is_wrong("(attempt 1) behind run 0.0/6 (attempt 1)");
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.flaky", false);
    story.runs("0.0", &entry, 2, 9.0, How::Failed, 9.1);
    story.runs("0.0", &entry, 1, 10.0, How::Ok, 10.1);
    story.is_wrong("(attempt 1) behind");
}

#[test]
fn what_asks_to_come_later_or_was_given_back_uses_up_no_attempt() {
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.later", false);
    story.runs("0.0", &entry, 1, 9.0, How::Later, 9.1);
    story.runs("0.0", &entry, 1, 10.0, How::Ok, 10.1);
    story.is_right();
    let entry = story.publish("e", "chaos.flaky", false);
    story.runs("0.0", &entry, 1, 12.0, How::Failed, 12.5);
    story.runs("1.0", &entry, 1, 13.0, How::Ok, 13.1);
    story.is_wrong("(attempt 1) behind");
    story.life("0.0").told_to_stop = Some(seconds(12.4));
    story.is_right();
}

#[test]
fn no_attempt_is_used_up_by_what_uses_none() {
    for (how, right, wrong) in [(How::Later, 3, 4), (How::Failed, 4, 5)] {
        let story = |attempt| {
            let (mut story, _) = sound();
            let entry = story.publish("d", "chaos.later", false);
            story.runs("0.0", &entry, 3, 9.0, how, 9.1);
            story.runs("1.0", &entry, attempt, 10.0, How::Ok, 10.1);
            story
        };
        story(right).is_right();
        story(wrong).is_wrong("which ended as");
        let mut struck = story(wrong);
        struck.life("0.0").troubles.add(seconds(9.5), seconds(9.6));
        struck.is_right();
    }
}

#[test]
fn what_runs_once_at_most_does() {
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.single", false);
    story.begins("0.0", &entry, 1, 9.0);
    story.life("0.0").told_to_stop = Some(seconds(9.5));
    story.runs("1.0", &entry, 1, 12.0, How::Ok, 12.1);
    story.is_wrong("(attempt 1) behind");
}

#[test]
fn there_are_no_more_attempts_than_there_may_be() {
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.flaky", false);
    story.runs("0.0", &entry, 9, 9.0, How::Ok, 9.1);
    story.is_wrong("of 8 attempts");
}

#[test]
fn there_is_one_crash_check_and_none_where_there_is_to_be_none() {
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.flaky", false);
    story.is_silent("0.0", 9.0, 60.0);
    story.begins("0.0", &entry, 8, 9.0);
    story.begins_so("0.0", &entry, 8, 15.0, true);
    story.buries(&entry, "crashed", 8);
    story.is_right();
    story.begins_so("0.0", &entry, 8, 20.0, true);
    story.is_wrong("a crash check) behind");
    let (mut story, _) = sound();
    let entry = story.publish("d", "chaos.single", false);
    let check = story.begins_so("0.0", &entry, 1, 9.0, true);
    story.ends(&check, How::Ok, 9.1);
    story.is_wrong("of what runs no more then");
}

#[test]
fn of_copies_one_runs() {
    let (mut story, _) = sound();
    let first = story.handles("d", "chaos.once", true, 9.0);
    let copy = story.publish("d", "chaos.once", true);
    story.is_right();
    story.runs("1.0", &copy, 1, 12.0, How::Ok, 12.1);
    story.is_wrong("has ended it");
    assert_ne!(first, copy);
}

#[test]
fn copies_that_fail_may_both_run_and_take_effect_once() {
    let (mut story, _) = sound();
    let first = story.publish("d", "chaos.once", true);
    let copy = story.publish("d", "chaos.once", true);
    for attempt in 1..=8 {
        let from = 9.0 + f64::from(attempt);
        story.runs("0.0", &first, attempt, from, How::Failed, from + 0.1);
    }
    story.buries(&first, "failed", 8);
    story.runs("1.0", &copy, 1, 20.0, How::Ok, 20.1);
    story.takes_effect("d");
    let wrong = check(&story.history).wrong;
    assert!(
        wrong.iter().all(|one| !one.what.contains("effect")),
        "{wrong:?}"
    );
    story.takes_effect("d");
    let wrong = check(&story.history).wrong;
    assert!(
        wrong
            .iter()
            .any(|one| one.what.contains("took place 2 times, not 1")),
        "{wrong:?}"
    );
}

#[test]
fn no_worker_runs_more_at_once_than_it_may() {
    let (mut story, _) = sound();
    let begun: Vec<Begun> = (0..3)
        .map(|n| {
            let entry = story.publish(&format!("n{n}"), "chaos.narrow", false);
            story.begins("0.0", &entry, 1, 9.0)
        })
        .collect();
    for run in &begun {
        story.ends(run, How::Ok, 9.5);
    }
    story.is_wrong("3 runs of chaos.narrow at once");
}

#[test]
fn what_is_left_and_what_workers_must_not_do_is_told() {
    let (mut story, _) = sound();
    story.history.left.push("a key".to_owned());
    story.is_wrong("left at the end: a key");
    let (mut story, _) = sound();
    story.life("0.0").wrong.push("it died".to_owned());
    story.is_wrong("it died");
    let (mut story, _) = sound();
    let nobody = Begun {
        life: "0.0".to_owned(),
        run: 99,
    };
    story.ends(&nobody, How::Ok, 9.0);
    story.is_wrong("ends that never began");
}

/// A burial was on its way while its worker lost the lease.
#[test]
fn what_is_buried_under_another_who_runs_it_is_seen() {
    let buried_in = |attempt: u32| {
        let (mut story, _) = sound();
        let entry = story.publish("d", "chaos.permanent", false);
        story.is_silent("0.0", 4.5, 12.0);
        story.runs("0.0", &entry, 1, 4.4, How::Permanent, 5.0);
        story.runs("1.0", &entry, 2, 6.8, How::Permanent, 9.5);
        story.buries(&entry, "permanent", attempt);
        story
    };
    buried_in(2).is_right();
    buried_in(1).is_wrong("buried as permanent in attempt 1");
}
