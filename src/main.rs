//! The program `streamhand`: operates any group, publishes, and checks a configuration. It has no handlers but those that the
//! configuration names, which are targets: handlers in Rust are in programs of their own, like the shop in `handlers/`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    streamhand::cli::Program::without_handlers()
        .name("streamhand")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Operates groups of Redis streams, publishes events, and checks configurations")
        .main()
}
