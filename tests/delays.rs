//! Absurd delays: they neither stop a worker nor come to nothing, and what asks for them waits a year at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use streamhand::{Failure, Registry};

use crate::support::letters::fields;
use crate::support::{Server, Setup, add, eventually, jobs};

const PATIENCE: Duration = Duration::from_secs(40);
const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;

on_both_servers! {
    async fn an_absurd_delay_is_a_year_and_the_worker_works_on(server: Server) {
        let mut redis = server.connect().await;
        let (calls, others) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (called, counted) = (calls.clone(), others.clone());
        let registry = Registry::new()
            .on_raw("delay.asked", move |event, _| {
                called.fetch_add(1, Ordering::SeqCst);
                async move {
                    Err(match event.field("id").unwrap_or_default() {
                        "later" => Failure::later(Duration::MAX, "not yet"),
                        "after" => Failure::retry_after(Duration::MAX, "the service is gone for good"),
                        // Just above a multiple of 2^64 in milliseconds: the rest is 384 ms.
                        _ => Failure::later(Duration::from_secs(18_446_744_073_709_552), "not yet"),
                    })
                }
            })
            .on_raw("mail.sent", move |_, _| {
                counted.fetch_add(1, Ordering::SeqCst);
                async { Ok(()) }
            });
        let ids = ["later", "after", "wrapped"];
        for id in ids {
            add(&mut redis, "jobs", &fields(&[("type", "delay.asked"), ("id", id)])).await;
        }
        let worker = Setup::new(&server).start_with(registry);
        let due = async |redis: &mut redis::aio::MultiplexedConnection| {
            let mut command = redis::cmd("ZRANGE");
            command.arg("{jobs}:workers:retry").arg(0).arg(-1).arg("WITHSCORES");
            let due: Vec<(String, f64)> = command.query_async(redis).await.unwrap();
            due
        };
        let parked = eventually(PATIENCE, "all of them to be parked", async || {
            let due = due(&mut redis).await;
            if due.len() == ids.len() { Ok(due) } else { Err(format!("{due:?}")) }
        })
        .await;
        let now = jobs::now_ms();
        for (id, at) in parked {
            let wait = at as u64 - now.min(at as u64);
            assert!((YEAR_MS - 60_000..=YEAR_MS + 60_000).contains(&wait), "{id} waits {wait} ms");
        }
        add(&mut redis, "jobs", &fields(&[("type", "mail.sent")])).await;
        eventually(PATIENCE, "what comes after to be handled", async || others.load(Ordering::SeqCst) == 1).await;
        assert_eq!(calls.load(Ordering::SeqCst), ids.len(), "none of them comes back at once");
        worker.stop().await;
    }
}
