use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::super::call::Call;
use super::*;

static PARK: LazyLock<Script> =
    LazyLock::new(|| Script::new("test", include_str!("../scripts/park.lua")));

const WRITES: &[&str] = &[
    "XADD", "XACK", "XDEL", "XCLAIM", "SET", "DEL", "HSET", "HDEL", "ZADD", "ZREM",
];

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

fn words(command: &Cmd) -> Vec<String> {
    let packed = String::from_utf8(command.get_packed_command()).unwrap();
    let parts = packed.split("\r\n").skip(2).step_by(2);
    parts.map(str::to_owned).collect()
}

#[test]
fn a_call_declares_a_key_more_that_never_exists() {
    let mut call = PARK.key("jobs");
    call.key("{jobs}:workers:retry").key("{jobs}:other");
    call.arg("first").arg("second");
    let never = never(call.keys.iter().map(Vec::as_slice));
    let sent = words(&call.command(never.as_deref()));
    let keys = [
        "4",
        "jobs",
        "{jobs}:workers:retry",
        "{jobs}:other",
        "{jobs}:workers:retry:never",
    ];
    assert_eq!(sent[2..7], keys);
    assert_eq!(sent[7..], ["first", "second"]);
    // One that only reads does without.
    assert_eq!(
        words(&call.command(None))[2..6],
        ["3", keys[1], keys[2], keys[3]]
    );

    let keys = ["jobs", "{jobs}:workers:retry"].into_iter();
    let mut call = Call::of(&PARK, keys, (2, 20));
    call.arg("first").arg("second");
    let sent = words(&call.into_command());
    assert_eq!(
        sent[2..],
        [
            "3",
            "jobs",
            "{jobs}:workers:retry",
            "{jobs}:workers:retry:never",
            "first",
            "second"
        ]
    );
}

#[test]
fn that_key_is_in_the_slot_of_the_others() {
    let of = |keys: &[&str]| {
        let never = never(keys.iter().map(|key| key.as_bytes()));
        never.map(|key| String::from_utf8(key).unwrap())
    };
    assert_eq!(of(&[]), None);
    assert_eq!(of(&["jobs"]).unwrap(), "{jobs}:never");
    assert_eq!(of(&["}{"]), None);
    // A rule for all keys of ours allows it.
    assert_eq!(
        of(&["streamhand:g:rate:t"]).unwrap(),
        "streamhand:g:rate:t:{streamhand:g:rate:t}:never"
    );
    assert_eq!(of(&["{jobs:7}"]).unwrap(), "{jobs:7}:never");
    assert_eq!(
        of(&["streamhand:{g}:pulse"]).unwrap(),
        "streamhand:{g}:pulse:never"
    );
}

fn files(folder: &Path, kind: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, kind, found);
        } else if path.extension().is_some_and(|its| its == kind) {
            found.push(path);
        }
    }
}

/// No request runs a script past the two ways that add the key, and no script takes it for one of its own.
#[test]
fn no_script_can_go_without_it() {
    let mut all = Vec::new();
    files(Path::new(ROOT), "rs", &mut all);
    // What knows of the command without making any: names for metrics and for what was slow, rights that are asked about.
    let known = [
        "script.rs",
        "call.rs",
        "read_only.rs",
        "wire.rs",
        "server.rs",
    ];
    let mut called = String::new();
    for path in all {
        let text = std::fs::read_to_string(&path).unwrap();
        let (name, folder) = (path.file_name().unwrap(), path.parent().unwrap());
        let in_stream = folder.ends_with("src/stream");
        let is_known = in_stream && known.iter().any(|known| name == *known);
        if !is_known && !path.ends_with("script/tests.rs") {
            for way in [
                "cmd(\"EVAL",
                "arg(\"EVAL",
                "ScriptInvocation::",
                "redis::ScriptInv",
            ] {
                assert!(!text.contains(way), "{}: {way}", path.display());
            }
            let other = text.contains("redis::Script") && !path.ends_with("script_names.rs");
            assert!(!other, "{}: call it by script!", path.display());
        }
        called.push_str(&text);
    }
    let mut scripts = Vec::new();
    files(&Path::new(ROOT).join("stream/scripts"), "lua", &mut scripts);
    for path in scripts {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_common = path.parent().unwrap().ends_with("common");
        let of = format!("\"{name}\"");
        assert!(is_common || called.contains(&of), "nothing calls {name}");
        // Where the keys end, that one stands: `#KEYS - 1` is the last of a script's own.
        for (at, _) in text.match_indices("#KEYS") {
            let rest = &text[at..];
            assert!(rest.starts_with("#KEYS - 1"), "{name} counts KEYS");
        }
        let all_of_them = text.contains("pairs(KEYS)");
        let writes = WRITES
            .iter()
            .any(|command| text.contains(&format!("call('{command}'")));
        assert!(!(all_of_them && writes), "{name} takes all KEYS");
    }
}
