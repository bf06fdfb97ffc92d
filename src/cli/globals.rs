//! The options of every command, and the settings they lead to.

use std::path::PathBuf;

use clap::Args;

use super::CommandError;
use crate::config::{Settings, Sources};

/// Above the options that every command takes, which clap would sort in among its own.
const EVERYWHERE: &str = "Options of every command";

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// The configuration [default: config.toml, where there is one]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "STREAMHAND_CONFIG",
        hide_env_values = true
    )]
    #[arg(help_heading = EVERYWHERE)]
    config: Option<PathBuf>,
    /// The server, in place of redis.url [env: STREAMHAND_REDIS]
    #[arg(long, global = true, value_name = "URL", help_heading = EVERYWHERE)]
    redis: Option<String>,
    /// The group if none is set.
    #[arg(skip)]
    pub(super) group: Option<&'static str>,
}

impl Globals {
    /// Where the configuration comes from.
    pub(super) fn sources(&self) -> Sources {
        let mut sources = Sources::from_process();
        if self.config.is_some() {
            sources.file.clone_from(&self.config);
        }
        if let Some(url) = &self.redis {
            sources
                .overrides
                .push(("redis.url".to_owned(), url.clone()));
        }
        sources
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// If it is wrong.
    pub fn settings(&self) -> Result<Settings, CommandError> {
        self.settings_with(Vec::new())
    }

    /// The same with these, by their dotted keys.
    pub(super) fn settings_with(
        &self,
        overrides: Vec<(String, String)>,
    ) -> Result<Settings, CommandError> {
        let mut sources = self.sources();
        sources.overrides.extend(overrides);
        Ok(self.in_its_group(Settings::load(sources)?))
    }

    /// The configuration in force of a command on a group, which may name it by `group` itself.
    ///
    /// # Errors
    /// If no group is set, or no stream.
    pub(super) fn of_a_group(&self, group: Option<&String>) -> Result<Settings, CommandError> {
        self.of_a_group_with(group, Vec::new())
    }

    /// The same with these, by their dotted keys.
    pub(super) fn of_a_group_with(
        &self,
        group: Option<&String>,
        overrides: Vec<(String, String)>,
    ) -> Result<Settings, CommandError> {
        let mut settings = self.settings_with(overrides)?;
        if let Some(group) = group {
            settings.worker.group.clone_from(group);
        }
        let unset = |key: &str, name: &str, example: &str| {
            CommandError::usage(format!(
                "worker.{key} is not set: write `{key} = {example}` in [worker] of config.toml, or set \
                 STREAMHAND_WORKER__{name}"
            ))
        };
        if settings.worker.group.is_empty() {
            return Err(unset("group", "GROUP", "\"shipping\""));
        }
        if settings.worker.streams.is_empty() {
            return Err(unset("streams", "STREAMS", "[\"orders\"]"));
        }
        Ok(settings)
    }

    /// The settings with a group, if none is set and the program has one.
    pub(super) fn in_its_group(&self, mut settings: Settings) -> Settings {
        if settings.worker.group.is_empty()
            && let Some(group) = self.group
        {
            settings.worker.group = group.to_owned();
        }
        settings
    }
}
