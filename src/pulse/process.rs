//! What this process takes of its machine.

use std::time::Duration;

/// CPU time that the process has used since it began.
pub(crate) fn cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

/// Memory of the process that is in RAM, in bytes; zero where the system does not tell.
pub(crate) fn memory() -> u64 {
    let Ok(statm) = std::fs::read_to_string("/proc/self/statm") else {
        return 0;
    };
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn it_tells_of_this_process() {
        let before = cpu();
        assert!(memory() > 1 << 20);
        while cpu() < before + Duration::from_millis(5) {}
    }
}
