//! An aggregate of tests whose program has commands for it: an account.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use streamhand::eventstore::Aggregate;
use streamhand::{Event, Registry, aggregate_events};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    pub name: String,
    pub currency: String,
}

impl Event for Opened {
    const TYPE: &'static str = "account.opened";
    const VERSION: u32 = 2;
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deposited {
    pub cents: u64,
}

impl Event for Deposited {
    const TYPE: &'static str = "account.deposited";
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Closed;

impl Event for Closed {
    const TYPE: &'static str = "account.closed";
}

/// Is written without what it can't be read without.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noted {
    #[serde(skip_serializing)]
    pub text: String,
}

impl Event for Noted {
    const TYPE: &'static str = "account.noted";
}

/// What an account can't be deposited.
pub const PANICS: u64 = 666;

aggregate_events! {
    pub enum AccountEvent {
        Opened(Opened),
        Deposited(Deposited),
        Closed(Closed),
        Noted(Noted),
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    pub owner: String,
    pub currency: String,
    pub cents: u64,
    pub closed: bool,
}

impl Aggregate for Account {
    const KIND: &'static str = "account";
    const STREAM: &'static str = "accounts";
    type Event = AccountEvent;

    fn initial() -> Self {
        Account::default()
    }

    fn apply(&mut self, event: AccountEvent) {
        match event {
            AccountEvent::Opened(event) => {
                (self.owner, self.currency) = (event.name, event.currency)
            }
            AccountEvent::Deposited(Deposited { cents: PANICS }) => panic!("asked to panic"),
            AccountEvent::Noted(_) => {}
            AccountEvent::Deposited(event) => self.cents += event.cents,
            AccountEvent::Closed(Closed) => self.closed = true,
        }
    }
}

/// An account had no currency once.
pub fn registry() -> Registry {
    Registry::new()
        .aggregate::<Account>()
        .upcast::<Opened, Value, Value>(1, |mut opened| {
            opened["currency"] = json!("EUR");
            Ok(opened)
        })
}
