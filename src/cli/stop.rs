//! How long-running commands are told to stop: by SIGTERM, SIGINT (Ctrl-C) or SIGHUP (the terminal was closed).
//!
//! Supervisors often signal the process and its group, so that two signals come where one was meant. All that come
//! within a second of the first are that one; a later one ends the process at once.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::terminal::say;
use super::{CommandError, stderr};

/// Signals this close to the first are the same one.
const SAME: Duration = Duration::from_secs(1);

/// Ends when the process is told to stop. Made by [`told_to_stop`].
#[derive(Debug)]
pub struct ToldToStop(oneshot::Receiver<()>);

/// Begins to listen to SIGTERM, SIGINT and SIGHUP, for as long as the process lives: the first of them ends what this
/// returns, and one that comes more than a second later ends the process at once, with exit code 1. What that means to
/// the command is said by `at_once`, behind "stopped at once by a second signal". A SIGHUP that was ignored when the
/// process began (`nohup`) stays ignored.
///
/// # Errors
/// Where signals can't be listened to.
pub fn told_to_stop(at_once: &'static str) -> Result<ToldToStop, CommandError> {
    let listen = |kind| {
        signal(kind)
            .map_err(|error| CommandError::failed(format!("can't listen to signals: {error}")))
    };
    let hang_up = (!ignores_hang_up()).then(|| listen(SignalKind::hangup()));
    let mut signals = Signals {
        terminate: listen(SignalKind::terminate())?,
        interrupt: listen(SignalKind::interrupt())?,
        hang_up: hang_up.transpose()?,
    };
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        signals.next().await;
        let first = Instant::now();
        // Nobody may wait any more.
        let _ = tell.send(());
        loop {
            signals.next().await;
            if first.elapsed() >= SAME {
                say(format_args!("stopped at once by a second signal{at_once}"));
                stderr::flush();
                std::process::exit(1);
            }
        }
    });
    Ok(ToldToStop(told))
}

impl Future for ToldToStop {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The task that listens ends with its runtime only.
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    async fn next(&mut self) {
        let hung_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hung_up => {}
        }
    }
}

/// Whether whoever started the process wants it to outlive the terminal. Known on Linux only.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal 1 is the lowest bit.
    mask.is_some_and(|mask| mask & 1 == 1)
}
