//! Those who publish, and what they were told.

use std::time::Duration;

use bytes::Bytes;
use streamhand::{Envelope, Publisher};
use tokio::time::{Instant, sleep_until, timeout};

use super::history::Published;
use super::plan::{NewEvent, Planned};
use super::rules::{MALFORMED, STREAM};
use crate::support::{Fields, publisher};

/// How long a publisher waits for the answer to one publish before it goes on to the next.
const PATIENCE: Duration = Duration::from_secs(2);

/// Publishes what is planned, one after the other, each once.
pub async fn publish(url: &str, begin: Instant, events: &[Planned<NewEvent>]) -> Vec<Published> {
    let publisher = publisher(url);
    let mut all = Vec::new();
    let mut sorted = events.to_vec();
    sorted.sort_by_key(|planned| planned.at);
    for planned in sorted {
        sleep_until(begin + planned.at).await;
        let event = planned.what;
        let told = timeout(PATIENCE, publish_one(&publisher, &event)).await;
        let entry = told.ok().and_then(Result::ok);
        all.push(Published { event, entry });
    }
    all
}

async fn publish_one(publisher: &Publisher, event: &NewEvent) -> Result<String, BoxError> {
    let envelope = envelope(event);
    if event.event_type != MALFORMED {
        let id = publisher.publish_envelope(STREAM, envelope).await?;
        return Ok(id.to_string());
    }
    // No publisher lets it pass.
    let mut xadd = redis::cmd("XADD");
    xadd.arg(STREAM).arg("*").arg("schemaversion").arg("newest");
    xadd.arg("id").arg(&event.id).arg("type").arg(MALFORMED);
    xadd.arg("data").arg(envelope.data()).arg("note").arg(NOTE);
    Ok(xadd.query_async(&mut publisher.redis().await?).await?)
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
pub fn is_whole(event: &NewEvent, fields: &Fields) -> bool {
    let expected = envelope(event);
    let has = |name: &str, value: &[u8]| {
        let named = |(field, was): &&(Bytes, Bytes)| field == name.as_bytes() && was == value;
        fields.iter().filter(named).count() == 1
    };
    has("id", event.id.as_bytes())
        && has("type", event.event_type.as_bytes())
        && has("data", expected.data())
        && has("note", NOTE.as_bytes())
}
