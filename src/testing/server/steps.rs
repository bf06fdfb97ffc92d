//! The steps of an entry's life, each asked of the server as a worker asks it.

use super::{Server, done};
use crate::config::Start;
use crate::cron::{GRACE, SUSPENDED};
use crate::effects::Effect;
use crate::event::{Entry, EntryId, Envelope};
use crate::outbox::Line;
use crate::publisher::{after, at_time, once_within};
use crate::stream::{
    Ack, Applied, Burial, Buried, Cancelled, Claim, Claimed, Commit, CommitOutcome, Content,
    Delivered, Fence, How as Adding, Keys, Kind, NewPause, ParkOutcome, Parking, Pausable, Reclaim,
    Reclaimed, StreamKeys, Ticket, Wanted, split_death, time,
};
use crate::sync::lock;
use crate::testing::memory::{Not, Value};
use crate::testing::terms::{Due, How};

/// More bytes than any test has.
const ALL: usize = usize::MAX >> 12;

/// Asks for a step, once the server knows what time it is.
macro_rules! ask {
    ($server:ident, $($step:tt)+) => {{
        lock(&$server.time).tell();
        done($server.aside.wait($server.$($step)+))
    }};
}

impl Server {
    /// Publishes an event. None if it is scheduled.
    pub fn publish(&mut self, stream: &str, event: &Envelope, how: How) -> Option<EntryId> {
        let how = match how {
            How::Now => Adding::Now,
            How::Once(window) => done(once_within(window)),
            How::At(ms) => done(at_time(time(ms))),
            How::After(delay) => done(after(delay)),
        };
        lock(&self.time).tell();
        let step = self.publisher.append_one(stream, &how, event.clone());
        let published = self.aside.wait(step);
        published.unwrap_or_else(|error| panic!("{error}")).entry()
    }

    /// Forgets scheduled events of this id. Returns how many.
    pub fn cancel(&mut self, stream: &str, id: &str) -> usize {
        let wanted = [Wanted { id, of: None }];
        let cancelled = ask!(self, publisher.cancel_all_scheduled(stream, &wanted));
        usize::from(cancelled == [Cancelled::Yes])
    }

    /// Adds what is due to its stream. Returns how many.
    pub fn add_due(&mut self, stream: &str) -> usize {
        let keys = StreamKeys::new(stream);
        ask!(self, link.add_due(&keys, (GRACE, SUSPENDED))).added as usize
    }

    /// Makes sure that there is a group.
    pub fn join(&mut self, keys: &Keys, start: Start) {
        ask!(self, link.join(keys, &self.group, start, None));
    }

    /// Delivers new entries.
    pub fn read_new(&mut self, keys: &Keys, me: &str, most: usize) -> Vec<Entry> {
        ask!(self, link.read_at_once(keys, &self.group, me, most))
    }

    /// Takes parked entries whose time has come, and tells what else there is.
    pub fn wake(&mut self, keys: &Keys, me: &str, most: usize) -> Due {
        let woken = ask!(self, link.wake(keys, &self.group, me, most, ALL, None));
        let at = |wait: std::time::Duration| woken.now_ms + wait.as_millis() as u64;
        Due {
            next: woken.next.map(at),
            scheduled: woken.scheduled.map(at),
            entries: woken.entries,
            trimmed: woken.trimmed,
            paused: woken.paused,
            waiting: woken.waiting,
            again: woken.again > 0,
        }
    }

    /// Takes parked entries that wait for a worker that can handle them.
    pub fn take_waiting(&mut self, keys: &Keys, me: &str, kinds: &[Kind<'_>]) -> Vec<Delivered> {
        let most = kinds
            .iter()
            .fold(0, |sum: usize, kind| sum.saturating_add(kind.most));
        let found = ask!(
            self,
            link.take_waiting(keys, &self.group, me, most, ALL, kinds)
        );
        found.entries
    }

    /// Takes what a dead worker held.
    pub fn reclaim(&mut self, keys: &Keys, wanted: &Reclaim<'_>) -> Reclaimed {
        let mut all = ask!(self, link.reclaim(keys, wanted));
        while let Some(from) = all.next.take() {
            let rest = Reclaim {
                from: &from,
                most: wanted.most.saturating_sub(all.entries.len()),
                room_alone: wanted.room_alone && all.alone.is_none(),
                ..*wanted
            };
            let more = ask!(self, link.reclaim(keys, &rest));
            all.entries.extend(more.entries);
            all.alone = all.alone.or(more.alone);
            all.trimmed.extend(more.trimmed);
            all.waiting += more.waiting;
            // One that stays where it was has no room left.
            all.next = more.next.filter(|next| *next != from);
        }
        all
    }

    /// The leases of what a consumer holds begin now.
    pub fn renew(&mut self, keys: &Keys, consumer: &str) {
        ask!(self, link.renew_all(keys, &self.group, consumer));
    }

    /// Acknowledges.
    pub fn ack(&mut self, keys: &Keys, delete: bool, acks: &[Ack<'_>]) {
        ask!(
            self,
            link.ack_with_records(keys, &self.group, Fence::None, delete, acks)
        );
    }

    /// Parks.
    pub fn park(&mut self, keys: &Keys, parkings: &[Parking<'_>]) -> Vec<ParkOutcome> {
        ask!(self, link.park(keys, &self.group, parkings))
    }

    /// Moves to the dead letters.
    pub fn bury(&mut self, keys: &Keys, group: &str, delete: bool, burial: &Burial<'_>) -> Buried {
        lock(&self.time).tell();
        let one = std::slice::from_ref(burial);
        let outcomes = self.aside.wait(self.link.bury(keys, group, delete, one));
        outcomes.into_iter().next().map_or(Buried::Missing, done)
    }

    /// Commits.
    pub fn commit(
        &mut self,
        keys: &Keys,
        me: &str,
        number: u64,
        delete: bool,
        commit: &Commit<'_>,
        _: &[Line],
    ) -> CommitOutcome {
        let commits = std::slice::from_ref(commit);
        let outcomes = ask!(
            self,
            link.commit(keys, &self.group, me, number, delete, commits)
        );
        let outcome = outcomes.into_iter().next();
        outcome.expect("one was asked for")
    }

    /// Asks which of several copies of an event runs.
    pub fn claim(&mut self, keys: &Keys, claims: &[Claim<'_>]) -> Vec<Claimed> {
        ask!(self, link.claim(keys, &self.group, claims))
    }

    /// Gives a dead letter back to its group. False if there is none with this id.
    pub fn replay(&mut self, keys: &Keys, id: EntryId, by: &str) -> bool {
        let letters = self.letters(keys);
        let Some(letter) = letters.into_iter().find(|letter| letter.id == id) else {
            return false;
        };
        let mut fields = letter.fields;
        let Some(death) = split_death(&mut fields) else {
            return false;
        };
        let mark = format!("{} {}", death[7], death[10]).into();
        let ticket = [Ticket { id, mark }];
        lock(&self.time).tell();
        let (copies, ended) = self.aside.wait(self.pool.replay(keys, by, &ticket));
        done(ended);
        copies.into_iter().flatten().next().is_some()
    }

    /// The dead letters of a group, as they stand there.
    pub fn letters(&mut self, keys: &Keys) -> Vec<Entry> {
        self.entries(&keys.dead)
    }

    /// What is parked, and until when (ms).
    pub fn parked(&mut self, keys: &Keys) -> Vec<(EntryId, u64)> {
        ask!(self, link.all_parked(keys))
    }

    /// Pauses something of a stream, until a time (ms) or until it is resumed.
    pub fn pause(&mut self, keys: &Keys, what: &str, until: Option<u64>) {
        let now = lock(&self.time).clock.now_ms();
        let lasts = until.map(|until| until.saturating_sub(now));
        let new = NewPause {
            by: "test",
            lasts: lasts.map(std::time::Duration::from_millis),
            reason: None,
        };
        ask!(self, pool.pause(keys, &pausable(what), &new));
    }

    /// Goes on with it.
    pub fn resume(&mut self, keys: &Keys, what: &str) -> bool {
        ask!(self, pool.resume(keys, &pausable(what)))
    }

    /// Every entry of a stream.
    pub fn entries(&mut self, stream: &str) -> Vec<Entry> {
        ask!(self, link.all_entries(stream))
    }

    /// What a key holds that effects are on.
    pub fn value(&mut self, key: &str) -> Option<Value> {
        Some(match ask!(self, link.content(key)) {
            Content::Nothing | Content::Other => return None,
            Content::Text(text) => Value::Text(text),
            Content::Hash(pairs) => Value::Hash(pairs.into_iter().collect()),
            Content::Set(members) => Value::Set(members.into_iter().collect()),
            Content::Sorted(members) => Value::Sorted(members.into_iter().collect()),
        })
    }

    /// Does an effect by itself.
    pub fn apply(&mut self, effect: &Effect) -> Result<(), Not> {
        match ask!(self, link.apply(effect)) {
            Applied::Done => Ok(()),
            Applied::Refused(current) => Err(Not::Refused(current)),
            Applied::Failed(why) => Err(Not::Failed(why)),
        }
    }
}

fn pausable(what: &str) -> Pausable {
    match what.strip_prefix("handler:") {
        Some(handler) => Pausable::Handler(handler.to_owned()),
        None => Pausable::Stream,
    }
}
