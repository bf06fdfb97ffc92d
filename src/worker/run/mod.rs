//! What becomes of an entry as a value: its handler runs, and the outcome is handed over. Nothing here speaks to
//! Redis: outcomes leave by channels.

pub(super) mod attempt;
pub(super) mod commit_handle;
pub(super) mod concurrency;
pub(super) mod dedup;
pub(super) mod dedup_windows;
pub(super) mod dispatch;
pub(super) mod executor;
pub(super) mod line;
pub(super) mod orderer;
pub(super) mod outcome;
pub(super) mod queue;
pub(super) mod report;
pub(super) mod routes;
pub(super) mod spans;
pub(super) mod starter;
pub(super) mod verdict;
pub(super) mod work;
