//! The rules that an entry is held to: what each is called, what comes of breaking it, and what would be right.

use serde::Serialize;

/// What comes of an entry that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Level {
    /// No handler gets it: it is gone, or where no worker reads.
    Lost,
    /// It ends as a dead letter.
    DeadLetter,
    /// It is handled, and not all that it says is read, or not as it was meant.
    Warning,
}

impl Level {
    /// As it is written: `lost`, `dead letter`, `warning`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Lost => "lost",
            Level::DeadLetter => "dead letter",
            Level::Warning => "warning",
        }
    }
}

/// A rule by its name: see `docs/wire.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    Topic,
    Unread,
    Type,
    NotUtf8,
    SchemaVersion,
    ContentType,
    NoData,
    Data,
    Ext,
    Packed,
    Handler,
    MemberTwice,
    JsonInJson,
    NoId,
    OtherData,
    Time,
    TimeWithoutOffset,
    Expires,
    MaxAttempts,
    Traceparent,
    Integer,
    Array,
    Behind,
    Twice,
    Spelling,
    Reserved,
    Partition,
    EntryId,
    Removed,
}

impl Rule {
    /// All of them, the worst first.
    #[cfg(test)]
    pub const ALL: [Rule; 29] = [
        Rule::Topic,
        Rule::Unread,
        Rule::Type,
        Rule::NotUtf8,
        Rule::SchemaVersion,
        Rule::ContentType,
        Rule::NoData,
        Rule::Data,
        Rule::Ext,
        Rule::Packed,
        Rule::Handler,
        Rule::MemberTwice,
        Rule::JsonInJson,
        Rule::NoId,
        Rule::OtherData,
        Rule::Time,
        Rule::TimeWithoutOffset,
        Rule::Expires,
        Rule::MaxAttempts,
        Rule::Traceparent,
        Rule::Integer,
        Rule::Array,
        Rule::Behind,
        Rule::Twice,
        Rule::Spelling,
        Rule::Reserved,
        Rule::Partition,
        Rule::EntryId,
        Rule::Removed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Rule::Topic => "topic",
            Rule::Unread => "unread",
            Rule::Type => "type",
            Rule::NotUtf8 => "not-utf8",
            Rule::SchemaVersion => "schemaversion",
            Rule::ContentType => "datacontenttype",
            Rule::NoData => "no-data",
            Rule::Data => "data",
            Rule::Ext => "ext",
            Rule::Packed => "packed",
            Rule::Handler => "handler",
            Rule::MemberTwice => "member-twice",
            Rule::JsonInJson => "json-in-json",
            Rule::NoId => "no-id",
            Rule::OtherData => "other-data",
            Rule::Time => "time",
            Rule::TimeWithoutOffset => "time-without-offset",
            Rule::Expires => "expires",
            Rule::MaxAttempts => "maxattempts",
            Rule::Traceparent => "traceparent",
            Rule::Integer => "integer",
            Rule::Array => "array",
            Rule::Behind => "behind",
            Rule::Twice => "twice",
            Rule::Spelling => "spelling",
            Rule::Reserved => "reserved",
            Rule::Partition => "partition",
            Rule::EntryId => "entry-id",
            Rule::Removed => "removed",
        }
    }

    pub fn level(self) -> Level {
        match self {
            Rule::Topic | Rule::Unread => Level::Lost,
            Rule::Type
            | Rule::NotUtf8
            | Rule::SchemaVersion
            | Rule::ContentType
            | Rule::NoData
            | Rule::Data
            | Rule::Ext
            | Rule::Packed
            | Rule::Handler => Level::DeadLetter,
            _ => Level::Warning,
        }
    }

    /// What would be right.
    pub fn right(self) -> &'static str {
        match self {
            Rule::Topic => {
                "XADD to the partition of the event's subject: docs/wire.md says which one"
            }
            Rule::Unread | Rule::Removed => {
                "XADD without MAXLEN and MINID, no XTRIM, no XDEL: workers trim what all groups have settled, by `retention`"
            }
            Rule::Type => {
                "a field `type`, dotted and lower-case, a noun and what happened to it: order.created"
            }
            Rule::NotUtf8 => "text in UTF-8 in all fields that have a meaning, but for `data`",
            Rule::SchemaVersion => "a whole number from 1, or no field `schemaversion`",
            Rule::ContentType => {
                "application/json, application/msgpack, or no field `datacontenttype` for JSON"
            }
            Rule::NoData => "a field `data`; null in JSON if there is nothing to say",
            Rule::Data => {
                "one JSON value in UTF-8, without NaN and without a byte order mark, or MessagePack that `datacontenttype` says is that"
            }
            Rule::Ext => {
                "times as text in RFC 3339, other values as text, numbers, maps and arrays: no MessagePack extension types"
            }
            Rule::Packed => "no field `streamhand.packed`: it is written by streamhand alone",
            Rule::Handler => "data as the handler of the type takes it",
            Rule::MemberTwice => {
                "each member once: a handler that knows it buries the event as undecodable"
            }
            Rule::JsonInJson => {
                "the object itself, encoded once: a handler that takes an object buries a text as undecodable"
            }
            Rule::NoId => {
                "a field `id`, unique for its source, the same when it is published again; UUIDv7 serves well"
            }
            Rule::OtherData => {
                "an id of its own for each event: a copy is acknowledged without running, whatever it says, if its handler deduplicates"
            }
            Rule::Time => {
                "2026-01-31T12:00:00Z, or no field `time`; until then the time in the entry's id holds"
            }
            Rule::TimeWithoutOffset => {
                "2026-01-31T12:00:00Z, or an offset such as +01:00; until then it is taken to be in UTC"
            }
            Rule::Expires => {
                "2026-01-31T12:00:00Z, with an offset, or no field `expires`; until then one without an offset is taken to be in UTC, and what is no time is no deadline"
            }
            Rule::MaxAttempts => {
                "a whole number from 1, or no field `maxattempts`; until then the event has its handler's attempts"
            }
            Rule::Traceparent => {
                "a traceparent as the W3C's trace context has it, in lower case, or none; until then the event begins a trace of its own"
            }
            Rule::Integer => {
                "integers beyond 2^53 as text: JavaScript, and whatever reads numbers as doubles, makes others of them"
            }
            Rule::Array => {
                "a map with the members' names: an array is read by place, so no member can be added or moved any more"
            }
            Rule::Behind => "one MessagePack value and nothing behind it",
            Rule::Twice => "each field once: the first one that says something is read",
            Rule::Spelling => {
                "the field's name as docs/wire.md writes it: this one is kept and means nothing"
            }
            Rule::Reserved => {
                "names that do not begin with dead., replay., edited. or streamhand.: what workers and operators write begins so"
            }
            Rule::Partition => {
                "the partition of the event's subject, or of its id if it has none: FNV-1a-64 modulo their number, by conformance/partition.json"
            }
            Rule::EntryId => {
                "XADD with `*`: the id is the time that events without `time` have, and no later id can be lower"
            }
        }
    }
}
