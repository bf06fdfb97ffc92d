//! Everything that speaks to one server.

pub(super) mod claims;
pub(super) mod clock;
pub(super) mod fetch;
pub(super) mod health;
pub(super) mod hold_up;
pub(super) mod leave;
pub(super) mod links;
pub(super) mod maintain;
pub(super) mod refusals;
pub(super) mod settle;
pub(super) mod unit;
