//! The names of everything that belongs to one stream and one group. All of it lies in one hash slot.

/// The keys of a stream that belong to none of its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamKeys {
    /// The stream itself.
    pub stream: String,
    /// Ids of events that are to be added later, by due time.
    pub scheduled: String,
    /// Those events' fields, by their ids.
    pub events: String,
    /// What is kept of its crons.
    pub cron: String,
    /// The highest position it ever gave an event of an aggregate, or a view has passed: it outlives the stream.
    pub reached: String,
    /// What its handlers have emitted to streams of other slots.
    pub outbox: OutboxKeys,
    pub(super) prefix: String,
}

/// The keys of what waits to be added to streams of other slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutboxKeys {
    /// Those streams.
    pub targets: String,
    /// Whose turn it is to relay to each, how far that is, and what is in the way.
    pub turns: String,
}

/// The keys of a stream as one group sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The stream itself.
    pub stream: String,
    /// Ids of events that are to be added later, and their fields: the stream's, not the group's.
    pub scheduled: String,
    pub scheduled_events: String,
    /// Parked ids by due time.
    pub retry: String,
    /// The dead letters.
    pub dead: String,
    /// What is known of purges that can be undone.
    pub purges: String,
    /// Replayed entries, for this group alone.
    pub again: String,
    /// What is known of entries that have failed or been released.
    pub failures: String,
    /// Parked ids that wait for a worker that knows them, or whose handler may run, by type and version.
    pub waiting: String,
    /// The group's last delivered id and each worker's lowest held id.
    pub position: String,
    /// What of it an operator has paused for the group, since when, and who.
    pub paused: String,
    /// What is asked of the group's workers, for as long as it holds; and whether somebody looks.
    pub asked: String,
    /// Which entries are to be cancelled, or were, and by whom.
    pub cancelled: String,
    /// The circuit breakers of workers that are not closed.
    pub breakers: String,
    /// There while it is nobody's turn to look for what other hands have broken.
    pub tidied: String,
    /// How far those looks have come.
    pub tidied_to: String,
    /// When the server's clock was last seen to have been set, and how far what follows from it is done.
    pub clock: String,
    /// Whose turn it was to drop dead letters, and how many were.
    pub kept: String,
    /// What is noted of dead letters: edits, holds, earlier errors.
    pub notes: String,
    /// How many dead letters are alike.
    pub groups: String,
    /// Runs of replays.
    pub runs: String,
    /// Their copies that are not settled, each with the number of its run.
    pub out: String,
    /// Whose the stream is, if its events have an order, and which workers read it.
    pub order: String,
    /// Which dead letters hold their subjects.
    pub held: String,
    /// Whose turn it was to trim the stream, of all groups' workers.
    pub trimmed: String,
    /// When a worker last left the group, kept for 90 days.
    pub left: String,
    /// The protocol number the group's workers speak.
    pub protocol: String,
    /// What the names of all keys begin with, whosever they are.
    base: String,
    /// What each worker's last commit settled, to know a repeat by.
    pub commits: String,
    /// What handlers have emitted to streams of other slots: the stream's, not the group's.
    pub outbox: OutboxKeys,
    /// What came to an end of late, to know a repeat of an earlier step by.
    pub guards: String,
    /// What deduplication marks begin with: those of replayed entries are the stream's own.
    seen: String,
}

/// The keys of a projection of one public stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProjectionKeys {
    /// The public stream.
    pub stream: String,
    /// How far the view is that is served, and who runs it.
    pub checkpoint: String,
    /// The same of one that is built beside it.
    pub rebuild: String,
    /// Events that could not be applied, of the view that is served and of the one that is built.
    pub dead: String,
    pub rebuild_dead: String,
    /// Replayed ones.
    pub again: String,
    /// The highest position the public stream ever gave.
    pub reached: String,
    /// What the keys of all views begin with; their generation comes next.
    pub views: String,
}

/// The keys of what a group's workers tell of themselves, whatever streams they read: in a slot of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PulseKeys {
    /// The pulses as they come.
    pub pulse: String,
    /// What they were merged to: minutes, tens of minutes, hours.
    pub minutes: String,
    pub tens: String,
    pub hours: String,
    /// When each version and configuration was first seen.
    pub deploys: String,
    /// The last that was heard of each worker by the last merge.
    pub workers: String,
    /// There while it is nobody's turn to merge.
    pub turn: String,
}

impl PulseKeys {
    /// Those of a group.
    pub fn new(group: &str) -> Self {
        let prefix = format!("streamhand:{{{group}}}:pulse");
        PulseKeys {
            minutes: format!("{prefix}:minutes"),
            tens: format!("{prefix}:tens"),
            hours: format!("{prefix}:hours"),
            deploys: format!("{prefix}:deploys"),
            workers: format!("{prefix}:workers"),
            turn: format!("{prefix}:turn"),
            pulse: prefix,
        }
    }
}

/// The keys of what is told of a group that is wrong with it: in a slot of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AlertKeys {
    /// Whose turn it is to look.
    pub turn: String,
    /// What is told of, and since when.
    pub standing: String,
}

impl AlertKeys {
    /// Those of a group.
    pub fn new(group: &str) -> Self {
        let prefix = format!("streamhand:{{{group}}}:alerts");
        AlertKeys {
            turn: format!("{prefix}:turn"),
            standing: prefix,
        }
    }
}

impl ProjectionKeys {
    /// What the keys of a view begin with.
    pub fn view(&self, generation: u64) -> String {
        format!("{}{generation}:", self.views)
    }
}

impl OutboxKeys {
    fn new(prefix: &str) -> Self {
        OutboxKeys {
            targets: format!("{prefix}:outbox"),
            turns: format!("{prefix}:outbox:turns"),
        }
    }

    /// What waits for one of those streams.
    pub fn waiting(&self, target: &str) -> String {
        format!("{}:to:{target}", self.targets)
    }
}

impl StreamKeys {
    /// The keys of `stream`.
    pub fn new(stream: &str) -> Self {
        let prefix = prefix(stream);
        StreamKeys {
            stream: stream.to_owned(),
            scheduled: format!("{prefix}:scheduled"),
            events: format!("{prefix}:scheduled:events"),
            cron: format!("{prefix}:cron"),
            reached: format!("{prefix}:reached"),
            outbox: OutboxKeys::new(&prefix),
            prefix,
        }
    }

    /// The keys of a projection of this stream.
    pub fn projection(&self, name: &str) -> ProjectionKeys {
        let prefix = format!("{}:{name}", self.prefix);
        ProjectionKeys {
            stream: self.stream.clone(),
            checkpoint: format!("{prefix}:projection"),
            rebuild: format!("{prefix}:rebuild"),
            dead: format!("{prefix}:dead"),
            rebuild_dead: format!("{prefix}:rebuild:dead"),
            again: format!("{prefix}:again"),
            reached: self.reached.clone(),
            views: format!("{prefix}:view:"),
        }
    }

    /// The mark of an event that is published once, by its identity.
    pub fn published(&self, which: &str) -> String {
        format!("{}:published:{which}", self.prefix)
    }
}

impl Keys {
    /// The keys of `stream` for `group`. A stream's own `{tag}` is kept, else its name becomes the tag.
    pub fn new(stream: &str, group: &str) -> Self {
        Self::with_base(stream.to_owned(), prefix(stream), group)
    }

    /// The keys of the stream of replayed entries: its own, but for the dead letters, which are the stream's.
    pub fn again(&self, group: &str) -> Self {
        let mut keys = Self::with_base(self.again.clone(), self.again.clone(), group);
        keys.dead = self.dead.clone();
        keys.purges = self.purges.clone();
        keys.notes = self.notes.clone();
        keys.groups = self.groups.clone();
        keys.runs = self.runs.clone();
        keys.out = self.out.clone();
        keys.protocol = self.protocol.clone();
        keys.paused = self.paused.clone();
        keys.asked = self.asked.clone();
        keys.order = self.order.clone();
        keys.held = self.held.clone();
        keys.seen = self.seen.clone();
        keys.outbox = self.outbox.clone();
        keys
    }

    /// The due times that another group of the stream keeps.
    pub fn retry_of(&self, group: &[u8]) -> Vec<u8> {
        [self.base.as_bytes(), b":", group, b":retry"].concat()
    }

    /// The dead letters that a purge has taken, as long as it can be undone.
    pub fn purged(&self, run: &str) -> String {
        format!("{}:{run}", self.purges)
    }

    /// The key that says of an event that it is done, by its identity.
    pub fn seen(&self, which: &str) -> String {
        [&self.seen, which].concat()
    }

    fn with_base(stream: String, base: String, group: &str) -> Self {
        let prefix = format!("{base}:{group}");
        let of_stream = StreamKeys::new(&stream);
        Keys {
            scheduled: of_stream.scheduled,
            scheduled_events: of_stream.events,
            stream,
            retry: format!("{prefix}:retry"),
            dead: format!("{prefix}:dead"),
            purges: format!("{prefix}:purges"),
            again: format!("{prefix}:again"),
            failures: format!("{prefix}:failures"),
            waiting: format!("{prefix}:waiting"),
            position: format!("{prefix}:position"),
            paused: format!("{prefix}:paused"),
            asked: format!("{prefix}:asked"),
            cancelled: format!("{prefix}:cancelled"),
            breakers: format!("{prefix}:breakers"),
            tidied: format!("{prefix}:tidied"),
            tidied_to: format!("{prefix}:tidied_to"),
            clock: format!("{prefix}:clock"),
            kept: format!("{prefix}:kept"),
            notes: format!("{prefix}:dead:notes"),
            groups: format!("{prefix}:dead:groups"),
            runs: format!("{prefix}:runs"),
            out: format!("{prefix}:runs:out"),
            order: format!("{prefix}:order"),
            held: format!("{prefix}:order:held"),
            trimmed: format!("{base}:trimmed"),
            left: format!("{prefix}:left"),
            protocol: format!("{prefix}:protocol"),
            base,
            commits: format!("{prefix}:commits"),
            outbox: of_stream.outbox,
            guards: format!("{prefix}:guards"),
            seen: format!("{prefix}:seen:"),
        }
    }
}

/// What the names of a stream's other keys begin with: its own name where that has a `{tag}`, else that as the tag.
fn prefix(stream: &str) -> String {
    match tag(stream) {
        Some(_) => stream.to_owned(),
        None => format!("{{{stream}}}"),
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
        assert_eq!(keys.again("fulfilment").notes, keys.notes);
        assert_eq!(keys.seen("0a1b"), "{orders}:fulfilment:seen:0a1b");
        assert_eq!(keys.again("fulfilment").seen("0a1b"), keys.seen("0a1b"));
        assert_eq!(
            Keys::new("eu:{orders}:3", "g").retry,
            "eu:{orders}:3:g:retry"
        );
        assert_eq!(keys.again("fulfilment").asked, keys.asked);
        assert_eq!(keys.trimmed, "{orders}:trimmed");
        assert_eq!(keys.retry_of(b"audit"), b"{orders}:audit:retry");
        assert_eq!(
            Keys::new("eu:{orders}:3", "g").trimmed,
            "eu:{orders}:3:trimmed"
        );
        let keys = StreamKeys::new("orders");
        assert_eq!(keys.scheduled, "{orders}:scheduled");
        assert_eq!(keys.events, "{orders}:scheduled:events");
        assert_eq!(keys.published("0a1b"), "{orders}:published:0a1b");
        assert_eq!(keys.reached, "{orders}:reached");
        assert_eq!(keys.outbox.targets, "{orders}:outbox");
        assert_eq!(
            keys.outbox.waiting("{stock:1}"),
            "{orders}:outbox:to:{stock:1}"
        );
        let of_group = Keys::new("orders", "fulfilment");
        assert_eq!(of_group.outbox, keys.outbox);
        assert_eq!(of_group.again("fulfilment").outbox, keys.outbox);
        assert_eq!(
            StreamKeys::new("eu:{orders}:3").scheduled,
            "eu:{orders}:3:scheduled"
        );
    }
}
