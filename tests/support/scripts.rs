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
    script(&folder().join(format!("{name}.lua")))
        .get_hash()
        .to_owned()
}

/// Makes all scripts known to a server, so that every call of one is the step itself.
pub async fn load(redis: &mut MultiplexedConnection) {
    for file in std::fs::read_dir(folder()).expect("the scripts") {
        let path = file.expect("a script").path();
        script(&path)
            .load_async(redis)
            .await
            .expect("a script to be one");
    }
}

fn script(path: &Path) -> Script {
    Script::new(&std::fs::read_to_string(path).expect("a script"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stream/scripts")
}
