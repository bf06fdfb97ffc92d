//! Who should have which stream: the same for all who see the same workers there. Pure.

use crate::worker::pace::duty::rank;

/// Whether `me` should have a stream that `crew` are there to have: who ranks highest for it (rendezvous hashing), so that
/// only that worker's streams move if one comes or goes. Nobody should before it is known who is there.
pub(super) fn should_have(stream: &str, crew: &[String], me: &str) -> bool {
    let best = crew
        .iter()
        .max_by_key(|worker| (rank(stream, worker), *worker));
    best.is_some_and(|best| best == me)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(streams: usize, workers: usize) -> Vec<usize> {
        let crew: Vec<String> = (0..workers).map(|n| format!("worker-{n}")).collect();
        let owner = |n: usize| {
            let stream = format!("{{orders:{n}}}");
            let all = crew.iter().enumerate();
            let has = all.filter(|(_, worker)| should_have(&stream, &crew, worker));
            let has: Vec<usize> = has.map(|(number, _)| number).collect();
            assert_eq!(has.len(), 1, "one of them should");
            has[0]
        };
        (0..streams).map(owner).collect()
    }

    #[test]
    fn every_stream_has_one_owner_and_all_workers_have_some() {
        for (streams, workers) in [(1, 1), (64, 5), (64, 8)] {
            let owners = owners(streams, workers);
            for worker in 0..workers {
                let has = owners.iter().filter(|owner| **owner == worker).count();
                assert!(
                    has > 0 && has <= 3 * streams / workers,
                    "{has} of {streams}"
                );
            }
        }
        assert!(!should_have("orders", &[], "worker-1"));
    }

    #[test]
    fn only_what_the_new_worker_gets_moves_when_one_joins() {
        let (before, after) = (owners(64, 8), owners(64, 9));
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b);
        assert!(moved.clone().all(|(_, to)| *to == 8));
        assert!(moved.count() <= 20);
    }
}
