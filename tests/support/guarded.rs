//! Child processes that do not outlive the test process, however it ends.
//!
//! A child is killed when its handle is dropped. A test process that is itself killed drops
//! nothing, so a small shell process, the watchdog, reads from it the ids of its children through a
//! pipe; when the pipe ends, it kills those that are left. (Linux' parent death signal would be
//! sent when the *thread* that started the child ends, which for a test is too soon; and macOS has
//! none.)

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::time::{Instant, sleep};

/// A child process that is killed when dropped.
pub struct Guarded {
    child: Child,
}

impl Guarded {
    pub fn spawn(command: &mut Command) -> io::Result<Guarded> {
        let watchdog = watchdog();
        let child = command.spawn()?;
        tell(watchdog, '+', child.id());
        Ok(Guarded { child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, or `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of a child process")
    }

    /// Waits for the end of the process; `None` when it still runs after `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            let status = self.ended();
            if status.is_some() || Instant::now() >= end {
                return status;
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Sends a signal; panics when the process has ended, because its id may be another's by now.
    pub fn signal(&mut self, signal: Signal) {
        if let Some(status) = self.ended() {
            panic!("no process to send {signal:?} to: it has ended with {status}");
        }
        kill_process(Pid::from_child(&self.child), signal).expect("to signal a child process");
    }

    /// Stops the process in its tracks, and returns when it does nothing any more.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
        let stopped_or_ended =
            WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.child)), stopped_or_ended)
            .expect("to wait for a child process to stop");
    }

    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Kills the process, frozen or not, and returns when it is gone.
    pub fn kill(&mut self) -> ExitStatus {
        // An id is free for others only once its process was waited for: off the list before that.
        tell(watchdog(), '-', self.child.id());
        // Fails only where the process has ended by itself.
        let _ = self.child.kill();
        self.child.wait().expect("to wait for a killed process")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Keeps a list of processes, a line `+ id` or `- id` a change, and kills them when the pipe ends.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
alive=
while read -r change id; do
    others=
    for other in $alive; do [ "$other" = "$id" ] || others="$others $other"; done
    alive=$others
    [ "$change" = - ] || alive="$alive $id"
done
for id in $alive; do kill -9 "$id"; done
"#;

#[expect(
    clippy::zombie_processes,
    reason = "it outlives this process, and has to"
)]
fn watchdog() -> &'static Mutex<ChildStdin> {
    static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    PIPE.get_or_init(|| {
        let shell = Command::new("sh")
            .args(["-c", WATCHDOG])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What kills the whole group of the test process must leave the watchdog alive.
            .process_group(0)
            .spawn()
            .expect("a shell to be had");
        Mutex::new(shell.stdin.expect("a pipe to it"))
    })
}

fn tell(watchdog: &Mutex<ChildStdin>, change: char, id: u32) {
    let mut pipe = watchdog.lock().unwrap_or_else(PoisonError::into_inner);
    // Without its watchdog a test still works; it only cleans up less after a crash.
    let _ = writeln!(pipe, "{change} {id}");
}
