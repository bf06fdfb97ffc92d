//! Where the primary of a key is: one server, or one of many.

mod slot;

pub(crate) use slot::Slot;
