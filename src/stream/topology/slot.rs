//! Which hash slot of a cluster a key lies in: CRC16 (XMODEM) of the key, or of its hash tag, modulo 16,384.

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// A hash slot of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(u16);

impl Slot {
    /// The slot of a key.
    pub fn of(key: impl AsRef<[u8]>) -> Self {
        Slot(crc16(hashed(key.as_ref())) % SLOTS)
    }

    /// The slot of this number, if there is one.
    pub fn numbered(number: u16) -> Option<Self> {
        (number < SLOTS).then_some(Slot(number))
    }

    pub fn number(self) -> u16 {
        self.0
    }
}

/// The part of a key that says where it lies: what is between the first `{` and the first `}` behind it, if that is
/// anything; else all of it.
fn hashed(key: &[u8]) -> &[u8] {
    let position = |bytes: &[u8], wanted| bytes.iter().position(|byte| *byte == wanted);
    let Some(open) = position(key, b'{') else {
        return key;
    };
    let behind = &key[open + 1..];
    match position(behind, b'}') {
        None | Some(0) => key,
        Some(close) => &behind[..close],
    }
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let at = (crc >> 8) as u8 ^ byte;
        (crc << 8) ^ TABLE[usize::from(at)]
    })
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let (mut crc, mut bit) = ((at as u16) << 8, 0);
        while bit < 8 {
            crc = match crc & 0x8000 {
                0 => crc << 1,
                _ => (crc << 1) ^ 0x1021,
            };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // The check value of CRC-16/XMODEM, and what CLUSTER KEYSLOT says.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, slot) in [
            ("", 0),
            ("a", 15495),
            ("foo", 12182),
            ("bar", 5061),
            ("hello", 866),
            ("somekey", 11058),
            ("123456789", 12739),
        ] {
            assert_eq!(Slot::of(key).number(), slot, "{key:?}");
        }
    }

    #[test]
    fn a_tag_says_where_a_key_lies_unless_it_is_empty() {
        let of = |key: &str| Slot::of(key);
        assert_eq!(of("{user1000}.following"), of("user1000"));
        assert_eq!(of("{foo}:group:dead"), of("foo"));
        // The first brace, and the first closing one behind it.
        assert_eq!(hashed(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hashed(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hashed(b"foo}{bar}"), b"bar");
        // An empty tag, and one that is never closed, are no tags.
        assert_eq!(hashed(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hashed(b"foo{bar"), b"foo{bar");
        assert_eq!(hashed("{ä}x".as_bytes()), "ä".as_bytes());
        assert_eq!(
            Slot::of([0xff, 0x00]).number(),
            crc16(&[0xff, 0x00]) % SLOTS
        );
    }
}
