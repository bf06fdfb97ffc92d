//! How entries are listed that wait for a worker that knows their type and its version, and what a worker looks for there.
//!
//! All have the same score, so that Redis keeps them by their names: `<bytes of the type>:<type>:<version>:<id>`. What is
//! of one type stands together, by version.

/// Most bytes of a type that is listed: none that a handler can have is longer.
const LONGEST: usize = 512;

/// The types and versions that a worker knows.
pub(crate) type Ranges = Vec<(Vec<u8>, Vec<u8>)>;

/// The name of an entry but for its id; none where no worker can have a handler for it.
pub(crate) fn listed(event_type: &[u8], version: u32) -> Option<Vec<u8>> {
    (event_type.len() <= LONGEST).then(|| named(event_type, &format!("{version:010}:")))
}

/// What a worker looks for that knows these types up to these versions (None for all of them), and, if it takes what
/// nobody handles, everything but newer versions of these.
pub(crate) fn ranges<'a>(
    known: impl Iterator<Item = (&'a str, Option<u32>)>,
    takes_all: bool,
) -> Ranges {
    let mut of: Vec<[Vec<u8>; 3]> = known
        .map(|(event_type, version)| {
            let name = |rest: &str| named(event_type.as_bytes(), rest);
            // A colon comes behind all digits.
            let newer = version.map_or(name(":"), |version| {
                name(&format!("{:010}", u64::from(version) + 1))
            });
            [name(""), newer, name(":")]
        })
        .collect();
    of.sort();
    let bound = |sign: u8, name: Vec<u8>| [&[sign], &name[..]].concat();
    if !takes_all {
        let range = |[from, newer, _]: [Vec<u8>; 3]| (bound(b'[', from), bound(b'(', newer));
        return of.into_iter().map(range).collect();
    }
    let (mut ranges, mut from) = (Vec::new(), b"-".to_vec());
    for [_, newer, end] in of {
        ranges.push((from, bound(b'(', newer)));
        from = bound(b'[', end);
    }
    ranges.push((from, b"+".to_vec()));
    ranges
}

fn named(event_type: &[u8], rest: &str) -> Vec<u8> {
    let length = event_type.len().to_string();
    [length.as_bytes(), b":", event_type, b":", rest.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a worker that looks for these ranges finds an entry of this type and version.
    fn finds(ranges: &Ranges, event_type: &str, version: u32) -> bool {
        let mut name = listed(event_type.as_bytes(), version).expect("it is short");
        name.extend(b"1732360000000-0");
        ranges.iter().any(|(from, to)| {
            let above = from[..] == b"-"[..] || name[..] >= from[1..];
            above && (to[..] == b"+"[..] || name[..] < to[1..])
        })
    }

    #[test]
    fn a_worker_finds_the_types_it_knows_up_to_their_versions() {
        let known = [
            ("order.created", Some(3)),
            ("order", Some(u32::MAX)),
            ("a", None),
        ];
        let ranges = ranges(known.into_iter(), false);
        let yes = [
            ("order.created", 1),
            ("order.created", 3),
            ("order", u32::MAX),
            ("a", u32::MAX),
        ];
        let no = [
            ("order.created", 4),
            ("order.created", u32::MAX),
            ("order.cre", 1),
            ("b", 1),
            ("", 1),
        ];
        assert!(yes.iter().all(|(of, version)| finds(&ranges, of, *version)));
        assert!(no.iter().all(|(of, version)| !finds(&ranges, of, *version)));
        assert!(
            !finds(&ranges, "a:1", 1),
            "a type is not the beginning of another"
        );
    }

    #[test]
    fn one_that_takes_what_nobody_handles_finds_all_but_newer_versions() {
        let known = [("order.created", Some(3)), ("b", Some(1)), ("a", None)];
        let ranges = ranges(known.into_iter(), true);
        for (of, version) in [
            ("order.created", 3),
            ("b", 1),
            ("a", 9),
            ("c", 7),
            ("", 1),
            ("order.created.x", 9),
        ] {
            assert!(finds(&ranges, of, version), "{of} {version}");
        }
        for (of, version) in [("order.created", 4), ("b", 2), ("b", u32::MAX)] {
            assert!(!finds(&ranges, of, version), "{of} {version}");
        }
        assert_eq!(
            super::ranges(std::iter::empty(), true),
            [(b"-".to_vec(), b"+".to_vec())]
        );
    }

    #[test]
    fn what_no_handler_can_be_for_is_not_listed() {
        assert_eq!(listed(&[b'x'; LONGEST + 1], 1), None);
    }
}
