//! What is said of a run: how much there was of everything; and where something is wrong, what, with all that is known of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::check::{Findings, field};
use super::history::History;
use super::plan::{Fault, Network, Plan, ServerFault};
use super::records::{How, What};
use crate::support::Kind;

/// Most things that are told one by one.
const MOST: usize = 30;

/// How much there was of everything.
pub fn figures(kind: Kind, plan: &Plan, history: &History, findings: &Findings) -> String {
    let mut text = String::new();
    let (seconds, seed) = (plan.length.as_secs(), plan.seed);
    let _ = writeln!(text, "chaos on {kind:?}, {seconds} s, SEED={seed}");
    let known = history.published.iter().filter(|one| one.known);
    let _ = writeln!(
        text,
        "  {} publishes, {} of them acknowledged; {} entries, {} dead letters, {} effects",
        history.published.len(),
        known.count(),
        history.entries.len(),
        history.letters.len(),
        history.counted.values().sum::<i64>(),
    );
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let mut starts = 0;
    for line in &history.lines {
        match &line.what {
            What::Start { .. } => starts += 1,
            What::End { how, .. } => {
                *ends.entry(format!("{how:?}").to_lowercase()).or_default() += 1
            }
        }
    }
    let _ = writeln!(text, "  {starts} runs: {}", list(&ends));
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for letter in &history.letters {
        *reasons.entry(field(letter, "dead.reason")).or_default() += 1;
    }
    let _ = writeln!(text, "  dead letters: {}", list(&reasons));
    let mut endings: BTreeMap<String, usize> = BTreeMap::new();
    for life in history.lives.values() {
        *endings
            .entry(format!("ended with {}", life.ending))
            .or_default() += 1;
    }
    let _ = writeln!(
        text,
        "  {} lives of workers: {}",
        history.lives.len(),
        list(&endings)
    );
    let _ = writeln!(text, "  faults: {}", list(&faults(plan)));
    let _ = writeln!(
        text,
        "  {} runs of what another had not given up, {} of them beside it; {} had to be a certain attempt",
        findings.took_over, findings.beside, findings.exact
    );
    text
}

fn list(counts: &BTreeMap<String, usize>) -> String {
    let parts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    parts.join(", ")
}

fn faults(plan: &Plan) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut count = |name: String| *counts.entry(name).or_default() += 1;
    for fault in plan.workers.iter().flatten() {
        match &fault.what {
            Fault::Kill(_) => count("kill".to_owned()),
            Fault::Stop(_) => count("stop".to_owned()),
            Fault::StopThenKill(_) => count("stop, then kill".to_owned()),
            Fault::Freeze(_) => count("freeze".to_owned()),
            Fault::Network(network) => count(network_name(network)),
        }
    }
    for fault in plan.publishers.iter().flatten() {
        count(network_name(&fault.what));
    }
    for fault in &plan.server {
        count(match fault.what {
            ServerFault::Kill(_) => "server kill".to_owned(),
            ServerFault::Freeze(_) => "server freeze".to_owned(),
            ServerFault::ForgetScripts => "scripts forgotten".to_owned(),
        });
    }
    counts
}

fn network_name(network: &Network) -> String {
    match network {
        Network::Cut => "cut",
        Network::Refuse(_) => "refuse",
        Network::Silence(_) | Network::SilenceThenCut(_) => "silence",
        Network::Slow(..) => "slow network",
        Network::HoldReplies(_) => "held replies",
        Network::HalfCloseToClients | Network::HalfCloseToServer => "half-close",
        Network::LoseRequest(_) => "lost request",
        Network::FallSilentAt(..) => "silence from a failure on",
        Network::LoseReply(_) => "lost reply",
        Network::NeverAnswer(_) => "reply that never comes",
        Network::AnswerLate(..) => "late reply",
    }
    .to_owned()
}

/// What is wrong, with its history, and how to see it again.
pub fn complaint(
    kind: Kind,
    plan: &Plan,
    history: &History,
    findings: &Findings,
    dir: &Path,
    again: &str,
) -> String {
    let mut text = figures(kind, plan, history, findings);
    let _ = writeln!(text, "\nthe schedule of faults:\n{plan}");
    let _ = writeln!(text, "{} things are wrong:", findings.wrong.len());
    for wrong in findings.wrong.iter().take(MOST) {
        let _ = writeln!(text, "\n{}: {}", wrong.about, wrong.what);
        text += &history_of(history, &wrong.about);
    }
    if findings.wrong.len() > MOST {
        let _ = writeln!(text, "\nand {} more", findings.wrong.len() - MOST);
    }
    let _ = writeln!(text, "\nrecords and logs: {}", dir.display());
    let _ = writeln!(text, "the same plan again: {again}");
    text
}

/// What is known of an entry or an event, in the order in which it happened.
fn history_of(history: &History, about: &str) -> String {
    let begin = history.lives.values().map(|life| life.began).min();
    let since = |at: u64| at.saturating_sub(begin.unwrap_or(0)) as f64 / 1e9;
    let mut told: Vec<(u64, String)> = Vec::new();
    let mut runs = BTreeMap::new();
    let mut text = String::new();
    for published in &history.published {
        let is_meant = published.event.id == about || published.entry.as_deref() == Some(about);
        if is_meant && !about.is_empty() {
            let _ = writeln!(text, "    {published:?}");
        }
    }
    for line in &history.lines {
        let of = (line.life.clone(), line.run);
        match &line.what {
            What::Start { entry, event, .. } if entry == about || event == about => {
                runs.insert(of, ());
            }
            What::End { .. } if runs.contains_key(&of) => {}
            _ => continue,
        }
        told.push((
            line.at,
            format!("{}/{}: {:?}", line.life, line.run, line.what),
        ));
    }
    let lives: Vec<&String> = runs.keys().map(|(life, _)| life).collect();
    for life in history
        .lives
        .values()
        .filter(|life| lives.contains(&&life.name))
    {
        told.push((life.began, format!("{} begins", life.name)));
        told.extend(
            life.told_to_stop
                .map(|at| (at, format!("{} is told to stop", life.name))),
        );
        told.extend(
            life.ended
                .map(|at| (at, format!("{} has ended: {}", life.name, life.ending))),
        );
        for (from, until) in life.troubles.all() {
            told.push((
                from,
                format!("{} in trouble until {:.3}", life.name, since(until)),
            ));
        }
    }
    if !told.is_empty() {
        for (from, until) in history.server_troubles.all() {
            told.push((
                from,
                format!("the server in trouble until {:.3}", since(until)),
            ));
        }
    }
    told.sort();
    for (at, what) in told {
        let _ = writeln!(text, "    {:8.3}  {what}", since(at));
    }
    for letter in &history.letters {
        let entry = format!(
            "{}/{}",
            field(letter, "dead.stream"),
            field(letter, "dead.entry")
        );
        if [entry, field(letter, "id")].contains(&about.to_owned()) {
            let fields: Vec<String> = letter
                .fields
                .iter()
                .map(|(name, value)| {
                    let show = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    format!("{}={}", show(name), show(value))
                })
                .collect();
            let _ = writeln!(text, "    letter {}: {}", letter.id, fields.join(" "));
        }
    }
    text
}

/// Whether anything was put to the test at all.
pub fn is_worth_it(history: &History) -> bool {
    let ok = |how: &How| *how == How::Ok;
    let handled = history
        .lines
        .iter()
        .filter(|line| matches!(&line.what, What::End { how, .. } if ok(how)));
    handled.count() > 50
}
