//! ARCHITECTURE.md speaks of files that are there, and imports point down.

#[path = "architecture/imports.rs"]
mod imports;

use std::collections::BTreeSet;
use std::path::Path;

use imports::{Arrow, Imports};

/// The law: every module of the library, from the top to the bottom. A file may import from its own module and from
/// those below it. A file belongs to the longest name here that its own begins with.
const ORDER: &[&str] = &[
    "unstable",
    "cli",
    "admin",
    "worker",
    "worker::preflight",
    "worker::runtime",
    "worker::shard",
    "worker::shard::fetch",
    "worker::shard::settle",
    "worker::shard::maintain",
    "worker::shard::refusals",
    "worker::shard::clock",
    "worker::run",
    "worker::state",
    "worker::watchdog",
    "worker::observer",
    "handler",
    "eventstore",
    "middleware",
    "breaker",
    "emit",
    "context",
    "policy",
    "dead_letters",
    "publisher",
    "stream",
    "reconnect",
    "outbox",
    "effects",
    "identity",
    "upcast",
    "classify",
    "failure",
    "event",
    "codec",
    "fields",
    "config",
    "delay",
    "duration",
    "retry",
    "rfc3339",
    "traceparent",
    "event_type",
    "names",
    "pages",
    "error",
    "sync",
];

/// What the order alone would allow: neither of a pair imports anything of the other.
const APART: &[(&str, &str)] = &[
    ("worker::shard::fetch", "worker::shard::settle"),
    ("worker::shard::fetch", "worker::shard::maintain"),
    ("worker::shard::settle", "worker::shard::maintain"),
    ("worker::state", "worker::watchdog"),
    ("worker::state", "worker::observer"),
];

/// What must stay so, however the order is changed.
const NEVER: &[(&str, &str)] = &[
    ("worker::state", "worker"),
    ("worker::run", "worker::shard"),
    ("stream", "policy"),
    ("stream", "context"),
    ("eventstore", "worker"),
    ("eventstore", "handler"),
    ("eventstore", "cli"),
];

/// Imports that break the law and are still there. One that is gone has to leave this list.
const KNOWN_WRONG: &[(&str, &str)] = &[
    ("src/worker/run/dedup.rs", "src/worker/shard/refusals.rs"),
    ("src/worker/state/inline.rs", "src/worker/watchdog.rs"),
    ("src/worker/state/shared.rs", "src/worker/observer.rs"),
    ("src/worker/state/shared.rs", "src/worker/run/routes.rs"),
    ("src/worker/state/shared.rs", "src/worker/shard/clock.rs"),
    (
        "src/worker/state/shared.rs",
        "src/worker/shard/settle/acker.rs",
    ),
];

/// Circles of files that are still there. One that is smaller or gone has to be so here.
const KNOWN_CIRCLES: &[&[&str]] = &[
    &["src/worker/run/attempt.rs", "src/worker/run/executor.rs"],
    &[
        "src/worker/shard/settle/acker.rs",
        "src/worker/state/shared.rs",
    ],
];

#[test]
fn imports_point_down() {
    let imports = Imports::read(root());
    assert!(imports.arrows.len() > 500, "{}", imports.arrows.len());
    assert!(
        imports.stars.is_empty(),
        "can't be followed: {:?}",
        imports.stars
    );
    let homeless: Vec<&str> = imports
        .files
        .iter()
        .filter(|(module, _)| rank(module).is_none())
        .map(|(_, file)| &file[..])
        .collect();
    assert!(homeless.is_empty(), "no place in the order: {homeless:?}");
    let wrong: Vec<&Arrow> = imports
        .arrows
        .iter()
        .filter(|arrow| is_wrong(arrow))
        .collect();
    let is_known = |arrow: &Arrow| KNOWN_WRONG.contains(&(&arrow.from[..], &arrow.to[..]));
    let new: Vec<String> = wrong
        .iter()
        .filter(|arrow| !is_known(arrow))
        .map(|arrow| arrow.to_string())
        .collect();
    assert!(
        new.is_empty(),
        "{} imports point up:\n{}",
        new.len(),
        new.join("\n")
    );
    let mended: Vec<_> = KNOWN_WRONG
        .iter()
        .filter(|(from, to)| {
            !wrong
                .iter()
                .any(|arrow| arrow.from == *from && arrow.to == *to)
        })
        .collect();
    assert!(
        mended.is_empty(),
        "these are gone, take them from KNOWN_WRONG: {mended:#?}"
    );
}

#[test]
fn no_files_need_each_other() {
    let imports = Imports::read(root());
    let known: BTreeSet<BTreeSet<&str>> = KNOWN_CIRCLES
        .iter()
        .map(|circle| circle.iter().copied().collect())
        .collect();
    let found: BTreeSet<BTreeSet<&str>> = imports.circles().into_iter().collect();
    let new: Vec<_> = found.difference(&known).collect();
    assert!(new.is_empty(), "files that need each other: {new:#?}");
    let mended: Vec<_> = known.difference(&found).collect();
    assert!(
        mended.is_empty(),
        "take them from KNOWN_CIRCLES: {mended:#?}"
    );
}

#[test]
fn the_order_alone_forbids_what_must_never_be() {
    for (from, to) in NEVER {
        let (from_rank, to_rank) = (place(from), place(to));
        assert!(from_rank > to_rank, "{from} has to stand below {to}");
    }
}

/// The reader of imports sees what it is there to see, in a crate of its own.
#[test]
fn a_wrong_use_is_seen_wherever_it_stands() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let file = folder.path().join("src").join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, text).expect("a file");
    };
    write(
        "lib.rs",
        "mod worker;\nmod stream;\nmod codec;\npub use worker::Worker;",
    );
    write(
        "worker/mod.rs",
        "mod run;\nmod state;\npub use run::Run;\npub struct Worker;\n\
         fn f() { state::g() }",
    );
    write(
        "worker/run.rs",
        "use super::state::State;\npub struct Run(State);",
    );
    write(
        "worker/state.rs",
        "pub struct State;\npub fn g() {}\n#[cfg(test)]\nmod tests { use super::super::Run; }",
    );
    write(
        "stream.rs",
        "use crate::codec;\n#[cfg(test)]\nuse crate::Worker;\n\
         pub fn h() { codec::decode(); println!(\"{}\", crate::worker::Run::NAME); }",
    );
    write(
        "codec.rs",
        "pub fn decode() { let _: Option<crate::Worker> = None; }",
    );
    let imports = Imports::read(folder.path());
    let seen: Vec<String> = imports
        .arrows
        .iter()
        .map(|arrow| arrow.to_string())
        .collect();
    assert_eq!(
        seen,
        [
            "src/codec.rs:1 imports crate::Worker of src/worker/mod.rs",
            "src/stream.rs:4 imports codec::decode of src/codec.rs",
            "src/stream.rs:4 imports crate::worker::Run::NAME of src/worker/run.rs",
            "src/worker/mod.rs:5 imports state::g of src/worker/state.rs",
            "src/worker/run.rs:1 imports super::state::State of src/worker/state.rs",
        ]
    );
    let wrong: Vec<&str> = imports
        .arrows
        .iter()
        .filter(|arrow| is_wrong(arrow))
        .map(|arrow| &arrow.from[..])
        .collect();
    assert_eq!(wrong, ["src/codec.rs", "src/stream.rs"]);
    let circle = ["src/codec.rs", "src/stream.rs", "src/worker/mod.rs"];
    write(
        "worker/mod.rs",
        "pub fn f() { crate::stream::h() }\npub struct Worker;",
    );
    let circles = Imports::read(folder.path());
    assert_eq!(circles.circles(), [circle.into_iter().collect()]);
}

#[test]
fn every_file_it_names_exists() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let top = [
        "handlers/",
        "src/",
        "tests/",
        "scripts/",
        "deploy/",
        "benches/",
    ];
    let named: Vec<&str> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| top.iter().any(|top| name.starts_with(top)))
        .collect();
    assert!(named.len() > 20, "the code map is there: {named:?}");
    let missing: Vec<_> = named
        .iter()
        .filter(|name| !root().join(name).exists())
        .collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names {missing:?}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the order has a module, counted from the top.
fn rank(module: &[String]) -> Option<usize> {
    let name = module.join("::");
    let holds = |one: &&str| {
        name.strip_prefix(*one)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let longest = ORDER
        .iter()
        .filter(|one| holds(one))
        .max_by_key(|one| one.len())?;
    Some(place(longest))
}

fn place(name: &str) -> usize {
    ORDER
        .iter()
        .position(|one| *one == name)
        .unwrap_or_else(|| panic!("{name} is not in the order"))
}

fn is_wrong(arrow: &Arrow) -> bool {
    let (Some(from), Some(to)) = (rank(&arrow.from_module), rank(&arrow.to_module)) else {
        return false;
    };
    let pair = (ORDER[from], ORDER[to]);
    to < from
        || APART
            .iter()
            .any(|(a, b)| pair == (*a, *b) || pair == (*b, *a))
}
