//! The names of scripts by their hashes: a server tells of a slow script by that alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

macro_rules! sources {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("scripts/", $name, ".lua"))),)*]
    };
}

/// All scripts; a test compares this with what is there.
const SCRIPTS: &[(&str, &str)] = &sources![
    "ack"
    "add_due"
    "adopt"
    "alerts"
    "append_events"
    "ask"
    "breaker"
    "browse"
    "bury"
    "cancel"
    "cancel_entry"
    "cancelled"
    "claim"
    "clock_set"
    "commit"
    "commit_batch"
    "commit_more"
    "cron_list"
    "cron_pause"
    "entry"
    "expire"
    "first_events"
    "forget"
    "gauges"
    "groups"
    "join"
    "keep_snapshot"
    "lacks"
    "limit"
    "list_scheduled"
    "look_ahead"
    "may"
    "mend"
    "met_again"
    "newest"
    "note"
    "order"
    "order_check"
    "order_held"
    "order_pending"
    "order_rouse"
    "outbox_add"
    "outbox_done"
    "outbox_take"
    "park"
    "parked"
    "pause"
    "permits"
    "plan_cron"
    "project"
    "project_lease"
    "project_rebuild"
    "publish_once"
    "pulse_again"
    "pulse_slot"
    "pulse_turn"
    "purge"
    "purge_kept"
    "rate"
    "read_along"
    "reclaim"
    "renew"
    "replay"
    "resume"
    "run_begin"
    "run_look"
    "run_step"
    "run_turn"
    "schedule"
    "search"
    "settled"
    "status"
    "sweep"
    "take_waiting"
    "trim"
    "undo_purge"
    "unheld"
    "unlist"
    "unschedule"
    "wake"
];

const COMMON: &[(&str, &str)] = &sources![
    "common/appending"
    "common/behind"
    "common/clock"
    "common/commit"
    "common/cron"
    "common/death"
    "common/effects"
    "common/errors"
    "common/fingerprint"
    "common/replay_letter"
    "common/guards"
    "common/ids"
    "common/known"
    "common/lag"
    "common/left"
    "common/letter"
    "common/on_schedule"
    "common/packed"
    "common/pending"
    "common/projection"
    "common/reached"
    "common/reading"
    "common/rights"
    "common/runs"
    "common/scheduled"
    "common/sealed"
];

static NAMES: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    let hash = |(name, source): &(&'static str, &'static str)| {
        let script = redis::Script::new(&whole(source));
        (script.get_hash().to_owned(), *name)
    };
    SCRIPTS.iter().map(hash).collect()
});

/// The name of the script with this hash, which a server tells in place of its text.
pub(crate) fn script_name(hash: &str) -> Option<&'static str> {
    NAMES.get(hash).copied()
}

/// Every script's name and the commands it may call, subcommands as `XINFO STREAM`.
pub(crate) fn script_commands() -> impl Iterator<Item = (&'static str, BTreeSet<String>)> {
    SCRIPTS
        .iter()
        .map(|(name, source)| (*name, called(&whole(source))))
}

fn called(source: &str) -> BTreeSet<String> {
    let quoted = |text: &str| {
        let text = text.strip_prefix('\'')?;
        Some(text[..text.find('\'')?].to_owned())
    };
    let calls = ["redis.call(", "redis.pcall("]
        .into_iter()
        .flat_map(|call| source.split(call).skip(1));
    let command = |call: &str| {
        let name = quoted(call)?;
        let after = call[name.len() + 2..].strip_prefix(", ");
        match (&name[..], after.and_then(quoted)) {
            ("XINFO" | "XGROUP", Some(sub)) => Some(format!("{name} {sub}")),
            _ => Some(name),
        }
    };
    calls.filter_map(command).collect()
}

/// A script behind those that its line `-- Behind:` names, as it is loaded.
fn whole(source: &str) -> String {
    let behind = source
        .lines()
        .find_map(|line| line.strip_prefix("-- Behind: "));
    let named = behind.into_iter().flat_map(|names| names.split(", "));
    let mut whole: String = named
        .filter_map(|name| COMMON.iter().find(|(known, _)| *known == name.trim()))
        .map(|(_, source)| *source)
        .collect();
    whole.push_str(source);
    whole
}

#[cfg(test)]
mod published;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn there(folder: &str, prefix: &str) -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/stream")
            .join(folder);
        let files = std::fs::read_dir(root)
            .unwrap()
            .map(|file| file.unwrap().path());
        let scripts = files.filter(|path| path.extension().is_some_and(|kind| kind == "lua"));
        scripts
            .map(|path| format!("{prefix}{}", path.file_stem().unwrap().to_string_lossy()))
            .collect()
    }

    #[test]
    fn no_script_knows_of_a_tests_time() {
        for (name, source) in SCRIPTS.iter().chain(COMMON) {
            let knows = ["streamhand:test", "test_time"]
                .iter()
                .any(|of| source.contains(of));
            assert!(!knows, "{name} speaks of a test's time");
            // So that a test can put its own time in the place of it, as in `test_time.rs`.
            let code = source
                .lines()
                .filter(|line| !line.trim_start().starts_with("--"));
            let code: Vec<&str> = code.collect();
            let code = code.join("\n");
            let asks = code.matches("redis.call('TIME')").count();
            assert_eq!(
                code.matches("TIME'").count(),
                asks,
                "{name} asks for TIME in another way"
            );
        }
    }

    #[test]
    fn every_script_has_a_name() {
        let listed = |list: &[(&str, &str)]| {
            list.iter()
                .map(|(name, _)| (*name).to_owned())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(
            listed(SCRIPTS),
            there("scripts", ""),
            "add it to SCRIPTS above"
        );
        assert_eq!(
            listed(COMMON),
            there("scripts/common", "common/"),
            "add it to COMMON above"
        );
    }
}
