//! A topic that is spread over many streams: which of them an event belongs to, and what they are called.
//!
//! Pure, for publishers in any language have to come to the same: `conformance/partition.json` has what they can try
//! themselves by, and is what the tests here read. Streams of the first generation are called `{orders:0}`,
//! `{orders:1}` and so on, those of later ones `{orders:2.0}`: the number behind the last `:` has a dot in it then, so
//! that no topic's name can be mistaken for another's generation.

use std::fmt;

/// Most partitions: the slots of a cluster.
#[cfg(any(test, feature = "config"))]
pub(crate) const MOST: u32 = 16384;

/// A stream of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Partition<'a> {
    /// What the topic is called.
    pub topic: &'a str,
    /// From 1: the topic begins another one whenever it grows.
    pub generation: u32,
    /// From 0.
    pub number: u32,
}

impl<'a> Partition<'a> {
    /// A partition of a topic's first generation.
    #[cfg(feature = "eventstore")]
    pub fn first(topic: &'a str, number: u32) -> Self {
        Partition {
            topic,
            generation: 1,
            number,
        }
    }

    /// What a stream is of a topic. None if its name is no partition's.
    #[cfg(any(test, feature = "config"))]
    pub fn parse(stream: &'a str) -> Option<Self> {
        let inner = stream.strip_prefix('{')?.strip_suffix('}')?;
        let (topic, which) = inner.rsplit_once(':')?;
        let (generation, number) = match which.split_once('.') {
            Some((generation, number)) => (plain(generation).filter(|it| *it > 1)?, number),
            None => (1, which),
        };
        let number = plain(number).filter(|number| *number < MOST)?;
        (!topic.is_empty() && !topic.contains(['{', '}'])).then_some(Partition {
            topic,
            generation,
            number,
        })
    }
}

/// The stream's name.
impl fmt::Display for Partition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Partition {
            topic,
            generation,
            number,
        } = self;
        match generation {
            1 => write!(f, "{{{topic}:{number}}}"),
            _ => write!(f, "{{{topic}:{generation}.{number}}}"),
        }
    }
}

/// The number of the partition, of so many, that whatever has this address is in: a subject, an id, or an aggregate.
pub(crate) fn partition_of(address: &[u8], partitions: u32) -> u32 {
    (fnv1a(address) % u64::from(partitions.max(1))) as u32
}

/// What an event is placed by: its subject, or its id if it has none or an empty one.
pub(crate) fn address<'a>(subject: Option<&'a [u8]>, id: &'a [u8]) -> &'a [u8] {
    subject.filter(|subject| !subject.is_empty()).unwrap_or(id)
}

/// The number of a lease of a stream as those outside are told it: of a topic's later generation it is above all that there
/// ever were in an earlier one, whose subjects have moved there. A lease's number is a time in milliseconds, which is far
/// below 2^42 for a century.
#[cfg(any(test, feature = "config"))]
pub(crate) fn epoch(stream: &str, lease: u64) -> u64 {
    let generation = Partition::parse(stream).map_or(1, |of| of.generation);
    lease.saturating_add(u64::from(generation - 1) << 42)
}

/// Refuses what can't be a topic with so many partitions, with the end of a sentence about that number.
pub(crate) fn check(topic: &str, partitions: u32) -> Result<(), &'static str> {
    match partitions {
        0 | 16385.. => Err("from 1 to 16384, the slots of a cluster"),
        _ if topic.contains('{') => Err("its name has a tag, which keeps all of it in one slot"),
        _ => Ok(()),
    }
}

/// FNV-1a, 64 bits: <http://www.isthe.com/chongo/tech/comp/fnv/>.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A number as it is written here: no sign, and no zero before it.
#[cfg(any(test, feature = "config"))]
fn plain(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    (is_plain && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn epochs_of_a_later_generation_are_above_all_of_an_earlier_one() {
        let century = 100 * 366 * 24 * 60 * 60 * 1000;
        assert_eq!(epoch("orders", 7), 7);
        assert_eq!(epoch("{orders:3}", century), century);
        assert!(epoch("{orders:2.0}", 1) > epoch("{orders:3}", century));
        assert!(epoch("{orders:3.9}", 1) > epoch("{orders:2.0}", century));
    }

    #[derive(Deserialize)]
    struct Vectors {
        hashes: Vec<Hash>,
        events: Vec<Event>,
        streams: Vec<Stream>,
        not_streams: Vec<String>,
    }

    #[derive(Deserialize)]
    struct Hash {
        address: String,
        fnv1a64: String,
    }

    #[derive(Deserialize)]
    struct Event {
        topic: String,
        generation: u32,
        partitions: u32,
        subject: Option<String>,
        id: String,
        stream: String,
    }

    #[derive(Deserialize)]
    struct Stream {
        topic: String,
        generation: u32,
        partition: u32,
        stream: String,
    }

    fn vectors() -> Vectors {
        serde_json::from_str(include_str!("../conformance/partition.json")).unwrap()
    }

    #[test]
    fn hashes_are_those_that_are_published() {
        for hash in vectors().hashes {
            let ours = format!("{:016x}", fnv1a(hash.address.as_bytes()));
            assert_eq!(ours, hash.fnv1a64, "{:?}", hash.address);
        }
    }

    #[test]
    fn events_belong_to_the_streams_that_are_published() {
        for event in vectors().events {
            let subject = event.subject.as_deref().map(str::as_bytes);
            let address = address(subject, event.id.as_bytes());
            let partition = Partition {
                topic: &event.topic,
                generation: event.generation,
                number: partition_of(address, event.partitions),
            };
            assert_eq!(partition.to_string(), event.stream, "{:?}", event.subject);
        }
    }

    #[test]
    fn streams_are_read_as_they_are_written_and_nothing_else_is_one() {
        let Vectors {
            streams,
            not_streams,
            ..
        } = vectors();
        for stream in streams {
            let partition = Partition {
                topic: &stream.topic,
                generation: stream.generation,
                number: stream.partition,
            };
            assert_eq!(partition.to_string(), stream.stream);
            assert_eq!(Partition::parse(&stream.stream), Some(partition));
        }
        for name in not_streams {
            assert_eq!(Partition::parse(&name), None, "{name}");
        }
    }

    #[test]
    fn what_can_t_be_spread_is_refused() {
        assert!(check("orders", 0).is_err() && check("orders", 16385).is_err());
        assert!(check("{shop}.orders", 2).is_err() && check("{shop}.orders", 1).is_err());
        assert!(check("orders", 16384).is_ok());
    }
}
