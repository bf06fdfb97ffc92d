//! Workers as operating-system processes, to be killed, frozen and signalled.

use std::fs::File;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use streamhand::Registry;
use tempfile::TempDir;

use super::eventually;
use super::guarded::Guarded;
use super::server::{SCRATCH, scratch_dir};

/// A worker in a process of its own, killed when dropped.
///
/// It is this test program once more, running one ignored test: by default `worker_process`, which
/// finds its configuration in the file that `STREAMHAND_TEST_CONFIG` names.
pub struct WorkerProcess {
    process: Guarded,
    dir: TempDir,
}

impl WorkerProcess {
    pub fn builder() -> Builder {
        Builder {
            test: "worker_process".to_owned(),
            config: String::new(),
            env: Vec::new(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has written so far to stdout and stderr.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.dir.path().join(LOG)).expect("the worker's log");
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits until a whole line of the log contains `text`, and returns the first that does.
    pub async fn wait_for_log(&mut self, text: &str, deadline: Duration) -> String {
        let what = format!("{text:?} in the log of process {}", self.pid());
        eventually(deadline, what, async || {
            let ended = self.process.ended();
            let log = self.log();
            let whole_lines = log
                .split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'));
            match whole_lines.into_iter().find(|line| line.contains(text)) {
                Some(line) => Ok(line.to_owned()),
                None => match ended {
                    Some(status) => panic!("no {text:?}: the process ended with {status}:\n{log}"),
                    None => Err(format!("so far:\n{log}")),
                },
            }
        })
        .await
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }

    /// Waits until it has ended by itself.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        match self.process.wait(deadline).await {
            Some(status) => status,
            None => panic!("the process still runs after {deadline:?}:\n{}", self.log()),
        }
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) -> ExitStatus {
        self.process.kill()
    }

    /// SIGSTOP; returns when it does nothing any more.
    pub fn freeze(&mut self) {
        self.process.freeze();
    }

    /// SIGCONT.
    pub fn thaw(&mut self) {
        self.process.thaw();
    }

    /// SIGTERM.
    pub fn terminate(&mut self) {
        self.process.signal(Signal::TERM);
    }

    /// SIGHUP.
    pub fn hang_up(&mut self) {
        self.process.signal(Signal::HUP);
    }

    /// SIGINT.
    pub fn interrupt(&mut self) {
        self.process.signal(Signal::INT);
    }
}

/// What such a process does: a worker with these handlers, by the configuration it was given. Never returns.
pub fn run_worker(registry: Registry) -> ! {
    let config = std::env::var("STREAMHAND_TEST_CONFIG").expect("a configuration");
    let program = streamhand::cli::Program::new(registry);
    let code = match program.run_from(["streamhand", "--config", &config, "run"]) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("error: {error}");
            error.code().into()
        }
    };
    std::process::exit(code)
}

/// How a worker is to be started.
pub struct Builder {
    test: String,
    config: String,
    env: Vec<(String, String)>,
}

impl Builder {
    /// Runs another ignored test, by its full name.
    pub fn test(mut self, name: &str) -> Builder {
        self.test = name.to_owned();
        self
    }

    pub fn config(mut self, toml: &str) -> Builder {
        self.config = toml.to_owned();
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Builder {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub fn start(self) -> WorkerProcess {
        let dir = scratch_dir();
        let config = dir.path().join("config.toml");
        std::fs::write(&config, self.config).expect("a file for the configuration");
        let output = File::create(dir.path().join(LOG)).expect("a file for the log");
        let errors = output.try_clone().expect("a second handle on it");
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command
            .args([
                &self.test,
                "--exact",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        // The settings of whoever runs the tests are not the worker's.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("STREAMHAND_") && !name.starts_with("STREAMHAND_TEST_") {
                command.env_remove(&*name);
            }
        }
        command
            .env("STREAMHAND_TEST_CONFIG", config)
            .env(SCRATCH, dir.path())
            .envs(self.env);
        let process = Guarded::spawn(&mut command).expect("this program to start once more");
        WorkerProcess { process, dir }
    }
}

const LOG: &str = "worker.log";

/// The most memory that process has had, in bytes; 0 where that is not told.
pub fn most_memory(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.unwrap_or(0_usize) << 10
}
