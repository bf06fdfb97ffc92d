//! What the system says of this process: its memory, its CPU time, when it began, and how many files it has open. Linux
//! says so in `/proc`; elsewhere nothing is told.

use std::fs;

use super::snapshot::{Snapshot, Value, of};
use super::table::Id;

/// Of how many parts of a second Linux tells programs times, whatever it is built with.
const TICKS: f64 = 100.0;

/// Adds what is known.
pub fn add_to(snapshot: &mut Snapshot) {
    snapshot.gauge(Id::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1.0);
    if let Some(bytes) = memory() {
        snapshot.gauge(Id::ProcessMemory, &[], bytes);
    }
    if let Some((cpu, started)) = times() {
        snapshot.add(Id::ProcessCpu, of(&[]), Value::Total(cpu));
        if let Some(booted) = booted() {
            snapshot.gauge(Id::ProcessStart, &[], booted + started);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is what lists them.
        let open = open.count().saturating_sub(1);
        snapshot.gauge(Id::ProcessFds, &[], open as f64);
    }
}

/// Bytes in RAM.
fn memory() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kb: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kb * 1024.0)
}

/// Seconds of CPU time, and how long after the machine this process was started.
fn times() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // A program's name may have spaces and brackets in it.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    // As proc(5) counts them the first one here is the third.
    let ticks = |nth: usize| fields.get(nth - 3)?.parse::<f64>().ok();
    let cpu = (ticks(14)? + ticks(15)?) / TICKS;
    Some((cpu, ticks(22)? / TICKS))
}

/// When the machine was, in seconds since 1970.
fn booted() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn this_process_is_known() {
        let mut snapshot = Snapshot::default();
        add_to(&mut snapshot);
        let total = |id| snapshot.total(id, &[]);
        assert!(total(Id::ProcessMemory) > 1e6);
        assert!(total(Id::ProcessFds) >= 3.0);
        assert!((0.0..1e6).contains(&total(Id::ProcessCpu)));
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let age = now - total(Id::ProcessStart);
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
