//! `tower` layers around handlers, in a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use streamhand::{Context, Failure, Registry};

use crate::support::letters::fields;
use crate::support::{Server, Setup, add, dead, settled};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_servers! {
    async fn a_layer_sees_every_attempt_and_what_it_hands_on_keeps_its_meaning(server: Server) {
        let mut redis = server.connect().await;
        let attempts = Arc::<AtomicUsize>::default();
        let counted = attempts.clone();
        let registry = Registry::new()
            .on_raw("test.fails", |_, ctx: Context| async move {
                if ctx.attempt() < 3 {
                    return Err(Failure::retry_after(Duration::from_millis(1), "not yet"));
                }
                Ok(())
            })
            .on_raw("test.never", |_, _| async { Err(Failure::permanent("never")) })
            .on_raw("test.hangs", |_, _| std::future::pending())
            .layer(tower::layer::layer_fn(move |inner| {
                let counted = counted.clone();
                tower::ServiceBuilder::new()
                    .map_request(move |ctx: Context| {
                        counted.fetch_add(1, Ordering::SeqCst);
                        ctx
                    })
                    .service(inner)
            }))
            .layer_for("test.hangs", tower::timeout::TimeoutLayer::new(Duration::from_millis(20)));
        let worker = Setup::new(&server).retry("max_attempts = 4").start_with(registry);
        for event_type in ["test.fails", "test.never", "test.hangs"] {
            add(&mut redis, "jobs", &fields(&[("type", event_type)])).await;
        }
        settled(&mut redis, "jobs", PATIENCE).await;
        // Three of one that succeeds at last, one of one that never can, and all four of one that is always too slow.
        assert_eq!(attempts.load(Ordering::SeqCst), 3 + 1 + 4);
        assert_eq!(dead(&mut redis).await, 2);
        worker.stop().await;
    }
}
