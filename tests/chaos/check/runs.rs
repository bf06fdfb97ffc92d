//! What runs of one entry may be to each other: none beside another that kept its lease, none behind one that settled it,
//! no attempt twice, none too many; and no more at once than a worker may have.

use std::collections::{BTreeMap, BTreeSet};

use super::lease::LEASE_NS;
use super::{Findings, Known};
use crate::chaos::records::{How, Line, What};
use crate::chaos::rules::{self, CONCURRENCY};

/// A run of a handler.
#[derive(Clone, Debug)]
pub struct Run {
    pub life: String,
    pub number: u64,
    /// When it began, and on which line it says so.
    pub began: u64,
    pub line: usize,
    pub entry: String,
    pub event: String,
    pub event_type: String,
    pub attempt: u32,
    pub crash_check: bool,
    pub end: Option<End>,
}

#[derive(Clone, Debug)]
pub struct End {
    pub at: u64,
    pub line: usize,
    pub how: How,
}

impl Run {
    pub fn how(&self) -> Option<How> {
        self.end.as_ref().map(|end| end.how)
    }

    pub fn name(&self) -> String {
        let check = if self.crash_check {
            ", a crash check"
        } else {
            ""
        };
        let (life, number, attempt) = (&self.life, self.number, self.attempt);
        format!("run {life}/{number} (attempt {attempt}{check})")
    }

    fn had_ended_by(&self, line: usize) -> bool {
        self.end.as_ref().is_some_and(|end| end.line < line)
    }

    /// Whether what it came to leaves no further run to anybody.
    fn is_final(&self) -> bool {
        let is_last = self.attempt >= rules::of(&self.event_type).max_attempts;
        match self.how() {
            None | Some(How::Later) => false,
            Some(How::Ok | How::Permanent) => true,
            Some(How::Failed | How::Panicked | How::Dropped) => is_last,
        }
    }
}

/// The runs of these lines, in the order of their starts.
pub fn of(lines: &[Line], findings: &mut Findings) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut open: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    for (n, line) in lines.iter().enumerate() {
        let of = (&line.life[..], line.run);
        match &line.what {
            What::Start {
                entry,
                event,
                event_type,
                attempt,
                crash_check,
            } => {
                open.insert(of, runs.len());
                runs.push(Run {
                    life: line.life.clone(),
                    number: line.run,
                    began: line.at,
                    line: n,
                    entry: entry.clone(),
                    event: event.clone(),
                    event_type: event_type.clone(),
                    attempt: *attempt,
                    crash_check: *crash_check,
                    end: None,
                });
            }
            What::End { how, .. } => match open.remove(&of) {
                Some(run) => {
                    let (at, how) = (line.at, *how);
                    runs[run].end = Some(End { at, line: n, how });
                }
                None => findings.wrong(
                    &line.life,
                    format!("run {} ends that never began", line.run),
                ),
            },
        }
    }
    runs
}

pub fn check(known: &Known, findings: &mut Findings) {
    for runs in known.by_entry.values() {
        let runs: Vec<&Run> = runs.iter().map(|n| &known.runs[*n]).collect();
        for (n, run) in runs.iter().enumerate() {
            attempt(findings, run);
            for earlier in &runs[..n] {
                attempts(known, findings, earlier, run);
            }
        }
        for next in runs.windows(2) {
            exact(known, findings, next[0], next[1]);
        }
        if !rules::of(&runs[0].event_type).deduplicates {
            leases(known, findings, &runs);
        }
    }
    let mut copies: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    let deduplicated = |run: &&Run| rules::of(&run.event_type).deduplicates;
    for run in known.runs.iter().filter(deduplicated) {
        copies.entry(&run.event).or_default().push(run);
    }
    for runs in copies.values() {
        leases(known, findings, runs);
    }
    at_once(known, findings);
}

/// What can be said of one run alone.
fn attempt(findings: &mut Findings, run: &Run) {
    let most = rules::of(&run.event_type).max_attempts;
    if run.attempt > most || run.attempt == 0 {
        findings.wrong(&run.entry, format!("{} of {most} attempts", run.name()));
    }
    if run.crash_check && rules::of(&run.event_type).bury_on_crash {
        findings.wrong(
            &run.entry,
            format!("{} of what runs no more then", run.name()),
        );
    }
}

/// No attempt comes twice, but for what asked for it, or was released by a worker that stopped.
fn attempts(known: &Known, findings: &mut Findings, earlier: &Run, later: &Run) {
    let is_given_back = earlier.how() == Some(How::Later) || known.may_be_given_back(earlier);
    let place = |run: &Run| run.attempt + u32::from(run.crash_check);
    let is_right = place(later) > place(earlier) || is_given_back && place(later) == place(earlier);
    if !is_right {
        let (entry, later, earlier) = (&later.entry, later.name(), earlier.name());
        findings.wrong(entry, format!("{later} behind {earlier}"));
    }
}

/// Where nothing goes wrong between two runs no attempt is used up unseen: the later one is the attempt behind the earlier,
/// or the same one where that asked to come back.
fn exact(known: &Known, findings: &mut Findings, earlier: &Run, later: &Run) {
    let Some(end) = &earlier.end else { return };
    // Whoever else has had it meanwhile cannot have let a lease run out.
    let is_soon = end.line < later.line && later.began.saturating_sub(end.at) < LEASE_NS;
    let is_check = earlier.crash_check || later.crash_check;
    if !is_soon || is_check || !known.is_quiet(earlier, later.began) || !known.kept(earlier, end.at)
    {
        return;
    }
    findings.exact += 1;
    let expected = earlier.attempt + u32::from(end.how != How::Later);
    if later.attempt > expected {
        let (entry, later, earlier) = (&later.entry, later.name(), earlier.name());
        let what = format!("{later} behind {earlier}, which ended as {:?}", end.how);
        findings.wrong(entry, what);
    }
}

/// None begins beside one that kept its lease, or behind one that has settled the entry.
fn leases(known: &Known, findings: &mut Findings, runs: &[&Run]) {
    for (n, run) in runs.iter().enumerate() {
        for earlier in &runs[..n] {
            let had_ended = earlier.had_ended_by(run.line);
            if had_ended && (!earlier.is_final() || known.was_stopped(earlier)) {
                continue;
            }
            findings.took_over += 1;
            findings.beside += usize::from(!had_ended);
            let is_settled = had_ended && known.is_surely_settled(earlier);
            if !known.kept(earlier, run.began) && !is_settled {
                continue;
            }
            let (name, earlier_name) = (run.name(), earlier.name());
            let what = match (had_ended, earlier.how()) {
                (true, Some(how)) => format!(
                    "{name} of {} begins when {earlier_name} of {} has ended it ({how:?}) and kept its lease",
                    run.entry, earlier.entry
                ),
                _ => format!(
                    "{name} of {} begins beside {earlier_name} of {}, which had its lease",
                    run.entry, earlier.entry
                ),
            };
            findings.wrong(&run.entry, what);
        }
    }
}

impl Known<'_> {
    /// Whether what failed for the last time was released instead: it ended because its worker stopped.
    fn was_stopped(&self, earlier: &Run) -> bool {
        let failed = matches!(
            earlier.how(),
            Some(How::Failed | How::Panicked | How::Dropped)
        );
        failed && self.may_be_given_back(earlier)
    }
}

/// A worker has no more runs at once than it may, in all and of each type.
fn at_once(known: &Known, findings: &mut Findings) {
    let mut open: BTreeMap<&str, BTreeMap<u64, &str>> = BTreeMap::new();
    let mut told: BTreeSet<(&str, &str)> = BTreeSet::new();
    for line in &known.history.lines {
        let of = open.entry(&line.life).or_default();
        match &line.what {
            What::Start { event_type, .. } => {
                of.insert(line.run, event_type);
                let same = of.values().filter(|one| *one == event_type).count();
                let most = rules::of(event_type).concurrency;
                if (same > most || of.len() > CONCURRENCY) && told.insert((&line.life, event_type))
                {
                    let all = of.len();
                    findings.wrong(
                        format!("worker {}", line.life),
                        format!("{same} runs of {event_type} at once, {all} in all"),
                    );
                }
            }
            What::End { .. } => {
                of.remove(&line.run);
            }
        }
    }
}
