//! `completions`: a shell's completion script.

use clap::Args;
use clap_complete::Shell;

use super::CommandError;

#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: CompletionsArgs, mut tree: clap::Command) -> Result<(), CommandError> {
    let name = tree.get_name().to_owned();
    clap_complete::generate(args.shell, &mut tree, name, &mut std::io::stdout());
    Ok(())
}
