//! When it is looked whose a stream is whose events have an order.

use std::time::Duration;

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(500);
/// So many looks a second are made at most by all workers at all streams of one server.
const LOOKS: u32 = 5000;

/// How long it is until the next look at so many streams that so many workers are there to have: less often the more of both
/// there are, and the more workers rank before this one at each of them (`before` is the least), for those have it first; and
/// often enough for the lease.
pub fn look_in(streams: usize, crew: usize, before: usize, lease: Duration) -> Duration {
    let looks = streams.saturating_mul(crew).min(u32::MAX as usize) as u32;
    let wait = Duration::from_secs(1) * looks / LOOKS;
    let shortest = SHORTEST.min(lease / 6);
    let stands_by = shortest * (1 + before.min(1000) as u32);
    wait.max(stands_by)
        .clamp(shortest, (lease / 4).max(shortest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_workers_of_many_streams_look_less_often() {
        let lease = Duration::from_secs(30);
        assert_eq!(look_in(4, 3, 0, lease), SHORTEST);
        assert_eq!(look_in(64, 100, 0, lease), Duration::from_millis(1280));
        assert_eq!(look_in(1000, 1000, 0, lease), lease / 4);
        let lease = Duration::from_secs(1);
        assert_eq!(look_in(1000, 1000, 0, lease), lease / 4);
        assert_eq!(look_in(1, 1, 0, lease), lease / 6);
    }

    #[test]
    fn who_ranks_behind_others_looks_less_often_and_often_enough_for_its_place_among_them() {
        let lease = Duration::from_secs(30);
        assert_eq!(look_in(1, 16, 1, lease), 2 * SHORTEST);
        assert_eq!(look_in(1, 16, 15, lease), lease / 4);
    }
}
