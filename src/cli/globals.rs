//! The options of every command, and the settings they lead to.

use std::path::PathBuf;

use clap::Args;

use super::CommandError;
use crate::config::{Settings, Sources};

/// Above the options that every command takes, which clap would sort in among its own.
const EVERYWHERE: &str = "Options of every command";

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub(super) struct Globals {
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
}

impl Globals {
    /// Where the configuration comes from.
    pub fn sources(&self) -> Sources {
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
    pub fn settings(&self) -> Result<Settings, CommandError> {
        Ok(Settings::load(self.sources())?)
    }
}
