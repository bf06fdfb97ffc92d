use proptest::prelude::*;

use super::*;
use crate::instructions::{list, string};

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
type Streams = Vec<(Vec<u8>, Vec<((u64, u64), Pairs)>)>;

/// As a server writes it.
fn encoded(streams: &Streams) -> Vec<u8> {
    if streams.is_empty() {
        return b"*-1\r\n".to_vec();
    }
    let mut out = Vec::new();
    list(&mut out, streams.len());
    for (name, entries) in streams {
        list(&mut out, 2);
        string(&mut out, name);
        list(&mut out, entries.len());
        for ((ms, seq), fields) in entries {
            list(&mut out, 2);
            string(&mut out, format!("{ms}-{seq}").as_bytes());
            list(&mut out, 2 * fields.len());
            for (name, value) in fields {
                string(&mut out, name);
                string(&mut out, value);
            }
        }
    }
    out
}

/// Feeds `bytes` piece by piece, as a reader does.
fn decoded(bytes: &[u8], pieces: &[usize]) -> Result<(Option<Reply>, usize), Garbled> {
    let mut decoder = Decoder::default();
    let (mut begin, mut end) = (0, 0);
    let mut pieces = pieces.iter().copied().chain(std::iter::repeat(7));
    loop {
        let (used, reply) = decoder.decode(&bytes[begin..end])?;
        begin += used;
        if reply.is_some() || end == bytes.len() {
            return Ok((reply, begin));
        }
        end = bytes.len().min(end + pieces.next().unwrap_or(1).max(1));
    }
}

fn same(streams: Streams, reply: Option<Reply>) -> bool {
    let Some(Reply::Entries(decoded)) = reply else {
        return false;
    };
    decoded.len() == streams.len()
        && streams
            .iter()
            .zip(&decoded)
            .all(|((name, entries), (n, e))| {
                name == n
                    && entries.len() == e.len()
                    && entries.iter().zip(e).all(|(((ms, seq), fields), entry)| {
                        let id = EntryId { ms: *ms, seq: *seq };
                        entry.id == id && entry.fields == *fields
                    })
            })
}

fn streams() -> impl Strategy<Value = Streams> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let fields = prop::collection::vec((bytes(), bytes()), 0..6);
    let entries = prop::collection::vec((any::<(u64, u64)>(), fields), 0..80);
    prop::collection::vec((bytes(), entries), 0..4)
}

proptest! {
    #[test]
    fn what_a_server_sends_is_decoded_in_whatever_pieces_it_comes(
        streams in streams(), pieces in prop::collection::vec(1..400_usize, 0..60)
    ) {
        let mut bytes = encoded(&streams);
        let whole = bytes.len();
        // The next answer stands behind it, and is left alone.
        bytes.extend(b"*1\r\n*2");
        let (reply, used) = decoded(&bytes, &pieces).unwrap();
        prop_assert_eq!(used, whole);
        prop_assert!(same(streams, reply));
    }

    #[test]
    fn no_input_makes_it_panic_or_mind_its_pieces(
        bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(b"*$-:+0123456789\r\n".to_vec())], 0..200
        ),
        pieces in prop::collection::vec(1..50_usize, 0..20)
    ) {
        let whole = decoded(&bytes, &[bytes.len()]);
        prop_assert_eq!(decoded(&bytes, &pieces), whole);
    }

    #[test]
    fn a_byte_that_is_wrong_is_garbled_or_another_answer_and_the_same_in_whatever_pieces(
        streams in streams(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"*$-0129\r\n".to_vec())],
        pieces in prop::collection::vec(1..400_usize, 0..60)
    ) {
        let mut bytes = encoded(&streams);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let whole = decoded(&bytes, &[bytes.len()]);
        prop_assert_eq!(decoded(&bytes, &pieces), whole);
    }
}

#[test]
fn what_is_nil_is_empty_in_whatever_pieces_it_comes() {
    let nothing = b"*-1\r\n";
    let gone = b"*1\r\n*2\r\n$1\r\na\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*-1\r\n";
    for piece in 1..=gone.len() {
        let pieces = vec![piece; gone.len()];
        let (reply, used) = decoded(nothing, &pieces).unwrap();
        assert_eq!(
            (reply, used),
            (Some(Reply::Entries(Vec::new())), nothing.len())
        );
        let (reply, used) = decoded(gone, &pieces).unwrap();
        assert!(same(
            vec![(b"a".to_vec(), vec![((1, 0), Vec::new())])],
            reply
        ));
        assert_eq!(used, gone.len());
    }
}

#[test]
fn an_error_is_handed_on_and_anything_else_is_garbled() {
    let (reply, used) = decoded(b"-NOGROUP no such key\r\n", &[3]).unwrap();
    assert_eq!(reply, Some(Reply::Error("NOGROUP no such key".to_owned())));
    assert_eq!(used, 22);
    for bytes in [
        &b"+OK\r\n"[..],
        b":1\r\n",
        b"*1\r\n*3\r\n",
        b"*1\r\n*2\r\n$1\r\nab\r\n",
        b"*99999999999\r\n",
        b"*-2\r\n",
        b"*1x",
        b"*0000000000000",
        b"-ERR no end of a line\n",
        b"*1\r\n*2\r\n$1\r\na\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*1\r\n",
    ] {
        assert_eq!(
            decoded(bytes, &[]),
            Err(Garbled),
            "{}",
            bytes.escape_ascii()
        );
    }
    assert_eq!(decoded(b"*1\r\n*2\r\n$4\r\njob", &[]).unwrap().0, None);
}
