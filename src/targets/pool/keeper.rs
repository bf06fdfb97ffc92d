//! One child's life, from its start to its end. Its keeper reads what it answers, writes what its pipe had no room for,
//! kills it when it has to be, and tells what becomes of the events it had in hand.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::desk::ChildId;
use super::ended::Ended;
use super::frames::{FromChild, Hello, LONGEST, Lines, PROTOCOL, ToChild, beginning};
use super::outbox::Outbox;
use super::recycling::{self, memory_of};
use super::shared::Shared;
use crate::context::Context;
use crate::sync::lock;
use crate::targets::output::Printing;
use crate::targets::process::{Process, how_it_ended};

/// A child that has had nothing to do for so long is asked whether it lives.
const PING: Duration = Duration::from_secs(30);

/// It has to say so by then.
const PONG: Duration = Duration::from_secs(10);

/// A child that is to go and has nothing in hand gets SIGTERM after this.
const TERM: Duration = Duration::from_secs(3);

/// And SIGKILL this long after that.
const KILL: Duration = Duration::from_secs(2);

/// A child whose descriptor 4 is closed is about to end, or is killed.
const END: Duration = Duration::from_secs(1);

/// How a child left.
pub(super) enum Left {
    /// It was not started, or did not get to its hello. `is_certain` if starting it again won't help soon.
    NeverCame { why: String, is_certain: bool },
    /// It ended by itself, or had to be killed.
    Died { why: String, has_answered: bool },
    /// It had lived long enough.
    Went { why: String },
    /// The worker stops.
    Stopped,
}

/// What ends a child's life.
enum End {
    /// It closed its descriptor 4, as it does when it ends.
    Closed,
    Exited(io::Result<std::process::ExitStatus>),
    /// What it did is no good: it is killed.
    Fault(String),
    /// It did not answer in time what was cancelled.
    Overdue,
}

/// Starts a child and is with it until it is gone.
pub(super) async fn live(shared: Arc<Shared>, child: ChildId) -> Left {
    match Keeper::start(shared, child) {
        Ok(keeper) => keeper.keep().await,
        Err(why) => Left::NeverCame {
            why,
            is_certain: true,
        },
    }
}

struct Keeper {
    shared: Arc<Shared>,
    child: ChildId,
    process: Process,
    pid: u32,
    born: Instant,
    answers: Receiver,
    /// Where requests go. The desk has it too, once there was a hello.
    requests: Arc<Sender>,
    /// Until there was a hello.
    outbox: Option<Outbox>,
    stir: Arc<Notify>,
    lines: Lines,
    buffer: Box<[u8]>,
    printing: Printing,
    /// Something waits for room in the pipe.
    has_rest: bool,
    /// When it is looked after next, whatever happens.
    look_at: Instant,
    ping: Ping,
    leaving: Option<Leaving>,
}

enum Ping {
    Last(Instant),
    /// It has to come by then.
    Awaited(u64, Instant),
}

/// A child that is to go.
struct Leaving {
    why: Option<String>,
    /// Since when it has nothing in hand.
    idle: Option<Instant>,
    is_terminated: bool,
}

impl Keeper {
    fn start(shared: Arc<Shared>, child: ChildId) -> Result<Self, String> {
        let settings = &shared.settings;
        let shown = || settings.command.shown();
        let pipes = || -> io::Result<_> {
            let (theirs_to_read, ours_to_write) = io::pipe()?;
            let (ours_to_read, theirs_to_write) = io::pipe()?;
            let requests = Sender::from_owned_fd(OwnedFd::from(ours_to_write))?;
            let answers = Receiver::from_owned_fd(OwnedFd::from(ours_to_read))?;
            Ok((
                requests,
                answers,
                OwnedFd::from(theirs_to_read),
                OwnedFd::from(theirs_to_write),
            ))
        };
        let (requests, answers, three, four) =
            pipes().map_err(|error| format!("no pipe can be made for {}: {error}", shown()))?;
        let target = [("STREAMHAND_TARGET", settings.target.clone())];
        let (mut printing, stdout, stderr) = Printing::of(&settings.target)
            .map_err(|error| format!("no pipe can be made: {error}"))?;
        let process = settings
            .command
            .start(
                &target,
                [Stdio::null(), stdout, stderr],
                vec![(3, three), (4, four)],
            )
            .map_err(|error| format!("{}: {error}", shown()))?;
        let pid = process.id();
        printing.is_by(pid);
        let (requests, stir) = (Arc::new(requests), Arc::new(Notify::new()));
        let mut outbox = Outbox::new(requests.clone(), stir.clone());
        let hello = Hello {
            protocol: PROTOCOL,
            target: &settings.target,
            streamhand: env!("CARGO_PKG_VERSION"),
            longest_line: LONGEST,
        };
        outbox.send(&ToChild::Hello { hello }.line());
        let now = Instant::now();
        Ok(Keeper {
            shared,
            child,
            process,
            pid,
            born: now,
            answers,
            requests,
            outbox: Some(outbox),
            stir,
            lines: Lines::default(),
            buffer: vec![0; 64 << 10].into(),
            printing,
            has_rest: true,
            look_at: now,
            ping: Ping::Last(now),
            leaving: None,
        })
    }

    async fn keep(mut self) -> Left {
        let end = self.until_its_end().await;
        self.end(end).await
    }

    async fn until_its_end(&mut self) -> End {
        let mut sleep = Box::pin(tokio::time::sleep_until(self.look_at.into()));
        let stopping = self.shared.stopping.clone();
        let mut stopping = std::pin::pin!(stopping.cancelled());
        let mut is_told = false;
        loop {
            let is_read = tokio::select! {
                biased;
                read = self.answers.read(&mut self.buffer) => {
                    if let Err(end) = self.take(read) {
                        return end;
                    }
                    true
                }
                status = self.process.wait() => {
                    // What it has answered counts, and what is no answer does not matter any more.
                    let _ = tokio::time::timeout(END, self.read_to_end()).await;
                    return End::Exited(status);
                }
                _ = self.requests.writable(), if self.has_rest => { self.flush(); false }
                () = self.stir.notified() => false,
                () = &mut stopping, if !is_told => { is_told = true; false }
                () = &mut sleep => false,
                () = self.printing.comes() => { self.print(); continue }
            };
            if is_read && self.look_at > Instant::now() {
                continue;
            }
            if let Err(end) = self.look(is_told) {
                return end;
            }
            set(&mut sleep, self.look_at);
        }
    }

    async fn read_to_end(&mut self) -> Result<(), End> {
        loop {
            let read = self.answers.read(&mut self.buffer).await;
            self.take(read)?;
        }
    }

    fn take(&mut self, read: io::Result<usize>) -> Result<(), End> {
        match read {
            Ok(0) => Err(End::Closed),
            Ok(read) => {
                self.lines.push(&self.buffer[..read]);
                self.take_lines()
            }
            Err(error) => Err(End::Fault(format!("could not be read from: {error}"))),
        }
    }

    fn take_lines(&mut self) -> Result<(), End> {
        let fault = |what: String| End::Fault(format!("sent what {what}"));
        while let Some(line) = self.lines.next() {
            if line.len() > LONGEST {
                return Err(too_long());
            }
            match FromChild::read(line).map_err(fault)? {
                FromChild::Answer(id, answer) => {
                    // What it printed before is about what it had in hand until now.
                    print(&mut self.printing, &self.shared, self.child);
                    let now = Instant::now();
                    let mut state = lock(&self.shared.state);
                    let Some(reply) = state.desk.answered(self.child, id, now) else {
                        return Err(End::Fault(format!("answered {id}, which it does not have")));
                    };
                    let _ = reply.send(Ended::Answer(answer));
                    let hands = state.desk.hands(self.child);
                    let answered = hands.map_or(0, |hands| hands.answered);
                    if self.leaving.is_some()
                        || self
                            .shared
                            .settings
                            .recycling
                            .events
                            .is_some_and(|most| answered >= most)
                    {
                        state.desk.leaves(self.child);
                        self.look_at = now;
                    }
                    state.assign();
                }
                FromChild::Hello(introduction) => {
                    let Some(outbox) = self.outbox.take() else {
                        return Err(End::Fault("said hello twice".to_owned()));
                    };
                    tracing::debug!(
                        target = self.shared.settings.target,
                        pid = self.pid,
                        at_once = introduction.at_once,
                        "a process of a target is ready: {} {}",
                        introduction.name.as_deref().unwrap_or("without a name"),
                        introduction.version.as_deref().unwrap_or_default(),
                    );
                    let now = Instant::now();
                    let mut state = lock(&self.shared.state);
                    state.broken = None;
                    state
                        .desk
                        .welcome(self.child, introduction.at_once, outbox, now);
                    state.assign();
                    self.look_at = now;
                    self.ping = Ping::Last(now);
                }
                FromChild::Pong(pong) => {
                    if let Ping::Awaited(ping, _) = self.ping
                        && ping == pong
                    {
                        self.ping = Ping::Last(Instant::now());
                    }
                }
                FromChild::Unknown => {}
            }
        }
        match self.lines.rest().len() > LONGEST {
            true => Err(too_long()),
            false => Ok(()),
        }
    }

    fn print(&mut self) {
        print(&mut self.printing, &self.shared, self.child);
    }

    fn flush(&mut self) {
        let mut state = lock(&self.shared.state);
        let outbox = match &mut self.outbox {
            Some(outbox) => Some(outbox),
            None => state.desk.hands(self.child).map(|hands| &mut hands.out),
        };
        self.has_rest = outbox.is_some_and(|outbox| !outbox.flush());
    }

    /// Sees to all that has a time, and says when to look again.
    fn look(&mut self, is_stopping: bool) -> Result<(), End> {
        self.flush();
        let now = Instant::now();
        if self.outbox.is_some() {
            return self.look_at_start(is_stopping, now);
        }
        let mut state = lock(&self.shared.state);
        let Some(hands) = state.desk.hands(self.child) else {
            return Err(End::Fault("is not known".to_owned()));
        };
        if hands.out.is_closed {
            return Err(End::Fault(
                "closed its descriptor 3, where it gets events".to_owned(),
            ));
        }
        let mut look_at = now + PING;
        if let Some(kill_at) = hands.kill_at() {
            if kill_at <= now {
                return Err(End::Overdue);
            }
            look_at = look_at.min(kill_at);
        }
        if self.leaving.is_none() {
            let recycling = &self.shared.settings.recycling;
            let due = recycling.is_due(hands.answered, self.born, now, || memory_of(self.pid));
            if is_stopping || due.is_some() {
                hands.out.send(&ToChild::Drain { drain: true }.line());
                self.leaving = Some(Leaving {
                    why: due.filter(|_| !is_stopping),
                    idle: None,
                    is_terminated: false,
                });
            }
            if recycling.memory.is_some() {
                look_at = look_at.min(now + recycling::LOOK);
            }
            if let Some(age) = recycling.age {
                look_at = look_at.min(self.born + age);
            }
        }
        match &mut self.leaving {
            Some(leaving) => {
                if is_stopping {
                    leaving.why = None;
                }
                // The worker has waited for what is still in hand when it stops.
                if is_stopping || hands.is_idle() {
                    let idle = *leaving.idle.get_or_insert(now);
                    if now >= idle + TERM + KILL {
                        self.process.kill();
                    } else if now >= idle + TERM && !leaving.is_terminated {
                        leaving.is_terminated = true;
                        self.process.terminate();
                    }
                    let next = if now >= idle + TERM {
                        idle + TERM + KILL
                    } else {
                        idle + TERM
                    };
                    look_at = look_at.min(next.max(now + Duration::from_millis(50)));
                }
                state.desk.leaves(self.child);
            }
            None if hands.is_idle() => match self.ping {
                Ping::Awaited(_, by) if by <= now => {
                    return Err(End::Fault(format!(
                        "did not answer a ping within {}",
                        crate::duration::format(PONG)
                    )));
                }
                Ping::Awaited(_, by) => look_at = look_at.min(by),
                Ping::Last(at) => {
                    let since = at.max(hands.idle_since);
                    if now >= since + PING {
                        let number = hands.answered + 1;
                        hands.out.send(&ToChild::Ping { ping: number }.line());
                        self.ping = Ping::Awaited(number, now + PONG);
                        look_at = look_at.min(now + PONG);
                    } else {
                        look_at = look_at.min(since + PING);
                    }
                }
            },
            // Who takes one event at a time hears of nothing meanwhile.
            None => self.ping = Ping::Last(now),
        }
        self.look_at = look_at;
        Ok(())
    }

    fn look_at_start(&mut self, is_stopping: bool, now: Instant) -> Result<(), End> {
        if is_stopping {
            return Err(End::Fault("was still starting".to_owned()));
        }
        let timeout = self.shared.settings.start_timeout;
        let by = self.born + timeout;
        if now >= by {
            return Err(End::Fault(format!(
                "said no hello within {}: it has to read lines of JSON from descriptor 3 and write them to descriptor 4",
                crate::duration::format(timeout)
            )));
        }
        self.look_at = by;
        Ok(())
    }

    /// How it ended, and the line that it did not finish, if there is one.
    fn with_half_a_line(&self, how: String) -> String {
        match self.lines.rest().trim_ascii() {
            [] => how,
            half => format!("{how}, within a line: {:?}", beginning(half)),
        }
    }

    /// It is gone, or has to go.
    async fn end(mut self, end: End) -> Left {
        let mut is_certain = false;
        let why = match end {
            End::Exited(ref status) => {
                // What a shell says of a command that is not there.
                is_certain =
                    matches!(status, Ok(status) if matches!(status.code(), Some(126 | 127)));
                self.with_half_a_line(how_it_ended(status))
            }
            End::Closed => match tokio::time::timeout(END, self.process.wait()).await {
                Ok(status) => self.with_half_a_line(how_it_ended(&status)),
                Err(_) => self.with_half_a_line(
                    "closed its descriptor 4, where its answers go, and was killed".to_owned(),
                ),
            },
            End::Fault(ref why) => format!("{why}; it was killed"),
            End::Overdue => "did not end what was cancelled, and was killed".to_owned(),
        };
        self.process.kill();
        let _ = self.process.wait().await;
        // With its group gone its last words are there soon.
        let (shared, child) = (self.shared.clone(), self.child);
        let said = self.printing.log_to_end(|| in_hand(&shared, child));
        let _ = tokio::time::timeout(END, said).await;
        let (has_said_hello, is_overdue) = (self.outbox.is_none(), matches!(end, End::Overdue));
        let is_clean = self.leaving.is_some() && !matches!(end, End::Fault(_) | End::Overdue);
        let why = match is_clean {
            true => why,
            false => self.printing.last_words_after(why),
        };
        let mut state = lock(&self.shared.state);
        let hands = state.desk.hands(self.child);
        let has_answered = hands.is_some_and(|hands| hands.answered > 0);
        let target = &self.shared.settings.target;
        state.desk.bury(self.child, Instant::now(), |was_overdue| match is_overdue && !was_overdue {
            true => Ended::Spared(format!(
                "the process of the target {target} that had it was killed for the sake of another event"
            )),
            false => Ended::Died(format!("the process of the target {target} that had it {why}")),
        });
        drop(state);
        if self.shared.is_stopping() {
            return Left::Stopped;
        }
        match self.leaving {
            Some(Leaving {
                why: Some(recycled),
                ..
            }) if is_clean => Left::Went { why: recycled },
            _ if has_said_hello => Left::Died { why, has_answered },
            _ => Left::NeverCame { why, is_certain },
        }
    }
}

fn print(printing: &mut Printing, shared: &Shared, child: ChildId) {
    printing.log(|| in_hand(shared, child));
}

/// The events that a child has in hand.
fn in_hand(shared: &Shared, child: ChildId) -> Vec<Context> {
    let mut state = lock(&shared.state);
    let hands = state.desk.hands(child);
    hands
        .map(|hands| hands.events().cloned().collect())
        .unwrap_or_default()
}

fn too_long() -> End {
    End::Fault(format!("sent a line of more than {LONGEST} bytes"))
}

fn set(sleep: &mut Pin<Box<Sleep>>, at: Instant) {
    if sleep.deadline() != at.into() {
        sleep.as_mut().reset(at.into());
    }
}
