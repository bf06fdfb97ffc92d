//! Joining a group.

use crate::error::{Error, ErrorKind};
use crate::stream::{PROTOCOL, Trouble};

pub(super) fn foreign(group: &str, stream: &str, protocol: &str) -> Trouble {
    Trouble::Refused(Error::new(
        ErrorKind::Protocol,
        format!(
            "the group {group:?} of {stream:?} is worked on by a newer release (protocol {protocol}; this one speaks \
             {PROTOCOL}): update this worker"
        ),
    ))
}
