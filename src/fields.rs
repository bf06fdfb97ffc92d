//! The names and values of an entry. Entries that came together share one block of memory, so that an entry costs no
//! allocation and a clone one counter.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Most fields of an emitted event: Lua's unpack ends at some 8,000 values.
pub(crate) const MOST_FIELDS: usize = 3500;

/// What there is room for where fields are copied to have others added: bytes, and strings.
const ROOM: (usize, usize) = (128, 8);

/// The fields of an entry, in order, names and values as they are in Redis: any bytes, a name as often as it likes.
///
/// ```
/// use streamhand::Fields;
///
/// let fields: Fields = [("type", "order.created"), ("data", "{}")].into_iter().collect();
/// assert_eq!(fields.value("data"), Some(&b"{}"[..]));
/// assert_eq!(fields.iter().next(), Some((&b"type"[..], &b"order.created"[..])));
/// ```
#[derive(Clone, Default)]
pub struct Fields {
    block: Arc<Block>,
    /// Which strings of the block are its own.
    first: u32,
    last: u32,
}

/// Strings, one behind the other. Lives as long as the last entry with fields in it: so it is kept small.
#[derive(Clone, Default)]
pub(crate) struct Block {
    bytes: Vec<u8>,
    /// Where each string ends.
    ends: Vec<u32>,
}

impl Fields {
    /// No fields.
    pub fn new() -> Self {
        Fields::default()
    }

    /// Adds a field at the end.
    ///
    /// # Panics
    /// Where all fields together would have more than 4 GiB, four times what Redis takes in one command.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let is_whole = self.first == 0 && self.last as usize == self.block.ends.len();
        let block = match Arc::get_mut(&mut self.block) {
            Some(block) if is_whole => block,
            _ => {
                self.block = Arc::new(Block::of(self.strings(), self.size()));
                self.first = 0;
                Arc::get_mut(&mut self.block).expect("nobody else has it yet")
            }
        };
        block.push(name.as_ref());
        block.push(value.as_ref());
        self.last = block.count();
    }

    /// No fields, and room for so many bytes in so many names and values.
    pub(crate) fn with_capacity(bytes: usize, strings: usize) -> Self {
        Fields {
            block: Arc::new(Block::with_capacity(bytes, strings)),
            ..Fields::default()
        }
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        (self.last - self.first) as usize / 2
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.first == self.last
    }

    /// Name and value of the field at this place.
    pub fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        (index < self.len()).then(|| self.at(index))
    }

    /// The value of the first field of this name.
    pub fn value(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        let name = name.as_ref();
        self.iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            fields: self,
            places: 0..self.len(),
        }
    }

    /// Takes off the fields from `at` on.
    ///
    /// # Panics
    /// Where there are fewer.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Fields {
        assert!(at <= self.len(), "{at} of {} fields", self.len());
        let mut tail = self.clone();
        tail.first += 2 * at as u32;
        self.last = tail.first;
        tail
    }

    /// Strings `first` to `last` of a block, names and values in turn.
    pub(crate) fn of_block(block: &Arc<Block>, first: u32, last: u32) -> Self {
        let block = block.clone();
        Fields { block, first, last }
    }

    /// How many bytes the names and values have.
    pub(crate) fn size(&self) -> usize {
        self.block.start(self.last) - self.block.start(self.first)
    }

    /// The field at a place that is known to be there.
    pub(crate) fn at(&self, index: usize) -> (&[u8], &[u8]) {
        let name = self.first + 2 * index as u32;
        (self.block.string(name), self.block.string(name + 1))
    }

    fn strings(&self) -> impl Iterator<Item = &[u8]> {
        (self.first..self.last).map(|at| self.block.string(at))
    }
}

impl Block {
    /// An empty block with room for so many bytes in so many strings.
    pub fn with_capacity(bytes: usize, strings: usize) -> Self {
        Block {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(strings),
        }
    }

    /// Adds a string.
    pub fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        let end = u32::try_from(self.bytes.len()).expect("Redis takes 1 GiB in one command");
        self.ends.push(end);
    }

    /// How many strings there are.
    pub fn count(&self) -> u32 {
        self.ends.len() as u32
    }

    /// How many bytes they have.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A block of these strings, which have so many bytes, with room for some more.
    fn of<'a>(strings: impl Iterator<Item = &'a [u8]>, bytes: usize) -> Self {
        let mut block = Block::with_capacity(bytes + ROOM.0, strings.size_hint().0 + ROOM.1);
        strings.for_each(|string| block.push(string));
        block
    }

    fn start(&self, at: u32) -> usize {
        match at {
            0 => 0,
            at => self.ends[at as usize - 1] as usize,
        }
    }

    fn string(&self, at: u32) -> &[u8] {
        &self.bytes[self.start(at)..self.ends[at as usize] as usize]
    }
}

/// Names and values of an entry's fields.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    fields: &'a Fields,
    places: Range<usize>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.places.next().map(|at| self.fields.at(at))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.places.next_back().map(|at| self.fields.at(at))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Fields {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> Extend<(N, V)> for Fields {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, fields: I) {
        for (name, value) in fields {
            self.push(name, value);
        }
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let mut all = Fields::new();
        all.extend(fields);
        all
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> PartialEq<Vec<(N, V)>> for Fields {
    fn eq(&self, other: &Vec<(N, V)>) -> bool {
        let other = other
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()));
        self.iter().eq(other)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (text(name), text(value))))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Fields {
        [("a", "1"), ("b", ""), ("", "3")].into_iter().collect()
    }

    #[test]
    fn what_is_taken_off_and_what_is_left_are_the_whole() {
        for at in 0..=3 {
            let mut head = some();
            let tail = head.split_off(at);
            assert_eq!((head.len(), tail.len()), (at, 3 - at));
            assert_eq!(head.size() + tail.size(), some().size());
            assert_eq!(head.iter().chain(tail.iter()).collect::<Fields>(), some());
        }
    }

    #[test]
    fn a_push_leaves_those_alone_that_share_the_memory() {
        let mut head = some();
        let mut tail = head.split_off(1);
        let copy = tail.clone();
        head.push("x", "y");
        tail.push("z", "");
        assert_eq!(head, vec![("a", "1"), ("x", "y")]);
        assert_eq!(tail, vec![("b", ""), ("", "3"), ("z", "")]);
        assert_eq!(copy, vec![("b", ""), ("", "3")]);
        assert_eq!(tail.iter().next_back(), Some((&b"z"[..], &b""[..])));
        assert_eq!((tail.get(3), tail.value("b")), (None, Some(&b""[..])));
    }
}
