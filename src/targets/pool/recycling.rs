//! When a child has lived long enough. What leaks, a process or a library in it, is not to grow for ever.

use std::time::{Duration, Instant};

/// How long a child may live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recycling {
    /// After so many events.
    pub events: Option<u64>,
    pub age: Option<Duration>,
    /// Once it takes so many bytes of memory.
    pub memory: Option<u64>,
}

/// How often memory is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(2);

impl Recycling {
    /// Why a child that has answered so many events and was born then is to go, if it is; its memory is looked at by
    /// `memory`.
    pub fn is_due(
        &self,
        answered: u64,
        born: Instant,
        now: Instant,
        memory: impl FnOnce() -> Option<u64>,
    ) -> Option<String> {
        if let Some(most) = self.events
            && answered >= most
        {
            return Some(format!("has handled {answered} events"));
        }
        let age = now.saturating_duration_since(born);
        if let Some(most) = self.age
            && age >= most
        {
            return Some(format!("is {} old", crate::duration::format(most)));
        }
        // One that is too large from the start is so again when it is replaced.
        let most = self.memory.filter(|_| answered > 0)?;
        let has = memory()?;
        (has >= most).then(|| format!("takes {} MiB of memory", has >> 20))
    }
}

/// How much memory a process takes, if the system says so. Linux does.
pub(super) fn memory_of(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    resident(&status)
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_goes_by_count_age_and_memory() {
        let born = Instant::now();
        let never = Recycling::default();
        assert_eq!(
            never.is_due(
                u64::MAX,
                born,
                born + Duration::from_secs(1 << 30),
                || unreachable!()
            ),
            None
        );
        let all = Recycling {
            events: Some(10),
            age: Some(Duration::from_secs(60)),
            memory: Some(64 << 20),
        };
        let second = Duration::from_secs(1);
        assert_eq!(
            all.is_due(9, born, born + 59 * second, || Some((64 << 20) - 1)),
            None
        );
        assert_eq!(all.is_due(9, born, born + 59 * second, || None), None);
        let due = |answered, age: u32, memory| {
            all.is_due(answered, born, born + age * second, || Some(memory))
                .unwrap()
        };
        assert_eq!(due(10, 0, 0), "has handled 10 events");
        assert_eq!(due(0, 60, 0), "is 1m old");
        assert_eq!(due(1, 0, 65 << 20), "takes 65 MiB of memory");
        assert_eq!(
            all.is_due(0, born, born, || Some(65 << 20)),
            None,
            "it has done nothing yet"
        );
    }

    #[test]
    fn memory_is_read_as_linux_writes_it() {
        assert_eq!(
            resident("Name:\tx\nVmRSS:\t    5120 kB\nRssAnon: 1 kB\n"),
            Some(5 << 20)
        );
        assert_eq!(resident("Name:\tzombie\n"), None);
        #[cfg(target_os = "linux")]
        assert!(memory_of(std::process::id()).unwrap() > 1 << 20);
    }
}
