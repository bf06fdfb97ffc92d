//! Orders to workers: what an operator asks of one, or of all. They stand in Redis beside the stream for as long as they
//! hold, workers hear of them by the look for due entries that each makes all the time, and say in their next pulse which
//! they have carried out.
//!
//! Most hold for a time and are over by themselves: what a worker does is a function of the orders that stand, so that a
//! worker that missed the end of one does not stay as it was told for ever.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What stands before an order's number where it stands in Redis.
const PREFIX: &str = "order:";

/// What is there while somebody looks.
pub(crate) const WATCH: &str = "watch";

/// For how long one look keeps workers pulsing each second.
pub(crate) const WATCHED_FOR: Duration = Duration::from_secs(15);

/// For how long what is done at once stands, for workers to hear of it.
pub(crate) const HEARD_WITHIN: Duration = Duration::from_secs(60);

/// What is asked of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub(crate) enum What {
    /// To take up nothing new as long as this stands.
    Quiet,
    /// To stop, as if by a signal.
    Drain,
    /// To log what it runs.
    Dump,
    /// To log the entries of a type one by one as long as this stands.
    Debug {
        /// The type.
        event_type: String,
    },
    /// To run so many handlers at once as long as this stands.
    Concurrency {
        /// How many.
        slots: usize,
    },
    /// An order of a newer release.
    #[serde(other)]
    Unknown,
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The worker it is for; none for all of the group.
    pub to: Option<String>,
    #[serde(flatten)]
    pub what: What,
    /// Who gave it.
    pub by: String,
}

/// An order that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub number: u64,
    /// Until when, in milliseconds since 1970 by the server's clock.
    pub until_ms: u64,
    pub order: Order,
}

/// What stands in Redis for the workers of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Until when somebody looks.
    pub watched_until_ms: Option<u64>,
    /// By their numbers.
    pub orders: Vec<Standing>,
}

/// What a worker is to be like, by all orders that stand for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub is_quiet: bool,
    pub slots: Option<usize>,
    pub debugged: Vec<String>,
}

impl Order {
    /// The name of the field in which an order of this number stands.
    pub fn field(number: u64) -> String {
        format!("{PREFIX}{number}")
    }

    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn is_for(&self, worker: &str) -> bool {
        self.to.as_deref().is_none_or(|to| to == worker)
    }
}

impl Asked {
    /// What the fields of the hash say. What can't be read is left out.
    pub fn of(pairs: &[(String, String)]) -> Self {
        let mut asked = Asked::default();
        for (field, value) in pairs {
            let (until, text) = value.split_once(' ').unwrap_or((value, ""));
            let Ok(until_ms) = until.parse() else {
                continue;
            };
            if field == WATCH {
                asked.watched_until_ms = Some(until_ms);
            }
            let number = field.strip_prefix(PREFIX).and_then(|n| n.parse().ok());
            if let (Some(number), Ok(order)) = (number, serde_json::from_str(text)) {
                asked.orders.push(Standing {
                    number,
                    until_ms,
                    order,
                });
            }
        }
        asked.orders.sort_by_key(|standing| standing.number);
        asked
    }

    /// What of it stands at a time.
    pub fn at(mut self, now_ms: u64) -> Self {
        self.watched_until_ms.take_if(|until| *until <= now_ms);
        self.orders.retain(|standing| standing.until_ms > now_ms);
        self
    }

    /// What another stream's hash says besides.
    pub fn merge(&mut self, other: Asked) {
        self.watched_until_ms = self.watched_until_ms.max(other.watched_until_ms);
        self.orders.extend(other.orders);
        self.orders.sort_by_key(|standing| standing.number);
        self.orders.dedup_by_key(|standing| standing.number);
    }

    /// What concerns a worker.
    pub fn orders_for<'a>(&'a self, worker: &'a str) -> impl Iterator<Item = &'a Standing> {
        let orders = self.orders.iter();
        orders.filter(move |standing| standing.order.is_for(worker))
    }

    /// What a worker is to be like. Of two that do not agree the later one holds.
    pub fn wanted_of(&self, worker: &str) -> Wanted {
        let mut wanted = Wanted::default();
        for standing in self.orders_for(worker) {
            match &standing.order.what {
                What::Quiet => wanted.is_quiet = true,
                What::Concurrency { slots } => wanted.slots = Some(*slots),
                What::Debug { event_type } => wanted.debugged.push(event_type.clone()),
                What::Drain | What::Dump | What::Unknown => {}
            }
        }
        wanted.debugged.sort();
        wanted.debugged.dedup();
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(to: Option<&str>, what: What) -> Order {
        Order {
            to: to.map(str::to_owned),
            what,
            by: "alice@ops".to_owned(),
        }
    }

    fn stands(number: u64, until_ms: u64, order: &Order) -> (String, String) {
        let value = format!("{until_ms} {}", order.to_text());
        (Order::field(number), value)
    }

    #[test]
    fn orders_come_back_and_what_can_not_be_read_is_left_out() {
        let debug = order(
            None,
            What::Debug {
                event_type: "order.created".to_owned(),
            },
        );
        let pairs = [
            stands(7, 5000, &debug),
            stands(3, 4000, &order(Some("me"), What::Drain)),
            ("watch".to_owned(), "9000".to_owned()),
            (
                "order:8".to_owned(),
                "9000 {\"what\":\"dance\",\"to\":null,\"by\":\"bob\"}".to_owned(),
            ),
            ("order:9".to_owned(), "9000 nonsense".to_owned()),
            ("order:x".to_owned(), "nonsense".to_owned()),
        ];
        let asked = Asked::of(&pairs);
        assert_eq!(asked.watched_until_ms, Some(9000));
        let numbers: Vec<u64> = asked
            .orders
            .iter()
            .map(|standing| standing.number)
            .collect();
        assert_eq!(numbers, [3, 7, 8]);
        assert_eq!(asked.orders[1].order, debug);
        assert_eq!(asked.orders[2].order.what, What::Unknown);
        let later = asked.at(4500);
        assert_eq!(later.orders.len(), 2);
        assert_eq!(later.at(9000), Asked::default());
    }

    #[test]
    fn a_worker_is_as_the_orders_that_stand_for_it_say_and_the_later_one_holds() {
        let all = [
            stands(1, 9, &order(None, What::Concurrency { slots: 8 })),
            stands(2, 9, &order(Some("me"), What::Concurrency { slots: 2 })),
            stands(3, 9, &order(Some("other"), What::Quiet)),
            stands(
                4,
                9,
                &order(
                    None,
                    What::Debug {
                        event_type: "b".to_owned(),
                    },
                ),
            ),
            stands(
                5,
                9,
                &order(
                    Some("me"),
                    What::Debug {
                        event_type: "a".to_owned(),
                    },
                ),
            ),
        ];
        let mut asked = Asked::of(&all);
        // The same comes with every stream that a worker reads.
        asked.merge(Asked::of(&all));
        assert_eq!(asked.orders.len(), 5);
        let wanted = |worker| asked.wanted_of(worker);
        assert_eq!(wanted("me").slots, Some(2));
        assert_eq!(wanted("me").debugged, ["a", "b"]);
        assert!(!wanted("me").is_quiet && wanted("other").is_quiet);
        assert_eq!(wanted("other").slots, Some(8));
    }
}
