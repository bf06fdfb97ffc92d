//! The library's errors: what kind of thing went wrong, said in a sentence that tells what to do, and the cause.

use std::fmt;

/// What went wrong, for code that has to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting, argument or name is not usable as given.
    Invalid,
    /// Redis can't be reached, or the connection broke.
    Unreachable,
    /// Redis refuses the connection: most often the user or the password.
    Refused,
    /// The server is too old or lacks what this library needs.
    Unsupported,
    /// Another release of the library, with another protocol, works on this group.
    Protocol,
    /// Redis answered with an error.
    Redis,
    /// What was asked for is not there.
    NotFound,
    /// What was to be made is there already, and differs.
    Exists,
    /// It is stored, and fewer replicas are known to have it than were asked for: [`NotReplicated`](crate::NotReplicated)
    /// has its id. It is not to be taken for what is not stored.
    NotReplicated,
    /// A value could not be encoded or decoded.
    Codec,
    /// Something in this process failed: a file, a thread, a handler's task.
    Internal,
}

/// An error of this library.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of this library's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; the message is lower-case, and says what caused it and what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error in other words.
    pub(crate) fn say(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Never: there is no such error.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// An error and everything that caused it, on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut last = error;
    // An error of ours says what caused it in words of its own.
    while !last.is::<Error>()
        && let Some(cause) = last.source()
    {
        let cause_text = cause.to_string();
        // Many others repeat their cause in their own message.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        last = cause;
    }
    text
}
