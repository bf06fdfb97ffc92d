//! Tells others of circuit breakers that change: their states stand in Redis, for `status`, as long as they are not
//! closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::complaint::Pause;
use super::shared::Shared;
use crate::policy::{Circuit, State};
use crate::stream::{BreakerNote, Link, Trouble};

/// Tells of every change until it is dropped. What can't be told is told later; nothing waits for it.
pub(super) async fn run(shared: Arc<Shared>) {
    let news = shared.breakers.news().clone();
    let (mut link, mut pause) = (None, Pause::new());
    let mut notes = BTreeMap::new();
    shared.joined.cancelled().await;
    loop {
        let changed = news.take();
        if changed.is_empty() {
            news.notify.notified().await;
            // What may be read depends on it.
            shared.replan();
            continue;
        }
        for circuit in &changed {
            notes.remove(&circuit.name);
            notes.extend(note(circuit).map(|note| (circuit.name.clone(), note)));
        }
        let all: Vec<BreakerNote> = notes.values().cloned().collect();
        match tell(&shared, &mut link, &all).await {
            Ok(()) => pause.reset(),
            Err(trouble) => {
                tracing::debug!("{}", trouble.error());
                link = None;
                news.put_back(changed);
                tokio::time::sleep(pause.next()).await;
            }
        }
    }
}

async fn tell(
    shared: &Shared,
    slot: &mut Option<Link>,
    notes: &[BreakerNote],
) -> Result<(), Trouble> {
    let link = match slot {
        Some(link) => link,
        None => slot.insert(
            shared
                .connect("tell", Duration::from_secs(10))
                .await
                .map_err(Trouble::Broken)?,
        ),
    };
    for source in &shared.sources {
        link.note_breakers(&source.keys, &shared.consumer, notes)
            .await?;
    }
    Ok(())
}

/// What there is to tell of a breaker, if anything.
fn note(circuit: &Circuit) -> Option<BreakerNote> {
    let (state, until) = match circuit.state() {
        State::Closed => return None,
        State::HalfOpen => ("half-open", None),
        State::Open { until } => ("open", Some(until)),
    };
    let until_ms = until.map(|until| {
        let left = until.saturating_duration_since(Instant::now());
        let at = (SystemTime::now() + left).duration_since(SystemTime::UNIX_EPOCH);
        at.unwrap_or_default().as_millis() as u64
    });
    Some(BreakerNote {
        name: circuit.name.clone(),
        state: state.to_owned(),
        opened: circuit.opened(),
        until_ms,
    })
}
