//! The names of everything that belongs to one stream and one group. All of it lies in one hash slot.

/// The keys of a stream as one group sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The stream itself.
    pub stream: String,
    /// Parked ids by due time.
    pub retry: String,
    /// The dead letters.
    pub dead: String,
    /// Replayed entries, for this group alone.
    pub again: String,
    /// What is known of entries that have failed or been given back.
    pub failures: String,
    /// The group's last delivered id and each worker's lowest held id.
    pub position: String,
    /// There while it is nobody's turn to look for what other hands have broken.
    pub tidied: String,
    /// The protocol number the group's workers speak.
    pub protocol: String,
    /// What each worker's last commit settled, to know a repeat by.
    pub commits: String,
    prefix: String,
    /// What deduplication marks begin with: those of replayed entries are the stream's own.
    seen: String,
}

impl Keys {
    /// The keys of `stream` for `group`. A stream's own `{tag}` is kept, else its name becomes the tag.
    pub fn new(stream: &str, group: &str) -> Self {
        let prefix = if tag(stream).is_some() {
            format!("{stream}:{group}")
        } else {
            format!("{{{stream}}}:{group}")
        };
        Self::with_prefix(stream.to_owned(), prefix)
    }

    /// The keys of the stream of replayed entries: its own, but for the dead letters, which are the stream's.
    pub fn again(&self, group: &str) -> Self {
        let mut keys = Self::with_prefix(self.again.clone(), format!("{}:{group}", self.again));
        keys.dead = self.dead.clone();
        keys.protocol = self.protocol.clone();
        keys.seen = self.seen.clone();
        keys
    }

    /// The key that makes the burial of an entry that is nobody's happen once.
    pub fn guard(&self, id: &str) -> String {
        format!("{}:buried:{id}", self.prefix)
    }

    /// The key that says of an event that it is done.
    pub fn seen(&self, event: &[u8]) -> Vec<u8> {
        [self.seen.as_bytes(), event].concat()
    }

    fn with_prefix(stream: String, prefix: String) -> Self {
        Keys {
            stream,
            retry: format!("{prefix}:retry"),
            dead: format!("{prefix}:dead"),
            again: format!("{prefix}:again"),
            failures: format!("{prefix}:failures"),
            position: format!("{prefix}:position"),
            tidied: format!("{prefix}:tidied"),
            protocol: format!("{prefix}:protocol"),
            commits: format!("{prefix}:commits"),
            seen: format!("{prefix}:seen:"),
            prefix,
        }
    }
}

/// What Redis hashes of a key in a cluster, where it is not the whole key.
pub(super) fn tag(key: &str) -> Option<&str> {
    let open = key.find('{')?;
    let close = key[open..].find('}')? + open;
    (close > open + 1).then(|| &key[open + 1..close])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_the_streams_tag() {
        let keys = Keys::new("orders", "fulfilment");
        assert_eq!(keys.retry, "{orders}:fulfilment:retry");
        assert_eq!(
            keys.again("fulfilment").retry,
            "{orders}:fulfilment:again:fulfilment:retry"
        );
        assert_eq!(keys.again("fulfilment").dead, keys.dead);
        assert_eq!(keys.seen(b"e-1"), b"{orders}:fulfilment:seen:e-1");
        assert_eq!(keys.again("fulfilment").seen(b"e-1"), keys.seen(b"e-1"));
        assert_eq!(
            Keys::new("eu:{orders}:3", "g").retry,
            "eu:{orders}:3:g:retry"
        );
    }
}
