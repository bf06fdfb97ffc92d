//! This very program, run once more: as a worker, or as an operator would at a prompt.

use std::fmt::Display;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use streamhand::cli::{CommandError, PrivateServer, print};

/// This program with the demo's configuration.
#[derive(Clone)]
pub struct Program {
    path: PathBuf,
    dir: PathBuf,
    group: i32,
}

const CONFIG: &str = "config.toml";

impl Program {
    /// This program, for `server`, configured by `config`.
    pub fn new(server: &PrivateServer, config: &str) -> Result<Self, CommandError> {
        let dir = server.dir().to_owned();
        std::fs::write(dir.join(CONFIG), config).map_err(|error| {
            CommandError::failed(format!("can't write to {}: {error}", dir.display()))
        })?;
        Ok(Program {
            path: std::env::current_exe().map_err(|error| {
                CommandError::failed(format!("can't find this program's file: {error}"))
            })?,
            dir,
            group: server.process_group(),
        })
    }

    /// A command, by the demo's configuration and no other. It does not outlive the demo.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare_command(args);
        command.process_group(self.group);
        command
    }

    /// Runs a command and answers what it says.
    pub async fn run(&self, args: &[&str]) -> Result<Vec<u8>, CommandError> {
        let output = tokio::process::Command::from(self.command(args))
            .output()
            .await
            .map_err(|error| self.not_started(&error))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let error = String::from_utf8_lossy(&output.stderr);
        Err(failed(args, error.trim()))
    }

    /// Runs a command and answers what it says in JSON.
    pub async fn json(&self, args: &[&str]) -> Result<serde_json::Value, CommandError> {
        let json = self.run(args).await?;
        serde_json::from_slice(&json).map_err(|error| failed(args, error))
    }

    /// Runs a command for whoever watches.
    pub async fn show(&self, args: &[&str]) -> Result<(), CommandError> {
        print(format_args!("\n$ shop {}", args.join(" ")))?;
        let mut command = tokio::process::Command::from(self.bare_command(args));
        let status = command.kill_on_drop(true).status().await;
        match status.map_err(|error| self.not_started(&error))? {
            status if status.success() => Ok(()),
            status => Err(failed(args, format_args!("ended with {status}"))),
        }
    }

    /// The same, for those who can't await.
    pub fn show_now(&self, args: &[&str]) -> Result<(), CommandError> {
        print(format_args!("\n$ shop {}", args.join(" ")))?;
        match self.bare_command(args).status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(args, format_args!("ended with {status}"))),
            Err(error) => Err(self.not_started(&error)),
        }
    }

    pub fn not_started(&self, error: &std::io::Error) -> CommandError {
        CommandError::failed(format!(
            "can't start {} once more: {error}",
            self.path.display()
        ))
    }

    /// Where its configuration is.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    fn bare_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command
            .arg("--config")
            .arg(self.dir.join(CONFIG))
            .args(args)
            .stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STREAMHAND_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// A new file beside the configuration: to write to, and to read from.
    pub fn create(&self, name: &str) -> std::io::Result<(File, File)> {
        let path = self.dir.join(name);
        Ok((File::create_new(&path)?, File::open(&path)?))
    }
}

fn failed(args: &[&str], why: impl Display) -> CommandError {
    CommandError::failed(format!("shop {}: {why}", args.join(" ")))
}
