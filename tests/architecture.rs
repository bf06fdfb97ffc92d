//! ARCHITECTURE.md is short and speaks of what is there, and imports follow the law in it: its table has every module of
//! the library, from the top to the bottom. A file may import from its own module and from those below it. It belongs to
//! the longest name in the table that its own begins with.

#[path = "architecture/imports.rs"]
mod imports;

use std::collections::BTreeSet;
use std::path::Path;

use imports::{Arrow, Imports};

/// What the order alone would allow: neither of a pair imports anything of the other.
const APART: &[(&str, &str)] = &[
    ("worker::shard::fetch", "worker::shard::settle"),
    ("worker::shard::fetch", "worker::shard::maintain"),
    ("worker::shard::settle", "worker::shard::maintain"),
    ("worker::state", "worker::watchdog"),
    ("worker::state", "worker::observer"),
];

/// What must stay so, however the table is changed.
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
const KNOWN_WRONG: &[(&str, &str)] = &[];

/// Circles of files that are still there. One that is smaller or gone has to be so here.
const KNOWN_CIRCLES: &[&[&str]] = &[];

#[test]
fn imports_point_down() {
    let order = order();
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
        .filter(|(module, _)| name_of(&order, module).is_none())
        .map(|(_, file)| &file[..])
        .collect();
    assert!(homeless.is_empty(), "no row of the table has {homeless:?}");
    let wrong: Vec<&Arrow> = imports
        .arrows
        .iter()
        .filter(|arrow| is_wrong(&order, arrow))
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
fn the_redis_client_is_named_in_stream_alone() {
    let imports = Imports::read(root());
    let (within, without): (Vec<&String>, Vec<&String>) = imports
        .redis
        .iter()
        .partition(|file| file.starts_with("src/stream/"));
    assert!(within.len() > 10, "{within:?}");
    assert_eq!(without, ["src/unstable.rs"]);
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
    let order = order();
    for (from, to) in NEVER {
        let is_below = place(&order, from) > place(&order, to);
        assert!(is_below, "{from} has to stand below {to}");
    }
}

/// Whoever makes a program of the library gives it a name: what names one of its commands asks for that. What follows a
/// command's help is given the program's name as a whole.
#[test]
fn commands_are_named_by_the_programs_own_name() {
    let commands =
        "run|status|dlq|web|worker|pause|resume|find|top|exporter|doctor|publish|health|config";
    let named = format!("[\"`=] ?streamhand ({commands})\\b");
    let named = regex::Regex::new(&named).expect("a pattern");
    let mut wrong = Vec::new();
    for file in Imports::read(root()).files.values() {
        // The page of metrics is one of the book.
        if file == "src/metrics/page.rs" {
            continue;
        }
        let text = std::fs::read_to_string(root().join(file)).expect("a source file");
        let tests = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
        let lines = text[..tests].lines().map(str::trim);
        let code = lines.filter(|line| !line.starts_with("//"));
        wrong.extend(
            code.filter(|line| named.is_match(line))
                .map(|line| format!("{file}: {line}")),
        );
    }
    assert!(
        wrong.is_empty(),
        "use called::command:\n{}",
        wrong.join("\n")
    );
}

/// A line about an entry is told by `tell!`, which has all that such a line says; and a duration is written as
/// `duration.rs` writes it.
#[test]
fn lines_of_the_log_say_what_they_have_to() {
    let call = regex::Regex::new(r"tracing::(trace|debug|info|warn|error)!\(").expect("a pattern");
    let entry = regex::Regex::new(r"\bentry\s*[=,]|\bid = %").expect("a pattern");
    let duration =
        regex::Regex::new(r"as_(millis|secs)|elapsed\(|\w+_(ms|secs)\b").expect("a pattern");
    let (mut calls, mut wrong) = (0, Vec::new());
    for file in Imports::read(root()).files.values() {
        let text = std::fs::read_to_string(root().join(file)).expect("a source file");
        for found in call.find_iter(&text) {
            let mut depth = 1;
            let rest = text[found.end()..].char_indices();
            let end = rest.skip_while(|(_, c)| {
                depth += i32::from(*c == '(') - i32::from(*c == ')');
                depth > 0
            });
            let length = end.map(|(at, _)| at).next().expect("its end");
            let line = &text[found.end()..found.end() + length];
            calls += 1;
            let is_of_projections = file.starts_with("src/eventstore/");
            if entry.is_match(line) && !is_of_projections || duration.is_match(line) {
                wrong.push(format!("{file}: {line}"));
            }
        }
    }
    assert!(calls > 60, "{calls}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
    let order = ["worker", "stream", "codec"].map(str::to_owned);
    let wrong: Vec<&str> = imports
        .arrows
        .iter()
        .filter(|arrow| is_wrong(&order, arrow))
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
fn the_map_is_short_and_names_what_is_there() {
    let text = text();
    let lines = text.lines().count();
    assert!(
        lines < 200,
        "ARCHITECTURE.md has {lines} lines: details go beside the code, or into docs/"
    );
    let imports = Imports::read(root());
    let order = order();
    let empty: Vec<&String> = order
        .iter()
        .filter(|name| {
            !imports
                .files
                .keys()
                .any(|module| name_of(&order, module) == Some(name))
        })
        .collect();
    assert!(
        empty.is_empty(),
        "the table has modules without a file: {empty:?}"
    );
    let is_a_place = |name: &&str| {
        name.split_once('/')
            .is_some_and(|(top, _)| root().join(top).is_dir())
    };
    let prose: String = text.split("```").step_by(2).collect();
    let places: Vec<&str> = quoted(&prose).filter(is_a_place).collect();
    assert!(places.len() > 10, "places are named: {places:?}");
    let missing: Vec<_> = places
        .iter()
        .filter(|place| !root().join(place).exists())
        .collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names {missing:?}");
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let text = text();
    let (_, table) = text.split_once("## Crates").expect("a table of crates");
    let reasons: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| cell.split([' ', ',']))
        .collect();
    let tables = ["dependencies", "dev-dependencies"].map(|name| manifest[name].as_table());
    let unexplained: Vec<&String> = tables
        .into_iter()
        .flatten()
        .flat_map(|table| table.keys())
        .filter(|name| *name != env!("CARGO_PKG_NAME") && !reasons.contains(&name[..]))
        .collect();
    assert!(unexplained.is_empty(), "why is there {unexplained:?}?");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text() -> String {
    std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md")
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The law: the modules in the first column of the table, from the top to the bottom.
fn order() -> Vec<String> {
    let text = text();
    let rows = text
        .lines()
        .skip_while(|line| *line != "| module | what it owns |")
        .skip(2)
        .take_while(|line| line.starts_with("| `"));
    let first = |row| str::split(row, '|').nth(1).unwrap_or_default();
    let order: Vec<String> = rows
        .flat_map(|row| quoted(first(row)).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(order.len() > 30, "the table of modules: {order:?}");
    order
}

/// The module of the table that a module of the library belongs to.
fn name_of<'a>(order: &'a [String], module: &[String]) -> Option<&'a String> {
    let name = module.join("::");
    let holds = |one: &&String| {
        name.strip_prefix(&one[..])
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    order.iter().filter(holds).max_by_key(|one| one.len())
}

/// Where a module of the table stands, counted from the top.
fn place(order: &[String], name: &str) -> usize {
    let found = order.iter().position(|one| one == name);
    found.unwrap_or_else(|| panic!("{name} is not in the table"))
}

fn is_wrong(order: &[String], arrow: &Arrow) -> bool {
    let (Some(from), Some(to)) = (
        name_of(order, &arrow.from_module),
        name_of(order, &arrow.to_module),
    ) else {
        return false;
    };
    let pair = (&from[..], &to[..]);
    place(order, to) < place(order, from)
        || APART
            .iter()
            .any(|(a, b)| pair == (*a, *b) || pair == (*b, *a))
}
