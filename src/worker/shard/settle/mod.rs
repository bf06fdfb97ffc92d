//! Carries outcomes out: acknowledges, commits, parks, releases and buries.

pub(crate) mod acker;
pub(crate) mod batch_commits;
pub(crate) mod commit_requests;
pub(crate) mod committer;
pub(crate) mod requests;
pub(crate) mod settler;
