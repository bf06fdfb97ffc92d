//! How entries are listed that wait for a worker that can handle them, and what a worker looks for there: they are of a
//! type or version that others do not know, or they were released because of a limit.
//!
//! All have the same score, so that Redis keeps them by their names: `<bytes of the type>:<type>:<version>:<id>`. What is
//! of one type stands together, by version.

/// Most bytes of a type that is listed: none that a handler can have is longer.
const LONGEST: usize = 512;

/// Bounds of names, as ZRANGEBYLEX has them.
pub(crate) type Range = (Vec<u8>, Vec<u8>);

/// The name of an entry but for its id; none where no worker can have a handler for it.
pub(crate) fn listed(event_type: &[u8], version: u32) -> Option<Vec<u8>> {
    (event_type.len() <= LONGEST).then(|| named(event_type, &format!("{version:010}:")))
}

/// The entries of a type up to this version, or of all versions.
pub(crate) fn of(event_type: &str, version: Option<u32>) -> Range {
    let name = |rest: &str| named(event_type.as_bytes(), rest);
    // A colon comes behind all digits.
    let newer = version.map_or(name(":"), |version| {
        name(&format!("{:010}", u64::from(version) + 1))
    });
    (bound(b'[', name("")), bound(b'(', newer))
}

/// The entries of all other types than these.
pub(crate) fn of_others<'a>(types: impl Iterator<Item = &'a str>) -> Vec<Range> {
    let mut names: Vec<[Vec<u8>; 2]> = types
        .map(|name| ["", ":"].map(|rest| named(name.as_bytes(), rest)))
        .collect();
    names.sort();
    let (mut ranges, mut from) = (Vec::new(), b"-".to_vec());
    for [first, end] in names {
        ranges.push((from, bound(b'(', first)));
        from = bound(b'[', end);
    }
    ranges.push((from, b"+".to_vec()));
    ranges
}

fn bound(sign: u8, name: Vec<u8>) -> Vec<u8> {
    [&[sign], &name[..]].concat()
}

fn named(event_type: &[u8], rest: &str) -> Vec<u8> {
    let length = event_type.len().to_string();
    [length.as_bytes(), b":", event_type, b":", rest.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether an entry of this type and version is found in one of these ranges.
    fn finds(ranges: &[Range], event_type: &str, version: u32) -> bool {
        let mut name = listed(event_type.as_bytes(), version).expect("it is short");
        name.extend(b"1732360000000-0");
        ranges.iter().any(|(from, to)| {
            let above = from[..] == b"-"[..] || name[..] >= from[1..];
            above && (to[..] == b"+"[..] || name[..] < to[1..])
        })
    }

    #[test]
    fn a_type_is_found_up_to_its_version_and_no_other() {
        let found = |of: &str, version| finds(&[super::of("order.created", Some(3))], of, version);
        assert!(found("order.created", 1) && found("order.created", 3));
        for (of, version) in [
            ("order.created", 4),
            ("order.created", u32::MAX),
            ("order.cre", 1),
            ("order.created:1", 1),
        ] {
            assert!(!found(of, version), "{of} {version}");
        }
        let all = [super::of("order", Some(u32::MAX)), super::of("a", None)];
        assert!(finds(&all, "order", u32::MAX) && finds(&all, "a", u32::MAX));
        assert!(!finds(&all, "a:1", 1) && !finds(&all, "", 1));
    }

    #[test]
    fn others_are_all_but_those_that_are_named() {
        let others = of_others(["order.created", "b"].into_iter());
        for (of, is_other) in [
            ("c", true),
            ("", true),
            ("order.created.x", true),
            ("order.created", false),
            ("b", false),
        ] {
            assert_eq!(
                [0, 1, u32::MAX].map(|version| finds(&others, of, version)),
                [is_other; 3],
                "{of}"
            );
        }
        assert_eq!(
            of_others(std::iter::empty()),
            [(b"-".to_vec(), b"+".to_vec())]
        );
    }

    #[test]
    fn what_no_handler_can_be_for_is_not_listed() {
        assert_eq!(listed(&[b'x'; LONGEST + 1], 1), None);
    }
}
