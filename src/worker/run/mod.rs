//! What becomes of an entry as a value: its handler runs, and the outcome is handed over. Nothing here speaks to
//! Redis: outcomes leave by channels.

pub(crate) mod attempt;
pub(crate) mod batches;
pub(crate) mod commit_handle;
pub(crate) mod concurrency;
pub(crate) mod dedup;
pub(crate) mod dedup_windows;
pub(crate) mod dispatch;
pub(crate) mod executor;
mod limits;
pub(crate) mod line;
pub(crate) mod orderer;
pub(crate) mod outcome;
pub(crate) mod queue;
pub(crate) mod report;
pub(crate) mod routes;
pub(crate) mod sharing;
pub(crate) mod spans;
pub(crate) mod starter;
pub(crate) mod verdict;
pub(crate) mod work;
