//! How a command fails: what it says on standard error, and with which exit code.

use std::fmt;

use crate::config::ConfigError;
use crate::error::{Error, ErrorKind, chain};
use crate::publisher::PublishError;

/// Why a command failed.
#[derive(Debug)]
pub struct CommandError {
    message: String,
    code: u8,
}

impl CommandError {
    /// The command could not do what it was asked to: exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        CommandError {
            message: message.into(),
            code: 1,
        }
    }

    /// It was asked in a way that can't be right: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        CommandError {
            message: message.into(),
            code: 2,
        }
    }

    /// Nobody listens to what it says any more (`| head`): no failure, and nothing left to say.
    pub(super) fn unheard() -> Self {
        CommandError {
            message: String::new(),
            code: 0,
        }
    }

    /// The exit code of the process.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CommandError {}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        let code = if error.kind() == ErrorKind::Invalid {
            2
        } else {
            1
        };
        CommandError {
            message: chain(&error),
            code,
        }
    }
}

impl From<PublishError> for CommandError {
    fn from(error: PublishError) -> Self {
        Error::from(error).into()
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        CommandError::usage(error.to_string())
    }
}
