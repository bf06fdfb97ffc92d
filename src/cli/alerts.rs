//! `alerts`: what is wrong with the group now, watching it without working, and the same rules for Prometheus and Grafana.

use clap::Subcommand;

use super::globals::Globals;
use super::terminal::{print, print_json, say};
use super::{CommandError, told_to_stop};
use crate::admin::Admin;
use crate::alerts::{self, Alerts, Found};
use crate::config::Settings;

#[derive(Subcommand)]
pub(super) enum AlertsCommand {
    /// Look once for what is wrong now, and tell nobody; exits with 1 if anything is critical
    Check {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Watch the group and tell whoever [alerts] names, without working: so that its having no worker is told, too
    Watch,
    /// Tell whoever [alerts] names that this is a test
    Test,
    /// Print the rules for a Prometheus that scrapes the workers and the exporter
    Rules,
    /// Print a dashboard for Grafana
    Dashboard,
}

pub(super) async fn alerts(command: AlertsCommand, globals: &Globals) -> Result<(), CommandError> {
    match command {
        AlertsCommand::Check { json } => check(&globals.of_a_group(None)?, json).await,
        AlertsCommand::Watch => {
            let stop = told_to_stop("; another process that watches goes on")?;
            let alerts = of(&globals.of_a_group(None)?)?;
            say(format_args!("watching"));
            tokio::select! {
                () = alerts.run() => {}
                () = stop => {}
            }
            Ok(())
        }
        AlertsCommand::Test => {
            of(&globals.of_a_group(None)?)?.test().await?;
            print("told".to_owned())
        }
        AlertsCommand::Rules => print(
            alerts::rules(&globals.settings()?.alerts)
                .trim_end()
                .to_owned(),
        ),
        AlertsCommand::Dashboard => print(alerts::dashboard().trim_end().to_owned()),
    }
}

fn of(settings: &Settings) -> Result<Alerts, CommandError> {
    Alerts::new(settings)?.ok_or_else(|| {
        CommandError::usage(
            "there is nobody to tell: set alerts.webhook, alerts.webhook_file or alerts.alertmanager",
        )
    })
}

async fn check(settings: &Settings, json: bool) -> Result<(), CommandError> {
    let found = alerts::look_once(&Admin::new(settings)?, settings).await?;
    if json {
        print_json(&found)?;
    } else if found.is_empty() {
        print(format!("{}: nothing is wrong", settings.worker.group))?;
    } else {
        let lines: Vec<String> = found.iter().map(line).collect();
        print(lines.join("\n"))?;
    }
    match found
        .iter()
        .filter(|found| found.severity == "critical")
        .count()
    {
        0 => Ok(()),
        1 => Err(CommandError::failed("1 alert is critical")),
        critical => Err(CommandError::failed(format!(
            "{critical} alerts are critical"
        ))),
    }
}

fn line(found: &Found) -> String {
    let labels: Vec<&str> = found.labels.values().map(|value| &value[..]).collect();
    let of = match labels.is_empty() {
        true => String::new(),
        false => format!(" {}", labels.join(" ")),
    };
    format!(
        "{} {}{of}: {}\n  {}",
        found.severity, found.alert, found.summary, found.help
    )
}
