//! A command as a process of its own: with its own process group, an environment of its own, and descriptors beside the
//! three that every process has. What a worker starts does not outlive it if the worker can help it: the group is killed
//! when the process has ended, or when nobody waits for it any more.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal};
use tokio::process::{Child, ChildStdin, Command};

/// What a command has of the worker's environment, whatever is set. It has nothing else of it: the worker's environment
/// may hold its password for Redis.
const HANDED_ON: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// A command, and what it is to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// The program and its arguments; never empty.
    pub command: Vec<String>,
    /// Where it runs; where the worker runs if nothing is said.
    pub directory: Option<PathBuf>,
    pub environment: BTreeMap<String, String>,
    /// More names whose values it has from the worker's environment.
    pub pass: Vec<String>,
}

/// A process that runs, with all that it has started and that did not leave its group.
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
}

impl CommandLine {
    /// Starts it, with these as its standard input, output and error; `descriptors` are what it finds under these numbers.
    pub fn start(
        &self,
        extra: &[(&str, String)],
        [stdin, stdout, stderr]: [Stdio; 3],
        descriptors: Vec<(RawFd, OwnedFd)>,
    ) -> io::Result<Process> {
        let mut command = Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .env_clear()
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            // What it prints is to be in the log while it is about the event that it has in hand.
            .env("PYTHONUNBUFFERED", "1")
            .process_group(0);
        for name in HANDED_ON
            .iter()
            .copied()
            .chain(self.pass.iter().map(String::as_str))
        {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .envs(&self.environment)
            .envs(extra.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        let mappings = descriptors
            .into_iter()
            .map(|(child_fd, parent_fd)| FdMapping {
                parent_fd,
                child_fd,
            });
        command
            .fd_mappings(mappings.collect())
            .map_err(io::Error::other)?;
        // The command has the child's ends of the pipes until it is dropped: their end is not seen before.
        let child = command.spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        Ok(Process { child, group })
    }

    /// Whether the program can be found, and may be run.
    pub fn is_there(&self) -> Result<(), String> {
        use std::os::unix::fs::PermissionsExt;
        let program = &self.command[0];
        let is_program = |path: PathBuf| {
            let metadata = std::fs::metadata(path);
            metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        if program.contains('/') {
            let directory = self.directory.clone().unwrap_or_default();
            return match is_program(directory.join(program)) {
                true => Ok(()),
                false => Err(format!("{program} is no program that can be run")),
            };
        }
        let path = match self.environment.get("PATH") {
            Some(path) => Some(path.into()),
            None => std::env::var_os("PATH"),
        };
        let path = path.unwrap_or_default();
        match std::env::split_paths(&path).any(|folder| is_program(folder.join(program))) {
            true => Ok(()),
            false => Err(format!(
                "there is no program {program} in the folders of PATH"
            )),
        }
    }

    /// As it is shown.
    pub fn shown(&self) -> String {
        let quoted = self
            .command
            .iter()
            .map(|word| match word.contains(' ') || word.is_empty() {
                true => format!("{word:?}"),
                false => word.clone(),
            });
        quoted.collect::<Vec<_>>().join(" ")
    }
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits for its end; then whatever is left of its group is killed. May be dropped and called again.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        // Its number is free from now on, and numbers are given out in turn: this is the only moment for it.
        self.kill();
        self.group = None;
        status
    }

    /// SIGTERM, to all of the group.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL, to all of the group.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // That there is nobody left is as good.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a process ended, in words.
pub(crate) fn how_it_ended(status: &io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}{}", name_of(signal)),
            (None, None) => format!("ended: {status}"),
        },
        Err(error) => format!("could not be waited for: {error}"),
    }
}

fn name_of(signal: i32) -> &'static str {
    match signal {
        6 => " (SIGABRT)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_told_before_it_is_needed() {
        let of = |program: &str| CommandLine {
            command: vec![program.to_owned()],
            directory: None,
            environment: BTreeMap::new(),
            pass: Vec::new(),
        };
        assert_eq!(of("sh").is_there(), Ok(()));
        assert_eq!(of("/bin/sh").is_there(), Ok(()));
        let why = |program: &str| of(program).is_there().unwrap_err();
        assert_eq!(
            why("no-such-program"),
            "there is no program no-such-program in the folders of PATH"
        );
        assert_eq!(
            why("/etc/passwd"),
            "/etc/passwd is no program that can be run"
        );
    }
}
