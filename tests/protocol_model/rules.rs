//! What a run of the model takes for given: how many attempts an entry has, which defences stand, and how
//! much may go wrong.

/// The rules under which the entry is worked on.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub max_attempts: u8,
    /// The handler emits an event, so that its success is a commit instead of a plain acknowledgement.
    pub commits: bool,
    /// What dies in its last attempt is buried, and not run once more.
    pub buries_crashed: bool,
    pub defences: Defences,
}

impl Rules {
    pub fn new(max_attempts: u8) -> Self {
        Rules {
            max_attempts,
            commits: false,
            buries_crashed: false,
            defences: Defences::all(),
        }
    }

    pub fn commits(self) -> Self {
        Rules {
            commits: true,
            ..self
        }
    }

    pub fn buries_crashed(self) -> Self {
        Rules {
            buries_crashed: true,
            ..self
        }
    }

    /// How often the handler may start: after a death in the last attempt there may be one run more, a crash check.
    pub fn most_starts(&self, died_in_the_last: bool) -> u8 {
        self.max_attempts + u8::from(died_in_the_last && !self.buries_crashed)
    }

    /// The same rules with one defence (or more) taken out.
    pub fn without(mut self, take_out: impl FnOnce(&mut Defences)) -> Self {
        take_out(&mut self.defences);
        self
    }

    /// Whether an entry on this attempt is reclaimed alone: it may be what killed its workers.
    pub fn goes_alone(&self, attempt: u8) -> bool {
        attempt >= 3 || attempt >= self.max_attempts
    }
}

/// What keeps the promises. Each can be taken out, to show what it is there for.
#[derive(Clone, Copy, Debug)]
pub struct Defences {
    /// "Still mine" asks for the delivery count too, not only for the consumer.
    pub fence_by_count: bool,
    /// What renew names as unheld is only a hint: the fetcher adopts it when nothing else of its is outstanding.
    pub adopt_by_fetcher: bool,
    /// What an answer to renew or to a settlement says concerns only what was held when it was sent.
    pub answers_by_generation: bool,
    /// Wake takes only what is with `(parked)` or with nobody.
    pub wake_asks_the_holder: bool,
    /// Reclaim looks and takes in one script.
    pub reclaim_in_one_script: bool,
    /// What `(parked)` holds and no due time names is given one.
    pub mend: bool,
    /// Forget looks and deletes in one step.
    pub forget_in_one_step: bool,
    /// Every burial leaves a guard, not only that of a nobody's: a repeat of it finds the entry with nobody.
    pub every_burial_guarded: bool,
    /// The acknowledgement of an entry that has been parked leaves the guard too: a repeat of the park that
    /// came before finds the entry with nobody, and must not bury what succeeded.
    pub ack_guards_the_parked: bool,
    /// What is said to be its worker's to settle though it is nobody's is so until a time by Redis' clock.
    pub own_has_a_deadline: bool,
    /// And once an answer got lost, for a while at most: then it is not known any more what was done.
    pub repeats_have_an_end: bool,
    /// A guard stays as long as anybody may speak of what was done before it.
    pub guards_outlast_repeats: bool,
    /// That of a nobody's stays for longer than handlers run: an earlier delivery may have been buried so.
    pub guards_of_nobodys_stay: bool,
    /// That acknowledgement takes the due time along: it may be a late one, of what has been parked again since,
    /// and wake would bring it back.
    pub ack_clears_the_due_time: bool,
    /// What wake brings back from nobody goes on at the delivery count it was parked with.
    pub forced_count_goes_on: bool,
    /// Reclaim notes in the failure record that the entry died alone, so that adopt can tell it too.
    pub lone_death_noted: bool,
    /// It notes there that it died at all: where that is the end, adopt must not run it.
    pub death_in_company_noted: bool,
    /// What is released is still on the attempt before which its worker died.
    pub release_keeps_the_death: bool,
    /// Behind its last attempt an entry runs once, in whatever company it died then.
    pub one_crash_check: bool,
    /// A look at what a dead worker held that finds no slot free does not use up the turn: the next slot is for that.
    pub reclaimed_come_first: bool,
    /// Redis refuses a reclaim that reaches it long after it was sent.
    pub reclaim_has_a_deadline: bool,
    /// A destroyed group is made anew only a lease after it was missed, when it is known who is gone.
    pub join_waits_a_lease: bool,
    /// A position tells up to where all that was delivered to a worker is settled, not only what it holds.
    pub position_tells_the_settled: bool,
    /// The success of a nobody's commits its effect, behind the guard.
    pub nobodys_commit: bool,
    /// A change of server ends every lease: what is held has to be confirmed by the new one.
    pub failover_ends_leases: bool,
    /// What is held under a lease that has lapsed is not settled, but for an ack, before a renewal confirms it.
    pub lapsed_is_confirmed_first: bool,
    /// What is nobody's and in the stream is parked all the same, and comes back; only what is gone from it is buried.
    pub nobodys_are_brought_back: bool,
    /// What was parked already at this delivery, as its record tells, is not parked again as nobody's.
    pub a_repeat_asks_the_record: bool,
    /// What had a record when it was delivered, and has none now, does not run behind its last attempt.
    pub a_lost_record_tells: bool,
    /// What has been called nobody's cannot be taken any more: it stays its holder's, however long that takes.
    pub nobodys_has_no_lease: bool,
    /// A worker that has been in a group knows that it is not new, and does not begin it at the end.
    pub joined_once_is_remembered: bool,
    /// Where one that could not know it has begun it at the end, who knows brings back what that has passed over.
    pub passed_over_comes_back: bool,
    /// What comes as new below what the group is known to have read is looked at before it runs.
    pub looks_at_the_known: bool,
    /// Adopt looks so at what is at its first delivery: whoever read it may not have come to that.
    pub adopt_looks_at_the_known: bool,
    /// Reclaim does.
    pub reclaim_looks_at_the_known: bool,
    /// A park of an earlier delivery than the record names is a late one, also where the count has begun again.
    pub park_asks_the_record: bool,
    /// Wake leaves alone what is to be delivered as new: the delivery would take it from whoever was woken with it.
    pub wake_leaves_what_is_to_come: bool,
}

impl Defences {
    pub fn all() -> Self {
        Defences {
            fence_by_count: true,
            adopt_by_fetcher: true,
            answers_by_generation: true,
            wake_asks_the_holder: true,
            reclaim_in_one_script: true,
            mend: true,
            forget_in_one_step: true,
            every_burial_guarded: true,
            ack_guards_the_parked: true,
            own_has_a_deadline: true,
            repeats_have_an_end: true,
            guards_outlast_repeats: true,
            guards_of_nobodys_stay: true,
            ack_clears_the_due_time: true,
            forced_count_goes_on: true,
            lone_death_noted: true,
            death_in_company_noted: true,
            release_keeps_the_death: true,
            one_crash_check: true,
            reclaimed_come_first: true,
            reclaim_has_a_deadline: true,
            join_waits_a_lease: true,
            position_tells_the_settled: true,
            nobodys_commit: true,
            failover_ends_leases: true,
            lapsed_is_confirmed_first: true,
            nobodys_are_brought_back: true,
            a_repeat_asks_the_record: true,
            a_lost_record_tells: true,
            nobodys_has_no_lease: true,
            joined_once_is_remembered: true,
            passed_over_comes_back: true,
            looks_at_the_known: true,
            adopt_looks_at_the_known: true,
            reclaim_looks_at_the_known: true,
            park_asks_the_record: true,
            wake_leaves_what_is_to_come: true,
        }
    }
}

/// How often each thing may still happen that the protocol does not choose. A scenario is its budget.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Budget {
    /// A handler returns an error.
    pub failures: u8,
    /// An entry is released: before its start (stopping, breaker open) or by its handler (`later`).
    pub releases: u8,
    /// A request or an answer gets lost, or a request reaches Redis after its sender gave it up.
    pub losses: u8,
    /// A worker stands still and wakes up at any time, or never.
    pub freezes: u8,
    /// A worker dies; its successor has another name.
    pub crashes: u8,
    /// So much else comes, without end, that no slot of any worker stays free.
    pub backlogs: u8,
    /// Redis is away, or stands still, for longer than a lease, and loses nothing.
    pub outages: u8,
    /// A replica takes over that lacks the last write.
    pub failovers: u8,
    /// An operator replays the dead letter.
    pub replays: u8,
    /// Somebody forgets a consumer that has long not been seen.
    pub forgets: u8,
    /// The entry is trimmed from the stream.
    pub trims: u8,
    /// Somebody deletes the retry key.
    pub retry_keys_deleted: u8,
    /// Somebody deletes the consumer `(parked)`.
    pub parked_deleted: u8,
    /// Somebody destroys the group.
    pub groups_destroyed: u8,
    /// Somebody empties Redis before the entry comes, under workers that begin new groups at the end.
    pub flushes: u8,
    /// Somebody sets the group back below the entry while that is parked, when all have heard that it had been read.
    pub set_backs: u8,
}

impl Budget {
    /// What has been used of it by a state that still has `left`.
    pub fn minus(&self, left: &Budget) -> Budget {
        Budget {
            failures: self.failures - left.failures,
            releases: self.releases - left.releases,
            losses: self.losses - left.losses,
            freezes: self.freezes - left.freezes,
            crashes: self.crashes - left.crashes,
            backlogs: self.backlogs - left.backlogs,
            outages: self.outages - left.outages,
            failovers: self.failovers - left.failovers,
            replays: self.replays - left.replays,
            forgets: self.forgets - left.forgets,
            trims: self.trims - left.trims,
            retry_keys_deleted: self.retry_keys_deleted - left.retry_keys_deleted,
            parked_deleted: self.parked_deleted - left.parked_deleted,
            groups_destroyed: self.groups_destroyed - left.groups_destroyed,
            flushes: self.flushes - left.flushes,
            set_backs: self.set_backs - left.set_backs,
        }
    }
}
