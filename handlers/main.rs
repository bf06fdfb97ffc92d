//! The program: every command of streamhand, with the handlers of a small shop and two commands of its own. A crate of
//! yours looks like this one.

mod demo;
mod events;
mod inventory;
mod orders;

fn main() -> std::process::ExitCode {
    streamhand::cli::Program::new(inventory::registry())
        .command(orders::command())
        .command(demo::command())
        .main()
}
