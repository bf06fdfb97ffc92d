//! Alerts that need nothing installed: one process of the group by turns looks at what the group has counted and at how it
//! stands, and tells a webhook or an Alertmanager what is wrong, and when it is over.
//!
//! What there is to be told of is one table (`rule`), which the rules for Prometheus and their tests are held against as
//! well. Looking is pure (`evidence`); what was told of, and since when, is kept in Redis (`standing`), so that a turn may
//! pass to another process at any step.

mod evidence;
mod files;
mod notice;
mod rule;
mod standing;
mod watch;

pub(crate) use files::{dashboard, rules};
pub use watch::{Alerts, Found, look_once};
