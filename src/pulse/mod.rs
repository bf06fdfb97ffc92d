//! The pulse: what every worker tells of itself through Redis every ten seconds, and what is made of it: a history that
//! needs nothing installed, and a registry of the fleet.
//!
//! A worker sends one XADD with what it has counted since its last one ([`message`], packed by [`series`] and [`wire`]).
//! Workers take turns at merging pulses into minutes, tens of minutes and hours ([`slot`], [`merging`]). Who looks reads
//! them ([`history`], [`fleet`]), follows what comes ([`live`]), and asks workers for something ([`orders`]).

pub(crate) mod fleet;
pub(crate) mod history;
pub(crate) mod live;
pub(crate) mod merging;
pub(crate) mod message;
pub(crate) mod orders;
pub(crate) mod process;
mod series;
pub(crate) mod slot;
mod wire;
