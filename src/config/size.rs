//! Sizes of memory as text: `"512MiB"`.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::value::{Given, Refusal, Setting, invalid, text};
use crate::error::{Error, ErrorKind};

/// So many bytes, in text as `"64KiB"`, `"512MiB"` or `"2GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl ByteSize {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        ByteSize(bytes)
    }

    /// How many bytes it is.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    fn checked(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no size; write \"512MiB\": a whole number and KiB, MiB or GiB");
        let text = text.trim();
        let of_unit = |(unit, bits): &(&str, u32)| Some((text.strip_suffix(unit)?, *bits));
        let (number, bits) = UNITS.iter().find_map(of_unit).ok_or_else(wrong)?;
        let number: u64 = number.trim_end().parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(1 << bits);
        bytes
            .map(ByteSize)
            .ok_or_else(|| format!("{text:?} is more than there can be"))
    }
}

/// As in a configuration.
impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::checked(text).map_err(|why| Error::new(ErrorKind::Invalid, why))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, bits): &&(&str, u32)| self.0.trailing_zeros() >= *bits && self.0 > 0;
        match UNITS.iter().find(whole) {
            Some((unit, bits)) => write!(f, "{}{unit}", self.0 >> bits),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Setting for ByteSize {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        let text = text(given, "a size in quotes, as in \"512MiB\"")?;
        ByteSize::checked(text).map_err(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_and_a_unit() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("1 KiB", 1 << 10),
            ("2GiB", 2 << 30),
            ("0KiB", 0),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes, "{text}");
        }
        assert_eq!(ByteSize::new(512 << 20).to_string(), "512MiB");
        assert_eq!(ByteSize::new(1536 << 10).to_string(), "1536KiB");
        for wrong in ["512", "512MB", "1.5GiB", "-1MiB", "MiB", "17179869184GiB"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
    }
}
