//! Everything that speaks to one server.

pub(super) mod clock;
pub(super) mod fetch;
pub(super) mod health;
pub(super) mod links;
pub(super) mod maintain;
pub(super) mod refusals;
pub(super) mod settle;
