//! Where a test keeps its streams: in memory, or on a server. What a worker asks of Redis step by step is asked here, and
//! only here.

use super::memory::{Memory, Not, Value};
use super::server::Server;
use super::terms::{Due, How};
use crate::config::Start;
use crate::effects::Effect;
use crate::event::{Entry, EntryId, Envelope};
use crate::outbox::Line;
use crate::stream::{
    Ack, Burial, Buried, Claim, Claimed, Commit, CommitOutcome, Delivered, Keys, Kind, ParkOutcome,
    Parking, Reclaim, Reclaimed,
};

/// Where streams are kept.
pub(super) enum Store {
    Memory(Box<Memory>),
    Server(Box<Server>),
}

/// Hands a step on to where it is done.
macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $of:ty),*) $(-> $to:ty)?;)*) => {
        impl Store {
            $($(#[$doc])* pub async fn $name(&mut self, $($arg: $of),*) $(-> $to)? {
                match self {
                    Store::Memory(memory) => memory.$name($($arg),*),
                    Store::Server(server) => server.$name($($arg),*),
                }
            })*
        }
    };
}

steps! {
    /// Publishes an event. None if it is scheduled.
    publish(stream: &str, event: &Envelope, how: How) -> Option<EntryId>;
    /// Forgets scheduled events of this id. Returns how many.
    cancel(stream: &str, id: &str) -> usize;
    /// Adds what is due to its stream. Returns how many.
    add_due(stream: &str) -> usize;
    /// Makes sure that there is a group.
    join(keys: &Keys, start: Start);
    /// Delivers new entries.
    read_new(keys: &Keys, me: &str, most: usize) -> Vec<Entry>;
    /// Takes parked entries whose time has come, and tells what else there is.
    wake(keys: &Keys, me: &str, most: usize) -> Due;
    /// Takes parked entries that wait for a worker that can handle them.
    take_waiting(keys: &Keys, me: &str, kinds: &[Kind<'_>]) -> Vec<Delivered>;
    /// Takes what a dead worker held.
    reclaim(keys: &Keys, wanted: &Reclaim<'_>) -> Reclaimed;
    /// The leases of what a consumer holds begin now.
    renew(keys: &Keys, consumer: &str);
    /// Acknowledges.
    ack(keys: &Keys, delete: bool, acks: &[Ack<'_>]);
    /// Parks.
    park(keys: &Keys, parkings: &[Parking<'_>]) -> Vec<ParkOutcome>;
    /// Moves to the dead letters.
    bury(keys: &Keys, group: &str, delete: bool, burial: &Burial<'_>) -> Buried;
    /// Commits.
    commit(keys: &Keys, me: &str, number: u64, delete: bool, commit: &Commit<'_>, lines: &[Line]) -> CommitOutcome;
    /// Asks which of several copies of an event runs.
    claim(keys: &Keys, claims: &[Claim<'_>]) -> Vec<Claimed>;
    /// Gives a dead letter back to its group. False if there is none with this id.
    replay(keys: &Keys, id: EntryId, by: &str) -> bool;
    /// The dead letters of a group, as they stand there.
    letters(keys: &Keys) -> Vec<Entry>;
    /// What is parked, and until when (ms).
    parked(keys: &Keys) -> Vec<(EntryId, u64)>;
    /// Pauses something of a stream, until a time (ms) or until it is resumed.
    pause(keys: &Keys, what: &str, until: Option<u64>);
    /// Goes on with it.
    resume(keys: &Keys, what: &str) -> bool;
    /// Every entry of a stream.
    entries(stream: &str) -> Vec<Entry>;
    /// What a key holds that effects are on.
    value(key: &str) -> Option<Value>;
    /// Does an effect by itself.
    apply(effect: &Effect) -> Result<(), Not>;
}
