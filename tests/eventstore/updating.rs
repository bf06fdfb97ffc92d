//! Updates: load, decide, save; and once more where somebody else was faster.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use streamhand::Envelope;
use streamhand::eventstore::{
    AggregateId, Append, AppendError, Appended, EventStore, Expected, MemoryEventStore, Repository,
    StoredEvent, UpdateError,
};
use streamhand::retry::Backoff;

use super::orders::{Added, Created, Order, OrderEvent};
use super::shelf::{order, orders};
use super::store_of;
use crate::support::{Proxy, Server, scripts};

fn add(cents: u64) -> Vec<OrderEvent> {
    vec![Added { cents }.into()]
}

#[tokio::test]
async fn what_decides_may_refuse_or_have_nothing_happen() {
    let repository = Repository::<Order, _>::new(MemoryEventStore::new(orders()));
    repository
        .update("o-1", |_| {
            Ok::<_, String>(vec![Created { cents: 5 }.into()])
        })
        .await
        .unwrap();
    let refused = repository
        .update("o-1", |order| {
            Err::<Vec<OrderEvent>, _>(format!("{} cents", order.cents))
        })
        .await;
    let Err(UpdateError::Refused(why)) = refused else {
        panic!("it was not refused")
    };
    assert_eq!(why, "5 cents");
    let same = repository
        .update("o-1", |_| Ok::<_, String>(vec![]))
        .await
        .unwrap();
    assert_eq!(
        (
            same.version(),
            repository.load("o-1").await.unwrap().version()
        ),
        (1, 1)
    );
    let invalid = repository
        .update("no id", |_| Ok::<_, String>(add(1)))
        .await
        .err()
        .unwrap();
    assert!(invalid.to_string().contains("its id has ' '"), "{invalid}");
}

/// Somebody else is always faster. It notes the versions from which it was read.
#[derive(Clone)]
struct Contended(MemoryEventStore, Arc<Mutex<Vec<u64>>>);

impl EventStore for Contended {
    async fn append_all(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        let event = Envelope::new("order.added")
            .json(&json!({ "cents": 1 }))
            .expect("an event");
        self.0
            .append(&appends[0].aggregate, vec![event], Expected::Any)
            .await?;
        self.0.append_all(appends).await
    }

    async fn page(
        &self,
        aggregate: &AggregateId,
        from: u64,
        most: usize,
    ) -> streamhand::Result<Vec<StoredEvent>> {
        self.1.lock().unwrap().push(from);
        self.0.page(aggregate, from, most).await
    }

    async fn version(&self, aggregate: &AggregateId) -> streamhand::Result<u64> {
        self.0.version(aggregate).await
    }
}

#[tokio::test]
async fn an_update_decides_anew_after_every_conflict_and_gives_up_in_the_end() {
    let backoff = Backoff::new(Duration::from_millis(1));
    let store = Contended(MemoryEventStore::new(orders()), Arc::default());
    let read_from = store.1.clone();
    let repository = Repository::<Order, _>::new(store).tries(4, backoff);
    let mut seen = Vec::new();
    let error = repository.update("o-1", |order| {
        seen.push(order.added);
        Ok::<_, String>(add(100))
    });
    let error = error.await.err().unwrap();
    let conflict = error.conflict().unwrap();
    assert_eq!(
        (conflict.expected, conflict.actual),
        (Expected::Exact(3), 4)
    );
    assert_eq!(seen, [0, 1, 2, 3]);
    // What has been applied is not read again, but for the last of it.
    assert_eq!(*read_from.lock().unwrap(), [1, 1, 1, 2]);
    assert_eq!(repository.load("o-1").await.unwrap().state().cents, 4);
}

/// An aggregate that is deleted and written anew between its load and the first append.
#[derive(Clone)]
struct Replaced {
    first: MemoryEventStore,
    then: MemoryEventStore,
    is_replaced: Arc<AtomicBool>,
}

impl Replaced {
    fn now(&self) -> &MemoryEventStore {
        match self.is_replaced.load(Ordering::Relaxed) {
            true => &self.then,
            false => &self.first,
        }
    }
}

impl EventStore for Replaced {
    async fn append_all(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        self.is_replaced.store(true, Ordering::Relaxed);
        self.now().append_all(appends).await
    }

    async fn page(
        &self,
        aggregate: &AggregateId,
        from: u64,
        most: usize,
    ) -> streamhand::Result<Vec<StoredEvent>> {
        self.now().page(aggregate, from, most).await
    }

    async fn version(&self, aggregate: &AggregateId) -> streamhand::Result<u64> {
        self.now().version(aggregate).await
    }
}

#[tokio::test]
async fn what_was_decided_on_is_not_taken_for_another_aggregate_of_its_name() {
    for longer in [1, 3] {
        let [first, then] = [(); 2].map(|()| MemoryEventStore::new(orders()));
        let events = |cents: u64, count| {
            let added = Envelope::new("order.added").json(&json!({ "cents": cents }));
            vec![added.unwrap(); count]
        };
        first
            .append(&order("o-1"), events(1, 2), Expected::NoStream)
            .await
            .unwrap();
        then.append(&order("o-1"), events(10, longer), Expected::NoStream)
            .await
            .unwrap();
        let store = Replaced {
            first,
            then,
            is_replaced: Arc::default(),
        };
        let repository = Repository::<Order, _>::new(store).tries(3, quick());
        let mut seen = Vec::new();
        let updated = repository.update("o-1", |order| {
            seen.push(order.cents);
            Ok::<_, String>(add(100))
        });
        let updated = updated.await.unwrap();
        let all = 10 * longer as u64;
        assert_eq!(
            (updated.version(), updated.state().cents),
            (longer as u64 + 1, all + 100)
        );
        assert_eq!(seen, [2, all]);
        assert_eq!(
            repository.load("o-1").await.unwrap().state(),
            updated.state()
        );
    }
}

on_both_servers! {
    async fn sixteen_who_update_one_aggregate_at_once_are_all_done(server: Server) {
        let repository = Repository::<Order>::new(store_of(&server.url(), orders()));
        repository.update("o-1", |_| Ok::<_, String>(vec![Created { cents: 0 }.into()])).await.unwrap();
        let patient = repository.clone().tries(1_000, quick().initial(Duration::from_millis(2)));
        join_all((0..16).map(|_| async {
            for _ in 0..10 {
                // Each is right only where nobody has come between.
                let update = patient.update("o-1", |order| Ok::<_, String>(add(order.added)));
                update.await.unwrap();
            }
        }))
        .await;
        let loaded = repository.load("o-1").await.unwrap();
        assert_eq!((loaded.version(), loaded.state().added), (161, 160));
        assert_eq!(loaded.state().cents, (0..160).sum::<u64>());
    }

    async fn an_update_whose_answer_got_lost_happens_once(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        let proxy = Proxy::start(server.port()).await;
        let repository = Repository::<Order>::new(store_of(&proxy.url(), orders()));
        for round in 1..=6 {
            let step = scripts::call("append_events");
            let caught = if round % 2 == 0 { proxy.cut_after(step) } else { proxy.cut_before(step) };
            let mut decided = 0;
            let update = repository.update("o-1", |_| {
                decided += 1;
                Ok::<_, String>(add(1))
            });
            assert_eq!(update.await.unwrap().version(), round);
            assert_eq!(decided, 1, "the save alone is repeated");
            caught.within(Duration::from_secs(30)).await;
        }
        assert_eq!(repository.load("o-1").await.unwrap().state().added, 6);
    }
}

fn quick() -> Backoff {
    Backoff::new(Duration::from_millis(1))
        .factor(1.5)
        .max(Duration::from_millis(50))
        .jitter(1.0)
}
