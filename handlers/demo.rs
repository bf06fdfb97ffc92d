//! `shop demo`: the whole story on a server of its own. Orders come in and a fleet of three workers, processes of
//! this very program, handles them; one is killed, one is told to stop; some events can't be handled yet, some never.
//! What became of every single one is then counted, in Redis and in the workers' logs.
//!
//! Nothing is played: what goes wrong is in the data or done to the processes, and the handlers are those of the shop.

mod books;
mod clerks;
mod cluster;
mod figures;
mod fleet;
mod orders;
mod program;
mod show;
mod stage;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches};
use streamhand::cli::{Command, CommandError, PrivateServer, told_to_stop};

use show::Show;

#[derive(Args)]
struct DemoArgs {
    /// The redis-server or valkey-server to start [default: the first on PATH]
    #[arg(long, value_name = "PROGRAM")]
    server: Option<PathBuf>,
    /// How many events are published
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000))]
    events: u64,
    /// A topic over the nodes of a cluster instead, one of which is killed
    #[arg(long)]
    cluster: bool,
}

/// The command that shows what the program can do.
pub fn command() -> Command {
    let clap = clap::Command::new("demo").about(
        "Show the whole story on a server of its own: a fleet, a crash, retries, dead letters",
    );
    Command::new(DemoArgs::augment_args(clap), |_, matches| async move {
        let args = DemoArgs::from_arg_matches(&matches)
            .map_err(|error| CommandError::usage(error.to_string()))?;
        let server = args.server.map_or_else(server_on_path, Ok)?;
        let stop = told_to_stop("")?;
        tokio::select! {
            result = cluster::story(&server, args.events), if args.cluster => result,
            result = story(&server, args.events), if !args.cluster => result,
            () = stop => Err(CommandError::failed("stopped; the demo's server and workers are gone")),
        }
    })
}

async fn story(server: &Path, events: u64) -> Result<(), CommandError> {
    let server = PrivateServer::start(server).await?;
    let mut show = Show::set_up(&server, events).await?;
    show.start_workers().await?;
    show.take_orders().await?;
    show.figures("What became of them").await?;
    show.repair_and_replay().await?;
    show.figures("And after the replay").await?;
    show.two_clerks().await?;
    show.end().await
}

fn server_on_path() -> Result<PathBuf, CommandError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .flat_map(|dir| ["redis-server", "valkey-server"].map(|name| dir.join(name)))
        .find(|file| {
            file.metadata()
                .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| {
            CommandError::failed(
                "there is no redis-server or valkey-server on PATH: name one by --server, or install one (Debian, \
                 Ubuntu: apt-get install redis-server; Fedora: dnf install valkey; macOS: brew install redis); `make \
                 demo` in streamhand's sources fetches one",
            )
        })
}
