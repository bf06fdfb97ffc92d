//! Tests of what an aggregate decides: given some events, when something is asked of it, then other events happen, or it
//! refuses. No store, no clock.
//!
//! ```
//! use streamhand::eventstore::testing::given;
//! # use serde::{Deserialize, Serialize};
//! # use streamhand::{Event, aggregate_events, eventstore::Aggregate};
//! # #[derive(Serialize, Deserialize)] struct Deposited { cents: u64 }
//! # impl Event for Deposited { const TYPE: &'static str = "account.deposited"; }
//! # #[derive(Serialize, Deserialize)] struct Withdrawn { cents: u64 }
//! # impl Event for Withdrawn { const TYPE: &'static str = "account.withdrawn"; }
//! # aggregate_events! { enum AccountEvent { Deposited(Deposited), Withdrawn(Withdrawn) } }
//! # struct Account { cents: u64 }
//! # impl Aggregate for Account {
//! #     const KIND: &'static str = "account";
//! #     const STREAM: &'static str = "accounts";
//! #     type Event = AccountEvent;
//! #     fn initial() -> Self { Account { cents: 0 } }
//! #     fn apply(&mut self, event: AccountEvent) {
//! #         match event {
//! #             AccountEvent::Deposited(event) => self.cents += event.cents,
//! #             AccountEvent::Withdrawn(event) => self.cents -= event.cents,
//! #         }
//! #     }
//! # }
//!
//! fn withdraw(account: &Account, cents: u64) -> Result<Vec<AccountEvent>, String> {
//!     if cents > account.cents {
//!         return Err(format!("there are {} cents", account.cents));
//!     }
//!     Ok(vec![Withdrawn { cents }.into()])
//! }
//!
//! given::<Account>([Deposited { cents: 500 }.into()])
//!     .when(|account| withdraw(account, 200))
//!     .then([Withdrawn { cents: 200 }.into()])
//!     .then_state(|account| assert_eq!(account.cents, 300));
//!
//! given::<Account>([]).when(|account| withdraw(account, 1)).then_refused("there are 0 cents");
//! ```
//!
//! Events are written and read as if they had been stored, so that one whose form can't be read again does not pass.
//! They are compared as they would be stored: they need neither `PartialEq` nor `Debug`.

use std::fmt::{Debug, Display, Write};
use std::sync::RwLock;

use serde_json::Value;

use super::aggregate::{Aggregate, AggregateEvent};
use super::decode::decode;
use super::events::StoredEvent;
use crate::aggregate_id::AggregateId;
use crate::codec::Format;
use crate::event::{EntryId, Envelope};
use crate::upcast::Upcasters;

/// An aggregate to which these events have happened.
///
/// # Panics
/// Where an event can't be written, or not be read again.
#[track_caller]
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut given = Given {
        state: A::initial(),
        version: 0,
    };
    for event in events {
        given.happen(encoded(&event));
    }
    given
}

/// An aggregate to which something has happened: see [`given`].
#[derive(Debug)]
#[must_use = "say what is asked of it by `when`"]
pub struct Given<A> {
    state: A,
    version: u64,
}

/// What has come of it: see [`given`].
#[derive(Debug)]
pub struct Then<A, E> {
    given: Given<A>,
    outcome: Result<Vec<Envelope>, E>,
}

impl<A: Aggregate> Given<A> {
    /// Asks the aggregate for what happens, as [`Repository::update`](super::Repository::update) does.
    ///
    /// # Panics
    /// Where an event can't be written, or not be read again.
    #[track_caller]
    pub fn when<E>(mut self, decide: impl FnOnce(&A) -> Result<Vec<A::Event>, E>) -> Then<A, E> {
        let outcome = match decide(&self.state) {
            Err(error) => Err(error),
            Ok(events) => Ok(events.iter().map(encoded).collect::<Vec<_>>()),
        };
        for event in outcome.iter().flatten() {
            self.happen(event.clone());
        }
        Then {
            given: self,
            outcome,
        }
    }

    /// Looks at the state.
    #[track_caller]
    pub fn then_state(self, look: impl FnOnce(&A)) -> Self {
        look(&self.state);
        self
    }

    #[track_caller]
    fn happen(&mut self, envelope: Envelope) {
        self.version += 1;
        let id = AggregateId::new(A::KIND, "given").unwrap_or_else(|error| panic!("{error}"));
        let stored = StoredEvent {
            version: self.version,
            position: EntryId::default(),
            envelope,
        };
        let none = RwLock::new(Upcasters::default());
        match decode::<A>(&none, &id, &stored) {
            Ok(event) => self.state.apply(event),
            Err(error) => panic!(
                "an event that was written can't be read again: {error}\n{}",
                line(&stored.envelope)
            ),
        }
    }
}

#[expect(clippy::return_self_not_must_use, reason = "each is an assertion")]
impl<A: Aggregate, E: Debug> Then<A, E> {
    /// These events happened, and no others.
    ///
    /// # Panics
    /// Where others did, or it refused.
    #[track_caller]
    pub fn then(self, events: impl IntoIterator<Item = A::Event>) -> Self {
        let expected: Vec<Envelope> = events.into_iter().map(|event| encoded(&event)).collect();
        let happened = match &self.outcome {
            Ok(happened) => happened,
            Err(error) => panic!(
                "it was refused: {error:?}\n{}",
                list("expected", &expected, &expected)
            ),
        };
        let is_same = expected.len() == happened.len()
            && expected.iter().zip(happened).all(|(a, b)| is_same(a, b));
        assert!(
            is_same,
            "other events happened than were expected\n{}{}",
            list("expected", &expected, happened),
            list("happened", happened, &expected)
        );
        self
    }

    /// Nothing happened, and it did not refuse.
    ///
    /// # Panics
    /// Where something did, or it refused.
    #[track_caller]
    pub fn then_nothing(self) -> Self {
        self.then([])
    }

    /// It refused with an error that says this.
    ///
    /// # Panics
    /// Where it did not, or said something else.
    #[track_caller]
    pub fn then_refused(self, why: &str) -> Self
    where
        E: Display,
    {
        let said = self.refusal().to_string();
        assert!(
            said == why,
            "it was refused for another reason than was expected\n  expected  {why}\n  refused   {said}\n"
        );
        self
    }

    /// It refused with an error that is as `is_expected` says.
    ///
    /// # Panics
    /// Where it did not, or the error is another.
    #[track_caller]
    pub fn then_refused_if(self, is_expected: impl FnOnce(&E) -> bool) -> Self {
        let error = self.refusal();
        assert!(
            is_expected(error),
            "it was refused for another reason than was expected: {error:?}"
        );
        self
    }

    /// Looks at the state after what happened; where it refused, that before.
    #[track_caller]
    pub fn then_state(self, look: impl FnOnce(&A)) -> Self {
        look(&self.given.state);
        self
    }

    #[track_caller]
    fn refusal(&self) -> &E {
        match &self.outcome {
            Err(error) => error,
            Ok(happened) => panic!(
                "it was not refused\n{}",
                list("happened", happened, happened)
            ),
        }
    }
}

#[track_caller]
fn encoded<E: AggregateEvent>(event: &E) -> Envelope {
    let envelope = event
        .encode(Format::MessagePack)
        .unwrap_or_else(|error| panic!("an event can't be written: {error}"));
    // To be shown, and compared without regard to the order in a map.
    match event.encode(Format::Json) {
        Ok(json) => envelope.with(SHOWN, json.data()),
        Err(_) => envelope,
    }
}

/// The field with the same data as JSON.
const SHOWN: &str = "shown";

fn data(event: &Envelope) -> Option<Value> {
    serde_json::from_str(event.field(SHOWN)?).ok()
}

fn is_same(a: &Envelope, b: &Envelope) -> bool {
    let data = match (data(a), data(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a.data() == b.data(),
    };
    data && a.event_type() == b.event_type() && a.version() == b.version()
}

/// Events, one a line; those that are not at the same place among the others are marked.
fn list(what: &str, events: &[Envelope], others: &[Envelope]) -> String {
    let mut text = format!("  {what}\n");
    for (at, event) in events.iter().enumerate() {
        let is_there = others.get(at).is_some_and(|other| is_same(event, other));
        let mark = if is_there { ' ' } else { '!' };
        let _ = writeln!(text, "  {mark} {}. {}", at + 1, line(event));
    }
    if events.is_empty() {
        let mark = if others.is_empty() { ' ' } else { '!' };
        let _ = writeln!(text, "  {mark} nothing");
    }
    text
}

fn line(event: &Envelope) -> String {
    let (event_type, version) = (event.event_type(), event.version());
    match event.field(SHOWN) {
        Some(json) => format!("{event_type} v{version} {json}"),
        None => format!(
            "{event_type} v{version} {} bytes that are no JSON: {:?}",
            event.data().len(),
            String::from_utf8_lossy(event.data())
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::aggregate_events;
    use crate::event::Event;
    use crate::failure::panic_message;

    #[derive(Serialize, Deserialize)]
    struct Deposited {
        cents: u64,
    }

    impl Event for Deposited {
        const TYPE: &'static str = "account.deposited";
        const VERSION: u32 = 2;
    }

    #[derive(Serialize, Deserialize)]
    struct Closed {}

    impl Event for Closed {
        const TYPE: &'static str = "account.closed";
    }

    /// What is written is not what is read.
    #[derive(Serialize, Deserialize)]
    struct Renamed {
        #[serde(rename(serialize = "new_name"))]
        name: String,
    }

    impl Event for Renamed {
        const TYPE: &'static str = "account.renamed";
    }

    aggregate_events! {
        enum AccountEvent { Deposited(Deposited), Closed(Closed), Renamed(Renamed) }
    }

    struct Account {
        cents: u64,
        closed: bool,
    }

    impl Aggregate for Account {
        const KIND: &'static str = "account";
        const STREAM: &'static str = "accounts";
        type Event = AccountEvent;

        fn initial() -> Self {
            Account {
                cents: 0,
                closed: false,
            }
        }

        fn apply(&mut self, event: AccountEvent) {
            match event {
                AccountEvent::Deposited(event) => self.cents += event.cents,
                AccountEvent::Closed(Closed {}) => self.closed = true,
                AccountEvent::Renamed(_) => {}
            }
        }
    }

    fn deposited(cents: u64) -> AccountEvent {
        Deposited { cents }.into()
    }

    fn close(account: &Account) -> Result<Vec<AccountEvent>, String> {
        match (account.closed, account.cents) {
            (true, _) => Ok(vec![]),
            (false, 0) => Ok(vec![Closed {}.into()]),
            (false, cents) => Err(format!("there are {cents} cents")),
        }
    }

    fn said<T>(test: impl FnOnce() -> T) -> String {
        match catch_unwind(AssertUnwindSafe(test)) {
            Ok(_) => "nothing".to_owned(),
            Err(panic) => panic_message(panic),
        }
    }

    #[test]
    fn what_is_as_expected_passes() {
        given::<Account>([]).when(close).then([Closed {}.into()]);
        given::<Account>([Closed {}.into()])
            .when(close)
            .then_nothing();
        given::<Account>([deposited(5), deposited(2)])
            .then_state(|account| assert_eq!(account.cents, 7))
            .when(close)
            .then_refused("there are 7 cents")
            .then_refused_if(|error| error.ends_with("cents"))
            .then_state(|account| assert!(!account.closed));
        given::<Account>([])
            .when(|_| Ok::<_, String>(vec![deposited(3)]))
            .then([deposited(3)])
            .then_state(|account| assert_eq!(account.cents, 3));
    }

    #[test]
    fn other_events_are_shown_beside_those_expected() {
        let other = said(|| {
            given::<Account>([])
                .when(|_| Ok::<_, String>(vec![deposited(3), deposited(4), Closed {}.into()]))
                .then([deposited(3), deposited(5)])
        });
        insta::assert_snapshot!(other, @r#"
        other events happened than were expected
          expected
            1. account.deposited v2 {"cents":3}
          ! 2. account.deposited v2 {"cents":5}
          happened
            1. account.deposited v2 {"cents":3}
          ! 2. account.deposited v2 {"cents":4}
          ! 3. account.closed v1 {}
        "#);
        let nothing = said(|| {
            given::<Account>([Closed {}.into()])
                .when(close)
                .then([deposited(1)])
        });
        insta::assert_snapshot!(nothing, @r#"
        other events happened than were expected
          expected
          ! 1. account.deposited v2 {"cents":1}
          happened
          ! nothing
        "#);
        let refused = said(|| given::<Account>([deposited(1)]).when(close).then_nothing());
        insta::assert_snapshot!(refused, @r#"
        it was refused: "there are 1 cents"
          expected
            nothing
        "#);
    }

    #[test]
    fn other_refusals_are_shown_beside_the_one_expected() {
        let other = said(|| {
            given::<Account>([deposited(1)])
                .when(close)
                .then_refused("closed")
        });
        insta::assert_snapshot!(other, @r#"
        it was refused for another reason than was expected
          expected  closed
          refused   there are 1 cents
        "#);
        let by_closure = said(|| {
            given::<Account>([deposited(1)])
                .when(close)
                .then_refused_if(|_| false)
        });
        insta::assert_snapshot!(by_closure, @r#"
        it was refused for another reason than was expected: "there are 1 cents"
        "#);
        let none = said(|| given::<Account>([]).when(close).then_refused("closed"));
        insta::assert_snapshot!(none, @r#"
        it was not refused
          happened
            1. account.closed v1 {}
        "#);
    }

    #[test]
    fn an_event_that_can_t_be_read_again_does_not_pass() {
        let renamed = || {
            Renamed {
                name: "Ada".to_owned(),
            }
            .into()
        };
        let before = said(|| given::<Account>([renamed()]));
        insta::assert_snapshot!(before, @r#"
        an event that was written can't be read again: event 1 of account:given (account.renamed in version 1): the data does not decode as MessagePack: missing field `name`
        account.renamed v1 {"new_name":"Ada"}
        "#);
        let after = said(|| given::<Account>([]).when(|_| Ok::<_, String>(vec![renamed()])));
        assert_eq!(after, before);
    }
}
