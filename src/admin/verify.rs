//! Going through aggregates for what must not be in them.

use std::collections::VecDeque;

use super::known::Known;
use crate::error::Result;
use crate::eventstore::{self, AggregateId, Problem, verify};
use crate::pages::Source;

/// Problems of one aggregate that are told.
const MOST: usize = 100;

/// An aggregate that was looked at, by [`Aggregates::verify`](super::Aggregates::verify).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The aggregate.
    pub aggregate: AggregateId,
    /// How many events it has.
    pub events: u64,
    /// What is wrong with it, a hundred problems at most; nothing where all is well.
    pub problems: Vec<Problem>,
}

/// What is still to be looked at.
pub(super) struct Verifying {
    /// Kinds, and single aggregates of them.
    named: VecDeque<(Known, Option<AggregateId>)>,
    /// The aggregates of the first of them, where it is a kind, and the one whose turn it is.
    all: Option<eventstore::Aggregates>,
    turn: Option<AggregateId>,
}

impl Verifying {
    pub fn new(named: Vec<(Known, Option<AggregateId>)>) -> Self {
        Verifying {
            named: named.into(),
            all: None,
            turn: None,
        }
    }

    /// The next aggregate of a kind; None behind the last.
    async fn next_of(&mut self, known: &Known) -> Result<Option<AggregateId>> {
        if self.turn.is_none() {
            let all = match &mut self.all {
                Some(all) => all,
                None => self.all.insert(known.store.aggregates(known.kind.name)?),
            };
            self.turn = all.next().await?;
        }
        Ok(self.turn.clone())
    }
}

impl Source for Verifying {
    type Item = Verified;

    async fn page(&mut self) -> Result<Option<Vec<Verified>>> {
        while let Some((known, single)) = self.named.front().cloned() {
            let is_single = single.is_some();
            let id = match single {
                Some(id) => Some(id),
                None => self.next_of(&known).await?,
            };
            let verified = match id {
                Some(id) => Some(look(&known, id).await?),
                None => None,
            };
            // Only now, so that what failed is looked at again.
            self.turn = None;
            if is_single || verified.is_none() {
                self.all = None;
                self.named.pop_front();
            }
            if let Some(verified) = verified {
                return Ok(Some(vec![verified]));
            }
        }
        Ok(None)
    }
}

async fn look(known: &Known, id: AggregateId) -> Result<Verified> {
    let mut problems = Vec::new();
    let events = verify(&known.store, &known.kind, &id, MOST, &mut problems).await?;
    if events == 0 && problems.is_empty() {
        problems.push(Problem::missing(&id));
    }
    Ok(Verified {
        aggregate: id,
        events,
        problems,
    })
}
