//! `health`: whether the workers of this machine live, for a probe that runs a command. It needs no port, no file and no
//! configuration, and says the same as `/livez`.

use std::time::Duration;

use clap::Args;

use super::CommandError;
use crate::duration;

#[derive(Args)]
#[command(after_help = "\
Exit codes: 0 all live, 1 one does not, or there is none. A worker that can't reach Redis lives: to start it again would
mend nothing.")]
pub(super) struct HealthArgs {
    /// The group whose workers are meant [default: all that run here]
    #[arg(long)]
    group: Option<String>,
    /// The process that is meant [default: all that run here]
    #[arg(long)]
    pid: Option<u32>,
    /// How long the thread that speaks to Redis may take to answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    within: Duration,
}

#[cfg(target_os = "linux")]
pub(super) async fn run(args: HealthArgs) -> Result<(), CommandError> {
    use futures_util::future::join_all;

    use super::terminal::print;
    use crate::names::shown;
    use crate::telemetry::ask;

    let failed = |error: std::io::Error| CommandError::failed(format!("can't ask: {error}"));
    let mut workers = ask::workers(args.group.as_deref()).await.map_err(failed)?;
    workers.retain(|worker| args.pid.is_none_or(|pid| worker.pid == pid));
    let asked = workers.into_iter().map(async |worker| {
        let pid = worker.pid;
        let answer = tokio::time::timeout(args.within, worker.answered()).await;
        (pid, answer)
    });
    let (mut living, mut wrong) = (0, Vec::new());
    for (pid, answer) in join_all(asked).await {
        match answer {
            Ok(Ok(Some(answer))) => {
                living += 1;
                let group = shown(&answer.group);
                print(format_args!("process {pid} of the group {group} lives"))?;
            }
            // Its process ended while it was asked: it is as good as not there.
            Ok(Ok(None)) => {}
            Ok(Err(error)) => wrong.push(format!("process {pid} can't be asked: {error}")),
            Err(_) => wrong.push(format!(
                "process {pid} has not answered within {}: something blocks its thread that speaks to Redis",
                duration::format(args.within)
            )),
        }
    }
    if !wrong.is_empty() {
        return Err(CommandError::failed(wrong.join("\n")));
    }
    if living == 0 {
        let of_group = args.group.map(|group| format!(" of the group {group:?}"));
        let in_process = args.pid.map(|pid| format!(" in process {pid}"));
        return Err(CommandError::failed(format!(
            "no worker{}{} runs here as this user",
            of_group.unwrap_or_default(),
            in_process.unwrap_or_default()
        )));
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) async fn run(_: HealthArgs) -> Result<(), CommandError> {
    Err(CommandError::failed(
        "workers can be asked in this way on Linux only; elsewhere set telemetry.listen and ask for /livez",
    ))
}
