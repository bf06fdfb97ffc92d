//! What the dependencies may be licensed under, and that nothing of ours is unsafe.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};

/// What `cargo deny check licenses` does, without the tool: every crate that the members of the workspace are made of on
/// this platform, by what it says of itself.
#[test]
fn every_dependency_has_a_licence_that_deny_toml_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let deny: toml::Table = std::fs::read_to_string(root.join("deny.toml"))
        .expect("deny.toml")
        .parse()
        .expect("TOML");
    let allowed: HashSet<&str> = deny["licenses"]["allow"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|licence| licence.as_str().expect("a licence"))
        .collect();
    let is_allowed = |licence: &str| {
        Expression::parse_mode(licence, ParseMode::LAX).is_ok_and(|expression| {
            expression.evaluate(|one| allowed.contains(&one.to_string()[..]))
        })
    };

    let metadata = metadata(root);
    let packages: HashMap<&str, &Value> = all(&metadata["packages"])
        .map(|package| (text(&package["id"]), package))
        .collect();
    let built_from: HashMap<&str, Vec<&str>> = all(&metadata["resolve"]["nodes"])
        .map(|node| {
            let normal = all(&node["deps"])
                .filter(|dep| all(&dep["dep_kinds"]).any(|kind| kind["kind"] != "dev"))
                .map(|dep| text(&dep["pkg"]));
            (text(&node["id"]), normal.collect())
        })
        .collect();
    let mut waiting: Vec<&str> = all(&metadata["workspace_members"]).map(text).collect();
    let mut seen = HashSet::new();
    let mut refused = Vec::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        waiting.extend(&built_from[id]);
        let package = packages[id];
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_allowed(licence) {
            refused.push(format!("{} is under {licence}", text(&package["name"])));
        }
    }
    assert!(seen.len() > 100, "only {} crates were found", seen.len());
    assert!(
        refused.is_empty(),
        "deny.toml allows none of: {}",
        refused.join(", ")
    );
}

/// What cargo knows of the packages that are built here; it needs no network for those.
fn metadata(root: &Path) -> Value {
    let version = Command::new("rustc").arg("-vV").output().expect("rustc");
    let version = String::from_utf8(version.stdout).expect("UTF-8");
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("the platform");
    let ran = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args(["--filter-platform", host])
        .current_dir(root)
        .output()
        .expect("cargo");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "cargo metadata: {said}");
    serde_json::from_slice(&ran.stdout).expect("JSON")
}

fn all(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

#[test]
fn no_crate_of_ours_may_be_unsafe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let roots = [
        "src/lib.rs",
        "src/main.rs",
        "handlers/main.rs",
        "tests/main.rs",
        "tests/protocol_model/main.rs",
        "bench/src/main.rs",
        "bench/tests/main.rs",
        "benches/report/src/main.rs",
        "benches/peers/src/main.rs",
        "tests/users/everything/src/main.rs",
        "tests/users/publisher/src/main.rs",
    ];
    for path in roots {
        let source = std::fs::read_to_string(root.join(path)).expect(path);
        let forbids = source.lines().any(|line| line == "#![forbid(unsafe_code)]");
        assert!(forbids, "{path} does not forbid unsafe code");
    }
}
