//! A process for each event: `mode = "once"`. The event is on its standard input, what is known of it in `CE_*` of its
//! environment, and its exit code says what came of it. What it writes to descriptor 4 is its answer; what it prints goes
//! to the log.
//!
//! That costs a process an event, milliseconds, and needs nothing of the command: a shell script can handle events.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::output::Printing;
use super::process::{CommandLine, Process, how_it_ended};
use crate::context::{Cancelled, Context};

/// An answer may be so long.
const LONGEST: usize = 1 << 20;

/// How long its last words, and what it has answered, are waited for when it has ended: what it has left behind may keep
/// its pipes open.
const END: Duration = Duration::from_secs(1);

/// The event is at fault, and will be whenever it comes: `EX_DATAERR` of `sysexits.h`.
const PERMANENT: i32 = 65;

/// Something was not at hand: `EX_TEMPFAIL`.
const RETRY: i32 = 75;

/// A command that is started for each event.
pub(crate) struct Once {
    target: String,
    command: CommandLine,
    /// How many may run.
    places: Semaphore,
    /// Where they are waited for.
    runtime: Handle,
}

/// What a process is given.
pub(crate) struct Given {
    /// Its standard input.
    pub input: Vec<u8>,
    /// Beside what every process of the target has in its environment.
    pub environment: Vec<(String, String)>,
}

/// What came of a process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It ended well, with what it wrote as its answer.
    Done(Vec<u8>),
    /// It ended with 65.
    Permanent(String),
    /// It ended with 75: something it needs is away.
    Retry(String),
    /// It ended otherwise.
    Failed(String),
    /// It was not started, or did not find what it is to run.
    WrongTarget(String),
    /// No place was free for it in time.
    NotBegun(String),
}

impl Once {
    pub fn new(target: String, command: CommandLine, processes: usize, runtime: Handle) -> Self {
        Once {
            runtime,
            target,
            command,
            places: Semaphore::new(processes.clamp(1, Semaphore::MAX_PERMITS)),
        }
    }

    /// Has a process handle an event. If this is dropped the process is killed, with all that it has started.
    pub async fn handle(&self, ctx: &Context, given: Given) -> Exit {
        // The first time a handler is polled where entries are read. A process takes longer to start than they may wait.
        let mut is_first = true;
        std::future::poll_fn(|cx| match std::mem::take(&mut is_first) {
            true => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            false => Poll::Ready(()),
        })
        .await;
        let _place = tokio::select! {
            biased;
            place = self.places.acquire() => place,
            why = ctx.cancelled() => return Exit::NotBegun(match why {
                Cancelled::Stopping => "the worker stops".to_owned(),
                Cancelled::LeaseLost => "the event is another worker's".to_owned(),
                Cancelled::Requested => "an operator has cancelled it".to_owned(),
                Cancelled::TimedOut => format!("no process of the target {} could be started in time", self.target),
            }),
        };
        let started = match self.start(&given) {
            Ok(started) => started,
            Err(why) => return Exit::WrongTarget(format!("it can't be started: {why}")),
        };
        started.run(ctx, given.input).await
    }

    fn start(&self, given: &Given) -> Result<Started, String> {
        let _within = self.runtime.enter();
        let pipe = || -> io::Result<_> {
            let (ours, theirs) = io::pipe()?;
            Ok((
                Receiver::from_owned_fd(OwnedFd::from(ours))?,
                OwnedFd::from(theirs),
            ))
        };
        let (answer, four) = pipe().map_err(|error| format!("no pipe can be made: {error}"))?;
        let mut extra = vec![("STREAMHAND_TARGET", self.target.clone())];
        extra.extend(
            given
                .environment
                .iter()
                .map(|(name, value)| (&name[..], value.clone())),
        );
        let (mut printing, stdout, stderr) =
            Printing::of(&self.target).map_err(|error| format!("no pipe can be made: {error}"))?;
        let process = self
            .command
            .start(&extra, [Stdio::piped(), stdout, stderr], vec![(4, four)])
            .map_err(|error| format!("{}: {error}", self.command.shown()))?;
        printing.is_by(process.id());
        Ok(Started {
            process,
            answer,
            printing,
        })
    }
}

/// A process that runs.
struct Started {
    process: Process,
    answer: Receiver,
    printing: Printing,
}

impl Started {
    async fn run(mut self, ctx: &Context, input: Vec<u8>) -> Exit {
        let mut stdin = self.process.stdin();
        let feed = async {
            if let Some(stdin) = &mut stdin {
                // Who ends without having read it all has read what it needs.
                let _ = stdin.write_all(&input).await;
            }
            drop(stdin.take());
            std::future::pending::<()>().await;
        };
        let mut answer = Vec::new();
        let mut limited = (&mut self.answer).take(LONGEST as u64 + 1);
        let mut is_told = false;
        let mut is_read = false;
        let status = {
            let mut feed = std::pin::pin!(feed);
            loop {
                tokio::select! {
                    biased;
                    read = limited.read_to_end(&mut answer), if !is_read => {
                        is_read = true;
                        if read.is_ok() && answer.len() > LONGEST {
                            self.process.kill();
                        }
                    }
                    status = self.process.wait() => break status,
                    () = &mut feed => {}
                    () = self.printing.comes() => self.printing.log(|| vec![ctx.clone()]),
                    // Whoever says so polls this then. It has until the end of the handler's grace, when this is dropped;
                    // for a stop the worker waits, so it may end what it does.
                    () = is_out_of_time(ctx), if !is_told => {
                        is_told = true;
                        self.process.terminate();
                    }
                }
            }
        };
        let rest = async {
            if !is_read {
                let _ = limited.read_to_end(&mut answer).await;
            }
            self.printing.log_to_end(|| vec![ctx.clone()]).await;
        };
        let _ = tokio::time::timeout(END, rest).await;
        if answer.len() > LONGEST {
            let why = format!(
                "wrote an answer of more than {LONGEST} bytes to descriptor 4, and was killed"
            );
            return Exit::Failed(self.printing.last_words_after(why));
        }
        of_status(&status, answer, &self.printing)
    }
}

async fn is_out_of_time(ctx: &Context) {
    std::future::poll_fn(|_| match ctx.cancellation() {
        Some(Cancelled::TimedOut) => Poll::Ready(()),
        _ => Poll::Pending,
    })
    .await;
}

fn of_status(status: &io::Result<ExitStatus>, answer: Vec<u8>, printing: &Printing) -> Exit {
    let code = status.as_ref().ok().and_then(ExitStatus::code);
    if code == Some(0) {
        return Exit::Done(answer);
    }
    let why = printing.last_words_after(format!("its process {}", how_it_ended(status)));
    match code {
        Some(PERMANENT) => Exit::Permanent(why),
        Some(RETRY) => Exit::Retry(why),
        // What a shell says of what it can't run, or can't find.
        Some(126 | 127) => Exit::WrongTarget(why),
        _ => Exit::Failed(why),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::*;
    use crate::event::Envelope;

    fn once(script: &str) -> Once {
        let command = CommandLine {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            directory: None,
            environment: BTreeMap::new(),
            pass: Vec::new(),
        };
        Once::new("mails".to_owned(), command, 2, Handle::current())
    }

    fn context() -> Context {
        Context::for_test_with(Envelope::new("mail.wanted"), None)
    }

    async fn run(once: &Once, input: &[u8]) -> Exit {
        let given = Given {
            input: input.to_vec(),
            environment: vec![("CE_TYPE".to_owned(), "mail.wanted".to_owned())],
        };
        let ctx = context();
        let ended = tokio::time::timeout(Duration::from_secs(20), once.handle(&ctx, given));
        ended.await.expect("an end")
    }

    #[tokio::test]
    async fn the_exit_code_says_what_came_of_it() {
        assert_eq!(
            run(&once("cat >&4"), b"{}").await,
            Exit::Done(b"{}".to_vec())
        );
        assert_eq!(
            run(&once("echo nothing to see"), b"{}").await,
            Exit::Done(Vec::new())
        );
        for (code, expected) in [
            (
                65,
                Exit::Permanent("its process exited with 65; stderr: no such card".to_owned()),
            ),
            (
                75,
                Exit::Retry("its process exited with 75; stderr: no such card".to_owned()),
            ),
            (
                1,
                Exit::Failed("its process exited with 1; stderr: no such card".to_owned()),
            ),
            (
                127,
                Exit::WrongTarget("its process exited with 127; stderr: no such card".to_owned()),
            ),
        ] {
            let script = once(&format!("echo no such card >&2; exit {code}"));
            assert_eq!(run(&script, b"{}").await, expected);
        }
        let killed = run(&once("kill -9 $$"), b"{}").await;
        assert_eq!(
            killed,
            Exit::Failed("its process was killed by signal 9 (SIGKILL)".to_owned())
        );
    }

    #[tokio::test]
    async fn the_event_comes_on_stdin_however_large_and_need_not_be_read() {
        let big = vec![b'x'; 8 << 20];
        let counted = run(&once("wc -c | tr -d ' \\n' >&4"), &big).await;
        assert_eq!(counted, Exit::Done(big.len().to_string().into_bytes()));
        assert_eq!(
            run(&once("printf $CE_TYPE >&4"), &big).await,
            Exit::Done(b"mail.wanted".to_vec())
        );
        assert_eq!(
            run(&once("exec 0<&-; exit 65"), &big).await,
            Exit::Permanent("its process exited with 65".to_owned())
        );
    }

    #[tokio::test]
    async fn floods_are_read_and_an_answer_without_end_is_a_failure() {
        let flood = run(
            &once("yes | head -n 300000; yes | head -n 300000 >&2; printf '{}' >&4"),
            b"",
        )
        .await;
        assert_eq!(flood, Exit::Done(b"{}".to_vec()));
        let endless = run(&once("exec yes >&4"), b"").await;
        assert!(
            matches!(&endless, Exit::Failed(why) if why.contains("more than 1048576 bytes")),
            "{endless:?}"
        );
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_the_wrong_target() {
        let mut missing = once("");
        missing.command.command = vec!["/no/such/program".to_owned()];
        let exit = run(&missing, b"").await;
        assert!(
            matches!(&exit, Exit::WrongTarget(why) if why.contains("/no/such/program: No such file")),
            "{exit:?}"
        );
    }

    #[tokio::test]
    async fn who_is_out_of_time_gets_sigterm_and_is_killed_with_what_it_started_when_nobody_waits()
    {
        let ctx = context();
        let polite = once("trap 'exit 75' TERM; echo $$ >&4; while :; do sleep 0.01; done");
        let given = || Given {
            input: Vec::new(),
            environment: Vec::new(),
        };
        let mut handled = std::pin::pin!(polite.handle(&ctx, given()));
        let since = Instant::now();
        tokio::select! {
            exit = &mut handled => panic!("{exit:?}"),
            () = tokio::time::sleep(Duration::from_millis(300)) => ctx.stops_for(Cancelled::TimedOut),
        }
        assert!(matches!(handled.await, Exit::Retry(_)));
        assert!(since.elapsed() < Duration::from_secs(10));

        let scratch = tempfile::tempdir().unwrap();
        let pids = scratch.path().join("pids");
        let deaf = once(&format!(
            "trap '' TERM; sleep 300 & echo $$ $! > {}.new; mv {0}.new {0}; wait; sleep 300",
            pids.display()
        ));
        let ctx = context();
        {
            let mut handled = std::pin::pin!(deaf.handle(&ctx, given()));
            while !pids.exists() {
                tokio::select! {
                    exit = &mut handled => panic!("{exit:?}"),
                    () = tokio::time::sleep(Duration::from_millis(10)) => {}
                }
            }
        }
        let pids = std::fs::read_to_string(&pids).unwrap();
        for pid in pids.split_whitespace() {
            let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
            while rustix::process::test_kill_process(pid).is_ok() {
                assert!(
                    since.elapsed() < Duration::from_secs(30),
                    "{pid:?} still runs"
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    #[tokio::test]
    async fn no_more_run_at_once_than_there_are_places_for() {
        let slow = once("sleep 300");
        let (one, two, three) = (context(), context(), context());
        let given = || Given {
            input: Vec::new(),
            environment: Vec::new(),
        };
        let mut first = std::pin::pin!(slow.handle(&one, given()));
        let mut second = std::pin::pin!(slow.handle(&two, given()));
        for _ in 0..2 {
            assert!(futures_util::poll!(first.as_mut()).is_pending());
            assert!(futures_util::poll!(second.as_mut()).is_pending());
        }
        let mut third = std::pin::pin!(slow.handle(&three, given()));
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        three.stops_for(Cancelled::TimedOut);
        assert!(matches!(third.await, Exit::NotBegun(_)));
    }
}
