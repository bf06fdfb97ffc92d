//! What became of every event.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use streamhand::Event;
use streamhand::cli::CommandError;

use super::books::Books;
use super::fleet::Said;
use crate::events::OrderCancelled;

/// What became of every event, counted.
pub struct Figures {
    published: u64,
    handled: u64,
    retried: u64,
    reclaimed: u64,
    /// Dead letters, by reason.
    dead: BTreeMap<String, u64>,
    pub more_than_once: u64,
    /// Units of stock that were taken and are in no reservation, or the other way round.
    astray: u64,
    /// Events that were neither handled nor are dead letters.
    lost: Vec<String>,
    /// Events that are both, or more than one dead letter.
    twice: Vec<String>,
}

impl Figures {
    /// Goes through all there is in Redis. `stock` is what there was of each sku at first, and `said` what the workers
    /// have logged.
    pub async fn count(
        books: &Books,
        stock: &BTreeMap<&str, u64>,
        said: &Said,
    ) -> Result<Self, CommandError> {
        let answers = counted(books.answers().await?);
        let letters = books.dead().await?;
        let dead = counted(letters.iter().map(|(_, reason)| reason.clone()));
        let letters = counted(letters.into_iter().map(|(id, _)| id));
        let decisions = books.decisions().await?;
        let cancelled: BTreeSet<String> = decisions
            .into_iter()
            .filter(|(_, decision)| decision.ends_with("cancelled"))
            .map(|(order, _)| order)
            .collect();

        let (mut published, mut handled) = (0, 0);
        let (mut lost, mut twice) = (Vec::new(), Vec::new());
        for [id, event_type, order] in books.published().await? {
            published += 1;
            // The inventory answers everything but a cancellation, which it decides.
            let is_handled = match &event_type[..] {
                OrderCancelled::TYPE => cancelled.contains(&order),
                _ => answers.contains_key(&id),
            };
            handled += u64::from(is_handled);
            match u64::from(is_handled) + letters.get(&id).copied().unwrap_or(0) {
                0 => lost.push(id),
                1 => {}
                _ => twice.push(id),
            }
        }
        let answered_again = answers.values().filter(|times| **times > 1).count() as u64;
        Ok(Figures {
            published,
            handled,
            retried: said.retried(),
            reclaimed: said.reclaimed,
            dead,
            more_than_once: answered_again + said.cancelled_again(),
            astray: astray(books, stock).await?,
            lost,
            twice,
        })
    }

    /// Whether every one of `events` is accounted for.
    pub fn check(&self, events: u64) -> Result<(), CommandError> {
        let some = |ids: &[String]| match ids.get(..5) {
            Some(first) => format!("{} …", first.join(", ")),
            None => ids.join(", "),
        };
        let dead: u64 = self.dead.values().sum();
        let wrong = if !self.lost.is_empty() {
            format!(
                "{} of {events} events are lost: {}",
                self.lost.len(),
                some(&self.lost)
            )
        } else if !self.twice.is_empty() {
            format!(
                "{} events are handled and dead, or dead twice: {}",
                self.twice.len(),
                some(&self.twice)
            )
        } else if self.published != events || self.handled + dead != events {
            format!("the figures don't add up to {events}")
        } else if self.more_than_once > 0 {
            format!("{} events are handled more than once", self.more_than_once)
        } else if self.astray > 0 {
            "the stock and the reservations don't add up: an order was reserved twice".to_owned()
        } else {
            return Ok(());
        };
        Err(CommandError::failed(wrong))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: u64| writeln!(f, "{name:<26}{value:>6}");
        line("published", self.published)?;
        line("handled", self.handled)?;
        line("retried", self.retried)?;
        line("reclaimed", self.reclaimed)?;
        for (reason, count) in &self.dead {
            line(&format!("dead-lettered {reason}"), *count)?;
        }
        line("handled more than once", self.more_than_once)?;
        line("units of stock astray", self.astray)?;
        write!(f, "{:<26}{:>6}", "lost", self.lost.len())
    }
}

/// What was taken from the stock less what is reserved, sku by sku, so that one does not make up for another.
async fn astray(books: &Books, stock: &BTreeMap<&str, u64>) -> Result<u64, CommandError> {
    let reserved = books.reserved().await?;
    let mut astray = 0;
    for (sku, units) in stock {
        astray += units.abs_diff(books.left(sku).await? + reserved.get(*sku).copied().unwrap_or(0));
    }
    Ok(astray)
}

/// How often each stands there.
fn counted(names: impl IntoIterator<Item = String>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}
