//! Numbers, texts and sections as bytes: what packed pulses and slots are written in. Numbers are varints (seven bits a
//! byte, the lowest first), texts stand once each in a table at the front, and what follows is in sections that
//! say how long they are, so that a release that does not know one passes over it.

use std::collections::HashMap;
use std::fmt;

/// What is written first: the version of the form. A newer one is not looked into.
pub(super) const VERSION: u8 = 1;

/// Most bytes that are unpacked of one text.
const LONGEST_TEXT: u64 = 4096;

/// Why bytes could not be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// A newer release has packed them, in this version.
    Newer(u8),
    /// They are not what any release packs.
    Garbled,
}

/// The end was met where more was to come, or a number that can't be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbled;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Newer(version) => write!(f, "packed by a newer release (form {version})"),
            Unreadable::Garbled => f.write_str("garbled"),
        }
    }
}

impl From<Garbled> for Unreadable {
    fn from(_: Garbled) -> Self {
        Unreadable::Garbled
    }
}

/// Packs sections and the texts that they name.
#[derive(Default)]
pub(super) struct Packer {
    texts: Vec<String>,
    places: HashMap<String, u64>,
    sections: Vec<(u8, Vec<u8>)>,
}

impl Packer {
    /// Writes a section. One that nothing is written to is left out.
    pub fn section(&mut self, tag: u8, write: impl FnOnce(&mut Section<'_>)) {
        let mut section = Section {
            packer: self,
            bytes: Vec::new(),
        };
        write(&mut section);
        let bytes = section.bytes;
        if !bytes.is_empty() {
            self.sections.push((tag, bytes));
        }
    }

    /// All of it: the version, the texts, the sections.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        number(&mut bytes, self.texts.len() as u64);
        for text in &self.texts {
            number(&mut bytes, text.len() as u64);
            bytes.extend_from_slice(text.as_bytes());
        }
        for (tag, section) in &self.sections {
            bytes.push(*tag);
            number(&mut bytes, section.len() as u64);
            bytes.extend_from_slice(section);
        }
        bytes
    }
}

/// A section while it is written.
pub(super) struct Section<'p> {
    packer: &'p mut Packer,
    bytes: Vec<u8>,
}

impl Section<'_> {
    pub fn number(&mut self, value: u64) -> &mut Self {
        number(&mut self.bytes, value);
        self
    }

    pub fn fixed(&mut self, value: u64) -> &mut Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A text, by its place in the table.
    pub fn text(&mut self, text: &str) -> &mut Self {
        let place = self.place(text);
        self.number(place)
    }

    /// The place of a text in the table.
    pub fn place(&mut self, text: &str) -> u64 {
        let packer = &mut *self.packer;
        if let Some(place) = packer.places.get(text) {
            return *place;
        }
        let place = packer.texts.len() as u64;
        packer.texts.push(text.to_owned());
        packer.places.insert(text.to_owned(), place);
        place
    }

    /// Bytes, with how many there are in front.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
        self
    }

    #[cfg(test)]
    pub fn bytes_as_they_are(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// What was packed, looked into.
pub(super) struct Packed<'b> {
    texts: Vec<&'b str>,
    sections: Vec<(u8, &'b [u8])>,
}

impl<'b> Packed<'b> {
    pub fn open(bytes: &'b [u8]) -> Result<Self, Unreadable> {
        let mut rest = Reader(bytes);
        match rest.byte()? {
            VERSION => {}
            0 => return Err(Unreadable::Garbled),
            newer => return Err(Unreadable::Newer(newer)),
        }
        let mut texts = Vec::new();
        for _ in 0..rest.count()? {
            let long = rest.number()?;
            if long > LONGEST_TEXT {
                return Err(Unreadable::Garbled);
            }
            let text = std::str::from_utf8(rest.take(long)?);
            texts.push(text.map_err(|_| Unreadable::Garbled)?);
        }
        let mut sections = Vec::new();
        while !rest.0.is_empty() {
            let (tag, long) = (rest.byte()?, rest.number()?);
            sections.push((tag, rest.take(long)?));
        }
        Ok(Packed { texts, sections })
    }

    /// What a section has; nothing where it is not there.
    pub fn section(&self, tag: u8) -> Reader<'b> {
        let found = self.sections.iter().find(|(of, _)| *of == tag);
        Reader(found.map_or(&[], |(_, bytes)| bytes))
    }

    /// The text at the place that comes next.
    pub fn text(&self, from: &mut Reader<'_>) -> Result<&'b str, Garbled> {
        self.text_at(from.number()?)
    }

    /// The text at a place.
    pub fn text_at(&self, place: u64) -> Result<&'b str, Garbled> {
        self.texts.get(place as usize).copied().ok_or(Garbled)
    }
}

/// Bytes that are read from the front.
#[derive(Clone)]
pub(super) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> Result<u8, Garbled> {
        let (first, rest) = self.0.split_first().ok_or(Garbled)?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn number(&mut self) -> Result<u64, Garbled> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Garbled);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Garbled)
    }

    pub fn fixed(&mut self) -> Result<u64, Garbled> {
        let bytes = self.take(8)?.try_into().map_err(|_| Garbled)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// How many of something follow: each takes a byte at least, so that no number makes room for what can't come.
    pub fn count(&mut self) -> Result<usize, Garbled> {
        let count = self.number()?;
        match count <= self.0.len() as u64 {
            true => Ok(count as usize),
            false => Err(Garbled),
        }
    }

    /// So many bytes, as a reader of their own.
    pub fn part(&mut self, long: u64) -> Result<Reader<'b>, Garbled> {
        self.take(long).map(Reader)
    }

    fn take(&mut self, long: u64) -> Result<&'b [u8], Garbled> {
        if long > self.0.len() as u64 {
            return Err(Garbled);
        }
        let (taken, rest) = self.0.split_at(long as usize);
        self.0 = rest;
        Ok(taken)
    }
}

pub(super) fn number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_texts_come_back(numbers in proptest::collection::vec(any::<u64>(), 0..20), texts in proptest::collection::vec(".{0,12}", 0..6)) {
            let mut packer = Packer::default();
            packer.section(3, |section| {
                section.number(numbers.len() as u64);
                for value in &numbers {
                    section.number(*value).fixed(*value);
                }
                for text in &texts {
                    section.text(text);
                }
            });
            let bytes = packer.finish();
            let packed = Packed::open(&bytes).unwrap();
            let mut section = packed.section(3);
            prop_assert_eq!(section.count().unwrap(), numbers.len());
            for value in &numbers {
                prop_assert_eq!(section.number().unwrap(), *value);
                prop_assert_eq!(section.fixed().unwrap(), *value);
            }
            for text in &texts {
                prop_assert_eq!(packed.text(&mut section).unwrap(), text);
            }
            prop_assert!(section.is_empty() && packed.section(4).is_empty());
        }

        #[test]
        fn whatever_comes_is_refused_or_read_and_nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(packed) = Packed::open(&bytes) {
                for tag in 0..=u8::MAX {
                    let mut section = packed.section(tag);
                    while section.number().is_ok() {}
                }
            }
        }
    }

    #[test]
    fn a_newer_form_is_said_and_an_unknown_section_passed_over() {
        assert_eq!(Packed::open(&[2, 9, 9]).err(), Some(Unreadable::Newer(2)));
        assert_eq!(Packed::open(&[]).err(), Some(Unreadable::Garbled));
        let mut packer = Packer::default();
        packer.section(200, |section| {
            section.text("what comes later").number(7);
        });
        packer.section(1, |section| {
            section.number(5);
        });
        let bytes = packer.finish();
        let packed = Packed::open(&bytes).unwrap();
        assert_eq!(packed.section(1).number(), Ok(5));
        // A number of eleven bytes, and one that says there is more than there is.
        assert_eq!(Reader(&[0xff; 11]).number(), Err(Garbled));
        assert_eq!(Reader(&[9, 1]).count(), Err(Garbled));
    }
}
