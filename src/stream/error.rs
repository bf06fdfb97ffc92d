//! What an error of Redis means: to the step that met it, to whoever is told, and what can be done about it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::RedisError;
use tokio::sync::Mutex;

use crate::config::redact::redacted;
use crate::error::{Error, ErrorKind};

/// How long it is not looked again what is in the way of the same.
const FRESH: Duration = Duration::from_secs(2);

/// Who meets an error.
#[derive(Clone, Copy)]
pub(super) enum Who {
    /// It goes on trying, and nothing is lost meanwhile.
    Worker,
    Publisher,
    Operator,
}

/// What an error of Redis means to the one who waits for an answer. Whatever speaks to a server goes by it.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// No answer will come on this connection; whether the step was done is unknown.
    Broken(Error),
    /// This server is not the one to ask any more, or not as who we are: nothing was done. All connections to it end, and
    /// where it is, and what to log in with, is looked up anew; then it is the same step again.
    Elsewhere(Error),
    /// The server will do it later: nothing was done. A pause, and never an attempt.
    Wait(Error),
    /// The group or the stream is gone.
    NoGroup(Error),
    /// The server answered, with an error: nothing was done.
    Refused(Error),
}

/// What the server means by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Elsewhere,
    Wait,
    NoGroup,
    /// A part of it was done, and nobody knows which.
    Unknown,
    Refused,
}

/// How Redis and Valkey word it that a slot moved away under a script.
const NON_LOCAL: &str = "attempted to access a non local key";

/// The one place that decides what kind of trouble a server's error is, by its code and its words.
fn kind_of(code: &str, text: &str) -> Kind {
    match code {
        "READONLY" | "MOVED" | "NOAUTH" | "WRONGPASS" => Kind::Elsewhere,
        // `… instance state changed (master -> replica?)`, which ends what blocks where a primary steps down.
        "UNBLOCKED" if text.contains("state changed") => Kind::Elsewhere,
        "UNBLOCKED" if text.contains("no longer exists") => Kind::NoGroup,
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "ASK" | "NOREPLICAS" => {
            Kind::Wait
        }
        // So WAIT is refused by a primary that has just stepped down.
        _ if text.contains("cannot be used with replica instances") => Kind::Elsewhere,
        // A key left the node while a script ran: what the script wrote before stays.
        _ if text.contains(NON_LOCAL) => Kind::Unknown,
        _ if text.contains("NOGROUP") || text.contains("requires the key to exist") => {
            Kind::NoGroup
        }
        _ => Kind::Refused,
    }
}

/// What was last found to be in the way: many of the same requests are often refused for the same.
#[derive(Clone, Default)]
pub(super) struct Found(pub Arc<Mutex<Option<Known>>>);

pub(super) struct Known {
    pub doing: String,
    pub words: Option<String>,
    pub since: Instant,
}

impl Known {
    /// Whether this is known of the same step, and has not got old.
    pub fn is(&self, doing: &str) -> bool {
        self.doing == doing && self.since.elapsed() < FRESH
    }
}

impl Trouble {
    /// What `error` means to the step of a worker that met it.
    pub fn of(doing: &str, error: RedisError) -> Self {
        Self::met_by(Who::Worker, doing, error)
    }

    pub(super) fn met_by(who: Who, doing: &str, error: RedisError) -> Self {
        let Some(answer) = Answer::of(&error) else {
            let why = error.to_string();
            let message = format!("{doing}: {}", redacted(&why));
            let error = Error::new(ErrorKind::Unreachable, message).with_source(cause(error));
            return Trouble::Broken(error);
        };
        if answer.is_without_scripts() {
            let message = format!(
                "{doing}: the server runs no scripts, and streamhand can't work without them (EVALSHA and SCRIPT LOAD): {}",
                answer.text
            );
            let error = Error::new(ErrorKind::Unsupported, message).with_source(cause(error));
            return Trouble::Refused(error);
        }
        let message = format!("{doing}: {}{}", answer.text, hint(&answer.code, who));
        Self::of_kind(answer.kind(), message, Some(error))
    }

    fn of_kind(kind: Kind, message: String, error: Option<RedisError>) -> Self {
        let ours = match kind {
            Kind::NoGroup => ErrorKind::NotFound,
            _ => ErrorKind::Redis,
        };
        let mut ours = Error::new(ours, message);
        if let Some(error) = error {
            ours = ours.with_source(cause(error));
        }
        match kind {
            Kind::Elsewhere => Trouble::Elsewhere(ours),
            Kind::Wait => Trouble::Wait(ours),
            Kind::NoGroup => Trouble::NoGroup(ours),
            Kind::Unknown => Trouble::Broken(ours),
            Kind::Refused => Trouble::Refused(ours),
        }
    }

    /// The same trouble for another entry of the same request.
    pub fn again(&self) -> Trouble {
        let copy = |error: &Error| {
            let copy = Error::new(error.kind(), error.to_string());
            let source = std::error::Error::source(error);
            match source.and_then(|source| source.downcast_ref::<RedisError>()) {
                Some(source) => copy.with_source(source.clone()),
                None => copy,
            }
        };
        match self {
            Trouble::Broken(error) => Trouble::Broken(copy(error)),
            Trouble::Elsewhere(error) => Trouble::Elsewhere(copy(error)),
            Trouble::Wait(error) => Trouble::Wait(copy(error)),
            Trouble::NoGroup(error) => Trouble::NoGroup(copy(error)),
            Trouble::Refused(error) => Trouble::Refused(copy(error)),
        }
    }

    /// The same refusal, where it is known what was in the way.
    pub fn because(self, doing: &str, obstacle: &str) -> Self {
        match self {
            Trouble::Refused(error) => {
                let code = code_of(&error).unwrap_or_default();
                let hint = match &code[..] {
                    "NOPERM" => "; README.md has the rule",
                    _ => "",
                };
                let message = match &code[..] {
                    "WRONGTYPE" => format!(
                        "{doing}: {code}: a key of this stream or group holds something else: {obstacle}"
                    ),
                    _ => format!("{doing}: {code}: {obstacle}{hint}"),
                };
                Trouble::Refused(error.say(message))
            }
            other => other,
        }
    }

    /// Whether the connection was closed while an answer was waited for.
    pub fn is_cut(&self) -> bool {
        matches!(self, Trouble::Broken(error) if was_cut(error))
    }

    /// Whether one key or right was in the way, and others need not be.
    pub fn is_about_a_key(&self) -> bool {
        match self {
            Trouble::Refused(error) => {
                let code = code_of(error);
                code.is_some_and(|code| ["NOPERM", "WRONGTYPE"].contains(&&code[..]))
            }
            _ => false,
        }
    }

    /// Whether the stream is sealed that something was to be added to.
    pub fn is_sealed(&self) -> bool {
        says_sealed(&self.error().to_string())
    }

    /// Whether the server refuses whatever would change something, for now: waiting helps, and nothing else does.
    pub fn is_for_now(&self) -> bool {
        match self {
            Trouble::Elsewhere(_) | Trouble::Wait(_) => true,
            Trouble::Refused(error) => code_of(error).is_some_and(|code| is_full(&code)),
            Trouble::Broken(_) | Trouble::NoGroup(_) => false,
        }
    }

    /// Whether nothing more can be had over the connection that it was met on.
    pub fn ends_the_link(&self) -> bool {
        matches!(self, Trouble::Broken(_) | Trouble::Elsewhere(_))
    }

    /// Whether it stands in the way of the one thing that was asked for, and may not of others.
    pub fn is_a_refusal(&self) -> bool {
        matches!(
            self,
            Trouble::Elsewhere(_) | Trouble::Wait(_) | Trouble::Refused(_)
        ) && !self.is_final()
    }

    /// Whether waiting can't help.
    pub fn is_final(&self) -> bool {
        matches!(
            self.error().kind(),
            ErrorKind::Unsupported | ErrorKind::Protocol
        )
    }

    /// Whether this was refused by itself, and will be until somebody mends it: others need not wait for that.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Trouble::Refused(_)) && !self.is_final() && !self.is_for_now()
    }

    /// What it counts as.
    pub fn what(&self) -> &'static str {
        match self {
            Trouble::Broken(_) => "broken",
            Trouble::Elsewhere(_) => "elsewhere",
            Trouble::Wait(_) => "wait",
            Trouble::NoGroup(_) => "no_group",
            Trouble::Refused(_) => "refused",
        }
    }

    /// What a script answers of an error that it has caught, nothing having been done.
    pub fn caught(doing: &str, error: &str) -> Self {
        let code = error.split(' ').next().unwrap_or_default();
        let message = caught(Who::Worker, doing, error);
        Self::of_kind(kind_of(code, error), message, None)
    }

    /// What was added to a stream of another node is not known to be with any of its replicas yet.
    pub fn not_replicated(stream: &str) -> Self {
        let message =
            format!("adding to {stream:?}: no replica has it yet, so it is kept here as well");
        Trouble::Wait(Error::new(ErrorKind::Redis, message))
    }

    /// What is emitted to a topic has to wait until that is grown.
    pub fn sealed(stream: &str) -> Self {
        let message = format!("emitting to {stream:?}: it is sealed, and its topic is being grown");
        Trouble::Wait(Error::new(ErrorKind::Redis, message))
    }

    /// An answer that is not of the form the step has.
    pub fn garbled(doing: &str) -> Self {
        Trouble::Broken(Error::new(
            ErrorKind::Redis,
            format!("{doing}: an answer that can't be understood"),
        ))
    }

    pub fn error(&self) -> &Error {
        match self {
            Trouble::Broken(error)
            | Trouble::Elsewhere(error)
            | Trouble::Wait(error)
            | Trouble::NoGroup(error)
            | Trouble::Refused(error) => error,
        }
    }

    pub fn into_error(self) -> Error {
        match self {
            Trouble::Broken(error)
            | Trouble::Elsewhere(error)
            | Trouble::Wait(error)
            | Trouble::NoGroup(error)
            | Trouble::Refused(error) => error,
        }
    }
}

/// Whether a server says by this that it takes no writes at all now, be it caught by a script.
pub(super) fn is_for_now(error: &str) -> bool {
    let code = error.split(' ').next().unwrap_or_default();
    is_full(code) || matches!(kind_of(code, error), Kind::Elsewhere | Kind::Wait)
}

/// The server takes no writes until somebody gives it memory, or mends its disk.
fn is_full(code: &str) -> bool {
    ["OOM", "MISCONF"].contains(&code)
}

/// What an error counts as.
pub(super) fn what_failed(error: &RedisError) -> &'static str {
    match Answer::of(error).map(|answer| answer.kind()) {
        None if error.is_timeout() => "timeout",
        None => "broken",
        Some(Kind::Elsewhere) => "elsewhere",
        Some(Kind::Wait) => "wait",
        Some(Kind::NoGroup) => "no_group",
        Some(Kind::Unknown) => "unknown",
        Some(Kind::Refused) => "refused",
    }
}

/// Whether a script was broken off in the middle.
pub(super) fn is_half_done(error: &RedisError) -> bool {
    Answer::of(error).is_some_and(|answer| answer.is_half_done())
}

/// Whether an error says that a stream is sealed: it has an entry of the highest id.
pub(super) fn is_sealed(error: &RedisError) -> bool {
    Answer::of(error).is_some_and(|answer| says_sealed(&answer.text))
}

/// The same of an error in the server's words.
fn says_sealed(text: &str) -> bool {
    text.contains("exhausted the last possible ID")
        || text.contains("equal or smaller than the target stream top item")
}

/// Why a server is not the one to ask any more, if this error says so.
pub(super) fn elsewhere(error: &RedisError) -> Option<Answer> {
    Answer::of(error).filter(|answer| answer.kind() == Kind::Elsewhere)
}

/// The code of the server's error behind this one.
fn code_of(error: &Error) -> Option<String> {
    let source = std::error::Error::source(error)?;
    let answer = Answer::of(source.downcast_ref::<RedisError>()?)?;
    Some(answer.code)
}

/// What an error means to those who are told it as it is.
pub(super) fn refusal(who: Who, doing: &str, error: RedisError) -> Error {
    Trouble::met_by(who, doing, error).into_error()
}

/// The same of an error that a script has caught, as the server words it.
pub(super) fn refusal_in(who: Who, doing: &str, error: &str) -> Error {
    Error::new(ErrorKind::Redis, caught(who, doing, error))
}

fn caught(who: Who, doing: &str, error: &str) -> String {
    let code = error.split(' ').next().unwrap_or_default();
    format!("{doing}: {}{}", redacted(error), hint(code, who))
}

/// What the server answered instead of what was asked for.
pub(super) struct Answer {
    pub code: String,
    /// In the server's words, the code in front.
    pub text: String,
}

impl Answer {
    /// Whether the server knows no scripts: nothing can be done then, now or later.
    fn is_without_scripts(&self) -> bool {
        let text = self.text.to_ascii_uppercase();
        self.code == "ERR"
            && text.contains("UNKNOWN COMMAND")
            && ["'EVALSHA", "`EVALSHA", "'SCRIPT", "`SCRIPT"]
                .iter()
                .any(|name| text.contains(name))
    }

    /// None where it is not the server that speaks. Of a pipeline's errors the first counts.
    pub fn of(error: &RedisError) -> Option<Answer> {
        let errors = error.clone().into_server_errors()?;
        let (_, first) = errors.first()?;
        let mut code = first.code().to_owned();
        let text = match first.details() {
            Some(details) => format!("{code} {details}"),
            None => code.clone(),
        };
        // As Redis 7.0 and Valkey word what a script's user may not do.
        let in_script = [
            "ERR The user executing the script can't",
            "ERR ACL failure in script",
        ];
        if in_script.iter().any(|words| text.starts_with(words)) {
            code = "NOPERM".to_owned();
        }
        let text = redacted(&text).into_owned();
        Some(Answer { code, text })
    }

    /// What a script has caught, in the server's words.
    pub fn in_words(error: &str) -> Option<Answer> {
        let code = error.split(' ').next()?.to_owned();
        let text = redacted(error).into_owned();
        Some(Answer { code, text })
    }

    fn kind(&self) -> Kind {
        kind_of(&self.code, &self.text)
    }

    /// Whether the server is not the one to ask any more.
    pub fn is_elsewhere(&self) -> bool {
        self.kind() == Kind::Elsewhere
    }

    /// Whether it says that a node of a cluster is not the one to ask, or may not be.
    pub fn is_about_the_place(&self) -> bool {
        self.is_elsewhere() || self.code == "CLUSTERDOWN"
    }

    /// Whether a script was broken off in the middle because its slot moved.
    pub fn is_half_done(&self) -> bool {
        self.kind() == Kind::Unknown
    }

    /// Whether the server does not let us in as who we say we are.
    pub fn is_about_the_login(&self) -> bool {
        ["NOAUTH", "WRONGPASS"].contains(&&self.code[..])
    }
}

/// Whether an error is of a connection that was closed while an answer was waited for.
pub(super) fn was_cut(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<RedisError>());
    source.is_some_and(RedisError::is_connection_dropped)
}

/// What caused an error of ours; in words alone where it tells a secret.
pub(super) fn cause(error: RedisError) -> Box<dyn std::error::Error + Send + Sync> {
    let said = error.to_string();
    match redacted(&said) {
        Cow::Borrowed(_) => error.into(),
        Cow::Owned(words) => words.into(),
    }
}

/// What can be done about an error of the server.
pub(super) fn hint(code: &str, who: Who) -> &'static str {
    match (code, who) {
        ("OOM", Who::Worker) => {
            " (the server's maxmemory is reached: give it memory, or take data away; nothing is lost meanwhile)"
        }
        ("OOM", _) => " (the server's maxmemory is reached: give it memory, or take data away)",
        ("WRONGTYPE", Who::Publisher) => " (this key is no stream: rename or delete it)",
        ("WRONGTYPE", _) => {
            " (a key of this stream or group holds something else; the command `status` says which: rename or delete it)"
        }
        ("NOPERM", Who::Worker | Who::Operator) => {
            " (the server's ACL must allow this user more: README.md has the rule)"
        }
        ("NOAUTH", _) => {
            " (set redis.password or redis.password_file, and redis.username where it is not the default user)"
        }
        ("WRONGPASS", _) => " (check redis.username and redis.password)",
        ("READONLY", _) => " (this is a read-only replica: redis.url must name the primary)",
        ("MISCONF", _) => " (the server can't save to its disk and takes no writes until it can)",
        ("LOADING", _) => " (the server is loading its data)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_of_the_kind_that_says_what_to_do() {
        let kind = |text: &str| kind_of(text.split(' ').next().unwrap(), text);
        for text in [
            "READONLY You can't write against a read only replica. script: abc, on @user_script:3.",
            "MOVED 3999 127.0.0.1:6381",
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 writes are just local.",
        ] {
            assert_eq!(kind(text), Kind::Elsewhere, "{text}");
        }
        for text in [
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "MASTERDOWN Link with MASTER is down",
            "CLUSTERDOWN The cluster is down",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "NOREPLICAS Not enough good replicas to write.",
        ] {
            assert_eq!(kind(text), Kind::Wait, "{text}");
        }
        for text in [
            "NOGROUP No such key 'a'",
            "UNBLOCKED the stream key no longer exists",
            "ERR The XGROUP subcommand requires the key to exist.",
        ] {
            assert_eq!(kind(text), Kind::NoGroup, "{text}");
        }
        assert_eq!(
            kind("ERR Script attempted to access a non local key in a cluster node script: 1"),
            Kind::Unknown
        );
        for text in [
            "OOM command not allowed",
            "NOPERM this user",
            "ERR what",
            "BUSYGROUP there",
        ] {
            assert_eq!(kind(text), Kind::Refused, "{text}");
        }
    }

    #[test]
    fn what_waits_uses_no_attempt_up_and_lasts_no_longer() {
        for text in ["LOADING it", "READONLY it", "OOM it"] {
            assert!(is_for_now(text), "{text}");
        }
        let trouble = Trouble::caught("committing", "BUSY it");
        assert!(matches!(trouble, Trouble::Wait(_)) && !trouble.is_lasting());
        assert!(Trouble::caught("committing", "NOPERM it").is_lasting());
        assert!(!is_for_now("NOPERM it"));
    }
}
