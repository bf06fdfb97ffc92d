//! What the compiler says of common mistakes: one sentence with the remedy, and no list of all types that there are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::SystemTime;

/// What every example begins with.
const BEGINNING: &str = "
#![allow(unused)]
use streamhand::{Context, Event, Failure, Publisher, Registry};
#[derive(serde::Serialize, serde::Deserialize)]
struct Paid { amount: u64 }
impl Event for Paid { const TYPE: &'static str = \"order.paid\"; }
";

#[test]
fn an_event_without_deserialize_is_told_what_to_derive() {
    let said = refused(
        "struct Created { id: String }
        impl Event for Created { const TYPE: &'static str = \"order.created\"; }
        async fn ship(_: Created, _: Context) -> Result<(), Failure> { Ok(()) }
        fn main() { Registry::new().on(ship); }",
    );
    says(&said, "`Created` can't be read from an event's data");
    says(&said, "add `#[derive(serde::Deserialize)]` to `Created`");
}

#[test]
fn an_event_without_serialize_is_told_what_to_derive() {
    let said = refused(
        "struct Created { id: String }
        impl Event for Created { const TYPE: &'static str = \"order.created\"; }
        fn main() {}
        async fn publish(publisher: Publisher, created: Created, ctx: Context) {
            publisher.publish(\"orders\", &created).await.unwrap();
            ctx.emit(\"orders\", created);
        }",
    );
    says(&said, "`Created` can't be written as an event's data");
    says(&said, "add `#[derive(serde::Serialize)]` to `Created`");
}

#[test]
fn a_type_that_is_no_event_is_told_what_to_write() {
    let said = refused(
        "#[derive(serde::Serialize, serde::Deserialize)]
        struct Created { id: String }
        async fn ship(_: Created, _: Context) -> Result<(), Failure> { Ok(()) }
        fn main() { Registry::new().on(ship); }",
    );
    says(&said, "`Created` is no event");
    says(&said, "write `impl streamhand::Event for Created");
}

#[test]
fn an_event_type_that_breaks_the_grammar_is_shown() {
    for use_of_it in [
        "fn main() { Registry::new().on(ship); }",
        "fn main() { Context::for_test().emit(\"orders\", Created {}); }",
    ] {
        let said = refused(&format!(
            "#[derive(serde::Serialize, serde::Deserialize)]
            struct Created {{}}
            impl Event for Created {{ const TYPE: &'static str = \"Order.Created\"; }}
            async fn ship(_: Created, _: Context) -> Result<(), Failure> {{ Ok(()) }}
            {use_of_it}"
        ));
        says(
            &said,
            "the event type \"Order.Created\" has something else than a-z",
        );
        says(
            &said,
            "at position 1; Event::TYPE is a noun and what happened to it",
        );
    }
}

#[test]
fn what_is_right_compiles() {
    let (said, is_right) = compile(RIGHT);
    assert!(is_right, "{said}");
}

fn refused(example: &str) -> String {
    let (said, is_right) = compile(example);
    assert!(!is_right, "it compiles: {example}");
    assert!(
        !said.contains("other types implement trait"),
        "a list of types:\n{said}"
    );
    said
}

#[track_caller]
fn says(said: &str, what: &str) {
    assert!(said.contains(what), "{what:?} is not in:\n{said}");
}

/// What the compiler says of a program, and whether it takes it. Asked of the compiler itself, with the library as this
/// test was linked with it, so that nothing is built for it.
fn compile(example: &str) -> (String, bool) {
    let (streamhand, serde) = &*BUILDS;
    compile_with(streamhand, serde, example)
}

const RIGHT: &str = "async fn ship(_: Paid, _: Context) -> Result<(), Failure> { Ok(()) }
    fn main() { Registry::new().on(ship); }";

/// The build of the library and that of serde that belong together: of each there may be some that earlier builds have left
/// behind, and of serde one that is for what runs while others are built.
static BUILDS: LazyLock<(PathBuf, PathBuf)> = LazyLock::new(|| {
    let test = std::env::current_exe().expect("a program");
    let dependencies = test.parent().expect("a directory");
    let mut said = String::new();
    for streamhand in libraries(dependencies, "streamhand") {
        for serde in libraries(dependencies, "serde") {
            let (refused, is_right) = compile_with(&streamhand, &serde, RIGHT);
            if is_right {
                return (streamhand, serde);
            }
            said = refused;
        }
    }
    panic!("no build of the library can be used: {said}");
});

fn compile_with(streamhand: &Path, serde: &Path, example: &str) -> (String, bool) {
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("example.rs");
    std::fs::write(&source, format!("{BEGINNING}{example}")).expect("a file");
    let dependencies = streamhand.parent().expect("a directory");
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition", "2024", "--crate-type", "bin", "--emit", "obj"])
        .arg("-L")
        .arg(format!("dependency={}", dependencies.display()))
        .arg("--extern")
        .arg(format!("streamhand={}", streamhand.display()))
        .arg("--extern")
        .arg(format!("serde={}", serde.display()))
        .arg("-o")
        .arg(dir.path().join("example.o"))
        .arg(&source)
        .output()
        .expect("rustc, which built this test");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (said, output.status.success())
}

/// The builds of a library, the newest first.
fn libraries(dir: &Path, name: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).expect("a directory");
    let mut found: Vec<(SystemTime, PathBuf)> = files
        .filter_map(|file| {
            let path = file.ok()?.path();
            let file_name = path.file_name()?.to_str()?;
            let is_it =
                file_name.starts_with(&format!("lib{name}-")) && file_name.ends_with(".rlib");
            let made = path.metadata().ok()?.modified().ok()?;
            is_it.then_some((made, path))
        })
        .collect();
    assert!(
        !found.is_empty(),
        "no lib{name}-*.rlib in {}",
        dir.display()
    );
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}
