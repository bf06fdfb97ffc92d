//! Which events were met, so that one is known that comes again with other data. It remembers so many and no more.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::fields::Fields;
use crate::identity::{Identity, named};

/// Most events that are remembered: some 10 MB.
const MOST: usize = 200_000;

/// Events that were met, as hashes: which they are, and what they say.
#[derive(Default)]
pub(super) struct Copies(HashMap<u128, u64>);

impl Copies {
    /// What is wrong with an event if it was met with other data.
    pub fn meet(&mut self, fields: &Fields) -> Option<String> {
        let identity = Identity::of(fields)?;
        let which = u128::from_str_radix(identity.which(), 16).ok()?;
        let data = u64::from_str_radix(identity.data(), 16).ok()?;
        let is_full = self.0.len() >= MOST;
        match self.0.entry(which) {
            Entry::Occupied(known) => (*known.get() != data)
                .then(|| format!("{} is there with other data", named(fields))),
            Entry::Vacant(_) if is_full => None,
            Entry::Vacant(new) => {
                new.insert(data);
                None
            }
        }
    }
}
