//! ARCHITECTURE.md speaks of files that are there.

use std::path::Path;

#[test]
fn every_file_it_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let top = [
        "handlers/",
        "src/",
        "tests/",
        "scripts/",
        "deploy/",
        "bench/",
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
        .filter(|name| !root.join(name).exists())
        .collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names {missing:?}");
}
