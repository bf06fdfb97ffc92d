//! The program as its users run it: arguments in, output and exit code out.

use std::fs::File;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::server::scratch_dir;
use super::{Clock, Server};

/// Longer than any command of a test should take.
const LIMIT: Duration = Duration::from_secs(60);

/// Between what the test harness writes and what a program does.
const BEGIN: &str = "\n--- the program ---\n";

/// The variable with a program's arguments.
const ARGUMENTS: &str = "STREAMHAND_TEST_ARGUMENTS";

/// The program with a configuration of its own, in a directory of its own.
pub struct Cli {
    /// In place of the program: an ignored test of these, which calls [`run_program`].
    test: Option<&'static str>,
    program: &'static str,
    dir: Arc<TempDir>,
    env: Vec<(String, String)>,
}

/// What a run of the program came to.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Cli {
    /// The program for `server`, with further lines of `config.toml`.
    pub fn new(server: &Server, config: &str) -> Cli {
        Cli::at(&server.url(), config)
    }

    /// The program for a server at `url`, with further lines of `config.toml`, the first of them in `[redis]`.
    pub fn at(url: &str, config: &str) -> Cli {
        let dir = scratch_dir();
        let config = format!("[redis]\nurl = \"{url}\"\n{config}");
        std::fs::write(dir.path().join("config.toml"), &config).expect("a configuration");
        // Most tests are of this group and this stream, and say nothing of it.
        let unset = [
            ("group", "GROUP", "fulfilment"),
            ("streams", "STREAMS", "orders"),
        ];
        let env = unset
            .into_iter()
            .filter(|(key, ..)| !config.contains(&format!("{key} = ")))
            .map(|(_, name, value)| (format!("STREAMHAND_WORKER__{name}"), value.to_owned()))
            .collect();
        Cli {
            test: None,
            program: super::PROGRAM,
            dir: Arc::new(dir),
            env,
        }
    }

    /// The same, where neither the group nor a stream is set but by its configuration.
    pub fn with_nothing_set(self) -> Cli {
        Cli {
            env: Vec::new(),
            ..self
        }
    }

    /// The same of a program that an ignored test is, by its full name.
    pub fn of_test(self, name: &'static str) -> Cli {
        Cli {
            test: Some(name),
            ..self
        }
    }

    /// The same of another program.
    pub fn of_program(self, program: &'static str) -> Cli {
        Cli { program, ..self }
    }

    /// The same with a variable in its environment.
    pub fn with_env(&self, name: &str, value: &str) -> Cli {
        let mut env = self.env.clone();
        env.push((name.to_owned(), value.to_owned()));
        Cli {
            dir: self.dir.clone(),
            env,
            ..*self
        }
    }

    /// The same on a machine with this clock.
    pub fn with_clock(&self, clock: &Clock) -> Cli {
        let [(preload, library), (clock, file)] = clock.env();
        self.with_env(preload, &library).with_env(clock, &file)
    }

    /// A file in the directory it runs in.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Runs it with nothing on standard input.
    pub async fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"").await
    }

    /// Runs it with `input` on standard input, which is no terminal.
    pub async fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self.command(args).spawn().expect("the program to start");
        let mut stdin = child.stdin.take().expect("its standard input");
        let input = input.to_vec();
        let writing = tokio::spawn(async move {
            // It may have ended before it has read all.
            let _ = stdin.write_all(&input).await;
        });
        let output = tokio::time::timeout(LIMIT, child.wait_with_output())
            .await
            .unwrap_or_else(|_| {
                panic!("streamhand {} was not done after {LIMIT:?}", args.join(" "))
            })
            .expect("its output");
        writing.abort();
        let mut out = String::from_utf8(output.stdout).expect("UTF-8");
        if self.test.is_some() {
            // What stands before it is the test harness'.
            let (_, its_own) = out.split_once(BEGIN).expect("the program to begin");
            out = its_own.to_owned();
        }
        Ran {
            code: output.status.code().unwrap_or(-1),
            out,
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// Runs it on a terminal, where `keys` are typed ahead. What it writes to either output is one in `out`.
    pub async fn on_terminal(&self, args: &[&str], keys: &str) -> Ran {
        self.typed_at(pty(), args, keys).await
    }

    /// The same on one of so many columns and lines.
    pub async fn on_terminal_of(
        &self,
        (columns, lines): (u16, u16),
        args: &[&str],
        keys: &str,
    ) -> Ran {
        let (terminal, program) = pty();
        let size = rustix::termios::Winsize {
            ws_col: columns,
            ws_row: lines,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&terminal, size).expect("a size");
        self.typed_at((terminal, program), args, keys).await
    }

    async fn typed_at(&self, (terminal, program): (File, File), args: &[&str], keys: &str) -> Ran {
        let mut command = self.command(args);
        let end = || Stdio::from(program.try_clone().expect("a handle on the terminal"));
        command.stdin(end()).stdout(end()).stderr(end());
        let mut child = command.spawn().expect("the program to start");
        // The terminal ends for its reader when nobody else has it any more.
        drop((command, program));
        let mut typing = terminal.try_clone().expect("a handle on the terminal");
        let keys = keys.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            std::io::Write::write_all(&mut typing, keys.as_bytes()).expect("to type");
            let mut output = Vec::new();
            // Linux tells the end by an error.
            let _ = std::io::Read::read_to_end(&mut &terminal, &mut output);
            String::from_utf8(output).expect("UTF-8")
        });
        let ended = tokio::time::timeout(LIMIT, child.wait()).await;
        let status = ended.unwrap_or_else(|_| {
            panic!("streamhand {} was not done after {LIMIT:?}", args.join(" "))
        });
        Ran {
            code: status.expect("its end").code().unwrap_or(-1),
            out: output.await.expect("its output"),
            err: String::new(),
        }
    }

    /// The program, to be started by the test; killed when dropped.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.test {
            None => {
                let mut command = Command::new(self.program);
                command.args(args);
                command
            }
            Some(test) => {
                let this = std::env::current_exe().expect("the path of this program");
                let mut command = Command::new(this);
                command.args([
                    test,
                    "--exact",
                    "--ignored",
                    "--nocapture",
                    "--test-threads=1",
                ]);
                command
            }
        };
        command
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STREAMHAND_") {
                command.env_remove(name);
            }
        }
        command.env_remove("NO_COLOR").envs(self.env.clone());
        if self.test.is_some() {
            let args = serde_json::to_string(args).expect("arguments");
            command.env(ARGUMENTS, args);
        }
        command
    }
}

/// What an ignored test does that is a program for [`Cli::of_test`]. Never returns.
pub fn run_program(program: streamhand::cli::Program) -> ! {
    let args = std::env::var(ARGUMENTS).expect("arguments");
    let args: Vec<String> = serde_json::from_str(&args).expect("arguments");
    print!("{BEGIN}");
    let args = std::iter::once("streamhand".to_owned()).chain(args);
    let code = match program.run_from(args) {
        Ok(()) => 0,
        Err(error) => {
            if error.code() != 0 {
                eprintln!("error: {error}");
            }
            error.code().into()
        }
    };
    std::process::exit(code)
}

/// A terminal: the end of who sits at it, and the end of the program.
fn pty() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&user).expect("to be allowed to use it");
    unlockpt(&user).expect("to unlock it");
    let name = ptsname(&user, Vec::new()).expect("its name");
    let name = name.into_string().expect("its name in UTF-8");
    let program = File::options()
        .read(true)
        .write(true)
        .open(name)
        .expect("its other end");
    (user.into(), program)
}

impl Ran {
    /// What it wrote to standard output, where it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// What it wrote to standard error, where it failed with this exit code and no output.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:?}");
        self.err
    }

    /// Its one JSON value.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// Output with its ids and times masked, so that two runs are the same.
pub fn masked(text: &str) -> String {
    let id = regex::Regex::new(r"\b\d{13}-\d+\b").expect("a regex");
    let time = regex::Regex::new(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?").expect("a regex");
    time.replace_all(&id.replace_all(text, "ID"), "TIME")
        .into_owned()
}
