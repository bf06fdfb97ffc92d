//! Scripts, which are compiled in, and known by their names.

use std::collections::HashMap;
use std::sync::RwLock;

use crate::sync::{read, write};

/// A script by its file's name.
macro_rules! script {
    ($name:ident, $file:literal $(, behind $common:literal)*) => {
        static $name: std::sync::LazyLock<redis::Script> = std::sync::LazyLock::new(|| {
            let script = redis::Script::new(concat!(
                $(include_str!(concat!("scripts/", $common, ".lua")),)*
                include_str!(concat!("scripts/", $file, ".lua")),
            ));
            $crate::stream::script::is_called(&script, $file);
            script
        });
    };
}
pub(super) use script;

/// The names of those that have been called, by their hashes.
static NAMES: RwLock<Option<HashMap<String, &'static str>>> = RwLock::new(None);

/// A script's requests are to be told from others' by this name.
pub(super) fn is_called(script: &redis::Script, name: &'static str) {
    let mut names = write(&NAMES);
    let names = names.get_or_insert_default();
    names.insert(script.get_hash().to_owned(), name);
}

/// The name of a script that has been called by its hash.
pub(super) fn named(hash: &[u8]) -> Option<&'static str> {
    let hash = std::str::from_utf8(hash).ok()?;
    read(&NAMES).as_ref()?.get(hash).copied()
}
