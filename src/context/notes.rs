//! What a batch handler says of single events, and what its commit finds out about them.

use std::collections::BTreeMap;

use crate::failure::Failure;

/// What is known of single ones when their handler has ended.
#[derive(Default)]
pub(crate) struct Notes {
    /// What the handler has failed, by their places.
    pub failed: BTreeMap<usize, Failure>,
    /// Why the whole call counts as failed, whatever the handler returns.
    pub wrong: Option<String>,
    /// The places of those that its commit has settled.
    pub committed: Vec<usize>,
    /// The places of those that its commit found to be settled or somebody else's: then it did nothing.
    pub gone: Vec<(usize, Gone)>,
}

/// Why an event is no longer its batch's to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Another worker has it, or somebody has settled it.
    Lost,
    /// Another copy of it has succeeded meanwhile.
    Copy {
        /// That one had other data.
        differs: bool,
    },
}
