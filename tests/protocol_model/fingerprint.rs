//! A quick hash of a state.

use std::hash::Hasher;

/// Takes small values in words of eight bytes and folds each into the whole by a multiplication of 128 bits.
#[derive(Default)]
pub struct Fingerprint {
    folded: u64,
    word: u64,
    bits: u32,
}

const FOLD_BY: u64 = 0xa076_1d64_78bd_642f;
const FOLD_WITH: u64 = 0x9e37_79b9_7f4a_7c15;

impl Fingerprint {
    fn fold(&mut self) {
        let mixed = u128::from(self.folded ^ self.word) * u128::from(FOLD_BY);
        self.folded = (mixed as u64) ^ (mixed >> 64) as u64 ^ FOLD_WITH;
        (self.word, self.bits) = (0, 0);
    }
}

impl Hasher for Fingerprint {
    fn write_u8(&mut self, value: u8) {
        self.word |= u64::from(value) << self.bits;
        self.bits += 8;
        if self.bits == 64 {
            self.fold();
        }
    }

    /// A variant of an enum.
    fn write_isize(&mut self, value: isize) {
        self.write_u8(value as u8);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u8(value as u8);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn finish(&self) -> u64 {
        let mut last = Fingerprint { ..*self };
        last.fold();
        last.fold();
        last.folded
    }
}
