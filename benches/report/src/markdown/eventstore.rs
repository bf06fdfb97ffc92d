//! Aggregates: appends, loads, and updates by writers who get in each other's way.

use super::{runs, section};
use crate::data::{EventStore, Rated};
use crate::table::{self, thousands};

pub fn eventstore_of(text: &mut String, store: &EventStore) {
    let row = |name: String, rated: &Rated, ratios: Option<(f64, String)>| {
        let (ratio, redis) = ratios
            .map(|(ratio, redis)| (format!("{ratio:.2}"), redis))
            .unwrap_or_default();
        let per_second = thousands(rated.per_second);
        [
            name,
            per_second,
            format!("{:.2}", rated.redis_us),
            format!("{:.2}", rated.client_us),
            ratio,
            redis,
        ]
    };
    let mut rows = Vec::new();
    for append in &store.append {
        let at_once = append.at_once;
        let bare = format!("EVALSHA with one XADD, {at_once} at once");
        rows.push(row(bare, &append.bare, None));
        let ratios = (append.ratio, format!("{:.2}", append.redis_ratio));
        let ours = format!("`EventStore::append`, {at_once} at once");
        rows.push(row(ours, &append.store, Some(ratios)));
    }
    let load = &store.load;
    rows.push(row("XRANGE, decoded".to_owned(), &load.bare, None));
    let ratios = (load.ratio, String::new());
    rows.push(row(
        "`Repository::load`".to_owned(),
        &load.repository,
        Some(ratios),
    ));
    let about = format!(
        "{} appends of one event, and loads of an aggregate of {} events, {}. The bare script adds one entry, with \
         the same fields; an append looks at the aggregate's version and adds two, the aggregate's and the public \
         one, whose event gets an id, a time and a subject. Events were encoded before the clock started. By the event:",
        thousands(store.appends as f64),
        thousands(store.events as f64),
        runs(store.runs)
    );
    let header = [
        "",
        "events/s",
        "Redis µs",
        "client µs",
        "of bare",
        "Redis of bare",
    ];
    let updates: Vec<_> = store
        .update
        .iter()
        .map(|update| {
            [
                update.writers.to_string(),
                thousands(update.figures.per_second),
                format!("{:.2}", update.ratio),
                format!("{:.2}", update.figures.conflicts),
                update.figures.gave_up.to_string(),
                format!("{:.0}", update.figures.latency.p50_us),
                format!("{:.0}", update.figures.latency.p99_us),
            ]
        })
        .collect();
    let of_updates = format!(
        "{} calls of `Repository::update`, all writers on one aggregate, each with a connection of its own. A conflict \
         is resolved by reading what has come since, deciding and appending once more; a writer that gave up after 16 \
         tries began anew:",
        thousands(store.updates as f64),
    );
    let update_header = [
        "writers",
        "updates/s",
        "of one's",
        "conflicts an update",
        "gave up",
        "p50 µs",
        "p99 µs",
    ];
    section(
        text,
        "Event store",
        &[
            about,
            table::text(&header, &rows),
            of_updates,
            table::text(&update_header, &updates),
        ],
    );
}
