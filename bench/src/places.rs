//! Which CPUs the processes of a run have where latencies are measured. In life a publisher is on another machine. Here
//! it shares the CPUs with the server and the worker, and the kernel, left alone, keeps the three of them together on
//! one or moves them from one to the other, as it comes; which of it costs an event 100 µs and more. So the publisher
//! has a CPU of its own, and server and worker have the others.

#[cfg(not(target_os = "linux"))]
pub(crate) use elsewhere::Places;
#[cfg(target_os = "linux")]
pub(crate) use linux::Places;

#[cfg(target_os = "linux")]
mod linux {
    use rustix::io::Errno;
    use rustix::process::Pid;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use streamhand::cli::CommandError;

    /// The CPUs of a run's processes.
    #[derive(Clone)]
    pub(crate) struct Places {
        all: CpuSet,
        publisher: CpuSet,
        others: CpuSet,
    }

    impl Places {
        /// The publisher apart from the others; None where there is one CPU for all.
        pub fn apart() -> Option<Self> {
            Self::of(sched_getaffinity(None).ok()?)
        }

        fn of(all: CpuSet) -> Option<Self> {
            let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu))?;
            let (mut publisher, mut others) = (CpuSet::new(), all);
            publisher.set(first);
            others.unset(first);
            (others.count() > 0).then_some(Places {
                all,
                publisher,
                others,
            })
        }

        /// The calling thread is to publish.
        pub fn publisher_here(&self) -> Result<(), CommandError> {
            place(None, &self.publisher)
        }

        /// Keeps a process off the publisher's CPU, with the threads that it has, and that those start.
        pub fn keep_off(&self, process: u32) -> Result<(), CommandError> {
            place_all(process, &self.others)
        }

        /// Lets a process run anywhere again.
        pub fn let_go(&self, process: u32) -> Result<(), CommandError> {
            place_all(process, &self.all)
        }
    }

    fn place_all(process: u32, cpus: &CpuSet) -> Result<(), CommandError> {
        let threads = std::fs::read_dir(format!("/proc/{process}/task"));
        let threads = threads.map_err(|error| failed(&error))?;
        for thread in threads {
            let name = thread.map_err(|error| failed(&error))?.file_name();
            let id = name.to_str().and_then(|name| name.parse().ok());
            if let Some(thread) = id.and_then(Pid::from_raw) {
                place(Some(thread), cpus)?;
            }
        }
        Ok(())
    }

    fn place(thread: Option<Pid>, cpus: &CpuSet) -> Result<(), CommandError> {
        match sched_setaffinity(thread, cpus) {
            // A thread that has ended meanwhile is nowhere.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    fn failed(error: &dyn std::fmt::Display) -> CommandError {
        CommandError::failed(format!(
            "the bench: can't say on which CPUs a process is to run: {error}"
        ))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn set(cpus: &[usize]) -> CpuSet {
            let mut set = CpuSet::new();
            cpus.iter().for_each(|cpu| set.set(*cpu));
            set
        }

        #[test]
        fn the_publisher_has_the_first_cpu_and_others_the_rest() {
            assert!(Places::of(set(&[3])).is_none());
            let places = Places::of(set(&[1, 2, 5])).unwrap();
            assert!(places.publisher == set(&[1]));
            assert!(places.others == set(&[2, 5]));
        }

        #[test]
        fn threads_keep_off_the_publishers_cpu_until_they_are_let_go() {
            let Some(places) = Places::apart() else {
                return;
            };
            let (tell, told) = std::sync::mpsc::channel::<()>();
            let (found, find) = std::sync::mpsc::channel();
            let thread = std::thread::spawn(move || {
                for () in told {
                    found.send(sched_getaffinity(None).unwrap()).unwrap();
                }
            });
            let theirs = || {
                tell.send(()).unwrap();
                find.recv().unwrap()
            };
            places.keep_off(std::process::id()).unwrap();
            assert!(theirs() == places.others);
            places.let_go(std::process::id()).unwrap();
            assert!(theirs() == places.all);
            drop(tell);
            thread.join().unwrap();
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use streamhand::cli::CommandError;

    /// Only Linux can be told.
    #[derive(Clone)]
    pub(crate) enum Places {}

    impl Places {
        pub fn apart() -> Option<Self> {
            None
        }

        pub fn publisher_here(&self) -> Result<(), CommandError> {
            match *self {}
        }

        pub fn keep_off(&self, _: u32) -> Result<(), CommandError> {
            match *self {}
        }

        pub fn let_go(&self, _: u32) -> Result<(), CommandError> {
            match *self {}
        }
    }
}
