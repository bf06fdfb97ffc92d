//! An idle worker is next to nothing, to Redis and to its machine.

use std::time::{Duration, Instant};

use crate::support::{Cli, Proxy, Server, Setup, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    async fn it_sends_at_most_three_commands_a_second(server: Server) {
        tokio::join!(
            stays_idle(&server, &["jobs"]),
            // Each has three commands a second.
            stays_idle(&server, &["one", "two", "three"]),
        );
    }

    /// The program itself: the code of all these tests would be in memory, too.
    async fn it_stays_below_15_mb(server: Server) {
        tokio::join!(stays_small(&server, &["jobs"]), stays_small(&server, &["one", "two", "three"]));
    }
}

async fn stays_idle(server: &Server, streams: &[&str]) {
    let proxy = Proxy::start(server.port()).await;
    let mut worker = Setup::at(proxy.url())
        .worker(&format!("streams = {streams:?}"))
        .worker("lease = \"30s\"")
        .process();
    // Connecting and joining are over when it has read twice.
    let reads = || {
        proxy
            .traffic()
            .commands
            .get("XREADGROUP")
            .copied()
            .unwrap_or(0)
    };
    eventually(PATIENCE, "the worker to wait for entries", async || {
        reads() >= 2
    })
    .await;
    let (before, since) = (proxy.traffic(), Instant::now());
    eventually(PATIENCE, "ten seconds to pass", async || {
        since.elapsed() >= Duration::from_secs(10)
    })
    .await;
    let after = proxy.traffic();
    let sent = after.commands.values().sum::<u64>() - before.commands.values().sum::<u64>();
    let rate = sent as f64 / since.elapsed().as_secs_f64();
    println!(
        "{} streams: {rate:.2} commands a second: {:?}",
        streams.len(),
        after.commands
    );
    assert!(
        rate <= 3.0 * streams.len() as f64,
        "{rate:.2} commands a second: {before:?} {after:?}"
    );
    assert!(reads() >= 8, "it reads all the while");
    assert!(!worker.has_ended());
}

async fn stays_small(server: &Server, streams: &[&str]) {
    let proxy = Proxy::start(server.port()).await;
    let program = Cli::at(
        &proxy.url(),
        &format!("[worker]\nstreams = {streams:?}\nlease = \"30s\""),
    );
    let mut worker = program
        .command(&["run"])
        .kill_on_drop(true)
        .spawn()
        .expect("the program");
    eventually(
        PATIENCE,
        "the worker to have read for a while",
        async || {
            let commands = proxy.traffic().commands;
            commands.get("XREADGROUP").is_some_and(|reads| *reads >= 8)
        },
    )
    .await;
    let Memory { resident, own } = memory(worker.id().expect("it runs"));
    println!(
        "{} streams: {resident} KiB resident, {own:?} its own",
        streams.len()
    );
    // Most of it is code, that of the pages and the terminal among it, and what is not optimised has more than twice as
    // much: then the limit is the worker's own memory's.
    let (limit, own_limit) = match cfg!(debug_assertions) {
        true => (40, 6),
        false => (15, 4),
    };
    assert!(resident < limit * 1024, "{resident} KiB resident");
    let fits = own.is_none_or(|own| own < own_limit * 1024);
    assert!(fits, "{own:?} KiB beside its code");
    worker.kill().await.expect("its end");
}

/// What a process has in RAM, in KiB.
struct Memory {
    resident: u64,
    /// What stands in no file, if the system tells: heap, stacks, and data that was written to.
    own: Option<u64>,
}

fn memory(pid: u32) -> Memory {
    if let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        let kib = |name: &str| {
            let mut lines = status.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)).expect(name);
            value.trim().trim_end_matches(" kB").parse().expect(name)
        };
        return Memory {
            resident: kib("Rss:"),
            own: Some(kib("Anonymous:")),
        };
    }
    // macOS has no /proc, and a small Linux no ps.
    let ps = std::process::Command::new("ps")
        .args(["-o", "rss=", "-p", &pid.to_string()])
        .output()
        .expect("ps");
    let resident = String::from_utf8_lossy(&ps.stdout).trim().parse().unwrap();
    Memory {
        resident,
        own: None,
    }
}
