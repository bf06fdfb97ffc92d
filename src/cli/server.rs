//! `redis`: how the server itself is, or each master of a cluster.

use clap::Args;

use super::CommandError;
use super::terminal::{print, print_json, say};
use super::text::{count, rough, table, time};
use crate::admin::{Admin, ServerStatus};
use crate::config::Settings;
use crate::names::shown;

#[derive(Args)]
pub(super) struct ServerArgs {
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &ServerArgs, settings: &Settings) -> Result<(), CommandError> {
    let servers = Admin::new(settings)?.servers().await?;
    if args.json {
        return match &servers[..] {
            [one] => print_json(one),
            masters => print_json(&masters),
        };
    }
    for (place, status) in servers.iter().enumerate() {
        if place > 0 {
            print("\n")?;
        }
        show(status)?;
    }
    Ok(())
}

fn show(status: &ServerStatus) -> Result<(), CommandError> {
    let rows: Vec<Vec<String>> = lines(status)
        .into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    print(table(&["", ""], &[], &rows).trim_start_matches('\n'))?;
    if !status.slow.is_empty() {
        let rows: Vec<Vec<String>> = status
            .slow
            .iter()
            .map(|slow| {
                vec![
                    time(slow.at),
                    rough(slow.took),
                    shown(&slow.what).to_string(),
                    slow.client.clone(),
                ]
            })
            .collect();
        print(format_args!(
            "\n{}",
            table(
                &["SLOW AT", "TOOK", "COMMAND", "CLIENT"],
                &["COMMAND"],
                &rows
            )
        ))?;
    }
    if let Some(why) = &status.slow_unknown {
        say(format_args!(
            "it does not tell what was slow ({why}): this user may not SLOWLOG"
        ));
    }
    for warning in &status.warnings {
        say(format_args!("warning: {warning}"));
    }
    Ok(())
}

fn lines(status: &ServerStatus) -> Vec<(&'static str, String)> {
    let mut lines = vec![(
        "server",
        format!("{} at {}", status.software, status.address),
    )];
    if let Some(role) = &status.role {
        let replicas = match status.replicas {
            Some(replicas) if replicas > 0 => format!(", with {}", count(replicas, "replica")),
            _ => String::new(),
        };
        lines.push(("role", format!("{role}{replicas}")));
    }
    if let Some(up) = status.up {
        lines.push(("up", rough(up)));
    }
    if let Some(used) = status.used_memory {
        let most = match status.max_memory {
            Some(most) => format!(" of {}", bytes(most)),
            None => ", without a limit".to_owned(),
        };
        let peak = status
            .peak_memory
            .map(|peak| format!("; {} at most so far", bytes(peak)));
        lines.push((
            "memory",
            format!("{}{most}{}", bytes(used), peak.unwrap_or_default()),
        ));
    }
    if let Some(policy) = &status.maxmemory_policy {
        lines.push(("when full", policy.clone()));
    }
    if let Some(append_only) = status.append_only {
        lines.push((
            "append-only file",
            if append_only { "yes" } else { "no" }.to_owned(),
        ));
    }
    if let Some(at) = status.snapshot_at {
        let since = status.changes_since_snapshot.unwrap_or(0);
        lines.push((
            "last snapshot",
            format!("{}, {} since", time(at), count(since, "change")),
        ));
    }
    if let Some(clients) = status.clients {
        let blocked = status.blocked_clients.unwrap_or(0);
        lines.push(("clients", format!("{clients}, {blocked} of them waiting")));
    }
    if let Some(commands) = status.commands_per_second {
        lines.push(("commands", format!("{commands} a second")));
    }
    lines
}

/// `1.5 GiB`.
fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
