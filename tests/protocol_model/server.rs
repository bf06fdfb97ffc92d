//! What each script does to the entry, one function a script, in the order in which the script does it.
//!
//! Redis runs them one at a time, so each is one step of the model.

use crate::messages::{Delivery, Fence, Renewal, Settlement, Step, Verdict};
use crate::rules::Rules;
use crate::state::{Consumer, Death, Holder, Ledger, Note, Pending, Record, Redis, Who};

/// Redis while it runs a script.
pub struct Server<'a> {
    pub rules: &'a Rules,
    pub redis: &'a mut Redis,
    pub ledger: &'a mut Ledger,
    /// Whether positions are noted: only where the group may be destroyed yet.
    pub noting: bool,
}

impl Server<'_> {
    /// `XREADGROUP … >`
    pub fn deliver(&mut self, me: Who) -> Option<Delivery> {
        if !self.redis.group || self.redis.delivered {
            return None;
        }
        self.redis.delivered = true;
        let known = std::mem::take(&mut self.redis.set_back);
        let delivery = self.hand_over(me, false, 1)?;
        Some(Delivery { known, ..delivery })
    }

    pub fn wake(&mut self, me: Who) -> Option<Delivery> {
        if !self.redis.group || !self.redis.due {
            return None;
        }
        self.redis.due = false;
        let deliveries = match self.redis.pending {
            Some(_) if !self.redis.delivered && self.rules.defences.wake_leaves_what_is_to_come => {
                return None;
            }
            Some(pending)
                if pending.holder == Holder::Parked
                    || !self.rules.defences.wake_asks_the_holder =>
            {
                pending.deliveries + 1
            }
            Some(_) => return None,
            None if !self.redis.delivered => return None, // it will be delivered as new
            None if self.rules.defences.forced_count_goes_on => self.redis.record.parked_at + 1,
            None => 1,
        };
        self.note_hand_over(me);
        self.hand_over(me, false, deliveries)
    }

    pub fn reclaim(&mut self, me: Who) -> Option<Delivery> {
        let (from, mut deliveries) = self.lapsed(me)?;
        if deliveries == 1 && self.rules.defences.reclaim_looks_at_the_known {
            if self.parks_again() {
                return None;
            }
            deliveries = self.redis.record.parked_at.max(1);
        }
        self.take_over(me, from.alone, deliveries)
    }

    /// The first half of a reclaim in two commands.
    pub fn scan(&self, me: Who) -> Option<u8> {
        self.lapsed(me).map(|(_, deliveries)| deliveries)
    }

    /// The second half: XCLAIM asks for the idle time again, but not for the holder.
    pub fn claim(&mut self, me: Who, deliveries: u8) -> Option<Delivery> {
        let pending = self.redis.pending.filter(|pending| pending.lapsed)?;
        self.take_over(me, pending.is_alone(), deliveries)
    }

    pub fn adopt(&mut self, me: Who) -> Option<Delivery> {
        let pending = self.redis.pending.filter(|pending| pending.is_with(me))?;
        if pending.deliveries == 1 && self.rules.defences.adopt_looks_at_the_known {
            return self.goes_on(me);
        }
        self.hand_over(me, pending.is_alone(), pending.deliveries)
    }

    pub fn meet_again(&mut self, me: Who) -> Option<Delivery> {
        let pending = self.redis.pending.filter(|pending| pending.is_with(me))?;
        if pending.deliveries != 1 {
            return None;
        }
        self.goes_on(me)
    }

    /// What was parked is parked again. The rest goes on behind the last delivery that is noted.
    fn goes_on(&mut self, me: Who) -> Option<Delivery> {
        if self.parks_again() {
            return None;
        }
        self.hand_over(me, false, self.redis.record.parked_at + 1)
    }

    fn parks_again(&mut self) -> bool {
        let redis = &mut *self.redis;
        let parks = redis.due && redis.in_stream;
        if parks {
            redis.pending = Some(Pending {
                holder: Holder::Parked,
                deliveries: redis.record.parked_at.max(1),
                lapsed: false,
            });
        }
        parks
    }

    pub fn renew(&mut self, me: Who, held: Option<Fence>) -> Renewal {
        if !self.redis.group {
            return Renewal::Nothing;
        }
        let verdict = held.map(|fence| self.still_mine(me, fence));
        let with_me = self
            .redis
            .pending
            .is_some_and(|pending| pending.is_with(me));
        if self.noting {
            let redis = &mut *self.redis;
            redis.position.last = redis.delivered;
            redis.position.of[me as usize] = match verdict {
                _ if !redis.delivered => Note::Before,
                Some(Verdict::Done) => Note::Held,
                _ if with_me => Note::Unheld,
                _ => Note::Settled,
            };
        }
        match (held, verdict) {
            (Some(_), Some(Verdict::Done)) if !self.redis.in_stream => {
                self.redis.pending = None;
                Renewal::Trimmed
            }
            (Some(fence), Some(Verdict::Done)) => {
                self.redis.pending = Some(Pending::with(me, fence.alone, fence.deliveries));
                Renewal::Mine
            }
            (_, Some(Verdict::Taken)) => Renewal::Taken,
            (_, Some(_)) => Renewal::Nobody,
            _ => match self.redis.pending.filter(|pending| pending.is_with(me)) {
                Some(pending) => {
                    Renewal::Unheld(self.delivery(pending.is_alone(), pending.deliveries))
                }
                None => Renewal::Nothing,
            },
        }
    }

    pub fn settle(&mut self, me: Who, settlement: Settlement) -> Verdict {
        match settlement.step {
            Step::Ack => self.ack(settlement.fence),
            Step::Commit => self.commit(me, settlement),
            Step::Park => self.park(me, settlement, false),
            Step::Release => self.park(me, settlement, true),
            Step::Bury => self.bury(me, settlement),
        }
    }

    /// Not fenced: success is success whoever reports it.
    fn ack(&mut self, fence: Fence) -> Verdict {
        if fence.copy == self.redis.copy {
            let redis = &mut *self.redis;
            redis.acknowledged = true;
            redis.pending = None;
            // A first delivery has no failure record, and its acknowledgement is a plain XACK.
            if fence.deliveries > 1 {
                self.settled(self.rules.defences.ack_guards_the_parked);
                self.redis.due &= !self.rules.defences.ack_clears_the_due_time;
            }
        }
        Verdict::Done
    }

    fn commit(&mut self, me: Who, settlement: Settlement) -> Verdict {
        match self.still_mine(me, settlement.fence) {
            Verdict::Done => {}
            Verdict::Nobody if settlement.own && self.redis.committed_by == Some(me) => {
                return Verdict::Done;
            }
            Verdict::Nobody if settlement.own => match self.nobodys(settlement) {
                Verdict::Nobody => {
                    self.redis.committed_by = Some(me);
                    self.redis.guard_stays = self.rules.defences.guards_of_nobodys_stay;
                }
                other => return other,
            },
            other => return other,
        }
        self.redis.effects += 1;
        self.redis.acknowledged = true;
        let was_parked =
            settlement.fence.deliveries > 1 && self.rules.defences.ack_guards_the_parked;
        self.settled(settlement.own || was_parked);
        Verdict::Done
    }

    /// Park, or release where the attempt is given back.
    fn park(&mut self, me: Who, settlement: Settlement, give_back: bool) -> Verdict {
        let (fence, defences) = (settlement.fence, self.rules.defences);
        let verdict = match self.still_mine(me, fence) {
            // Its record tells that it was parked already, at this delivery. Without one it has the attempts that are left, and no
            // run behind the last. What is to be delivered as new needs nothing.
            Verdict::Nobody if settlement.brings_back && settlement.own => {
                match self.nobodys(settlement) {
                    Verdict::Nobody if !self.redis.in_stream => return Verdict::Trimmed,
                    Verdict::Nobody
                        if self.redis.record.parked_at == fence.deliveries
                            && defences.a_repeat_asks_the_record =>
                    {
                        return Verdict::Taken;
                    }
                    Verdict::Nobody
                        if fence.deliveries > 1
                            && self.redis.record == Record::default()
                            && settlement.attempt >= self.rules.max_attempts
                            && defences.a_lost_record_tells =>
                    {
                        return Verdict::Unknown;
                    }
                    Verdict::Nobody if self.redis.delivered => {
                        if self.redis.record == Record::default() {
                            self.redis.record.given_back =
                                fence.deliveries.saturating_sub(settlement.attempt);
                        }
                        Verdict::Done
                    }
                    Verdict::Nobody => return Verdict::Taken,
                    other => return other,
                }
            }
            other => other,
        };
        match verdict {
            Verdict::Done
                if self.redis.record.parked_at > fence.deliveries
                    && self.rules.defences.park_asks_the_record =>
            {
                Verdict::Taken
            }
            Verdict::Done if !self.redis.in_stream => {
                self.settled(false);
                Verdict::Trimmed
            }
            Verdict::Done => {
                let redis = &mut *self.redis;
                redis.pending = Some(Pending {
                    holder: Holder::Parked,
                    deliveries: fence.deliveries,
                    lapsed: false,
                });
                redis.due = true;
                redis.record.parked_at = fence.deliveries;
                redis.record.given_back += u8::from(give_back);
                if !(give_back && self.rules.defences.release_keeps_the_death) {
                    redis.record.died = None;
                }
                Verdict::Done
            }
            other => other,
        }
    }

    fn bury(&mut self, me: Who, settlement: Settlement) -> Verdict {
        let nobodys = match self.still_mine(me, settlement.fence) {
            Verdict::Done => false,
            Verdict::Nobody if settlement.own => match self.nobodys(settlement) {
                Verdict::Nobody => {
                    self.redis.guard_stays = self.rules.defences.guards_of_nobodys_stay;
                    true
                }
                other => return other,
            },
            other => return other,
        };
        self.redis.dead += 1;
        self.settled(nobodys || self.rules.defences.every_burial_guarded);
        self.redis.due = false;
        Verdict::Done
    }

    /// What `(parked)` holds and no due time names is due now.
    pub fn mend(&mut self) {
        self.redis.due |= self
            .redis
            .pending
            .is_some_and(|pending| pending.holder == Holder::Parked);
    }

    /// The operator's: the original fields to the stream `again`, the dead letter deleted, in one script.
    pub fn replay(&mut self, copy: u8) {
        if self.redis.copy == copy && self.redis.dead > 0 {
            *self.redis = Redis::fresh(copy + 1, self.redis.effects);
            *self.ledger = Ledger::default();
        }
    }

    /// Whether the consumer has nothing pending.
    pub fn has_nothing(&self, consumer: Consumer) -> bool {
        self.redis.group
            && self
                .redis
                .pending
                .is_none_or(|pending| pending.holder != Holder::Consumer(consumer))
    }

    /// Deleting a consumer deletes what is pending with it.
    pub fn delete_consumer(&mut self, consumer: Consumer) {
        if !self.has_nothing(consumer) {
            self.redis.pending = None;
        }
        if !consumer.alone {
            self.redis.position.of[consumer.who as usize] = Note::Settled;
        }
    }

    /// Makes a destroyed group anew: where it stood, or just below what may have been lost with a worker.
    /// `away`: the workers that have not renewed for their lease.
    pub fn join(&mut self, away: impl Fn(Who) -> bool) {
        let position = self.redis.position;
        let goes_back = [Who::A, Who::B, Who::Gone].into_iter().any(|who| {
            let note = position.of[who as usize];
            if self.rules.defences.position_tells_the_settled {
                matches!(note, Note::Before | Note::Unheld) || (note == Note::Held && away(who))
            } else {
                away(who) && note == Note::Held
            }
        });
        self.redis.group = true;
        self.redis.delivered = position.last && !goes_back;
        self.redis.position = Redis::fresh(0, 0).position;
        self.redis.made_anew = true;
    }

    /// Redis was emptied. `knows`: by a worker that has been in the group; any other takes it for new, and begins at the
    /// end, which is behind the entry.
    pub fn join_emptied(&mut self, knows: bool) {
        self.redis.emptied = false;
        self.redis.group = true;
        self.redis.delivered = !knows;
        self.redis.passed_over = !knows;
    }

    /// What the group has passed over gets a due time.
    pub fn bring_back(&mut self) {
        self.redis.passed_over = false;
        self.redis.due = true;
    }

    fn still_mine(&self, me: Who, fence: Fence) -> Verdict {
        if !self.redis.group {
            return Verdict::NoGroup;
        }
        let mine = Holder::Consumer(Consumer {
            who: me,
            alone: fence.alone,
        });
        match self.redis.pending {
            _ if self.redis.copy != fence.copy => Verdict::Nobody,
            None => Verdict::Nobody,
            Some(pending) if pending.holder != mine => Verdict::Taken,
            Some(pending)
                if self.rules.defences.fence_by_count && pending.deliveries != fence.deliveries =>
            {
                Verdict::Taken
            }
            Some(_) => Verdict::Done,
        }
    }

    /// A nobody's is its holder's to settle, unless that has been done: an older copy was settled before it was
    /// replayed, a newer one leaves the guard. And for a while only, for the guard goes.
    fn nobodys(&self, settlement: Settlement) -> Verdict {
        if settlement.fence.copy != self.redis.copy || self.redis.guard {
            Verdict::Done
        } else if settlement.outdated && self.rules.defences.own_has_a_deadline {
            Verdict::Late
        } else {
            Verdict::Nobody
        }
    }

    fn settled(&mut self, guarded: bool) {
        self.redis.pending = None;
        self.redis.record = Record::default();
        self.redis.guard |= guarded;
    }

    /// Who let it lapse, and at which count.
    fn lapsed(&self, me: Who) -> Option<(Consumer, u8)> {
        match self.redis.pending {
            Some(Pending {
                holder: Holder::Consumer(from),
                deliveries,
                lapsed: true,
            }) if from.who != me => Some((from, deliveries)),
            _ => None,
        }
    }

    fn take_over(&mut self, me: Who, from_alone: bool, deliveries: u8) -> Option<Delivery> {
        let attempt = deliveries + 1 - self.redis.record.given_back;
        let died = if from_alone {
            Death::Alone
        } else {
            Death::InCompany
        };
        let defences = self.rules.defences;
        let is_noted = if from_alone {
            defences.lone_death_noted
        } else {
            defences.death_in_company_noted
        };
        self.redis.record.died = Some(died).filter(|_| is_noted);
        self.ledger.crash_check |= attempt > self.rules.max_attempts;
        self.note_hand_over(me);
        let mut delivery = self.hand_over(me, self.rules.goes_alone(attempt), deliveries + 1)?;
        delivery.crashed = self.is_over(attempt, died); // the caller knows whose it asked for
        Some(delivery)
    }

    /// Whether an entry that comes after a death is to be buried without running.
    fn is_over(&self, attempt: u8, died: Death) -> bool {
        let most = self.rules.max_attempts;
        let checked = self.rules.defences.one_crash_check && attempt > most + 1;
        attempt > most && (self.rules.buries_crashed || died == Death::Alone || checked)
    }

    /// `XCLAIM` to me, and the entry in the answer.
    fn hand_over(&mut self, me: Who, alone: bool, deliveries: u8) -> Option<Delivery> {
        if !self.redis.in_stream {
            self.settled(false);
            self.ledger.written_off = true; // counted, logged and reported
            return None;
        }
        self.redis.pending = Some(Pending::with(me, alone, deliveries));
        self.ledger.latest = deliveries;
        Some(self.delivery(alone, deliveries))
    }

    /// A new delivery is above what the position says; one through wake or reclaim may be below.
    fn note_hand_over(&mut self, me: Who) {
        if self.noting && self.rules.defences.position_tells_the_settled {
            self.redis.position.of[me as usize] = Note::Unheld;
        }
    }

    fn delivery(&self, alone: bool, deliveries: u8) -> Delivery {
        let record = self.redis.record;
        let attempt = deliveries.saturating_sub(record.given_back).max(1);
        let crashed = record.died.is_some_and(|died| self.is_over(attempt, died));
        Delivery {
            copy: self.redis.copy,
            alone,
            deliveries,
            attempt,
            crashed,
            aged: false,
            known: false,
        }
    }
}
