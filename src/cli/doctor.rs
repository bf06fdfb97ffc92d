//! `doctor`: looks at the servers, the group and its workers for what will go wrong.

use clap::Args;

use super::CommandError;
use super::terminal::{print, print_json};
use super::text::{count, printable};
use crate::config::Settings;
use crate::doctor::{self, Finding, Report, Severity};

#[derive(Args)]
pub(super) struct DoctorArgs {
    /// The group that is meant [default: worker.group]
    #[arg(long)]
    pub group: Option<String>,
    /// Show as well what is as it should be
    #[arg(long)]
    all: bool,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: DoctorArgs, settings: &Settings) -> Result<(), CommandError> {
    let report = doctor::examine(settings).await?;
    match args.json {
        true => print_json(&report)?,
        false => print(text(&report, args.all).trim_end())?,
    }
    no_danger(&report)
}

/// Fails if anything that was found is a danger.
pub(super) fn no_danger(report: &Report) -> Result<(), CommandError> {
    match report.count(Severity::Danger) as u64 {
        0 => Ok(()),
        dangers => Err(CommandError::failed(format!(
            "{} found",
            count(dangers, "danger")
        ))),
    }
}

/// What was found, for people; `all`: also what is as it should be.
pub(super) fn text(report: &Report, all: bool) -> String {
    let shown = |finding: &&Finding| all || finding.severity != Severity::Ok;
    let mut lines: Vec<String> = report.findings.iter().filter(shown).map(entry).collect();
    let fine = report.count(Severity::Ok);
    if !all && fine > 0 {
        lines.push(format!(
            "{} as they should be (--all shows them)",
            count(fine as u64, "finding")
        ));
    }
    lines.join("\n")
}

fn entry(finding: &Finding) -> String {
    let at = match &finding.node {
        Some(node) => format!(" at {node}"),
        None => String::new(),
    };
    let what = printable(&finding.what);
    let mut text = format!("{} {}{at}: {what}", finding.severity.name(), finding.check);
    if !finding.cost.is_empty() {
        text += &format!("\n  costs: {}", finding.cost);
    }
    if let Some(mend) = &finding.mend {
        text += &format!("\n  mend:  {}", printable(mend));
    }
    text
}
