//! What comes together: by number, by bytes, by time and by key; what rates and breakers count.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;

/// The number of events of each call.
fn sizes(calls: &Calls) -> Vec<usize> {
    calls.all().iter().map(Vec::len).collect()
}

on_both_servers! {
    /// Nobody waits for the time to be over when there are enough events.
    async fn under_a_backlog_nobody_waits(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 2_000, &[]).await;
        let calls = Calls::default();
        let worker = setup(&server).start_with(calls.registry(Batches::of(100).wait("15s")));
        let since = Instant::now();
        settled(&mut redis, "jobs", PATIENCE).await;
        let took = since.elapsed();
        worker.stop().await;
        assert!(took < Duration::from_secs(12), "{took:?}");
        assert_eq!(sizes(&calls), [100; 20]);
    }

    /// A few events wait for others, and not for longer than was said. The file has its say before the program.
    async fn what_is_too_few_goes_when_the_first_has_waited(server: Server) {
        let mut redis = server.connect().await;
        let calls = Calls::default();
        let setup = Setup::new(&server).more("[handlers.\"test.row\"]\nbatch = { wait = \"300ms\" }");
        let worker = setup.start_with(calls.registry(Batches::of(100).wait("1s")));
        // It has joined.
        publish(&mut redis, 1, &[]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let since = Instant::now();
        publish(&mut redis, 3, &[]).await;
        eventually(PATIENCE, "a call", async || calls.all().len() == 2).await;
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(290) && took < Duration::from_millis(900), "{took:?}");
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        assert_eq!(sizes(&calls), [1, 3]);
    }

    async fn without_a_wait_it_takes_what_is_there(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 300, &[]).await;
        let calls = Calls::default();
        let worker = Setup::new(&server).start_with(calls.registry(Batches::of(100).wait("0s")));
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        let of_each = calls.of_each();
        assert!(of_each.len() == 300 && of_each.values().all(|(times, _)| *times == 1));
    }

    async fn what_is_larger_than_a_batch_may_be_goes_alone(server: Server) {
        let mut redis = server.connect().await;
        let large = "x".repeat(5_000);
        for n in 0..9 {
            let more = if n == 4 { &large[..] } else { "" };
            let data = format!("{{\"n\":{n},\"more\":\"{more}\"}}");
            add(&mut redis, "jobs", &fields(&[("type", Row::TYPE), ("data", &data)])).await;
        }
        let calls = Calls::default();
        let batches = Batches::of(100).bytes("4KiB").wait("300ms");
        let worker = setup(&server).start_with(calls.registry(batches));
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        let mut all: Vec<Vec<u64>> = calls.all().into_iter().map(|call| call.into_iter().map(|(n, _)| n).collect()).collect();
        all.sort();
        assert_eq!(all, [vec![0, 1, 2, 3], vec![4], vec![5, 6, 7, 8]]);
    }

    /// Events of one key come together and no others with them, one batch of a key at a time.
    async fn by_key_one_batch_runs_at_a_time(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 60, &[]).await;
        let (calls, busy) = (Calls::default(), Arc::<[AtomicBool; 3]>::default());
        let seen = calls.clone();
        let handler = move |rows: Batch<Row>, _: Context| {
            let (calls, busy) = (seen.clone(), busy.clone());
            async move {
                calls.note(&rows);
                let key = (rows[0].n % 3) as usize;
                assert!(rows.iter().all(|row| row.n % 3 == key as u64));
                assert!(!busy[key].swap(true, Ordering::SeqCst), "two at once");
                tokio::time::sleep(Duration::from_millis(20)).await;
                busy[key].store(false, Ordering::SeqCst);
                Ok(())
            }
        };
        let batches = Batches::of(5).wait("100ms").by(|row: &Row| (row.n % 3).to_string());
        let setup = Setup::new(&server).worker("lease = \"20s\"").retry("max_attempts = 1");
        let worker = setup.start_with(Registry::new().on_batch(batches, handler));
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        assert_eq!(dead(&mut redis).await, 0);
        let of_each = calls.of_each();
        assert!(of_each.len() == 60 && of_each.values().all(|(times, attempt)| (*times, *attempt) == (1, 1)), "{of_each:?}");
    }

    async fn copies_leave_before_their_batch(server: Server) {
        let mut redis = server.connect().await;
        let calls = Calls::default();
        let setup = setup(&server).defaults("deduplicate = \"1h\"");
        let worker = setup.start_with(calls.registry(Batches::of(10).wait("300ms")));
        publish(&mut redis, 5, &[]).await;
        publish(&mut redis, 3, &[]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        publish(&mut redis, 7, &[]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        let of_each = calls.of_each();
        assert!(of_each.len() == 7 && of_each.values().all(|(times, attempt)| (*times, *attempt) == (1, 1)), "{of_each:?}");
    }

    /// A rate counts events, and a breaker calls. While that is open nothing runs, and nobody loses an attempt.
    async fn a_breaker_counts_calls_and_its_probe_is_one(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 16, &[]).await;
        let (calls, is_down) = (Calls::default(), Arc::new(AtomicBool::new(true)));
        let (seen, down) = (calls.clone(), is_down.clone());
        let handler = move |rows: Batch<Row>, _: Context| {
            seen.note(&rows);
            let is_down = down.load(Ordering::SeqCst);
            async move { if is_down { Err("down".into()) } else { Ok(()) } }
        };
        let setup = setup(&server).more("[handlers.\"test.row\"]\ncircuit_breaker = { failures = 3, open_for = \"500ms\" }");
        let worker = setup.start_with(Registry::new().on_batch(Batches::of(16).wait("300ms"), handler));
        eventually(PATIENCE, "it to open", async || calls.all().len() >= 3).await;
        let before = sizes(&calls);
        assert_eq!(before[..3], [16, 8, 4]);
        is_down.store(false, Ordering::SeqCst);
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        assert_eq!(dead(&mut redis).await, 0);
        let of_each = calls.of_each();
        assert!(of_each.len() == 16 && of_each.values().all(|(_, attempt)| *attempt == 1), "{of_each:?}");
    }

    async fn a_rate_counts_events(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 30, &[]).await;
        let calls = Calls::default();
        let setup = setup(&server).more("[handlers.\"test.row\"]\nrate = \"10/s\"");
        let worker = setup.start_with(calls.registry(Batches::of(30).wait("100ms")));
        let since = Instant::now();
        settled(&mut redis, "jobs", PATIENCE).await;
        let took = since.elapsed();
        worker.stop().await;
        assert!(took >= Duration::from_millis(1_500), "{took:?}");
        assert!(calls.of_each().values().all(|(times, attempt)| (*times, *attempt) == (1, 1)));
    }
}
