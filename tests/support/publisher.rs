//! A publisher as users make it.

use streamhand::{Publisher, Settings};

pub fn publisher(url: &str) -> Publisher {
    publisher_with(url, "")
}

/// One with further settings of `[redis]`.
pub fn publisher_with(url: &str, settings: &str) -> Publisher {
    let settings = Settings::from_toml_str(&format!("[redis]\nurl = \"{url}\"\n{settings}"));
    Publisher::new(&settings.expect("settings").redis).expect("a publisher")
}
