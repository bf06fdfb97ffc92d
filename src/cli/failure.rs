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

/// Any error ends a command: a wrong configuration, argument or name ([`ErrorKind::Invalid`]) with exit code 2, all others
/// with 1. `CommandError` is no error itself, so that it can be made of all of them.
impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for CommandError {
    fn from(error: E) -> Self {
        let error = error.into();
        if error.is::<ConfigError>() {
            return CommandError::usage(error.to_string());
        }
        let is_invalid = match error.downcast_ref::<Error>() {
            Some(error) => error.kind() == ErrorKind::Invalid,
            None => error
                .downcast_ref::<PublishError>()
                .is_some_and(|error| error.kind() == ErrorKind::Invalid),
        };
        CommandError {
            message: chain(&*error),
            code: if is_invalid { 2 } else { 1 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_ends_a_command_with_the_code_that_fits_it() {
        fn question_mark() -> Result<u8, CommandError> {
            Ok("300".parse::<u8>()?)
        }
        let error = question_mark().unwrap_err();
        assert_eq!(
            (error.code(), error.to_string()),
            (1, "number too large to fit in target type".to_owned())
        );
        let of = |error: CommandError| error.code();
        assert_eq!(of("no".into()), 1);
        assert_eq!(of(Error::new(ErrorKind::Redis, "no").into()), 1);
        assert_eq!(of(Error::new(ErrorKind::Invalid, "no").into()), 2);
        let wrong = crate::config::Settings::from_toml_str("[wrong]").unwrap_err();
        assert_eq!(of(wrong.into()), 2);
    }
}
