//! What it costs to decode an entry: see [`crate::instructions`].

use super::resp::{Decoder, Reply};
use crate::event::Entry;
use crate::instructions::{ENTRIES, REPLIES, STREAM, WARM_UP, counted, reply, report};

/// What a socket gives at once.
const PIECE: usize = 16 << 10;

#[test]
#[ignore = "counted by scripts/instructions"]
fn decode() {
    let mut decoder = Decoder::default();
    let mut arrived = Vec::with_capacity(2 * PIECE);
    for nth in 0..WARM_UP + REPLIES {
        let bytes = reply(nth);
        let entries = counted(nth >= WARM_UP, || {
            decoded(&mut decoder, &mut arrived, &bytes)
        });
        assert_eq!(entries.len(), ENTRIES);
    }
    report(REPLIES * ENTRIES);
}

/// The entries of the `nth` reply, as the reader has them.
pub(crate) fn entries(nth: usize) -> Vec<Entry> {
    decoded(&mut Decoder::default(), &mut Vec::new(), &reply(nth))
}

/// As the reader does it: what is not decoded yet is kept, and the next piece comes behind it.
fn decoded(decoder: &mut Decoder, arrived: &mut Vec<u8>, reply: &[u8]) -> Vec<Entry> {
    let mut pieces = reply.chunks(PIECE);
    loop {
        let (used, reply) = decoder.decode(arrived).expect("it is a reply");
        arrived.drain(..used);
        if let Some(reply) = reply {
            let Reply::Entries(streams) = reply else {
                panic!("{reply:?}");
            };
            let [(name, entries)] = <[_; 1]>::try_from(streams).expect("one stream");
            assert_eq!(name, STREAM.as_bytes());
            return entries;
        }
        arrived.extend_from_slice(pieces.next().expect("the reply is whole"));
    }
}
