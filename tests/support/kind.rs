//! The two servers streamhand works with, and where their programs are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Redis,
    Valkey,
}

impl Kind {
    /// The server's program: what the environment names, or else the first on `PATH`, or else the
    /// copy that `make test` has fetched to `.servers/`.
    pub fn program(self) -> &'static Path {
        static REDIS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        static VALKEY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let cell = match self {
            Kind::Redis => &REDIS,
            Kind::Valkey => &VALKEY,
        };
        match cell.get_or_init(|| self.find()) {
            Ok(path) => path,
            Err(message) => panic!("{message}"),
        }
    }

    fn find(self) -> Result<PathBuf, String> {
        let variable = self.variable();
        if let Some(given) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
            let given = PathBuf::from(given);
            return if self.is_at(&given) {
                Ok(given)
            } else {
                Err(format!(
                    "{variable}={} is not a {self:?} server",
                    given.display()
                ))
            };
        }
        // Distributions link either name to either server.
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&on_path)
            .flat_map(|folder| [folder.join("redis-server"), folder.join("valkey-server")]);
        let fetched = Path::new(super::ROOT)
            .join(".servers")
            .join(self.file_name());
        on_path
            .chain([fetched])
            .find(|path| self.is_at(path))
            .ok_or_else(|| {
                format!("no {self:?} server to test on: set {variable} or run `make test`")
            })
    }

    /// What a program says of itself decides, not its name.
    fn is_at(self, path: &Path) -> bool {
        let name = match self {
            Kind::Redis => "Redis server v=",
            Kind::Valkey => "Valkey server v=",
        };
        Command::new(path)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.stdout.starts_with(name.as_bytes()))
    }

    fn variable(self) -> &'static str {
        match self {
            Kind::Redis => "STREAMHAND_TEST_REDIS",
            Kind::Valkey => "STREAMHAND_TEST_VALKEY",
        }
    }

    fn file_name(self) -> &'static str {
        match self {
            Kind::Redis => "redis-server",
            Kind::Valkey => "valkey-server",
        }
    }
}
