//! Workers that are killed at random while events come.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::live::process;
use super::views::{
    agrees, any_event, by_aggregates, checkpoint, happens, names, setup, store, view,
};
use crate::support::Server;

const KILLS: usize = 12;

on_both_servers! {
    async fn a_view_has_every_event_once_however_many_workers_are_killed(server: Server) {
        let mut redis = server.connect().await;
        let ids = names(8);
        let setup = setup(&server).worker("lease = \"500ms\"");
        let mut workers: Vec<_> = (0..3).map(|_| process(&setup)).collect();
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (store, ids) = (store(&server, 1), ids.clone());
                tokio::spawn(async move {
                    loop {
                        let events = (0..fastrand::usize(1..5)).map(|_| any_event());
                        happens(&store, &ids[fastrand::usize(..ids.len())], events).await;
                    }
                })
            })
            .collect();
        let (store, begin) = (store(&server, 1), Instant::now());
        let mut kills = 0;
        while kills < KILLS {
            assert!(begin.elapsed() < Duration::from_secs(60), "{kills} kills");
            sleep(Duration::from_millis(fastrand::u64(50..400))).await;
            // Most often the one that runs it.
            let runner = checkpoint(&mut redis, "{orders}").await.remove("runner").unwrap_or_default();
            let running = workers.iter().position(|worker| runner.contains(&format!("-{}-", worker.pid())));
            let victim = running.filter(|_| fastrand::u8(..4) > 0).unwrap_or(fastrand::usize(..3));
            kills += usize::from(Some(victim) == running);
            workers[victim].kill();
            workers[victim] = process(&setup);
        }
        for writer in writers {
            writer.abort();
            let _ = writer.await;
        }
        agrees(&mut redis, &store, &ids, &[]).await;
        let events: u64 = by_aggregates(&store, &ids, 0, &[]).await.iter().filter(|((key, _), _)| key == "versions").map(|(_, version)| version.parse::<u64>().unwrap()).sum();
        assert!(events > 200, "{events} events are no storm");
        let at = checkpoint(&mut redis, "{orders}").await;
        assert_eq!((at["passed"].parse::<u64>().unwrap(), &at["bad"][..]), (events, "0"));
        assert!(!view(&mut redis, "{orders}").await.is_empty());
    }
}
