//! The only place that speaks Redis for the runtime: connections, the group, reading, claiming and settling. Each
//! step of an entry's life is one command or one script here; what they mean to a worker is decided above. The steps, and
//! what must hold between them, are described in `docs/protocol.md`.
//!
//! `scripts/` has one Lua script a step, `scripts/common/` what several of them share: a script that stands behind some of
//! it says so in a line `-- Behind:`. New entries are read over a socket of its own (`reader.rs`, decoded by `resp.rs`);
//! aggregates go over the connection of `line.rs`.

mod access;
#[cfg(feature = "telemetry")]
mod alerts;
mod append;
#[cfg(feature = "worker")]
mod ask;
#[cfg(feature = "worker")]
mod audit;
mod breaker;
mod call;
#[cfg(feature = "worker")]
mod cancel;
#[cfg(feature = "worker")]
mod claim;
mod clock;
#[cfg(feature = "worker")]
mod commit;
#[cfg(feature = "worker")]
mod commit_batch;
#[cfg(feature = "worker")]
mod commit_lines;
mod connection;
#[cfg(feature = "worker")]
mod cron;
mod deduplication;
mod dial;
#[cfg(feature = "worker")]
mod entry;
mod error;
mod events;
mod eviction;
#[cfg(feature = "worker")]
mod gauges;
#[cfg(feature = "worker")]
mod group;
mod growth;
mod history;
mod in_turn;
#[cfg(test)]
pub(crate) mod instructions;
mod introduction;
mod keys;
mod letter_groups;
mod letter_notes;
mod letter_runs;
mod letters;
mod life;
#[cfg(feature = "worker")]
mod limits;
mod line;
mod look_ahead;
mod obstacle;
#[cfg(feature = "worker")]
mod order;
mod outage;
mod outbox;
mod pause;
mod pool;
#[cfg(feature = "worker")]
mod progress;
mod projection;
mod projection_rebuild;
mod projection_status;
#[cfg(feature = "worker")]
mod pulse;
mod purged;
#[cfg(feature = "worker")]
mod rate;
mod read;
mod read_only;
mod reader;
#[cfg(feature = "worker")]
mod readers;
mod replicated;
mod reply;
mod resp;
#[cfg(feature = "worker")]
mod retention;
mod schedule;
mod script;
#[cfg(feature = "worker")]
mod script_names;
#[cfg(feature = "worker")]
mod search;
#[cfg(feature = "worker")]
mod server;
mod settle;
mod snapshots;
mod socket;
#[cfg(feature = "worker")]
mod status;
mod tail;
#[cfg(feature = "testing")]
mod test_steps;
#[cfg(feature = "testing")]
mod test_time;
mod tidy;
mod tls;
mod topic;
mod topology;
#[cfg(feature = "worker")]
mod trim_policy;
mod unheld;
pub(crate) mod waiting;
mod wire;

#[cfg(feature = "telemetry")]
pub(crate) use alerts::AlertTurn;
pub(crate) use append::{Addition, Appended, Done, Fate, How};
#[cfg(feature = "worker")]
pub(crate) use ask::Said;
#[cfg(feature = "worker")]
pub(crate) use audit::AuditNote;
pub(crate) use breaker::Probing;
#[cfg(feature = "worker")]
pub(crate) use call::ARGUMENTS;
#[cfg(feature = "worker")]
pub(crate) use cancel::{CancelAsked, CancelNote, Cancelling, cancel_flag};
#[cfg(feature = "worker")]
pub(crate) use claim::{Delivered, Died, Kind, LostWhy, MetAgain, Reclaim, Reclaimed, Record};
pub(crate) use clock::Expected;
#[cfg(feature = "worker")]
pub(crate) use commit::{Commit, CommitOutcome, Leaving, Mark};
#[cfg(feature = "worker")]
pub(crate) use commit_batch::{BatchCommit, BatchEntry, BatchOutcome, NotOurs};
#[cfg(feature = "worker")]
pub(crate) use commit_lines::Placed;
#[cfg(feature = "worker")]
pub(crate) use connection::OLDEST as OLDEST_SERVER;
pub(crate) use connection::{Connector, Link};
#[cfg(feature = "worker")]
pub(crate) use cron::KeptCron;
pub(crate) use deduplication::{Claim, Claimed};
#[cfg(feature = "worker")]
pub(crate) use entry::EntryStand;
pub(crate) use error::Trouble;
pub(crate) use events::{EventsAppended, EventsFor};
pub(crate) use eviction::ServerGauges;
#[cfg(feature = "worker")]
pub(crate) use eviction::{Eviction, Risk};
#[cfg(feature = "worker")]
pub(crate) use gauges::StreamGauges;
#[cfg(feature = "worker")]
pub(crate) use group::{ConsumerInfo, Join, Joined, Known};
#[cfg(feature = "worker")]
pub(crate) use growth::is_seal;
pub(crate) use history::{Found, PageOf, Scan};
#[cfg(feature = "telemetry")]
pub(crate) use keys::AlertKeys;
pub(crate) use keys::{Keys, OutboxKeys, ProjectionKeys, PulseKeys, StreamKeys};
pub(crate) use letter_groups::{CountedGroup, Counting};
pub(crate) use letter_notes::{Noted as NotedLetter, Notes};
pub(crate) use letter_runs::{RunRecord, RunState, RunTurn, TurnOf};
pub(crate) use letters::{Browse, DEATH, Head, Page, Purged, Ticket, split_death};
pub(crate) use life::ServerIdentity;
#[cfg(feature = "worker")]
pub(crate) use limits::{PermitsAsked, permits_key};
pub(crate) use line::{Line, ONE_TOO_LARGE};
#[cfg(test)]
pub(crate) use look_ahead::Run;
pub(crate) use look_ahead::Seen;
#[cfg(feature = "worker")]
pub(crate) use order::{Held, OrderNow, Ownership, Pending, Wants, Whereabouts, Wish};
pub(crate) use outbox::{OutboxQueue, RelayTurn, Relayed, Waiting};
pub(crate) use pause::{BreakerNote, NewPause, Pausable, PauseNote};
pub(crate) use pool::Pool;
pub use pool::PooledConnection;
#[cfg(feature = "worker")]
pub(crate) use progress::Progress;
pub(crate) use projection::{
    ActingAs, AppliedBatch, Batch, Deaths, From, Noted, Stand, Standing, Step as LeaseStep, Taken,
    Told, What,
};
pub(crate) use projection_rebuild::{Begun, Switched};
pub(crate) use projection_status::ProjectionStatus;
#[cfg(feature = "worker")]
pub(crate) use pulse::{RawPulse, RawSlot, Sending, Turn};
pub(crate) use purged::Undoable;
#[cfg(feature = "worker")]
pub(crate) use rate::RateRequest;
pub(crate) use read::Read;
pub(crate) use reader::Reader;
#[cfg(feature = "worker")]
pub(crate) use readers::{Adding, Readers};
pub use replicated::NotReplicated;
pub(crate) use replicated::Replicas;
#[cfg(feature = "worker")]
pub(crate) use retention::{
    Expire, Expired, Hold, HoldWhy, Policy, Rhythm, Step, Trim, Trimmed, Trimming,
};
pub(crate) use schedule::{Cancelled, Kept, LAST_MS, Place, Wanted, time};
#[cfg(feature = "worker")]
pub(crate) use script_names::script_commands;
#[cfg(feature = "worker")]
pub(crate) use search::{SLICE, Sizes, Slice};
#[cfg(feature = "worker")]
pub(crate) use server::{ServerSays, Slow, info_fields};
pub(crate) use settle::{Ack, BroughtBack, Burial, Buried, Fence, ParkOutcome, Parking, Plain};
pub(crate) use snapshots::KeptSnapshot;
pub(crate) use socket::Greeting;
#[cfg(feature = "worker")]
pub(crate) use status::{GroupStatus, StreamStatus};
pub(crate) use tail::Waiters;
#[cfg(feature = "testing")]
pub(crate) use test_steps::{Applied, Content};
#[cfg(feature = "testing")]
pub(crate) use test_time::TestTime;
pub(crate) use topic::TopicLayout;
#[allow(unused_imports)]
pub(crate) use topology::Slot;
#[cfg(feature = "worker")]
pub(crate) use trim_policy::{TRIM_EVERY, trim_policy, trim_rhythm};
pub(crate) use unheld::Unheld;
#[cfg(feature = "cli")]
pub use {
    outage::OutageTimes,
    topology::{RefreshTimes, SLOT_MAP_EVERY},
};

/// What a consumer's name, the scripts and the keys of this release agree on.
pub(crate) const PROTOCOL: u32 = 2;

/// The consumer that parked entries are pending with.
pub(crate) const PARKED: &str = "(parked)";
