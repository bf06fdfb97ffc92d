//! A wall clock that a test can set, for servers and for programs: `clock.c`, built when it is first needed and
//! preloaded into their processes. Linux alone: elsewhere nothing is preloaded so.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use super::server::scratch_dir;

/// A clock that its processes have in place of the machine's. It goes as fast, and is as far ahead or behind as it was
/// last told; what counts monotonically is as it was.
pub struct Clock {
    file: File,
    dir: TempDir,
}

impl Clock {
    /// A clock that shows the right time.
    pub fn new() -> Clock {
        let dir = scratch_dir();
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(dir.path().join("clock"))
            .expect("a file for the clock");
        let clock = Clock { file, dir };
        clock.set(0);
        clock
    }

    /// From now on it is so far ahead.
    pub fn ahead(&self, by: Duration) {
        self.set(by.as_millis() as i64);
    }

    /// From now on it is so far behind.
    pub fn behind(&self, by: Duration) {
        self.set(-(by.as_millis() as i64));
    }

    /// What a process has in its environment that is to have this clock.
    pub fn env(&self) -> [(&'static str, String); 2] {
        let file = self.dir.path().join("clock");
        let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        [
            ("LD_PRELOAD", text(library())),
            ("STREAMHAND_TEST_CLOCK", text(&file)),
        ]
    }

    fn set(&self, millis: i64) {
        self.file
            .write_all_at(&millis.to_ne_bytes(), 0)
            .expect("to set the clock");
        // Valkey looks at it once in a millisecond.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Where it was built, once for each run of the tests.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| preloaded("clock"))
}

/// Builds `<name>.c` to be preloaded.
pub fn preloaded(name: &str) -> PathBuf {
    let dir = scratch_dir();
    let built = dir.path().join(format!("{name}.so"));
    let source = format!("tests/support/{name}.c");
    let source = Path::new(super::ROOT).join(source);
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let ran = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&built, &source])
        .arg("-ldl")
        .output()
        .unwrap_or_else(|error| panic!("no C compiler ({}): {error}", compiler.display()));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    // Whole at once: another run of the tests may be at it.
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.so"));
    std::fs::rename(&built, &place).expect("a place for it");
    place
}
