//! An event in three versions, as it was recorded and as it is today.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use streamhand::{Event, Failure};

pub const TYPE: &str = "order.placed";

/// What publishers of the older releases have left: version, content type, data.
pub const RECORDED: [(&str, &str, &[u8]); 4] = [
    (
        "1",
        "application/json",
        include_bytes!("../recorded/order.placed.v1.json"),
    ),
    (
        "1",
        "application/msgpack",
        include_bytes!("../recorded/order.placed.v1.msgpack"),
    ),
    (
        "2",
        "application/json",
        include_bytes!("../recorded/order.placed.v2.json"),
    ),
    (
        "2",
        "application/msgpack",
        include_bytes!("../recorded/order.placed.v2.msgpack"),
    ),
];

/// Bytes, which JSON has as a list of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = items.next_element()? {
                    bytes.push(byte);
                }
                Ok(Bytes(bytes))
            }
        }
        from.deserialize_bytes(Visitor)
    }
}

/// One version of the event.
macro_rules! version {
    ($name:ident { $($field:ident: $of:ty),* }) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            pub order_id: String,
            pub correction: i64,
            pub weight: f64,
            pub ratio: f32,
            pub signature: Bytes,
            pub lines: BTreeMap<u32, u8>,
            $(pub $field: $of),*
        }
    };
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Amount {
    pub cents: u64,
    pub currency: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Customer {
    pub email: String,
}

version!(Placed1 {
    total: u64,
    email: String
});
version!(Placed2 {
    amount: Amount,
    email: String
});
version!(Placed3 {
    amount: Amount,
    customer: Customer
});

impl Event for Placed1 {
    const TYPE: &'static str = TYPE;
}

impl Event for Placed3 {
    const TYPE: &'static str = TYPE;
    const VERSION: u32 = 3;
}

pub fn second(old: Placed1) -> Result<Placed2, Failure> {
    let Placed1 {
        order_id,
        correction,
        weight,
        ratio,
        signature,
        lines,
        total,
        email,
    } = old;
    let amount = Amount {
        cents: total,
        currency: "EUR".to_owned(),
    };
    Ok(Placed2 {
        order_id,
        correction,
        weight,
        ratio,
        signature,
        lines,
        amount,
        email,
    })
}

pub fn third(old: Placed2) -> Result<Placed3, Failure> {
    let Placed2 {
        order_id,
        correction,
        weight,
        ratio,
        signature,
        lines,
        amount,
        email,
    } = old;
    let customer = Customer { email };
    Ok(Placed3 {
        order_id,
        correction,
        weight,
        ratio,
        signature,
        lines,
        amount,
        customer,
    })
}

/// What each recorded event says in today's version.
pub fn expected() -> Placed3 {
    Placed3 {
        order_id: "o-1".to_owned(),
        correction: i64::MIN,
        weight: 0.1 + 0.2,
        ratio: 0.1,
        signature: Bytes(vec![0, 255, 128, 10]),
        lines: BTreeMap::from([(7, 2), (u32::MAX, 1)]),
        amount: Amount {
            cents: u64::MAX,
            currency: "EUR".to_owned(),
        },
        customer: Customer {
            email: "änne@example.org".to_owned(),
        },
    }
}
