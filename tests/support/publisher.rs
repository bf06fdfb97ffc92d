//! A publisher as users make it.

use streamhand::{Publisher, Settings};

pub fn publisher(url: &str) -> Publisher {
    let settings = Settings::from_toml_str(&format!("[redis]\nurl = \"{url}\"\n"));
    Publisher::new(&settings.expect("settings").redis).expect("a publisher")
}
