//! `alerts`: the rules by which workers tell what is wrong, for Prometheus and Grafana.

use clap::Subcommand;

use super::CommandError;
use super::globals::Globals;
use super::terminal::print;
use crate::alerts;

#[derive(Subcommand)]
pub(super) enum AlertsCommand {
    /// Print the rules for a Prometheus that scrapes the workers and the exporter
    Rules,
    /// Print a dashboard for Grafana
    Dashboard,
}

pub(super) async fn alerts(command: AlertsCommand, globals: &Globals) -> Result<(), CommandError> {
    match command {
        AlertsCommand::Rules => print(alerts::rules(&globals.settings()?.alerts).trim_end()),
        AlertsCommand::Dashboard => print(alerts::dashboard().trim_end()),
    }
}
