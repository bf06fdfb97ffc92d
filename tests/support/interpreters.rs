//! Interpreters that handlers in other languages need. `make test` finds or fetches them: see `scripts/languages`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Python 3.9 or later. A missing one is a failure.
pub fn python() -> &'static str {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let check = "import sys; print(sys.executable); sys.exit(sys.version_info < (3, 9))";
    let found = FOUND.get_or_init(|| find("STREAMHAND_TEST_PYTHON", "python3", &["-c", check]));
    found
        .as_deref()
        .expect("Python 3.9 or later: see scripts/languages")
}

/// Node 18 or later, if there is one.
pub fn node() -> Option<&'static str> {
    static FOUND: OnceLock<Option<String>> = OnceLock::new();
    let check = "console.log(process.execPath); process.exit(Number(process.versions.node.split('.')[0]) < 18 ? 1 : 0)";
    let found = FOUND.get_or_init(|| find("STREAMHAND_TEST_NODE", "node", &["-e", check]));
    if found.is_none() {
        eprintln!(
            "there is no Node 18 or later here, so examples for it are not tried: see scripts/languages"
        );
    }
    found.as_deref()
}

fn find(variable: &str, name: &str, check: &[&str]) -> Option<String> {
    let given = std::env::var(variable).ok().filter(|path| !path.is_empty());
    let program = given.unwrap_or_else(|| name.to_owned());
    // What stands on PATH may be a script that looks for it anew each time: it says where it is.
    let ran = Command::new(&program).args(check).output().ok()?;
    let place = String::from_utf8(ran.stdout).ok()?.trim().to_owned();
    let mut alone = Command::new(&place);
    let works = alone.arg("--version").env_clear().output();
    let works = works.is_ok_and(|ran| ran.status.success());
    ran.status
        .success()
        .then_some(if works { place } else { program })
}

/// An example in `deploy/examples`.
pub fn example(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/examples")
        .join(name);
    assert!(path.exists(), "{}", path.display());
    path.display().to_string()
}
