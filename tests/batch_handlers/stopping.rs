//! A worker stops: what is collected goes as a short batch if there is time for it, and else goes back; what runs ends, or is
//! cut off. Nothing loses an attempt.

use super::*;

/// Whose attempt it is that comes next.
async fn attempts(server: &Server) -> BTreeMap<u64, (usize, u32)> {
    let mut redis = server.connect().await;
    let calls = Calls::default();
    let worker = setup(server).start_with(calls.registry(Batches::of(50).wait("100ms")));
    settled(&mut redis, "jobs", PATIENCE).await;
    worker.stop().await;
    calls.of_each()
}

/// Waits until so many events are with a worker.
async fn until_held(redis: &mut MultiplexedConnection, count: u64) {
    eventually(PATIENCE, "them to be read", async || {
        held(redis).await == count
    })
    .await;
}

on_both_servers! {
    async fn what_is_collected_goes_as_a_short_batch(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 7, &[]).await;
        let calls = Calls::default();
        let worker = setup(&server).start_with(calls.registry(Batches::of(50).wait("15s")));
        until_held(&mut redis, 7).await;
        let summary = worker.stop().await;
        assert_eq!(summary.unsettled, 0);
        // Some may have been on their way to it.
        let done = calls.of_each();
        assert!(calls.all().len() <= 1, "{:?}", calls.all());
        let rest = attempts(&server).await;
        assert!(rest.values().all(|(_, attempt)| *attempt == 1), "{rest:?}");
        assert_eq!(done.len() + rest.len(), 7);
    }

    async fn without_time_to_drain_what_is_collected_goes_back(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 7, &[]).await;
        let calls = Calls::default();
        let setup = setup(&server).worker("drain = \"0s\"");
        let worker = setup.start_with(calls.registry(Batches::of(50).wait("15s")));
        until_held(&mut redis, 7).await;
        assert_eq!(worker.stop().await.unsettled, 0);
        assert!(calls.all().is_empty());
        let rest = attempts(&server).await;
        assert!(rest.len() == 7 && rest.values().all(|(_, attempt)| *attempt == 1), "{rest:?}");
    }

    async fn a_batch_that_runs_ends_or_is_cut_off(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, 7, &[(3, Does::Hang)]).await;
        let calls = Calls::default();
        let setup = setup(&server).worker("drain = \"300ms\"");
        let worker = setup.start_with(calls.registry(Batches::of(7).wait("15s")));
        eventually(PATIENCE, "a call", async || calls.all().len() == 1).await;
        assert_eq!(worker.stop().await.unsettled, 0);
        assert_eq!(calls.all().len(), 1, "nothing is halved when the worker stops");
        let heeding = setup.start_with(Registry::new().on_batch(patient(7), {
            let calls = calls.clone();
            move |rows: Batch<Row>, ctx: Context| {
                calls.note(&rows);
                async move { Err(format!("told to stop: {:?}", ctx.cancelled().await).into()) }
            }
        }));
        eventually(PATIENCE, "a call", async || calls.all().len() == 2).await;
        assert_eq!(heeding.stop().await.unsettled, 0);
        assert_eq!(calls.all().len(), 2);
        let of_each = calls.of_each();
        assert!(of_each.len() == 7 && of_each.values().all(|(_, attempt)| *attempt == 1), "{of_each:?}");
        assert_eq!(dead(&mut redis).await, 0);
    }
}
