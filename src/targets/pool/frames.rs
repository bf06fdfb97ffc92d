//! What a worker and its child say to each other: JSON objects, one a line. The worker writes to the child's descriptor 3,
//! the child to its descriptor 4, so that nothing that is printed, and no child of the child, gets between them.
//!
//! What is what is told by its key: `hello`, `cancel`, `ping` and `drain` go to the child, and events with an `id`; `hello`,
//! `pong` and `answer`, with the `id` of its event, come from it. What neither side knows is passed over, so that both can
//! learn.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The version of the protocol.
pub(super) const PROTOCOL: u32 = 1;

/// A line of a child may be so long.
pub(super) const LONGEST: usize = 1 << 20;

/// A child may ask for so many events at once.
const MOST_AT_ONCE: usize = 10_000;

/// Why an event is cancelled, as a child is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    /// The handler's timeout has passed. A child that does not answer within the grace time is killed.
    TimedOut,
    /// The worker stops. It waits for answers until its drain time is over.
    Stopping,
    /// The entry is another worker's by now.
    LeaseLost,
    /// An operator has cancelled the event. A child that does not answer within the grace time is killed.
    Requested,
}

/// What goes to the child beside events.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ToChild<'a> {
    Hello { hello: Hello<'a> },
    Cancel { cancel: u64, reason: Reason },
    Ping { ping: u64 },
    Drain { drain: bool },
}

#[derive(Serialize)]
pub(super) struct Hello<'a> {
    pub protocol: u32,
    pub target: &'a str,
    pub streamhand: &'a str,
    pub longest_line: usize,
}

/// What the child says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Introduction {
    pub name: Option<String>,
    pub version: Option<String>,
    /// How many events it takes at once.
    pub at_once: usize,
}

/// What came from the child.
#[derive(Debug)]
pub(super) enum FromChild {
    Hello(Introduction),
    Answer(u64, Box<RawValue>),
    Pong(u64),
    /// Something of a later version.
    Unknown,
}

#[derive(Deserialize)]
struct Line<'a> {
    hello: Option<Introduced>,
    id: Option<u64>,
    #[serde(borrow)]
    answer: Option<&'a RawValue>,
    pong: Option<u64>,
}

#[derive(Deserialize)]
struct Introduced {
    protocol: u32,
    name: Option<String>,
    version: Option<String>,
    at_once: Option<usize>,
}

impl ToChild<'_> {
    /// As a line.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("it has no keys that are no text");
        line.push(b'\n');
        line
    }
}

impl FromChild {
    /// Reads a line, or says what is wrong with it.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        let wrong = |what: &dyn std::fmt::Display| format!("{what}: {:?}", beginning(line));
        let read: Line<'_> = serde_json::from_slice(line)
            .map_err(|error| wrong(&format_args!("is no message, {error}")))?;
        if let Some(hello) = read.hello {
            return hello.checked().map(FromChild::Hello);
        }
        match (read.id, read.answer, read.pong) {
            (Some(id), Some(answer), _) => Ok(FromChild::Answer(id, answer.to_owned())),
            (None, Some(_), _) => Err(wrong(&"is an answer without the `id` of what it answers")),
            (_, None, Some(pong)) => Ok(FromChild::Pong(pong)),
            (Some(_), None, None) => Err(wrong(&"has an `id` and no `answer`")),
            (None, None, None) => Ok(FromChild::Unknown),
        }
    }
}

impl Introduced {
    fn checked(self) -> Result<Introduction, String> {
        if self.protocol != PROTOCOL {
            return Err(format!(
                "speaks version {} of the protocol, this worker version {PROTOCOL}",
                self.protocol
            ));
        }
        let at_once = self.at_once.unwrap_or(1);
        if !(1..=MOST_AT_ONCE).contains(&at_once) {
            return Err(format!(
                "says `at_once` {at_once} in its hello: it is how many events it takes at once, from 1 to {MOST_AT_ONCE}"
            ));
        }
        Ok(Introduction {
            name: self.name,
            version: self.version,
            at_once,
        })
    }
}

/// As much of a line as a message shows.
pub(super) fn beginning(line: &[u8]) -> String {
    const SHOWN: usize = 80;
    let text = String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN)]);
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into_owned(),
    }
}

/// What was read and is no whole line yet.
#[derive(Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// Where the first line that was not handed out begins.
    from: usize,
    /// Up to here there is no further end of a line.
    seen: usize,
}

impl Lines {
    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.from > 0 {
            self.bytes.drain(..self.from);
            self.seen -= self.from;
            self.from = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, without its end. Lines of nothing are passed over.
    pub fn next(&mut self) -> Option<&[u8]> {
        loop {
            let end = self.bytes[self.seen..]
                .iter()
                .position(|byte| *byte == b'\n');
            let Some(end) = end.map(|end| self.seen + end) else {
                self.seen = self.bytes.len();
                return None;
            };
            let from = std::mem::replace(&mut self.from, end + 1);
            self.seen = end + 1;
            if !self.bytes[from..end].trim_ascii().is_empty() {
                return Some(&self.bytes[from..end]);
            }
        }
    }

    /// What there is of a line that has no end yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(line) = lines.next() {
            all.push(String::from_utf8(line.to_vec()).unwrap());
        }
        all
    }

    #[test]
    fn lines_are_found_however_they_come() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\r\n  \n{\"c\":3}\nhal";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for part in text.chunks(size) {
                lines.push(part);
                found.extend(all(&mut lines));
            }
            assert_eq!(
                found,
                ["{\"a\":1}", "{\"b\":2}\r", "{\"c\":3}"],
                "in parts of {size}"
            );
            assert_eq!(lines.rest(), b"hal");
        }
    }

    #[test]
    fn what_goes_to_a_child_is_one_line_each() {
        for (message, line) in [
            (
                ToChild::Cancel {
                    cancel: 7,
                    reason: Reason::TimedOut,
                },
                "{\"cancel\":7,\"reason\":\"timed_out\"}\n",
            ),
            (ToChild::Ping { ping: 3 }, "{\"ping\":3}\n"),
            (ToChild::Drain { drain: true }, "{\"drain\":true}\n"),
        ] {
            assert_eq!(String::from_utf8(message.line()).unwrap(), line);
        }
    }

    #[test]
    fn what_comes_from_a_child_is_told_by_its_key() {
        let read = |line: &str| FromChild::read(line.as_bytes());
        let FromChild::Answer(7, answer) =
            read(r#"{"id": 7, "answer": {"emit": []}, "new": 1}"#).unwrap()
        else {
            panic!("no answer");
        };
        assert_eq!(answer.get(), r#"{"emit": []}"#);
        let FromChild::Hello(hello) =
            read(r#"{"hello": {"protocol": 1, "name": "b", "at_once": 4}}"#).unwrap()
        else {
            panic!("no hello");
        };
        assert_eq!((hello.name.as_deref(), hello.at_once), (Some("b"), 4));
        assert!(matches!(read(r#"{"pong": 3}"#), Ok(FromChild::Pong(3))));
        assert!(matches!(read(r#"{"later": 3}"#), Ok(FromChild::Unknown)));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, says) in [
            ("{\"id\":7,\"answer\":", "is no message, EOF"),
            ("hello\u{1b}[31m", "is no message"),
            ("[1]", "is no message"),
            ("{\"answer\":{}}", "without the `id`"),
            ("{\"id\":7}", "no `answer`"),
            (
                "{\"hello\":{\"protocol\":2}}",
                "version 2 of the protocol, this worker version 1",
            ),
            ("{\"hello\":{\"protocol\":1,\"at_once\":0}}", "from 1 to"),
            ("{\"hello\":{}}", "protocol"),
        ] {
            let error = FromChild::read(line.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
            assert!(!error.contains('\u{1b}'), "{error}");
        }
        let long = "x".repeat(1000);
        assert!(FromChild::read(long.as_bytes()).unwrap_err().len() < 200);
    }
}
