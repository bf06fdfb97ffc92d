//! streamhand
#![warn(missing_docs)]

pub mod cli;
pub mod codec;
pub mod config;
mod context;
pub mod dead_letters;
mod error;
mod event;
mod event_type;
mod failure;
mod handler;
mod publisher;
pub mod retry;
mod stream;
mod worker;

pub use bytes::Bytes;
pub use codec::{DecodeError, Format};
pub use config::Settings;
pub use context::{Cancelled, Context};
pub use error::{Error, ErrorKind, Result};
pub use event::{Entry, EntryId, Envelope, Fields};
pub use failure::{Failure, FailureExt};
pub use handler::{Event, Registry};
pub use publisher::Publisher;
pub use stream::PooledConnection;
pub use worker::{Observer, Outcome, Settled, Summary, Worker};
