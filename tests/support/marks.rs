//! Where the marks of events are kept: those that were handled, and those that were published once.

use uuid::Uuid;

/// What the library hashes identities in: UUIDv5 of `streamhand:identity` in the namespace of URLs.
fn namespace() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, b"streamhand:identity")
}

/// The key that says of a job with this id, of no source, that a handler is done with it.
pub fn seen(id: &str) -> String {
    format!("{{jobs}}:workers:seen:{}", which("", id, "test.job"))
}

/// The key that says of a job with this id, of no source, that it was published once.
pub fn published(id: &str) -> String {
    format!("{{jobs}}:published:{}", which("", id, "test.job"))
}

fn which(source: &str, id: &str, event_type: &str) -> String {
    let mut name = Vec::new();
    for part in [source, id, event_type] {
        name.push(b's');
        name.extend((part.len() as u64).to_be_bytes());
        name.extend(part.as_bytes());
    }
    Uuid::new_v5(&namespace(), &name).simple().to_string()
}
