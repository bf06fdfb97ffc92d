//! Standard error, written by a thread of its own. Whoever says something never waits for whoever reads it: a reader
//! that stalls, or a disk that is full, must not hold a worker up, and one that is gone must not end it.
//!
//! What is said stands in a queue that is bounded in lines and bytes. What finds no room there, or can't be written,
//! is lost and counted; the count is logged as soon as lines can be written again.
//!
//! Not `tracing-appender`: its queue is bounded in lines alone, it does not count what can't be written, and at its
//! end it prints to standard output (where the data goes) if the reader stalls.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// A burst of many thousand lines while the thread waits for a CPU is not to lose any.
const MOST_LINES: usize = 16_384;
const MOST_BYTES: usize = 4 << 20;

/// How long the end waits for a reader that reads nothing, and for one that reads slowly.
const STALLED: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(5);

/// Takes what is to be written, whole lines at a time. Never fails, and never waits.
pub(super) struct Stderr;

/// Waits until all that was said is written, but not for a reader that does not read. To be called before the process
/// ends, and before something else writes to the terminal.
pub fn flush() {
    let Some(queue) = queue() else { return };
    let begin = Instant::now();
    let (mut left, mut moved) = (queue.bytes.load(Ordering::Acquire), begin);
    while left > 0 && moved.elapsed() < STALLED && begin.elapsed() < SLOW {
        std::thread::sleep(Duration::from_millis(1));
        let now = queue.bytes.load(Ordering::Acquire);
        if now != left {
            (left, moved) = (now, Instant::now());
        }
    }
}

impl Write for Stderr {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match queue() {
            Some(queue) => queue.push(text),
            // There is no thread to be had: better to wait than to say nothing.
            None => drop(io::stderr().write_all(text)),
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Queue {
    /// Its bounds are kept here: a channel that has bounds of its own takes up the room for all of them at once.
    texts: Sender<Vec<u8>>,
    /// How much of it is not written yet.
    lines: AtomicUsize,
    bytes: AtomicUsize,
    /// Lines that nobody will see, and that were not told of yet.
    lost: AtomicU64,
}

fn queue() -> Option<&'static Queue> {
    static QUEUE: OnceLock<Option<Queue>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        // A handle of its own: the lock of `io::stderr` would be held for as long as a write blocks.
        let out = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
        let (texts, queued) = channel();
        let thread = std::thread::Builder::new().name("streamhand-log".to_owned());
        thread.spawn(move || write_all(out, &queued)).ok()?;
        Some(Queue {
            texts,
            lines: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
        })
    });
    queue.as_ref()
}

impl Queue {
    fn push(&self, text: &[u8]) {
        let before = self.bytes.fetch_add(text.len(), Ordering::AcqRel);
        // What is larger than the queue still finds room in an empty one.
        let fits = before == 0 || before + text.len() <= MOST_BYTES;
        let has_room = self.lines.fetch_add(1, Ordering::AcqRel) < MOST_LINES;
        if !fits || !has_room || self.texts.send(text.to_vec()).is_err() {
            self.done(text.len());
            self.lost.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn done(&self, bytes: usize) {
        self.lines.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Tells of what was lost, by a line of the log, once that finds room.
    fn tell(&self) {
        let has_room = self.lines.load(Ordering::Acquire) < MOST_LINES / 2
            && self.bytes.load(Ordering::Acquire) < MOST_BYTES / 2;
        if has_room && self.lost.load(Ordering::Acquire) > 0 {
            let lost = self.lost.swap(0, Ordering::AcqRel);
            tracing::warn!(
                lost,
                "lines of the log were lost: its reader did not read them in time, or its disk was full"
            );
        }
    }
}

/// What the thread does, for as long as the process lives.
fn write_all(mut out: File, queued: &Receiver<Vec<u8>>) {
    // A line of which only a part could be written is ended before the next.
    let mut torn = false;
    for text in queued {
        let Some(queue) = queue() else { return };
        let begun = if torn { out.write_all(b"\n") } else { Ok(()) };
        match begun.and_then(|()| write_whole(&mut out, &text, &mut torn)) {
            Ok(()) => queue.tell(),
            Err(_) => {
                queue.lost.fetch_add(1, Ordering::AcqRel);
            }
        }
        // Last, so that who waits for the end waits for what was told as well.
        queue.done(text.len());
    }
}

fn write_whole(out: &mut File, text: &[u8], torn: &mut bool) -> io::Result<()> {
    let mut rest = text;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                rest = &rest[written..];
                *torn = !rest.is_empty();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
