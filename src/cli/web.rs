//! `web`: serves the pages to watch and operate a group by; `web hash` makes the hash of a password.

use std::io::Read;
use std::net::SocketAddr;

use clap::{Args, Subcommand};

use super::terminal::{print, say};
use super::{CommandError, told_to_stop};
use crate::called;
use crate::config::Settings;
use crate::handler::Registry;
use crate::web::{Web, hash};

/// Where help stands.
const EXAMPLES: &str = "Examples:
  streamhand web
  streamhand web --listen 0.0.0.0:9465    (needs a user of [web.users], or web.identity_header)
  openssl rand -base64 18 | tee /dev/stderr | streamhand web hash";

#[derive(Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct WebArgs {
    /// Where to serve the pages, in place of web.listen [default: 127.0.0.1:9465]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The group that is meant [default: worker.group]
    #[arg(long)]
    pub(super) group: Option<String>,
    #[command(subcommand)]
    pub(super) command: Option<WebCommand>,
}

#[derive(Subcommand)]
pub(super) enum WebCommand {
    /// Read a password from standard input and print its hash, for password_hash of [web.users]
    Hash,
}

pub(super) async fn run(
    args: WebArgs,
    mut settings: Settings,
    registry: Option<Registry>,
) -> Result<(), CommandError> {
    if let Some(listen) = args.listen {
        settings.web.listen = Some(listen);
    }
    let mut web = Web::new(&settings)?;
    if let Some(registry) = registry {
        web = web
            .knowing(&registry)?
            .validating(std::sync::Arc::new(registry));
    }
    let prefix = settings.web.prefix.clone().unwrap_or_default();
    let prefix = prefix.trim_end_matches('/');
    say(format_args!("http://{}{prefix}/", web.address()));
    let stop = told_to_stop("")?;
    Ok(web.run(stop).await?)
}

pub(super) fn print_hash() -> Result<(), CommandError> {
    let mut password = String::new();
    std::io::stdin()
        .read_to_string(&mut password)
        .map_err(|error| CommandError::failed(format!("can't read the password: {error}")))?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(CommandError::usage(format!(
            "standard input has no password; write `{}`",
            called::command("web hash < FILE")
        )));
    }
    print(hash(password)?)
}
