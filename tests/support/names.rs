//! Names that a test resolves: `names.c`, built when it is first needed and preloaded into processes. Linux alone.

use std::path::PathBuf;

use tempfile::TempDir;

use super::clock::preloaded;
use super::server::scratch_dir;

/// The addresses that its processes find for every name below `.test`, in this order.
pub struct Names {
    dir: TempDir,
}

impl Names {
    pub fn of(addresses: &[&str]) -> Names {
        let names = Names { dir: scratch_dir() };
        std::fs::write(names.file(), addresses.join("\n") + "\n").expect("a file of addresses");
        names
    }

    /// What a process has in its environment that is to find them.
    pub fn env(&self) -> [(&'static str, String); 2] {
        let text = |path: PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
        [
            ("LD_PRELOAD", text(preloaded("names"))),
            ("STREAMHAND_TEST_NAMES", text(self.file())),
        ]
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("addresses")
    }
}
