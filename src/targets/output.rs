//! What a command prints goes to the log, with the event it was about: lines of bounded length, and no more of them than
//! anybody could read. It is always read, so that whoever prints too much is not held up and holds nobody up.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::unix::pipe::Receiver;

use crate::context::Context;
use crate::names::{is_hostile, shown as name_shown};

/// A line is cut after so many bytes.
const LONGEST: usize = 4096;

/// So many lines are logged at once, and then so many a second.
const BURST: u32 = 200;
const A_SECOND: u32 = 50;

/// So much of what was printed last is kept, for the message of a failure.
const KEPT: usize = 1000;

/// So much is read at a time, so that whoever prints without end has others have their turn.
const AT_A_TIME: usize = 64 << 10;

/// What one process prints.
pub(super) struct Printing {
    target: String,
    pid: u32,
    outputs: [Output; 2],
    last_words: LastWords,
}

/// One of its two outputs.
struct Output {
    name: &'static str,
    is_stderr: bool,
    from: Receiver,
    is_open: bool,
    lines: CutLines,
    allowance: Allowance,
}

/// What was printed last.
#[derive(Default)]
struct LastWords(VecDeque<String>);

impl Printing {
    /// What a process of this target will print, and the two outputs that it is to be started with.
    pub fn of(target: &str) -> io::Result<(Self, Stdio, Stdio)> {
        let (stdout, theirs) = Output::new("stdout")?;
        let (stderr, theirs_too) = Output::new("stderr")?;
        let printing = Printing {
            target: target.to_owned(),
            pid: 0,
            outputs: [stdout, stderr],
            last_words: LastWords::default(),
        };
        Ok((printing, theirs, theirs_too))
    }

    pub fn is_by(&mut self, pid: u32) {
        self.pid = pid;
    }

    /// Waits until there is something to log.
    pub async fn comes(&self) {
        let [stdout, stderr] = &self.outputs;
        tokio::select! {
            () = stdout.comes() => {}
            () = stderr.comes() => {}
        }
    }

    /// Logs what there is, as of these events. What was printed before something that has been read from the process since
    /// is among it.
    pub fn log(&mut self, mut events: impl FnMut() -> Vec<Context>) {
        let Printing {
            target,
            pid,
            outputs,
            last_words,
        } = self;
        for output in outputs {
            output.read(&mut Log {
                target,
                pid: *pid,
                last_words,
                events: &mut events,
            });
        }
    }

    /// Logs everything up to the end of both.
    pub async fn log_to_end(&mut self, mut events: impl FnMut() -> Vec<Context>) {
        while self.outputs.iter().any(|output| output.is_open) {
            self.comes().await;
            self.log(&mut events);
        }
    }

    /// `message`, and what was printed last to stderr, if anything was.
    pub fn last_words_after(&self, message: String) -> String {
        self.last_words.after(message)
    }
}

/// Where lines go.
struct Log<'a> {
    target: &'a str,
    pid: u32,
    last_words: &'a mut LastWords,
    events: &'a mut dyn FnMut() -> Vec<Context>,
}

impl Output {
    fn new(name: &'static str) -> io::Result<(Self, Stdio)> {
        let (ours, theirs) = io::pipe()?;
        let output = Output {
            name,
            is_stderr: name == "stderr",
            from: Receiver::from_owned_fd(OwnedFd::from(ours))?,
            is_open: true,
            lines: CutLines::default(),
            allowance: Allowance::new(Instant::now()),
        };
        Ok((output, Stdio::from(theirs)))
    }

    async fn comes(&self) {
        match self.is_open {
            true => drop(self.from.readable().await),
            false => std::future::pending().await,
        }
    }

    fn read(&mut self, log: &mut Log<'_>) {
        let mut buffer = [0; 8 << 10];
        let mut left = AT_A_TIME / buffer.len();
        while self.is_open && left > 0 {
            left -= 1;
            let read = match self.from.try_read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(read) if read > 0 => read,
                _ => {
                    self.is_open = false;
                    break;
                }
            };
            self.lines.take(&buffer[..read], |line| {
                log.line(line, self.name, self.is_stderr, &mut self.allowance)
            });
        }
        if !self.is_open {
            self.lines
                .end(|line| log.line(line, self.name, self.is_stderr, &mut self.allowance));
            log.left_out(self.name, &mut self.allowance);
        }
    }
}

impl Log<'_> {
    fn line(&mut self, line: &[u8], from: &str, is_stderr: bool, allowance: &mut Allowance) {
        let allows = allowance.allows(Instant::now());
        if !allows && !is_stderr {
            return;
        }
        let line = shown(line);
        if allows {
            self.left_out(from, allowance);
            let (target, pid) = (self.target, self.pid);
            let event = named(&(self.events)());
            let event = event.map(tracing::field::display);
            tracing::info!(target, pid, from, event, "{line}");
        }
        // What it says last is of use however much it has said.
        if is_stderr {
            self.last_words.add(line);
        }
    }

    fn left_out(&self, from: &str, allowance: &mut Allowance) {
        let lines = std::mem::take(&mut allowance.left_out);
        if lines > 0 {
            let (target, pid) = (self.target, self.pid);
            tracing::info!(
                target,
                pid,
                from,
                "{lines} more lines were printed than are logged"
            );
        }
    }
}

/// The ids of events, as a line shows them.
fn named(events: &[Context]) -> Option<String> {
    const NAMED: usize = 3;
    let ids = events.iter().take(NAMED);
    let ids: Vec<_> = ids
        .map(|ctx| name_shown(&ctx.envelope().id()).to_string())
        .collect();
    let more = if events.len() > NAMED { ", …" } else { "" };
    (!ids.is_empty()).then(|| format!("{}{more}", ids.join(", ")))
}

impl LastWords {
    fn add(&mut self, line: String) {
        self.0.push_back(line);
        while self.0.len() > 1 && self.0.iter().map(|line| line.len() + 1).sum::<usize>() > KEPT {
            self.0.pop_front();
        }
    }

    fn after(&self, message: String) -> String {
        if self.0.is_empty() {
            return message;
        }
        let words = self
            .0
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" | ");
        let mut from = words.len().saturating_sub(KEPT);
        while !words.is_char_boundary(from) {
            from += 1;
        }
        format!("{message}; stderr: {}", &words[from..])
    }
}

/// A line as it is shown: nothing in it does anything to a terminal.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut shown = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\t' => shown.push(c),
            c if is_hostile(c) => shown.extend(c.escape_debug()),
            c => shown.push(c),
        }
    }
    shown
}

/// Lines, none of them longer than is kept.
#[derive(Default)]
struct CutLines {
    line: Vec<u8>,
    /// The rest of a line that was cut is passed over.
    is_cut: bool,
}

impl CutLines {
    fn take(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.add(&bytes[..end]);
            self.end(&mut line);
            bytes = &bytes[end + 1..];
        }
        self.add(bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = LONGEST - self.line.len();
        self.is_cut |= bytes.len() > room;
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end(&mut self, mut line: impl FnMut(&[u8])) {
        if std::mem::take(&mut self.is_cut) {
            self.line.extend_from_slice("… (cut)".as_bytes());
        }
        if !self.line.trim_ascii().is_empty() {
            line(&self.line);
        }
        self.line.clear();
    }
}

/// How many lines may still be logged.
struct Allowance {
    left: u32,
    at: Instant,
    left_out: u64,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Allowance {
            left: BURST,
            at: now,
            left_out: 0,
        }
    }

    fn allows(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at);
        if since >= Duration::from_secs(1) {
            let seconds = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
            self.left = self
                .left
                .saturating_add(seconds.saturating_mul(A_SECOND))
                .min(BURST);
            self.at = now;
        }
        let allows = self.left > 0;
        match allows {
            true => self.left -= 1,
            false => self.left_out += 1,
        }
        allows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_what_has_no_end_is_not_kept() {
        let mut lines = CutLines::default();
        let mut found: Vec<Vec<u8>> = Vec::new();
        lines.take(b"one\n\ntw", |line| found.push(line.to_vec()));
        lines.take(b"o\n", |line| found.push(line.to_vec()));
        for _ in 0..1000 {
            lines.take(&[b'x'; 1000], |line| found.push(line.to_vec()));
        }
        assert_eq!(found, [b"one", b"two"]);
        assert_eq!(lines.line.len(), LONGEST);
        lines.take(b"\nafter", |line| found.push(line.to_vec()));
        assert_eq!(found[2].len(), LONGEST + "… (cut)".len());
        lines.end(|line| found.push(line.to_vec()));
        assert_eq!(found[3], b"after");
    }

    #[test]
    fn a_flood_is_logged_in_part_and_what_is_left_out_is_counted() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        let logged = (0..1_000_000).filter(|_| allowance.allows(now)).count();
        assert_eq!(
            (logged as u32, allowance.left_out),
            (BURST, 1_000_000 - u64::from(BURST))
        );
        let logged = (0..1000)
            .filter(|_| allowance.allows(now + Duration::from_secs(2)))
            .count();
        assert_eq!(logged as u32, 2 * A_SECOND);
        assert!(allowance.allows(now + Duration::from_secs(100)));
        assert_eq!(allowance.left, BURST - 1);
    }

    #[test]
    fn the_last_words_are_bounded_and_harmless() {
        let mut words = LastWords::default();
        assert_eq!(words.after("it died".to_owned()), "it died");
        for n in 0..1000 {
            words.add(shown(format!("\u{1b}[31mline {n}\r").as_bytes()));
        }
        let said = words.after("it died".to_owned());
        assert!(said.ends_with(r"\u{1b}[31mline 999"), "{said}");
        assert!(said.len() < KEPT + 100);
        words.add("ä".repeat(4000));
        assert!(words.after(String::new()).len() < KEPT + 100);
    }
}
