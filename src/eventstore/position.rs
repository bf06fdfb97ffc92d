//! How far a subscription has come, so that it can be kept and gone on from.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::event::EntryId;

/// How far a subscription has come. As text it can be kept: `1732360000000-0`, of several partitions one each with
/// commas between them; of an aggregate its version, `7`.
///
/// ```
/// use streamhand::eventstore::Position;
///
/// let position: Position = "1732360000000-0,0-0".parse().unwrap();
/// assert_eq!(position.to_string(), "1732360000000-0,0-0");
/// assert!("1732360000000-0,7".parse::<Position>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position(pub(super) At);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// On the public stream of each partition that is read.
    Public(Vec<EntryId>),
    /// In an aggregate.
    Version(u64),
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            At::Version(version) => version.fmt(f),
            At::Public(positions) => {
                for (place, position) in positions.iter().enumerate() {
                    let comma = if place == 0 { "" } else { "," };
                    write!(f, "{comma}{position}")?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(version) = text.parse() {
            return Ok(Position(At::Version(version)));
        }
        let positions: Result<_> = text.split(',').map(str::parse).collect();
        positions
            .map(|all| Position(At::Public(all)))
            .map_err(|error| {
                let message = format!("{text:?} is no position of a subscription: {error}");
                Error::new(ErrorKind::Invalid, message)
            })
    }
}
