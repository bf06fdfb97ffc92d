//! The steps of an entry's life in memory, each as its script has it.

use super::effects::{Not, name};
use super::group::{Mark, Noted, Pending, Woken};
use super::server::Memory;
use crate::delay;
use crate::event::EntryId;
use crate::outbox::{Line, What, When};
use crate::stream::{
    Ack, Burial, Buried, Claim, Claimed, Commit, CommitOutcome, Delivered, Died, Keys, Kind,
    PARKED, ParkOutcome, Parking, Reclaim, Reclaimed, Record,
};
use crate::testing::terms::How;

/// The lease that a consumer's name tells.
fn lease_ms(consumer: &str) -> u64 {
    let mut parts = consumer.split('-');
    let lease = parts.nth(1).and_then(|lease| lease.parse().ok());
    lease.unwrap_or(0)
}

impl Memory {
    /// As `park.lua`.
    pub fn park(&mut self, keys: &Keys, parkings: &[Parking<'_>]) -> Vec<ParkOutcome> {
        let park = |parking: &Parking<'_>| self.park_one(keys, parking);
        parkings.iter().map(park).collect()
    }

    fn park_one(&mut self, keys: &Keys, parking: &Parking<'_>) -> ParkOutcome {
        let (now, id, count) = (self.now_ms(), parking.id, parking.count);
        let is_there = self.fields(&keys.stream, id).is_some();
        let group = self.group(keys);
        match group.is_mine(id, parking.consumer, count) {
            None => return ParkOutcome::Nobody,
            Some(false) => return ParkOutcome::Taken,
            Some(true) => {}
        }
        if !is_there {
            group.records.remove(&id);
            group.pending.remove(&id);
            return ParkOutcome::Trimmed;
        }
        group.deliver(id, PARKED, count, now);
        group.retry.insert(id, now + delay::millis(parking.delay));
        let waits = parking.listed.is_some();
        if let Some(listed) = &parking.listed {
            group.waiting.insert((listed.clone(), id));
        }
        let before = group.records.get(&id).map(|noted| noted.record.clone());
        let mut record = before.unwrap_or_else(|| Record {
            first_ms: now.saturating_sub(parking.age.as_millis() as u64),
            released: 0,
            died: None,
            doomed: None,
            error: String::new(),
        });
        record.released += u32::from(parking.released);
        if !parking.released {
            record.died = None;
        }
        if let Some(doomed) = parking.doomed {
            record.doomed = Some(doomed.to_owned());
        }
        if !parking.error.is_empty() {
            record.error = parking.error.to_owned();
        }
        let noted = Noted {
            record,
            count,
            waits,
        };
        group.records.insert(id, noted);
        ParkOutcome::Parked
    }

    /// As `take_waiting.lua`.
    pub fn take_waiting(&mut self, keys: &Keys, me: &str, kinds: &[Kind<'_>]) -> Vec<Delivered> {
        let now = self.now_ms();
        let mut taken = Vec::new();
        for kind in kinds {
            let group = self.group(keys);
            let named = |(listed, id): &(Vec<u8>, EntryId)| {
                [&listed[..], id.to_string().as_bytes()].concat()
            };
            let is_in = |name: &[u8]| {
                let (from, to) = kind.range;
                let above = from == b"-" || name >= &from[1..];
                above && (to == b"+" || name < &to[1..])
            };
            let found = group.waiting.iter().filter(|listed| is_in(&named(listed)));
            let found: Vec<_> = found.take(kind.most).cloned().collect();
            for listed in found {
                let id = listed.1;
                let fields = self.fields(&keys.stream, id);
                let group = self.group(keys);
                group.waiting.remove(&listed);
                let Some(noted) = group.records.get(&id).filter(|noted| noted.waits) else {
                    continue;
                };
                let count = noted.count;
                if group.is_mine(id, PARKED, count) != Some(true) {
                    continue;
                }
                group.retry.remove(&id);
                if let Woken::Comes(delivered) = group.take(id, me, count + 1, fields, now) {
                    taken.push(delivered);
                }
            }
        }
        taken
    }

    /// As `reclaim.lua`.
    pub fn reclaim(&mut self, keys: &Keys, wanted: &Reclaim<'_>) -> Reclaimed {
        let now = self.now_ms();
        let group = self.group(keys);
        let lapsed = |pending: &Pending| {
            pending.consumer == wanted.holder && pending.since_ms + wanted.lease_ms <= now
        };
        let ids = group.pending.iter().filter(|(_, pending)| lapsed(pending));
        let ids: Vec<(EntryId, u32, u64)> = ids
            .map(|(id, pending)| (*id, pending.count, pending.since_ms))
            .collect();
        let mut reclaimed = Reclaimed {
            entries: Vec::new(),
            alone: None,
            trimmed: Vec::new(),
            waiting: 0,
            next: None,
            now_ms: now,
        };
        for (id, count, since) in ids {
            let fields = self.fields(&keys.stream, id);
            let event_type = fields.as_ref().and_then(|fields| fields.value("type"));
            let event_type = event_type.map(|name| String::from_utf8_lossy(name).into_owned());
            let group = self.group(keys);
            let released = group.record(id).map_or(0, |record| record.released);
            let attempt = (count + 1).saturating_sub(released);
            let mut of = wanted.alone_from_of.iter();
            let of = of.find(|(name, _)| Some(name) == event_type.as_ref());
            let alone = attempt >= of.map_or(wanted.alone_from, |(_, from)| *from);
            let room = match alone {
                true => wanted.room_alone && reclaimed.alone.is_none(),
                false => reclaimed.entries.len() < wanted.most,
            };
            if !room {
                reclaimed.waiting += u64::from(alone);
                continue;
            }
            let died = match wanted.holder.ends_with('!') {
                true => Died::Alone,
                false => Died::InCompany,
            };
            let mut record = group.record(id).unwrap_or_else(|| Record {
                first_ms: since,
                released: 0,
                died: None,
                doomed: None,
                error: format!("worker {} died or froze while it held this", wanted.holder),
            });
            record.died = Some(died);
            let noted = Noted {
                record,
                count: count + 1,
                waits: false,
            };
            group.records.insert(id, noted);
            let me = match alone {
                true => format!("{}!", wanted.me),
                false => wanted.me.to_owned(),
            };
            match group.take(id, &me, count + 1, fields, now) {
                Woken::Comes(delivered) if alone => reclaimed.alone = Some(delivered),
                Woken::Comes(delivered) => reclaimed.entries.push(delivered),
                _ => reclaimed.trimmed.push(id),
            }
        }
        reclaimed
    }

    /// The leases of what a consumer holds begin now.
    pub fn renew(&mut self, keys: &Keys, consumer: &str) {
        let now = self.now_ms();
        let pending = self.group(keys).pending.values_mut();
        for pending in pending.filter(|pending| pending.consumer == consumer) {
            pending.since_ms = now;
        }
    }

    /// As `XACK` and `ack.lua`.
    pub fn ack(&mut self, keys: &Keys, delete: bool, acks: &[Ack<'_>]) {
        let now = self.now_ms();
        for ack in acks {
            let group = self.group(keys);
            if group.records.contains_key(&ack.id) {
                group.guard(ack.id, now, lease_ms(ack.consumer));
            }
            group.forget(ack.id);
            if delete {
                self.delete(&keys.stream, ack.id);
            }
        }
    }

    /// As `claim.lua`.
    pub fn claim(&mut self, keys: &Keys, claims: &[Claim<'_>]) -> Vec<Claimed> {
        let claims = claims.iter();
        claims.map(|claim| self.claim_one(keys, claim)).collect()
    }

    fn claim_one(&mut self, keys: &Keys, claim: &Claim<'_>) -> Claimed {
        let (now, key) = (self.now_ms(), keys.seen(claim.event.which()));
        let mark = self.marks.get(&key).filter(|mark| mark.until > now);
        match mark {
            Some(mark) if mark.is_done && mark.data == claim.event.data() => return Claimed::Done,
            Some(mark) if mark.is_done => return Claimed::DoneDiffers,
            _ => {}
        }
        match mark.map(|mark| mark.id) {
            Some(id) if id == claim.id => return Claimed::Run,
            Some(id) if self.group(keys).pending.contains_key(&id) => return Claimed::Wait,
            _ => {}
        }
        let kept = claim.lasts.as_millis().max(24 * 3_600_000) as u64;
        let mark = Mark {
            id: claim.id,
            is_done: false,
            data: claim.event.data().to_owned(),
            until: now + kept,
        };
        self.marks.insert(key, mark);
        Claimed::Run
    }

    /// Whether a burial may be written: none if another delivery has the entry, or it is nobody's; done if it was before.
    pub(super) fn may_bury(&mut self, keys: &Keys, burial: &Burial<'_>) -> Result<(), Buried> {
        let now = self.now_ms();
        let group = self.group(keys);
        match group.is_mine(burial.id, burial.consumer, burial.count) {
            Some(true) => Ok(()),
            Some(false) => Err(Buried::Taken),
            None if burial.own_until == 0 => Err(Buried::Nobody),
            None if group.is_guarded(burial.id, now) => Err(Buried::Done),
            None if now > burial.own_until => Err(Buried::Late(now)),
            None => Ok(()),
        }
    }

    /// It is a dead letter by now. Returns when it was first delivered, if that is noted.
    pub(super) fn is_buried(&mut self, keys: &Keys, burial: &Burial<'_>) {
        let now = self.now_ms();
        let group = self.group(keys);
        group.guard(burial.id, now, lease_ms(burial.consumer));
        group.forget(burial.id);
        if let Some(key) = &burial.mark
            && let Some(mark) = self.marks.get(key)
            && !mark.is_done
            && mark.id == burial.id
        {
            self.marks.remove(key);
        }
    }

    /// When an entry was first delivered, if that is noted.
    pub(super) fn first_ms(&mut self, keys: &Keys, id: EntryId) -> Option<u64> {
        self.group(keys).record(id).map(|record| record.first_ms)
    }

    /// As `commit.lua`, of one entry.
    pub fn commit(
        &mut self,
        keys: &Keys,
        me: &str,
        number: u64,
        delete: bool,
        commit: &Commit<'_>,
        lines: &[Line],
    ) -> CommitOutcome {
        let (now, id, count) = (self.now_ms(), commit.id, commit.count);
        let group = self.group(keys);
        let last = group.commits.get(me).cloned().unwrap_or_default();
        match group.is_mine(id, commit.consumer, count) {
            Some(true) => {}
            Some(false) => return CommitOutcome::Taken,
            None if last.1.contains(&(id, count)) => {
                group.commits.insert(me.to_owned(), (number, last.1));
                return CommitOutcome::Done;
            }
            None if commit.nobodys_until == 0 => return CommitOutcome::Nobody,
            None if group.is_guarded(id, now) => return CommitOutcome::Done,
            None if now > commit.nobodys_until => return CommitOutcome::Late(now),
            None => {}
        }
        if let Some(mark) = &commit.mark {
            let key = keys.seen(mark.event.which());
            let known = self.marks.get(&key).filter(|known| known.until > now);
            if let Some(done) = known.filter(|known| mark.counts && known.is_done && known.id != id)
            {
                let differs = done.data != mark.event.data();
                self.leaves(keys, commit, delete);
                return CommitOutcome::Duplicate { differs };
            }
        }
        let mut appends = lines.iter().filter_map(|line| match &line.what {
            What::Append(append) => Some(append),
            _ => None,
        });
        if let Some(append) = appends.next() {
            return CommitOutcome::Failed(format!(
                "appending to {}: a test's worker in memory keeps no aggregates, one by testing::on_redis does",
                append.aggregate
            ));
        }
        if let Err(outcome) = self.take_effect(commit) {
            return outcome;
        }
        for line in lines {
            match &line.what {
                What::Schedule(later) => {
                    let how = match later.when {
                        When::After(delay) => How::After(delay),
                        When::At(at) => How::at(at),
                    };
                    self.publish(&later.stream, &later.envelope, how);
                }
                What::Cancel(cancelled) => {
                    self.cancel(&cancelled.stream, &cancelled.id);
                }
                What::Append(_) => {}
            }
        }
        for event in &commit.events {
            self.add(&event.key, event.fields.clone());
        }
        if let Some(mark) = &commit.mark {
            let done = Mark {
                id,
                is_done: true,
                data: mark.event.data().to_owned(),
                until: now + mark.lasts.as_millis().max(1) as u64,
            };
            self.marks.insert(keys.seen(mark.event.which()), done);
        }
        let done = (number, vec![(id, count)]);
        let group = self.group(keys);
        group.commits.insert(me.to_owned(), done);
        self.leaves(keys, commit, delete);
        CommitOutcome::Done
    }

    fn leaves(&mut self, keys: &Keys, commit: &Commit<'_>, delete: bool) {
        let (now, id) = (self.now_ms(), commit.id);
        let group = self.group(keys);
        if commit.recorded {
            group.guard(id, now, lease_ms(commit.consumer));
        }
        group.forget(id);
        if delete {
            self.delete(&keys.stream, id);
        }
    }

    /// What is paused now.
    pub(super) fn paused(&mut self, keys: &Keys) -> Vec<String> {
        let now = self.now_ms();
        let Some(pauses) = self.pauses.get_mut(&keys.paused) else {
            return Vec::new();
        };
        pauses.retain(|_, until| until.is_none_or(|until| until > now));
        pauses.keys().cloned().collect()
    }

    /// Pauses something of a stream, until a time or until it is resumed.
    pub fn pause(&mut self, keys: &Keys, what: &str, until: Option<u64>) {
        let pauses = self.pauses.entry(keys.paused.clone()).or_default();
        pauses.insert(what.to_owned(), until);
    }

    pub fn resume(&mut self, keys: &Keys, what: &str) -> bool {
        let pauses = self.pauses.get_mut(&keys.paused);
        pauses.is_some_and(|pauses| pauses.remove(what).is_some())
    }

    /// What is parked, and until when.
    pub fn parked(&mut self, keys: &Keys) -> Vec<(EntryId, u64)> {
        self.group(keys).parked()
    }

    /// Does the effects of a commit, or none of them; and looks whether its events can be added.
    pub(super) fn take_effect(&mut self, commit: &Commit<'_>) -> Result<(), CommitOutcome> {
        for event in &commit.events {
            if let Some(value) = self.values.get(&event.key) {
                let (key, kind) = (&event.key, value.kind());
                let why = format!("emitting to {key}: the key holds a {kind}");
                return Err(CommitOutcome::Failed(why));
            }
        }
        let mut values = self.values.clone();
        for (place, effect) in commit.effects.iter().enumerate() {
            if self.streams.contains_key(&effect.key) && effect.command != "DEL" {
                let why = format!("{}: the key holds a stream", name(effect));
                return Err(CommitOutcome::Failed(why));
            }
            values.apply(effect).map_err(|not| match not {
                Not::Refused(current) => CommitOutcome::Refused(place, current),
                Not::Failed(why) => CommitOutcome::Failed(why),
            })?;
        }
        self.values = values;
        Ok(())
    }
}
