//! What no store takes, as part of the contract.

use streamhand::eventstore::{
    Append, AppendError, EventStore, Expected, MOST_APPEND_BYTES, MOST_EVENT_BYTES, MOST_EVENTS,
};
use streamhand::{Envelope, ErrorKind};

use super::shelf::{Shelf, event, order, said, stored};

pub async fn what_can_t_be_stored_is_refused(shelf: &impl Shelf) {
    let before = shelf.published("orders").await.len();
    let id = order("bad");
    let large = |bytes: usize| event("l").with("data", "x".repeat(bytes));
    let wide = (0..3_500).fold(event("w"), |event, n| event.with(&format!("f{n}"), ""));
    let many = |count: usize, bytes: usize| -> Vec<_> {
        (0..count)
            .map(|n| event(&format!("m-{n}")).with("data", "x".repeat(bytes)))
            .collect()
    };
    for (wrong, why) in [
        (vec![], "no events"),
        (
            vec![event("b-1"), large(MOST_EVENT_BYTES)],
            "at most 1048576; keep large data elsewhere",
        ),
        (
            many(17, MOST_EVENT_BYTES - 200),
            "at most 1000 with 16777216",
        ),
        (many(MOST_EVENTS + 1, 1), "1001 events with"),
        (vec![event("b-1"), wide], "fields: at most 3500"),
        (vec![event("b-1"), event("b-1")], "\"b-1\" stands twice"),
        (vec![event("b-1"), event("")], "an empty id"),
        (vec![Envelope::new("No.Type")], "\"No.Type\""),
        (
            vec![event("b-1").with("position", "1-0")],
            "\"position\" is a field that the store itself writes",
        ),
        (
            vec![event("b-1").with("aggregateversion", "1")],
            "\"aggregateversion\" is a field",
        ),
        (
            vec![event("b-1").with("subject", "order:other")],
            "the subject",
        ),
    ] {
        let error = match shelf.store().append(&id, wrong, Expected::Any).await {
            Err(AppendError::Failed(error)) => error,
            other => panic!("{why}: {other:?}"),
        };
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    let none = shelf.store().append_all(vec![]).await;
    assert!(said(&none).contains("an append of nothing"));
    let one = || Append::new(id.clone(), vec![Envelope::new("a.b")], Expected::Any);
    let twice = shelf.store().append_all(vec![one(), one()]).await;
    assert!(said(&twice).contains("order:bad is named twice"));
    assert_eq!(shelf.store().version(&id).await.unwrap(), 0);
    assert_eq!(shelf.published("orders").await.len(), before);

    // And what only just can be.
    let room = MOST_EVENT_BYTES - 200;
    let widest = (0..3_494).fold(event("w"), |event, n| event.with(&format!("f{n}"), ""));
    shelf
        .store()
        .append(&id, vec![large(room), widest], Expected::NoStream)
        .await
        .unwrap();
    shelf
        .store()
        .append(&id, many(15, room), Expected::Exact(2))
        .await
        .unwrap();
    assert!(MOST_APPEND_BYTES > 15 * room);
    let all = stored(shelf.store(), &id, 1).await;
    assert_eq!(
        all.iter()
            .map(|event| event.envelope.data().len())
            .sum::<usize>(),
        16 * room + "{\"by\":\"w\"}".len()
    );
    assert_eq!(all[1].envelope.fields().len(), 3_501);
}
