//! `config check` and `config show`.

use std::future::Future;

use clap::{Args, Subcommand};

use super::CommandError;
use super::doctor::{no_danger, text as report_text};
use super::globals::Globals;
use super::terminal::{print, print_json, say};
use super::text::count;
use crate::config::Settings;
use crate::doctor;
use crate::error::chain;
use crate::handler::Registry;
use crate::targets;
use crate::worker::preflight::preflight;

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether a worker can run by the configuration, and all that is wrong with it
    Check(CheckArgs),
    /// Print the configuration in force, secrets hidden
    Show,
}

#[derive(Args)]
pub(super) struct CheckArgs {
    /// Ask Redis as well: what is there, what it refuses, lacks or does not let this user do; and targets
    #[arg(long)]
    connect: bool,
    /// Print what was found there as one JSON value
    #[arg(long, requires = "connect")]
    json: bool,
}

/// Says everything that `run` would refuse or warn of before it connects. `registry` makes the handlers, as for `run`;
/// a program that has none can't say whether they fit the configuration.
pub(super) async fn check<M, F>(
    args: CheckArgs,
    globals: &Globals,
    registry: impl FnOnce(&Settings) -> Option<M>,
) -> Result<(), CommandError>
where
    M: FnOnce(Settings) -> F,
    F: Future<Output = Result<Registry, CommandError>>,
{
    let mut warnings = 0;
    let mut warn = |warning: &dyn std::fmt::Display| {
        warnings += 1;
        say(format_args!("warning: {warning}"));
    };
    let settings = Settings::load_noting(globals.sources(), |note| warn(note))?;
    let settings = globals.in_its_group(settings);
    if let Some(registry) = registry(&settings) {
        let registry = registry(settings.clone()).await?;
        let found = preflight(&settings, &registry);
        for warning in &found.warnings {
            warn(warning);
        }
        if !found.refused.is_empty() {
            let refused: Vec<String> = found.refused.iter().map(|error| chain(error)).collect();
            return Err(CommandError::usage(refused.join("\n")));
        }
    }
    if args.connect {
        for unreachable in targets::connect(&settings).await? {
            warn(&unreachable);
        }
    }
    if args.json {
        let report = doctor::examine_connection(&settings).await?;
        print_json(&report)?;
        return no_danger(&report);
    }
    match warnings {
        0 => print("the configuration is right")?,
        warnings => print(format_args!(
            "the configuration can be used, with {}",
            count(warnings, "warning")
        ))?,
    }
    if !args.connect {
        return Ok(());
    }
    let report = doctor::examine_connection(&settings).await?;
    print(report_text(&report, true).trim_end())?;
    no_danger(&report)
}

/// Prints what is in force, and of `[app]` the values of these keys.
pub(super) fn show(globals: &Globals, app: &[&str]) -> Result<(), CommandError> {
    print(globals.settings()?.to_toml_showing(app).trim_end())
}
