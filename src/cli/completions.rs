//! `completions`: a shell's completion script.

use std::io::Write;

use clap::Args;
use clap_complete::Shell;

use super::CommandError;
use super::terminal::closed;

#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: CompletionsArgs, mut tree: clap::Command) -> Result<(), CommandError> {
    // A user's own program has a name of its own.
    let name = tree.get_bin_name().unwrap_or(tree.get_name()).to_owned();
    // It panics where it can't write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut tree, name, &mut script);
    let mut out = std::io::stdout().lock();
    out.write_all(&script)
        .and_then(|()| out.flush())
        .map_err(closed)
}
