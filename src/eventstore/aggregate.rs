//! What an aggregate is: a state made of its events, and which events those are.

use serde::de::DeserializeOwned;

use crate::aggregate_id::is_kind;
use crate::codec::{self, DecodeError, Encodable, Format};
use crate::error::Result;
use crate::event::{Envelope, Event, demand, envelope_of};

/// A state that is nothing but its events, one after the other: a pure fold.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use streamhand::{Event, aggregate_events, eventstore::Aggregate};
///
/// #[derive(Serialize, Deserialize)]
/// struct Deposited { cents: u64 }
/// impl Event for Deposited { const TYPE: &'static str = "account.deposited"; }
///
/// #[derive(Serialize, Deserialize)]
/// struct Withdrawn { cents: u64 }
/// impl Event for Withdrawn { const TYPE: &'static str = "account.withdrawn"; }
///
/// aggregate_events! {
///     enum AccountEvent { Deposited(Deposited), Withdrawn(Withdrawn) }
/// }
///
/// struct Account { cents: u64 }
///
/// impl Aggregate for Account {
///     const KIND: &'static str = "account";
///     const STREAM: &'static str = "accounts";
///     type Event = AccountEvent;
///
///     fn initial() -> Self {
///         Account { cents: 0 }
///     }
///
///     fn apply(&mut self, event: AccountEvent) {
///         match event {
///             AccountEvent::Deposited(event) => self.cents += event.cents,
///             AccountEvent::Withdrawn(event) => self.cents -= event.cents,
///         }
///     }
/// }
/// ```
pub trait Aggregate: Send + Sized + 'static {
    /// What its addresses begin with: `order` for `order:o-1`. Of `a-z`, `0-9`, `_` and `-`, beginning with a letter;
    /// not the name of a consumer group that reads its public stream.
    const KIND: &'static str;

    /// The public stream on which others are told of its events, such as `orders`.
    const STREAM: &'static str;

    /// How many partitions, and slots of a cluster, aggregates of this kind are spread over: see
    /// [`PublicStreams::partitions`](super::PublicStreams::partitions). The number is for good.
    const PARTITIONS: u32 = 1;

    /// The version of the state's form, where [snapshots](super::Repository::snapshots) are taken of it: raise it when
    /// the form changes, or what `apply` makes of events. Snapshots of another version are not looked at.
    const SNAPSHOT_VERSION: u32 = 1;

    /// Its events: an enum made by [`aggregate_events!`](crate::aggregate_events).
    type Event: AggregateEvent;

    /// The state before the first event.
    fn initial() -> Self;

    /// The state after one more event, which has happened: nothing is refused here, no clock is looked at, and nothing
    /// is done but to the state.
    fn apply(&mut self, event: Self::Event);
}

/// The events of an aggregate. [`aggregate_events!`](crate::aggregate_events) implements it.
pub trait AggregateEvent: Send + Sized {
    /// The types there are.
    const KINDS: &'static [EventKind];

    /// The event as it is stored: its type, its version and its data.
    ///
    /// # Errors
    /// If it can't be encoded.
    fn encode(&self, format: Format) -> Result<Envelope>;

    /// Reads data of one of the types, in that type's version. None if it is none of them.
    fn decode(event_type: &str, data: EventData<'_>) -> Option<Result<Self, DecodeError>>;
}

/// A type of event, and the version its data has today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventKind {
    /// [`Event::TYPE`].
    pub event_type: &'static str,
    /// [`Event::VERSION`].
    pub version: u32,
}

/// The data of a stored event, brought to its type's version.
#[derive(Clone, Copy, Debug)]
pub struct EventData<'a> {
    pub(super) content_type: &'a str,
    pub(super) data: &'a [u8],
}

impl EventKind {
    /// That of an event. A type that breaks the grammar does not compile.
    pub const fn of<E: Event>() -> Self {
        demand::<E>();
        EventKind {
            event_type: E::TYPE,
            version: E::VERSION,
        }
    }

    /// An event as it is stored.
    ///
    /// # Errors
    /// If it can't be encoded.
    pub fn encode<E: Event + Encodable>(event: &E, format: Format) -> Result<Envelope> {
        envelope_of(event, format)
    }
}

impl EventData<'_> {
    /// Decodes it.
    ///
    /// # Errors
    /// If it is not what the type takes.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        codec::decode(self.content_type.as_bytes(), self.data)
    }
}

/// Refuses, when it is compiled, an aggregate that can't be one.
pub(super) const fn assert_sound<A: Aggregate>() {
    assert!(
        is_kind(A::KIND),
        "Aggregate::KIND is a word of a-z, 0-9, '_' and '-', like order"
    );
    assert!(
        are_distinct(<A::Event as AggregateEvent>::KINDS),
        "two events of an aggregate have the same Event::TYPE"
    );
}

/// Whether no type stands twice. Usable in constants.
pub(super) const fn are_distinct(kinds: &[EventKind]) -> bool {
    let mut a = 0;
    while a < kinds.len() {
        let mut b = a + 1;
        while b < kinds.len() {
            if is_same(
                kinds[a].event_type.as_bytes(),
                kinds[b].event_type.as_bytes(),
            ) {
                return false;
            }
            b += 1;
        }
        a += 1;
    }
    true
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// Makes an enum of the events of an aggregate: one variant for each type, which is an [`Event`] with serde's traits.
/// See [`Aggregate`](crate::eventstore::Aggregate).
#[macro_export]
macro_rules! aggregate_events {
    ($(#[$attribute:meta])* $visible:vis enum $name:ident {
        $($(#[$of_variant:meta])* $variant:ident($event:ty)),+ $(,)?
    }) => {
        $(#[$attribute])*
        $visible enum $name {
            $($(#[$of_variant])* $variant($event)),+
        }

        $(impl ::core::convert::From<$event> for $name {
            fn from(event: $event) -> Self {
                $name::$variant(event)
            }
        })+

        impl $crate::eventstore::AggregateEvent for $name {
            const KINDS: &'static [$crate::eventstore::EventKind] =
                &[$($crate::eventstore::EventKind::of::<$event>()),+];

            fn encode(&self, format: $crate::Format) -> $crate::Result<$crate::Envelope> {
                match self {
                    $($name::$variant(event) => $crate::eventstore::EventKind::encode(event, format)),+
                }
            }

            fn decode(
                event_type: &str,
                data: $crate::eventstore::EventData<'_>,
            ) -> ::core::option::Option<::core::result::Result<Self, $crate::DecodeError>> {
                $(if event_type == <$event as $crate::Event>::TYPE {
                    return ::core::option::Option::Some(data.decode::<$event>().map($name::$variant));
                })+
                ::core::option::Option::None
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_stand_twice_are_told_from_those_that_begin_alike() {
        let kinds = |types: &[&'static str]| -> Vec<_> {
            types
                .iter()
                .map(|event_type| EventKind {
                    event_type,
                    version: 1,
                })
                .collect()
        };
        assert!(are_distinct(&kinds(&["a.b", "a.bc", "a.c"])));
        assert!(!are_distinct(&kinds(&["a.b", "a.c", "a.b"])));
    }
}
