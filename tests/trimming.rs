//! What one step of trimming lets go, and what holds: the guard of retention, whatever groups do meanwhile.

use std::collections::BTreeSet;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use streamhand::EntryId;

use crate::support::Server;
use crate::support::trim::{Trim, groups, ids, nothing_is_missing};

const FIELD: [(&str, &str); 1] = [("type", "test.job")];

/// A group as the test knows it: what it has read, and what of that is pending.
#[derive(Default)]
struct Known {
    read: usize,
    pending: BTreeSet<usize>,
}

impl Known {
    /// The first entry that it has not settled.
    fn stands(&self) -> usize {
        self.pending.first().copied().unwrap_or(self.read)
    }
}

/// Adds entries, and answers their ids.
async fn add(redis: &mut MultiplexedConnection, count: usize) -> Vec<EntryId> {
    let mut pipe = redis::pipe();
    for _ in 0..count {
        pipe.xadd("jobs", "*", &FIELD);
    }
    let ids: Vec<String> = pipe.query_async(redis).await.expect("entries");
    ids.iter().map(|id| id.parse().unwrap()).collect()
}

async fn add_at(redis: &mut MultiplexedConnection, ids: impl IntoIterator<Item = String>) {
    let mut pipe = redis::pipe();
    for id in ids {
        pipe.xadd("jobs", id, &FIELD);
    }
    let _: () = pipe.query_async(redis).await.expect("entries");
}

/// A group that has read nothing.
async fn group(redis: &mut MultiplexedConnection, name: &str) {
    let _: () = redis
        .xgroup_create_mkstream("jobs", name, "0")
        .await
        .expect("a group");
}

/// Lets a group read so many entries.
async fn read(redis: &mut MultiplexedConnection, group: &str, count: usize) -> Vec<String> {
    let mut call = redis::cmd("XREADGROUP");
    call.arg("GROUP")
        .arg(group)
        .arg("c")
        .arg("COUNT")
        .arg(count);
    let reply: redis::streams::StreamReadReply = call
        .arg("STREAMS")
        .arg("jobs")
        .arg(">")
        .query_async(redis)
        .await
        .expect("entries");
    reply
        .keys
        .into_iter()
        .flat_map(|key| key.ids)
        .map(|entry| entry.id)
        .collect()
}

async fn ack(redis: &mut MultiplexedConnection, group: &str, ids: &[String]) {
    if !ids.is_empty() {
        let _: () = redis.xack("jobs", group, ids).await.expect("acks");
        let _: () = redis
            .zrem(format!("{{jobs}}:{group}:retry"), ids)
            .await
            .expect("no due time");
    }
}

/// Parks an entry as the step that parks does.
async fn park(redis: &mut MultiplexedConnection, group: &str, id: &str) {
    let mut pipe = redis::pipe();
    pipe.atomic();
    pipe.cmd("XCLAIM")
        .arg("jobs")
        .arg(group)
        .arg("(parked)")
        .arg(0)
        .arg(id)
        .arg("JUSTID");
    pipe.zadd(format!("{{jobs}}:{group}:retry"), id, u64::MAX >> 12);
    let _: () = pipe.query_async(redis).await.expect("parked");
}

/// A group that has read and settled all there is.
async fn settle_all(redis: &mut MultiplexedConnection, group: &str) {
    let all = read(redis, group, 1_000_000).await;
    for some in all.chunks(1000) {
        ack(redis, group, some).await;
    }
}

fn hold(
    group: &str,
    why: &str,
    id: &EntryId,
    too_long: u64,
) -> Option<(String, String, String, u64)> {
    Some((group.to_owned(), why.to_owned(), id.to_string(), too_long))
}

on_both_servers! {
    /// Thousands of entries, in every order of adding, reading, parking and settling; trimmed after each.
    async fn exactly_what_both_groups_have_settled_is_trimmed(server: Server) {
        let mut redis = server.connect().await;
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let names = ["workers", "slow"];
        let mut known = [Known::default(), Known::default()];
        for name in names {
            group(&mut redis, name).await;
        }
        let mut added: Vec<EntryId> = Vec::new();
        let mut trimmed = 0;
        for _ in 0..1500 {
            let of = random.usize(..2);
            let (name, it) = (names[of], &mut known[of]);
            let of_pending = |it: &Known, random: &mut fastrand::Rng, most: usize| -> Vec<usize> {
                let mut some: Vec<usize> = it.pending.iter().copied().collect();
                random.shuffle(&mut some);
                some.truncate(most);
                some
            };
            let texts = |some: &[usize]| some.iter().map(|at| added[*at].to_string()).collect::<Vec<_>>();
            match random.u8(..10) {
                0..3 => {
                    let count = random.usize(1..40);
                    added.extend(add(&mut redis, count).await);
                }
                3..6 => {
                    let count = random.usize(1..=if of == 0 { 60 } else { 25 });
                    let got = read(&mut redis, name, count).await;
                    it.pending.extend(it.read..it.read + got.len());
                    it.read += got.len();
                }
                6..9 => {
                    let some = of_pending(it, &mut random, 60);
                    ack(&mut redis, name, &texts(&some)).await;
                    it.pending.retain(|at| !some.contains(at));
                }
                _ => {
                    for id in texts(&of_pending(it, &mut random, 2)) {
                        park(&mut redis, name, &id).await;
                    }
                }
            }
            trimmed += Trim::acked().all(&mut redis).await.entries;
            let stands = known.iter().map(Known::stands).min().unwrap();
            assert_eq!(ids(&mut redis, "jobs").await, added[stands..], "{stands} of {}", added.len());
        }
        assert!(trimmed > 1000 && added.len() > 4000, "{trimmed} of {}", added.len());
        for name in names {
            settle_all(&mut redis, name).await;
            let left: Vec<String> = added.iter().map(EntryId::to_string).collect();
            for some in left.chunks(1000) {
                ack(&mut redis, name, some).await;
            }
        }
        Trim::acked().all(&mut redis).await;
        assert_eq!(ids(&mut redis, "jobs").await, []);
    }

    /// Trimming on one connection all the while, reading, parking and acknowledging on others.
    async fn a_trim_that_races_against_reads_and_parking_takes_nothing(server: Server) {
        let mut redis = server.connect().await;
        group(&mut redis, "workers").await;
        group(&mut redis, "slow").await;
        let trims = tokio::spawn({
            let mut redis = server.connect().await;
            async move {
                let mut trimmed = 0;
                for _ in 0..1000 {
                    trimmed += Trim::acked().step(&mut redis).await.entries;
                }
                trimmed
            }
        });
        let mut readers = Vec::new();
        for name in ["workers", "slow"] {
            let mut redis = server.connect().await;
            readers.push(tokio::spawn(async move {
                for round in 0..400 {
                    let got = read(&mut redis, name, 20).await;
                    if let Some((first, rest)) = got.split_first() {
                        park(&mut redis, name, first).await;
                        ack(&mut redis, name, rest).await;
                        // Some come back and are settled; the last ones stay.
                        if round < 300 {
                            ack(&mut redis, name, std::slice::from_ref(first)).await;
                        }
                    }
                }
            }));
        }
        let mut added = Vec::new();
        while !trims.is_finished() || !readers.iter().all(|reader| reader.is_finished()) {
            if added.len() < 6000 {
                added.extend(add(&mut redis, 20).await);
            }
            nothing_is_missing(&mut redis, &added).await;
        }
        let trimmed = trims.await.unwrap();
        assert!(trimmed > 500, "{trimmed}");
        for reader in readers {
            reader.await.unwrap();
        }
    }

    async fn what_holds_is_told_and_a_group_that_has_read_nothing_holds_all(server: Server) {
        let mut redis = server.connect().await;
        let added = add(&mut redis, 500).await;
        group(&mut redis, "workers").await;
        let first = read(&mut redis, "workers", 300).await;
        ack(&mut redis, "workers", &first[..200]).await;
        group(&mut redis, "fresh").await;
        let done = Trim::acked().all(&mut redis).await;
        assert_eq!((done.entries, done.hold), (0, hold("fresh", "unread", &added[0], 0)));
        // Looking changes nothing.
        let _: () = redis.xgroup_destroy("jobs", "fresh").await.unwrap();
        let looked = Trim { step: "look", ..Trim::acked() }.step(&mut redis).await;
        assert_eq!((looked.could, looked.hold), (200, hold("workers", "pending", &added[200], 0)));
        assert_eq!(ids(&mut redis, "jobs").await, added);
        let done = Trim::acked().all(&mut redis).await;
        assert_eq!((done.entries, done.hold), (200, hold("workers", "pending", &added[200], 0)));
        ack(&mut redis, "workers", &first[200..]).await;
        let done = Trim::acked().all(&mut redis).await;
        assert_eq!((done.entries, done.hold), (100, hold("workers", "unread", &added[300], 0)));
        settle_all(&mut redis, "workers").await;
        let done = Trim::acked().all(&mut redis).await;
        assert_eq!((done.entries, done.hold), (200, None));
    }

    async fn a_parked_entry_holds_until_it_is_settled(server: Server) {
        let mut redis = server.connect().await;
        let added = add(&mut redis, 300).await;
        group(&mut redis, "workers").await;
        let got = read(&mut redis, "workers", 300).await;
        park(&mut redis, "workers", &got[100]).await;
        ack(&mut redis, "workers", &[&got[..100], &got[101..]].concat()).await;
        Trim::acked().all(&mut redis).await;
        assert_eq!(ids(&mut redis, "jobs").await, added[100..]);
        // The group is destroyed and made anew where it stood: what was parked is pending with nobody.
        let _: () = redis.xgroup_destroy("jobs", "workers").await.unwrap();
        let _: () = redis.xgroup_create("jobs", "workers", &got[299]).await.unwrap();
        let done = Trim::acked().all(&mut redis).await;
        assert_eq!((done.entries, done.hold), (0, hold("workers", "parked", &added[100], 0)));
        let _: () = redis.zrem("{jobs}:workers:retry", &got[100]).await.unwrap();
        Trim::acked().all(&mut redis).await;
        assert_eq!(ids(&mut redis, "jobs").await, []);
    }

    async fn a_destroyed_group_holds_for_its_grace_alone_and_ones_own_while_it_is_away(server: Server) {
        let mut redis = server.connect().await;
        let added = add(&mut redis, 200).await;
        for name in ["workers", "audit"] {
            group(&mut redis, name).await;
        }
        settle_all(&mut redis, "workers").await;
        let got = read(&mut redis, "audit", 50).await;
        ack(&mut redis, "audit", &got).await;
        let grace = Trim { grace: 60_000, ..Trim::acked() };
        assert_eq!(grace.all(&mut redis).await.entries, 50);
        let _: () = redis.xgroup_destroy("jobs", "audit").await.unwrap();
        let done = grace.all(&mut redis).await;
        assert_eq!((done.entries, done.hold), (0, hold("audit", "gone", &added[50], 0)));
        // Of the two, the caller's own is away: it is about to be made anew.
        group(&mut redis, "other").await;
        settle_all(&mut redis, "other").await;
        let _: () = redis.xgroup_destroy("jobs", "workers").await.unwrap();
        assert_eq!(Trim::acked().step(&mut redis).await.state, "none");
        assert_eq!(ids(&mut redis, "jobs").await, added[50..]);
        let by_other = Trim { group: "other", ..Trim::acked() };
        assert_eq!(by_other.all(&mut redis).await.entries, 150);
        let known: Vec<String> = redis.hkeys("{jobs}:trimmed").await.unwrap();
        assert!(!known.iter().any(|field| field.contains("audit")), "{known:?}");
    }

    async fn an_age_and_a_number_keep_at_least_that_and_what_is_not_settled(server: Server) {
        let mut redis = server.connect().await;
        for force in [false, true] {
            for (kind, kept) in [("age", 3_600_000), ("count", 250)] {
                let _: () = redis.flushall().await.unwrap();
                add_at(&mut redis, (1..=750).map(|ms| format!("{ms}-0"))).await;
                add(&mut redis, 250).await;
                let all = ids(&mut redis, "jobs").await;
                for name in ["workers", "slow"] {
                    group(&mut redis, name).await;
                }
                settle_all(&mut redis, "workers").await;
                let got = read(&mut redis, "slow", 333).await;
                ack(&mut redis, "slow", &got).await;
                let done = Trim::to(kind, kept, force).all(&mut redis).await;
                let left = ids(&mut redis, "jobs").await;
                if force {
                    assert_eq!((done.entries, done.forced), (750, 417), "{kind}");
                    assert_eq!(left, all[750..], "{kind}");
                } else {
                    assert_eq!((done.entries, done.forced), (333, 0), "{kind}");
                    assert_eq!(left, all[333..], "{kind}");
                    // It should have gone, which is to be said once.
                    assert_eq!(done.hold, hold("slow", "unread", &all[333], 2), "{kind}");
                    let again = Trim::to(kind, kept, force).all(&mut redis).await;
                    assert_eq!(again.hold, hold("slow", "unread", &all[333], 1), "{kind}");
                    settle_all(&mut redis, "slow").await;
                    let done = Trim::to(kind, kept, force).all(&mut redis).await;
                    assert_eq!(done.entries, 417, "{kind}");
                    assert_eq!(ids(&mut redis, "jobs").await, all[750..], "{kind}");
                }
            }
        }
    }

    async fn a_long_backlog_goes_in_steps_that_are_bounded(server: Server) {
        let mut redis = server.connect().await;
        group(&mut redis, "workers").await;
        for _ in 0..7 {
            add(&mut redis, 5000).await;
        }
        settle_all(&mut redis, "workers").await;
        let first = Trim::acked().step(&mut redis).await;
        assert!(first.more && (9_000..=10_000).contains(&first.entries), "{first:?}");
        // In between, others can have their turn; nobody else goes on with this one.
        let on = Trim { step: "on", ..Trim::acked() };
        assert_eq!(Trim { consumer: "other", ..on.clone() }.step(&mut redis).await.state, "wait");
        assert_eq!(on.all(&mut redis).await.entries, 35_000 - first.entries);
    }

    async fn ids_are_compared_and_counted_up_beyond_what_lua_can_count(server: Server) {
        let mut redis = server.connect().await;
        let all = ["5-8", "5-9", "5-99", "5-9007199254740993", "5-18446744073709551615", "6-0", "1799-1", "1799-2"];
        add_at(&mut redis, all.map(str::to_owned)).await;
        // One is an entry ahead of the other, which holds it.
        for name in ["workers", "slow"] {
            group(&mut redis, name).await;
        }
        let got = read(&mut redis, "workers", 1).await;
        ack(&mut redis, "workers", &got).await;
        for at in 0..all.len() {
            let left: Vec<String> = ids(&mut redis, "jobs").await.iter().map(EntryId::to_string).collect();
            assert_eq!(left, all[at..]);
            for name in ["workers", "slow"] {
                assert_eq!(Trim::acked().all(&mut redis).await.entries, 0);
                let got = read(&mut redis, name, 1).await;
                ack(&mut redis, name, &got).await;
            }
            assert_eq!(Trim::acked().all(&mut redis).await.entries, 1);
        }
    }

    async fn one_at_a_time_trims_and_strangers_are_asked_for_first(server: Server) {
        let mut redis = server.connect().await;
        add(&mut redis, 10).await;
        group(&mut redis, "workers").await;
        settle_all(&mut redis, "workers").await;
        let a = Trim { every: 60_000, ..Trim::acked() };
        let b = Trim { consumer: "other", ..a.clone() };
        assert_eq!(a.step(&mut redis).await.entries, 10);
        add(&mut redis, 10).await;
        settle_all(&mut redis, "workers").await;
        assert_eq!(b.step(&mut redis).await.state, "wait");
        assert_eq!(ids(&mut redis, "jobs").await.len(), 10);
        // A group that nobody has told of may have due times of its own.
        let known = groups(&mut redis, "jobs").await;
        group(&mut redis, "new").await;
        settle_all(&mut redis, "new").await;
        assert_eq!(Trim::acked().step_for(&mut redis, &known).await.state, "groups");
        assert_eq!(Trim::acked().step(&mut redis).await.entries, 10);
    }

    /// Where memory is short, trimming is what helps.
    async fn a_server_without_memory_trims(server: Server) {
        let mut redis = server.connect().await;
        group(&mut redis, "workers").await;
        add(&mut redis, 5000).await;
        settle_all(&mut redis, "workers").await;
        let _: () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).query_async(&mut redis).await.unwrap();
        let refused: redis::RedisResult<String> = redis.xadd("jobs", "*", &FIELD).await;
        assert_eq!(refused.unwrap_err().code(), Some("OOM"));
        assert_eq!(Trim::acked().all(&mut redis).await.entries, 5000);
        assert_eq!(Trim::acked().all(&mut redis).await.entries, 0);
    }
}
