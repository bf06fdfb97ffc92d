//! Scripts, which are compiled in.

/// A script by its file's name.
macro_rules! script {
    ($name:ident, $file:literal $(, behind $common:literal)*) => {
        static $name: std::sync::LazyLock<redis::Script> = std::sync::LazyLock::new(|| {
            redis::Script::new(concat!(
                $(include_str!(concat!("scripts/", $common, ".lua")),)*
                include_str!(concat!("scripts/", $file, ".lua")),
            ))
        });
    };
}
pub(super) use script;
