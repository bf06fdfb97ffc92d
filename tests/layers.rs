//! `tower` layers around handlers, in a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use streamhand::{Context, Event, Failure, FailureKind, Registry};

use crate::support::letters::fields;
use crate::support::{Server, Setup, add, dead, settled};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(serde::Serialize, serde::Deserialize)]
struct Charged {
    card: String,
}

impl Event for Charged {
    const TYPE: &'static str = "card.charged";
}

/// A handler's own error, which knows what it means.
#[derive(Debug, thiserror::Error)]
enum PaymentError {
    #[error("the card is declined")]
    Declined,
    #[error("too many requests")]
    TooMany,
}

impl PaymentError {
    fn kind(&self) -> FailureKind {
        match self {
            PaymentError::Declined => FailureKind::Permanent,
            PaymentError::TooMany => FailureKind::Later(Duration::from_millis(1)),
        }
    }
}

/// What a layer makes of an error: its own words, and the error as its source.
#[derive(Debug, thiserror::Error)]
#[error("in the audit layer")]
struct Audited(#[source] Box<dyn std::error::Error + Send + Sync>);

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
    async fn an_error_of_a_handlers_own_type_means_what_its_classifier_says_through_a_layer_too(server: Server) {
        let mut redis = server.connect().await;
        let (calls, put_off) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let state = (calls.clone(), put_off.clone());
        let charge = async |(calls, put_off): (Arc<AtomicUsize>, Arc<AtomicUsize>), charged: Charged, _: Context| {
            calls.fetch_add(1, Ordering::SeqCst);
            match &*charged.card {
                "declined" => Err(PaymentError::Declined),
                _ if put_off.fetch_add(1, Ordering::SeqCst) < 3 => Err(PaymentError::TooMany),
                _ => Ok(()),
            }
        };
        let registry = Registry::new()
            .on_typed_with(state, charge)
            .classify(PaymentError::kind)
            .layer(tower::layer::layer_fn(|inner| {
                tower::ServiceBuilder::new().map_err(Audited).service(inner)
            }));
        // Its only attempt must not be used up by what comes back later.
        let worker = Setup::new(&server).retry("max_attempts = 1").start_with(registry);
        for card in ["declined", "good"] {
            let data = format!(r#"{{"card":"{card}"}}"#);
            add(&mut redis, "jobs", &fields(&[("type", Charged::TYPE), ("data", &data)])).await;
        }
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1 + 4, "the declined card once, the other one until it is done");
        assert_eq!(dead(&mut redis).await, 1);
        let letters: redis::streams::StreamRangeReply = redis::cmd("XRANGE")
            .arg("{jobs}:workers:dead")
            .arg("-")
            .arg("+")
            .query_async(&mut redis)
            .await
            .unwrap();
        let letter = &letters.ids[0];
        assert_eq!(letter.get::<String>("dead.reason").as_deref(), Some("permanent"));
        let error: String = letter.get("dead.error").unwrap();
        assert_eq!(error, "in the audit layer: the card is declined");
        worker.stop().await;
    }
}
