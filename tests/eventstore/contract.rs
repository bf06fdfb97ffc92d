//! What every event store keeps to, whoever keeps the events.

use streamhand::eventstore::{Append, AppendError, EventStore, Expected, Snapshot};
use streamhand::{Envelope, ErrorKind};

use super::refusals::what_can_t_be_stored_is_refused;
use super::shelf::{Shelf, event, events, ids, order, said, stored};

async fn append(shelf: &impl Shelf, id: &str, of: &[&str], expected: Expected) -> String {
    let append = Append::new(order(id), events(of), expected);
    said(&shelf.store().append_all(vec![append]).await)
}

/// Everything a store has to do. Each part has aggregates of its own, in one store.
pub async fn kept(shelf: &impl Shelf) {
    events_are_stored_and_told_of(shelf).await;
    a_conflict_changes_nothing(shelf).await;
    a_repeat_answers_as_the_first_time(shelf).await;
    a_partial_overlap_is_refused(shelf).await;
    several_aggregates_are_one_step(shelf).await;
    what_can_t_be_stored_is_refused(shelf).await;
    pages_are_read_in_order(shelf).await;
    newer_snapshots_are_kept_of_events_that_are_there(shelf).await;
}

async fn newer_snapshots_are_kept_of_events_that_are_there(shelf: &impl Shelf) {
    let (store, id) = (shelf.store(), order("snap"));
    let of = |version: u64, event: &str, schema: u32, state: &[u8]| Snapshot {
        version,
        event: event.to_owned(),
        schema,
        state: state.to_vec(),
    };
    let keep =
        async |snapshot: &Snapshot| store.keep_snapshot(&id, snapshot.clone()).await.unwrap();
    let kept = async || store.snapshot(&id).await.unwrap();
    assert!(!keep(&of(1, "s-1", 1, b"a")).await && kept().await.is_none());
    let names: Vec<String> = (1..=12).map(|n| format!("s-{n}")).collect();
    let names: Vec<&str> = names.iter().map(|name| &name[..]).collect();
    append(shelf, "snap", &names, Expected::NoStream).await;

    let binary = of(3, "s-3", 1, b"\x00\xff\n");
    assert!(keep(&binary).await);
    assert_eq!(kept().await, Some(binary.clone()));
    // An older one, and such as are of no event.
    for other in [
        of(2, "s-2", 1, b"b"),
        of(9, "s-8", 1, b"b"),
        of(13, "s-13", 1, b"b"),
        of(0, "s-1", 1, b"b"),
    ] {
        assert!(!keep(&other).await, "{other:?}");
        assert_eq!(kept().await, Some(binary.clone()));
    }
    // The same once more, a newer one (by number, not by letter), and an older one of another schema.
    for newer in [
        of(3, "s-3", 1, b"c"),
        of(10, "s-10", 1, b"d"),
        of(4, "s-4", 2, b"e"),
        of(3, "s-3", 1, b"f"),
    ] {
        assert!(keep(&newer).await, "{newer:?}");
        assert_eq!(kept().await, Some(newer));
    }
}

async fn events_are_stored_and_told_of(shelf: &impl Shelf) {
    let (store, id) = (shelf.store(), order("told"));
    assert_eq!(
        (
            store.version(&id).await.unwrap(),
            stored(store, &id, 1).await.len()
        ),
        (0, 0)
    );
    let versioned = event("t-3").with("schemaversion", "3").with("mine", "kept");
    let first = store
        .append(&id, vec![event("t-1"), event("t-2")], Expected::NoStream)
        .await
        .unwrap();
    let then = store
        .append(&id, vec![versioned], Expected::Exact(2))
        .await
        .unwrap();
    assert_eq!(
        (first.versions(), then.versions(), first.is_new),
        (1..=2, 3..=3, true)
    );
    assert_eq!(store.version(&id).await.unwrap(), 3);

    let all = stored(store, &id, 1).await;
    let told: Vec<Envelope> = shelf
        .published("orders")
        .await
        .into_iter()
        .filter(|event| event.subject() == Some("order:told"))
        .collect();
    assert_eq!((all.len(), told.len()), (3, 3));
    let positions = [first.positions, then.positions].concat();
    for (at, (one, told)) in all.iter().zip(&told).enumerate() {
        let envelope = &one.envelope;
        assert_eq!(
            (one.version, &*envelope.id()),
            (at as u64 + 1, &*format!("t-{}", at + 1))
        );
        assert_eq!(
            (one.position, told.entry_id()),
            (positions[at], positions[at])
        );
        assert_eq!(
            told.field("aggregateversion"),
            Some(&*one.version.to_string())
        );
        let without = |event: &Envelope, name: &str| -> Vec<(Vec<u8>, Vec<u8>)> {
            let fields = event.fields().iter().filter(|(n, _)| *n != name.as_bytes());
            fields.map(|(n, v)| (n.to_vec(), v.to_vec())).collect()
        };
        assert_eq!(
            without(envelope, "position"),
            without(told, "aggregateversion")
        );
        assert_eq!(envelope.subject(), Some("order:told"));
        assert!(envelope.field("time").is_some() && envelope.content_type() == "application/json");
        assert_eq!(
            envelope.decode_data::<serde_json::Value>().unwrap()["by"],
            *envelope.id()
        );
    }
    assert_eq!(
        (all[2].envelope.version(), all[2].envelope.field("mine")),
        (3, Some("kept"))
    );
    assert!(positions.is_sorted());

    let nameless = || vec![Envelope::new("order.changed")];
    store
        .append(&id, nameless(), Expected::Exact(3))
        .await
        .unwrap();
    store
        .append(&id, nameless(), Expected::Exact(4))
        .await
        .unwrap();
    let made = ids(store, &id).await.split_off(3);
    assert!(
        made[0] != made[1] && made.iter().all(|id| id.len() == 36),
        "UUIDs: {made:?}"
    );
}

async fn a_conflict_changes_nothing(shelf: &impl Shelf) {
    use Expected::*;
    let before = shelf.published("orders").await.len();
    assert_eq!(
        append(shelf, "c", &["c-1"], Exists).await,
        "conflict: order:c is at version 0, and was expected to exist"
    );
    assert_eq!(
        append(shelf, "c", &["c-1"], Exact(1)).await,
        "conflict: order:c is at version 0, and was expected at 1"
    );
    assert_eq!(shelf.store().version(&order("c")).await.unwrap(), 0);
    assert_eq!(
        append(shelf, "c", &["c-1", "c-2"], Exact(0)).await,
        "1..=2 new"
    );
    for (expected, words) in [
        (Exact(0), "at 0"),
        (Exact(1), "at 1"),
        (Exact(3), "at 3"),
        (NoStream, "not to exist"),
    ] {
        let told = append(shelf, "c", &["c-3", "c-4", "c-5"], expected).await;
        assert_eq!(
            told,
            format!("conflict: order:c is at version 2, and was expected {words}")
        );
    }
    let far = append(shelf, "c", &["c-3"], Exact(u64::MAX)).await;
    assert!(
        far.starts_with("conflict: order:c is at version 2"),
        "{far}"
    );
    // Nor does one of events that the store has to name.
    for expected in [Exact(0), Exact(1), Exact(3), NoStream] {
        let nameless = Append::new(order("c"), vec![Envelope::new("order.changed")], expected);
        let told = said(&shelf.store().append_all(vec![nameless]).await);
        assert!(
            told.starts_with("conflict: order:c is at version 2"),
            "{told}"
        );
    }
    assert_eq!(ids(shelf.store(), &order("c")).await, ["c-1", "c-2"]);
    assert_eq!(append(shelf, "c", &["c-3"], Exact(2)).await, "3..=3 new");
    assert_eq!(append(shelf, "c", &["c-4"], Exists).await, "4..=4 new");
    assert_eq!(append(shelf, "c", &["c-5"], Any).await, "5..=5 new");
    assert_eq!(append(shelf, "c-any", &["c-6"], Any).await, "1..=1 new");
    assert_eq!(shelf.published("orders").await.len(), before + 6);
}

async fn a_repeat_answers_as_the_first_time(shelf: &impl Shelf) {
    use Expected::*;
    let before = shelf.published("orders").await.len();
    let store = shelf.store();
    let first = store
        .append(&order("r"), events(&["r-1", "r-2"]), NoStream)
        .await
        .unwrap();
    for expected in [NoStream, Exact(0), Any, Exists] {
        let again = store
            .append(&order("r"), events(&["r-1", "r-2"]), expected)
            .await
            .unwrap();
        assert_eq!(
            (again.first, &again.positions, again.is_new),
            (1, &first.positions, false),
            "{expected:?}"
        );
    }
    assert_eq!(append(shelf, "r", &["r-3"], Exact(2)).await, "3..=3 new");
    assert_eq!(
        append(shelf, "r", &["r-4", "r-5"], Exists).await,
        "4..=5 new"
    );
    // Whatever has come since.
    assert_eq!(
        append(shelf, "r", &["r-1", "r-2"], NoStream).await,
        "1..=2 again"
    );
    assert_eq!(append(shelf, "r", &["r-3"], Exact(2)).await, "3..=3 again");
    assert_eq!(
        append(shelf, "r", &["r-4", "r-5"], Exact(3)).await,
        "4..=5 again"
    );
    assert_eq!(
        append(shelf, "r", &["r-4", "r-5"], Any).await,
        "4..=5 again"
    );
    assert_eq!(append(shelf, "r-alone", &["r-6"], Any).await, "1..=1 new");
    assert_eq!(append(shelf, "r-alone", &["r-6"], Any).await, "1..=1 again");
    // Other events under these ids are no repeat.
    let as_it_was = event("r-1").with("time", "2026-01-31T12:00:00Z");
    let [other_data, other_type] = [
        event("r-2").with("data", r#"{"by":"nobody"}"#),
        Envelope::new("order.cancelled")
            .with("id", "r-2")
            .with("data", event("r-2").data()),
    ];
    for other in [other_data, other_type] {
        let refused = store
            .append(&order("r"), vec![as_it_was.clone(), other], NoStream)
            .await;
        let Err(AppendError::Failed(error)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(error.kind(), ErrorKind::Exists);
        let said = error.to_string();
        assert!(
            said.starts_with(
                "order:r has an event order.changed with the id \"r-2\" as version 2, "
            ),
            "{said}"
        );
    }
    let same = vec![as_it_was, event("r-2").with("data", r#" { "by": "r-2" } "#)];
    assert!(
        !store
            .append(&order("r"), same, NoStream)
            .await
            .unwrap()
            .is_new
    );
    assert_eq!(
        ids(store, &order("r")).await,
        ["r-1", "r-2", "r-3", "r-4", "r-5"]
    );
    assert_eq!(shelf.published("orders").await.len(), before + 6);
}

async fn a_partial_overlap_is_refused(shelf: &impl Shelf) {
    use Expected::*;
    let before = shelf.published("orders").await.len();
    assert_eq!(
        append(shelf, "o", &["o-1", "o-2", "o-3"], NoStream).await,
        "1..=3 new"
    );
    for (of, expected) in [
        (&["o-1", "o-2", "o-3", "o-4"][..], NoStream),
        (&["o-1", "x"], NoStream),
        (&["x", "o-2"], Exact(0)),
        (&["o-2", "o-3"], Exact(0)),
        (&["o-2", "o-1"], Exact(0)),
        (&["o-3", "o-4"], Exact(2)),
        (&["o-4", "o-3"], Exact(2)),
        // Stored a moment ago, and met again on reading.
        (&["o-3"], Exact(3)),
        (&["o-3", "o-4"], Exact(3)),
        (&["o-3", "o-4"], Any),
        (&["x", "o-3"], Exists),
        (&["o-0", "o-1", "o-2", "o-3"], Any),
    ] {
        assert_eq!(
            append(shelf, "o", of, expected).await,
            "overlap: order:o at 3",
            "{of:?} {expected:?}"
        );
    }
    assert_eq!(ids(shelf.store(), &order("o")).await, ["o-1", "o-2", "o-3"]);
    assert_eq!(shelf.published("orders").await.len(), before + 3);
}

async fn several_aggregates_are_one_step(shelf: &impl Shelf) {
    use Expected::*;
    let before = shelf.published("orders").await.len();
    let all = async |parts: &[(&str, &[&str], Expected)]| {
        let parts = parts
            .iter()
            .map(|(id, of, expected)| Append::new(order(id), events(of), *expected));
        said(&shelf.store().append_all(parts.collect()).await)
    };
    let both: [(&str, &[&str], Expected); 2] = [
        ("s-1", &["s-1", "s-2"], NoStream),
        ("s-2", &["s-3"], Exact(0)),
    ];
    assert_eq!(all(&both).await, "1..=2 new, 1..=1 new");
    assert_eq!(all(&both).await, "1..=2 again, 1..=1 again");
    let told = all(&[("s-1", &["s-4"], Exact(2)), ("s-2", &["s-5"], NoStream)]).await;
    assert_eq!(
        told,
        "conflict: order:s-2 is at version 1, and was expected not to exist"
    );
    let told = all(&[
        ("s-1", &["s-1", "s-2"], NoStream),
        ("s-2", &["s-5"], Exact(1)),
    ])
    .await;
    assert_eq!(told, "overlap: order:s-2 at 1");
    let told = all(&[("s-1", &["s-4"], Exact(2)), ("s-2", &["s-3"], NoStream)]).await;
    assert_eq!(told, "overlap: order:s-1 at 2");
    assert_eq!(ids(shelf.store(), &order("s-1")).await, ["s-1", "s-2"]);
    assert_eq!(ids(shelf.store(), &order("s-2")).await, ["s-3"]);
    assert_eq!(shelf.published("orders").await.len(), before + 3);
}

async fn pages_are_read_in_order(shelf: &impl Shelf) {
    let id = order("long");
    for chunk in 0..3_u64 {
        let batch = (0..700)
            .map(|n| event(&format!("p-{}", 700 * chunk + n + 1)))
            .collect();
        shelf
            .store()
            .append(&id, batch, Expected::Exact(700 * chunk))
            .await
            .unwrap();
    }
    for from in [0, 1, 65, 2_000, 2_100, 2_101, u64::MAX] {
        let all = stored(shelf.store(), &id, from).await;
        assert!(
            all.iter()
                .map(|event| event.version)
                .eq(from.max(1)..=2_100),
            "from {from}: {}",
            all.len()
        );
        assert!(
            all.iter()
                .all(|event| *event.envelope.id() == format!("p-{}", event.version))
        );
    }
    let page = shelf.store().page(&id, 11, 5).await.unwrap();
    assert!(page.iter().map(|event| event.version).eq(11..=15));
}
