//! Counts of instructions: what the parts of an entry's path cost, seen without a quiet machine. Each count is an
//! ignored test beside what it counts, which `scripts/instructions` runs optimised and under callgrind. Only what
//! [`counted`] runs is counted, and in that not what [`uncounted`] does: callgrind knows
//! [`callgrind_counts`] and [`callgrind_counts_not`] by their names.
//!
//! Why they are counted so, and when no record is compared with, is in `docs/hot-path.md`.
//!
//! Everything here is the same each time: ids, data, the pieces a reply comes in, and one thread that does it all.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::event::Envelope;
use crate::event::Event;

/// Replies that are counted, and the entries in one.
pub(crate) const REPLIES: usize = 20;
pub(crate) const ENTRIES: usize = 500;
/// Replies before them, until memory is where it will be and what is made once has been made.
pub(crate) const WARM_UP: usize = 3;

/// The stream they are of.
pub(crate) const STREAM: &str = "orders";

/// A small event.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sample {
    pub order_id: String,
    pub amount: u64,
}

impl Event for Sample {
    const TYPE: &'static str = "order.created";
}

/// Runs `work`, and counts it where it `counts`.
pub(crate) fn counted<T>(counts: bool, work: impl FnOnce() -> T) -> T {
    if !counts {
        return work();
    }
    COUNTING.store(true, Ordering::Relaxed);
    let done = within(callgrind_counts, work);
    COUNTING.store(false, Ordering::Relaxed);
    done
}

/// Runs `work`, perhaps a part of what is counted, without counting it.
pub(crate) fn uncounted<T>(work: impl FnOnce() -> T) -> T {
    if !COUNTING.swap(false, Ordering::Relaxed) {
        return work();
    }
    let done = within(callgrind_counts_not, work);
    COUNTING.store(true, Ordering::Relaxed);
    done
}

static COUNTING: AtomicBool = AtomicBool::new(false);

fn within<T>(switch: fn(&mut dyn FnMut()), work: impl FnOnce() -> T) -> T {
    let (mut work, mut done) = (Some(work), None);
    switch(&mut || done = work.take().map(|work| work()));
    done.expect("it was run")
}

/// Callgrind begins its count where it comes in, and ends it where it goes out.
#[inline(never)]
fn callgrind_counts(work: &mut dyn FnMut()) {
    work();
    // A last call would be a jump, whose end callgrind does not see.
    black_box("counted");
}

/// The other way round. Two of them, for callgrind does not heed a function within itself; and not quite the same, for
/// those are made one.
#[inline(never)]
fn callgrind_counts_not(work: &mut dyn FnMut()) {
    work();
    black_box("not");
}

/// Says how many entries the counted instructions were for.
pub(crate) fn report(entries: usize) {
    println!("entries: {entries}");
}

/// The answer to the `nth` XREADGROUP, as a server writes it, with events as the publisher writes them.
pub(crate) fn reply(nth: usize) -> Vec<u8> {
    let mut reply = Vec::new();
    list(&mut reply, 1);
    list(&mut reply, 2);
    string(&mut reply, STREAM.as_bytes());
    list(&mut reply, ENTRIES);
    for n in nth * ENTRIES..(nth + 1) * ENTRIES {
        let sample = Sample {
            order_id: format!("o-{n:06}"),
            amount: n as u64,
        };
        let event = Envelope::new(Sample::TYPE)
            .msgpack(&sample)
            .expect("it can be encoded")
            .with("id", format!("01935a3c-5e00-7000-8000-{n:012x}"))
            .with("time", "2024-11-23T07:06:40.000Z");
        list(&mut reply, 2);
        string(
            &mut reply,
            format!("{}-{}", 1_732_345_600_000 + n / 4, n % 4).as_bytes(),
        );
        list(&mut reply, 2 * event.fields().len());
        for (name, value) in event.fields() {
            string(&mut reply, name);
            string(&mut reply, value);
        }
    }
    reply
}

/// The head of a list, as a server writes it.
pub(crate) fn list(out: &mut Vec<u8>, length: usize) {
    out.extend(format!("*{length}\r\n").bytes());
}

/// A string, likewise.
pub(crate) fn string(out: &mut Vec<u8>, string: &[u8]) {
    out.extend(format!("${}\r\n", string.len()).bytes());
    out.extend(string);
    out.extend(b"\r\n");
}
