//! `config check` and `config show`.

use clap::Subcommand;

use super::CommandError;
use super::program::Globals;
use super::terminal::print;

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether the configuration is right, and all that is wrong with it
    Check,
    /// Print the configuration in force, secrets hidden
    Show,
}

pub(super) fn run(command: ConfigCommand, globals: &Globals) -> Result<(), CommandError> {
    let settings = globals.settings()?;
    match command {
        ConfigCommand::Check => print("the configuration is right"),
        ConfigCommand::Show => print(settings.to_toml().trim_end()),
    }
}
