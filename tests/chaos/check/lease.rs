//! Whether a run kept its lease: what the network between its worker and the server has seen of renewals says so.

use super::{Known, Run};
use crate::chaos::history::{Life, Renewal};
use crate::chaos::records::How;
use crate::chaos::rules::{self, DRAIN, LEASE};

pub const LEASE_NS: u64 = LEASE.as_nanos() as u64;
/// How long a settlement may take where nothing is wrong.
const SETTLED: u64 = 4_000_000_000;
/// Between the end of a handler and what becomes of it, where its worker is told to stop in between.
const MOMENT: u64 = 500_000_000;

impl Known<'_> {
    pub fn runs_of(&self, entry: &str) -> impl Iterator<Item = &Run> {
        let runs = self.by_entry.get(entry).map_or(&[][..], |all| all);
        runs.iter().map(|n| &self.runs[*n])
    }

    fn life(&self, run: &Run) -> &Life {
        &self.history.lives[&run.life]
    }

    fn in_trouble(&self, life: &Life, from: u64, until: u64) -> bool {
        life.troubles.between(from, until) || self.history.server_troubles.between(from, until)
    }

    /// Whether nothing went wrong with the worker of this run, or the server, from a lease before it until then, and the
    /// worker was not told to stop.
    pub fn is_quiet(&self, run: &Run, until: u64) -> bool {
        let life = self.life(run);
        life.told_to_stop.is_none_or(|told| told > until)
            && life.ended.is_none_or(|ended| ended > until)
            && !self.in_trouble(life, run.began.saturating_sub(LEASE_NS), until)
    }

    /// Whether it is known that this run's worker had the lease of its entry from its start until then, or would have it if
    /// it had not settled it.
    ///
    /// The server did each renewal after it was asked and before it was answered. No holder can lose an entry between two of
    /// them that are closer together than a lease.
    pub fn kept(&self, run: &Run, until: u64) -> bool {
        let life = self.life(run);
        let is_cut_off = run.how().is_none_or(|how| how == How::Dropped);
        let drained = |told| until >= told + DRAIN.as_nanos() as u64;
        if is_cut_off && life.told_to_stop.is_some_and(drained) {
            return false;
        }
        // What was delivered long before its run began may have been renewed for the first time after that.
        if self.in_trouble(life, run.began.saturating_sub(LEASE_NS), run.began) {
            return false;
        }
        let of = |alone| {
            let is_of = |one: &&Renewal| {
                let rest = run.entry.strip_prefix(one.stream);
                one.alone == alone && rest.is_some_and(|rest| rest.starts_with('/'))
            };
            let all = life.renewals.iter().filter(is_of);
            all.copied().collect::<Vec<Renewal>>()
        };
        let together = of(false);
        let Some(base) = together.iter().rfind(|one| one.answered <= run.began) else {
            return false;
        };
        if !is_without_gap(&together, base.asked, until) {
            return false;
        }
        let alone = of(true);
        let recent = run.began.saturating_sub(LEASE_NS)..=until;
        let may_be_alone = run.attempt >= 3
            || run.crash_check
            || run.attempt >= rules::of(&run.event_type).max_attempts;
        if may_be_alone && alone.iter().any(|one| recent.contains(&one.asked)) {
            return is_without_gap(&alone, run.began, until);
        }
        true
    }

    /// Whether it is known that what this run came to was carried out: nothing was wrong until long after its end.
    pub fn is_surely_settled(&self, run: &Run) -> bool {
        let Some(end) = &run.end else { return false };
        let life = self.life(run);
        let until = end.at + SETTLED;
        life.ended.is_none_or(|ended| ended > until)
            && life.told_to_stop.is_none_or(|told| told > until)
            && !self.in_trouble(life, run.began.saturating_sub(LEASE_NS), until)
            && self.kept(run, until)
    }

    /// Whether the run may have lost its lease, or its worker died, before its end was carried out.
    pub fn may_have_lost(&self, run: &Run) -> bool {
        !self.is_surely_settled(run)
    }

    /// Whether the run may have been released by a worker that stopped, which uses up no attempt.
    pub fn may_be_given_back(&self, run: &Run) -> bool {
        if rules::of(&run.event_type).bury_on_crash {
            return false;
        }
        let until = run.end.as_ref().map_or(u64::MAX, |end| end.at + MOMENT);
        let told = self.life(run).told_to_stop;
        told.is_some_and(|told| told <= until)
    }
}

/// Whether renewals follow each other within a lease, from one that was asked at `base` until then.
fn is_without_gap(renewals: &[Renewal], base: u64, until: u64) -> bool {
    let mut last = base;
    for renewal in renewals
        .iter()
        .filter(|one| one.asked > base && one.asked <= until)
    {
        if renewal.answered - last >= LEASE_NS {
            return false;
        }
        last = renewal.asked;
    }
    until.saturating_sub(last) < LEASE_NS
}
