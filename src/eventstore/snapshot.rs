//! Snapshots: an aggregate's state as of one of its events, so that those before it need not be applied again. Only ever
//! a shortcut: what can't be used is passed over, and what can't be kept is not missed.
//!
//! One is used where its event is (still) the aggregate's: so it is loaded with the event it is of, which tells.

use std::sync::atomic::AtomicBool;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::aggregate::Aggregate;
use super::catch_panic::catch_panic;
use crate::codec::{self, Format};
use crate::error::{Error, ErrorKind, Result};

/// An aggregate's state as of one of its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The version it is of.
    pub version: u64,
    /// The id of the event at that version.
    pub event: String,
    /// [`Aggregate::SNAPSHOT_VERSION`].
    pub schema: u32,
    /// The state, as MessagePack with its fields' names.
    pub state: Vec<u8>,
}

/// How a repository takes snapshots.
pub(super) struct Snapshots<A> {
    pub(super) every: u64,
    pub(super) encode: fn(&A) -> Result<Vec<u8>>,
    pub(super) decode: fn(&[u8]) -> Option<A>,
    pub(super) has_said_too_large: AtomicBool,
}

impl<A> Snapshots<A>
where
    A: Aggregate + Serialize + DeserializeOwned,
{
    pub fn new(every: u64) -> Self {
        Snapshots {
            every: every.max(1),
            encode: |state| {
                catch_panic("written,", || codec::encode(Format::MessagePack, state))
                    .unwrap_or_else(|why| Err(Error::new(ErrorKind::Codec, why)))
            },
            decode: decode::<A>,
            has_said_too_large: AtomicBool::new(false),
        }
    }
}

/// The state in a snapshot.
pub(super) fn decode<A: DeserializeOwned>(state: &[u8]) -> Option<A> {
    let read = || codec::decode(codec::MSGPACK.as_bytes(), state).ok();
    catch_panic("read,", read).ok().flatten()
}
