//! The scripts that publishers in other languages call are published word for word as they are loaded here, each version
//! with its hash: `conformance/scripts/` and `conformance/scripts.json`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{NAMES, SCRIPTS, whole};

const RENEW: &str = "STREAMHAND_RENEW=1 cargo test --lib script_names::published";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

#[test]
fn scripts_are_published_as_they_are_loaded() {
    let list = folder().join("scripts.json");
    let text = std::fs::read_to_string(&list).expect("the list of scripts");
    let mut published: Value = serde_json::from_str(&text).expect("JSON");
    let is_renewed = std::env::var_os("STREAMHAND_RENEW").is_some();
    let protocol = crate::stream::PROTOCOL;
    if is_renewed {
        published["protocol"] = json!(protocol);
    }
    assert_eq!(published["protocol"], protocol, "renew it: {RENEW}");
    let scripts = published["scripts"].as_array_mut().expect("scripts");
    assert_eq!(scripts.len(), 2);
    for script in scripts {
        let name = script["name"].as_str().expect("a name").to_owned();
        let (_, source) = SCRIPTS
            .iter()
            .find(|(known, _)| *known == name)
            .expect("a script of ours");
        let text = whole(source);
        let (hash, _) = NAMES
            .iter()
            .find(|(_, known)| **known == name)
            .expect("its hash");
        let file = folder().join(script["file"].as_str().expect("a file"));
        let versions = script["versions"].as_array_mut().expect("versions");
        if is_renewed {
            std::fs::write(&file, &text).expect("to write the script");
            if versions.last().is_none_or(|last| last["sha1"] != *hash) {
                let version = versions.len() + 1;
                versions.push(json!({ "version": version, "sha1": hash }));
            }
        }
        let there = std::fs::read_to_string(&file).expect("the script");
        assert!(
            there == text,
            "conformance/scripts/{name}.lua is not what is loaded; renew it: {RENEW}"
        );
        let last = versions.last().expect("a version");
        assert_eq!(
            last["sha1"], *hash,
            "{name} is another version; renew it: {RENEW}"
        );
        assert_eq!(last["version"], versions.len());
    }
    if is_renewed {
        let text = serde_json::to_string_pretty(&published).expect("JSON");
        std::fs::write(&list, text + "\n").expect("to write the list");
    }
}
