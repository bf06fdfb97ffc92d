//! The steps' scripts, as a bad network recognizes their calls.

use std::path::{Path, PathBuf};

use redis::Script;
use redis::aio::MultiplexedConnection;

use super::Exchange;

/// A call of the script of that name. Its first call at a server that does not know the script is
/// answered with an error: see [`load`].
pub fn call(name: &str) -> Exchange {
    Exchange::of(hash(name))
}

/// The hash by which a script is called.
pub fn hash(name: &str) -> String {
    named(name).get_hash().to_owned()
}

/// The script of that name.
pub fn named(name: &str) -> Script {
    Script::new(&text(name))
}

/// Its text, behind what it stands behind.
pub fn text(name: &str) -> String {
    whole(&folder().join(format!("{name}.lua")))
}

/// Whether its arguments travel as one.
pub fn is_packed(name: &str) -> bool {
    text(name).contains("cmsgpack.unpack(ARGV[1])")
}

/// Arguments as such a script takes them.
pub fn packed(args: &[&str]) -> Vec<u8> {
    rmp_serde::to_vec(args).expect("strings")
}

/// The names of all scripts.
pub fn names() -> Vec<String> {
    let files = std::fs::read_dir(folder()).expect("the scripts");
    let paths = files.map(|file| file.expect("a script").path());
    let scripts = paths.filter(|path| path.extension().is_some_and(|kind| kind == "lua"));
    scripts
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// Makes all scripts known to a server, so that every call of one is the step itself.
pub async fn load(redis: &mut MultiplexedConnection) {
    for file in std::fs::read_dir(folder()).expect("the scripts") {
        let path = file.expect("a script").path();
        if path.is_dir() {
            continue;
        }
        Script::new(&whole(&path))
            .load_async(redis)
            .await
            .expect("a script to be one");
    }
}

/// A script behind what it says that it stands behind, as the library puts them together.
fn whole(path: &Path) -> String {
    let read = |path: &Path| std::fs::read_to_string(path).expect("a script");
    let own = read(path);
    let common = own
        .lines()
        .find_map(|line| line.strip_prefix("-- Behind: "));
    let parts = common.into_iter().flat_map(|names| names.split(", "));
    parts
        .map(|name| read(&folder().join(format!("{name}.lua"))))
        .chain([own.clone()])
        .collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stream/scripts")
}
