//! Those who publish, and what they were told.

use std::time::Duration;

use bytes::Bytes;
use streamhand::{Envelope, Publisher};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::history::{Published, Stored};
use super::plan::{NewEvent, Planned, Way};
use super::rules::MALFORMED;
use crate::support::jobs::now_ms;
use crate::support::publisher;

/// How long a publisher waits for the answer to one publish before it goes on to the next.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often what is published once is tried.
const TRIES: usize = 10;

/// Publishes what is planned, one after the other, each once.
pub async fn publish(url: &str, begin: Instant, events: &[Planned<NewEvent>]) -> Vec<Published> {
    let publisher = publisher(url);
    let mut all = Vec::new();
    let mut sorted = events.to_vec();
    sorted.sort_by_key(|planned| planned.at);
    for planned in sorted {
        sleep_until(begin + planned.at).await;
        let event = planned.what;
        let asked = now_ms();
        let mut told = timeout(PATIENCE, publish_one(&publisher, &event)).await;
        for _ in 1..TRIES {
            if event.way != Way::Once || matches!(told, Ok(Ok(_))) {
                break;
            }
            sleep(Duration::from_millis(100)).await;
            told = timeout(PATIENCE, publish_one(&publisher, &event)).await;
        }
        let told = told.ok().and_then(Result::ok);
        let known = told.is_some();
        let entry = told.flatten();
        all.push(Published {
            event,
            known,
            entry,
            asked,
        });
    }
    all
}

/// Publishes it; answers the entry, where that is told.
async fn publish_one(publisher: &Publisher, event: &NewEvent) -> Result<Option<String>, BoxError> {
    let (envelope, stream) = (envelope(event), event.stream);
    let entry = |id: &dyn std::fmt::Display| Some(format!("{stream}/{id}"));
    match event.way {
        Way::Now if event.event_type == MALFORMED => {}
        Way::Now => return Ok(entry(&publisher.publish_envelope(stream, envelope).await?)),
        Way::Later(ms) => {
            let delay = Duration::from_millis(ms);
            publisher
                .publish_envelope_after(stream, envelope, delay)
                .await?;
            return Ok(None);
        }
        Way::Once => {
            let hour = Duration::from_secs(3_600);
            let once = publisher
                .publish_envelope_once(stream, envelope, hour)
                .await?;
            return Ok(entry(&once.entry));
        }
    }
    // No publisher lets it pass.
    let mut xadd = redis::cmd("XADD");
    xadd.arg(stream).arg("*").arg("schemaversion").arg("newest");
    xadd.arg("id").arg(&event.id).arg("type").arg(MALFORMED);
    xadd.arg("data").arg(envelope.data()).arg("note").arg(NOTE);
    let id: String = xadd.query_async(&mut publisher.redis().await?).await?;
    Ok(entry(&id))
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Kept as it is, whatever happens to its event.
const NOTE: &str = "as it is, \0 and all";

/// The event as it is published.
pub fn envelope(event: &NewEvent) -> Envelope {
    let envelope = Envelope::new(event.event_type)
        .with("id", &event.id)
        .with("note", NOTE);
    envelope.json(&event.job).expect("JSON")
}

/// The fields by which an entry is known to be an event, whole.
pub fn is_whole(event: &NewEvent, stored: &Stored) -> bool {
    let fields = &stored.entry.fields;
    let expected = envelope(event);
    let has = |name: &str, value: &[u8]| {
        let named = |(field, was): &&(Bytes, Bytes)| field == name.as_bytes() && was == value;
        fields.iter().filter(named).count() == 1
    };
    stored.stream == event.stream
        && has("id", event.id.as_bytes())
        && has("type", event.event_type.as_bytes())
        && has("data", expected.data())
        && has("note", NOTE.as_bytes())
}
