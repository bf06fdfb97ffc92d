//! The grammar of event types: dotted, lower-case, a noun and what happened to it.
//!
//! `order.created`, `shop.order-line.2_removed`: at least two segments joined by dots, each of
//! `a-z`, `0-9`, `_` and `-`, none beginning with `_` or `-`, the first beginning with a letter.
//! As a regular expression: `^[a-z][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)+$`.
//!
//! The scan is a `const fn`, so that a typed event is refused when it is compiled; what reads
//! types at run time asks [`check`], which says what is wrong and where.

/// Whether `name` is an event type. Usable in constants.
pub const fn is_valid(name: &str) -> bool {
    flaw(name).is_none()
}

/// Refuses what is not an event type and says why, as the end of a sentence about the name:
/// `has the upper-case letter 'O' at position 1; write "order.created"`.
pub fn check(name: &str) -> Result<(), String> {
    let Some(flaw) = flaw(name) else {
        return Ok(());
    };
    Err(match flaw {
        Flaw::Empty => {
            "is empty; write a noun and what happened to it, as in \"order.created\"".to_owned()
        }
        Flaw::NoDot => {
            "has no dot; write a noun and what happened to it, as in \"order.created\"".to_owned()
        }
        Flaw::EmptySegment(at) if at == name.len() => "ends in a dot".to_owned(),
        Flaw::EmptySegment(0) => "begins with a dot".to_owned(),
        Flaw::EmptySegment(at) => format!("has two dots in a row at position {at}"),
        Flaw::Start(0) => {
            let found = char_at(name, 0);
            format!("begins with {found:?}; an event type begins with a letter")
        }
        Flaw::Start(at) => {
            let found = char_at(name, at);
            format!("has a part that begins with {found:?}; a part begins with a letter or a digit")
        }
        Flaw::Character(at) => {
            let found = char_at(name, at);
            let position = name[..at].chars().count() + 1;
            if found.is_uppercase() {
                let lower = name.to_lowercase();
                let write = if is_valid(&lower) {
                    format!("; write {lower:?}")
                } else {
                    "; event types are lower-case".to_owned()
                };
                format!("has the upper-case letter {found:?} at position {position}{write}")
            } else {
                format!(
                    "has {found:?} at position {position}; only a-z, 0-9, '_', '-' and the dots \
                     between the parts are allowed"
                )
            }
        }
    })
}

/// What breaks the grammar first, and at which byte.
#[derive(Clone, Copy)]
enum Flaw {
    Empty,
    NoDot,
    /// The byte where a segment should have begun.
    EmptySegment(usize),
    /// An otherwise good character where no segment may begin with it.
    Start(usize),
    /// A character of no event type.
    Character(usize),
}

const fn flaw(name: &str) -> Option<Flaw> {
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        return Some(Flaw::Empty);
    }
    let mut dots = 0;
    let mut starts = true;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'.' if starts => return Some(Flaw::EmptySegment(at)),
            b'.' => {
                dots += 1;
                starts = true;
            }
            b'a'..=b'z' => starts = false,
            b'0'..=b'9' if !starts || dots > 0 => starts = false,
            b'_' | b'-' if !starts => {}
            b'0'..=b'9' | b'_' | b'-' => return Some(Flaw::Start(at)),
            _ => return Some(Flaw::Character(at)),
        }
        at += 1;
    }
    if starts {
        return Some(Flaw::EmptySegment(at));
    }
    if dots == 0 {
        return Some(Flaw::NoDot);
    }
    None
}

/// The character at a byte the scan has stopped at. Everything before it was ASCII, so it is the
/// beginning of a character.
fn char_at(name: &str, at: usize) -> char {
    name[at..]
        .chars()
        .next()
        .unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const _: () = assert!(is_valid("order.created"));
    const _: () = assert!(!is_valid("OrderCreated"));

    #[test]
    fn dotted_lower_case_names_are_event_types() {
        for name in ["a.b", "order.created", "shop.order-line.2_removed", "a.0"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong_and_where() {
        let refusals = [
            "",
            "order",
            "Order.created",
            "order.Created_",
            "ordér.created",
            "order created",
            "order..created",
            ".created",
            "order.",
            "1order.created",
            "order.-created",
            "order.ÄRGER",
        ]
        .map(|name| format!("{name:?} {}", check(name).expect_err(name)))
        .join("\n");
        insta::assert_snapshot!(refusals, @r#"
        "" is empty; write a noun and what happened to it, as in "order.created"
        "order" has no dot; write a noun and what happened to it, as in "order.created"
        "Order.created" has the upper-case letter 'O' at position 1; write "order.created"
        "order.Created_" has the upper-case letter 'C' at position 7; write "order.created_"
        "ordér.created" has 'é' at position 4; only a-z, 0-9, '_', '-' and the dots between the parts are allowed
        "order created" has ' ' at position 6; only a-z, 0-9, '_', '-' and the dots between the parts are allowed
        "order..created" has two dots in a row at position 6
        ".created" begins with a dot
        "order." ends in a dot
        "1order.created" begins with '1'; an event type begins with a letter
        "order.-created" has a part that begins with '-'; a part begins with a letter or a digit
        "order.ÄRGER" has the upper-case letter 'Ä' at position 7; event types are lower-case
        "#);
    }

    proptest! {
        #[test]
        fn the_scan_agrees_with_the_regular_expression(
            name in r"([a-zA-Z0-9_.-]|é| ){0,12}|[a-z][a-z0-9_-]{0,3}(\.[a-z0-9][a-z0-9_-]{0,3}){0,3}"
        ) {
            let grammar = regex::Regex::new(r"^[a-z][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)+$").unwrap();
            prop_assert_eq!(is_valid(&name), grammar.is_match(&name));
            prop_assert_eq!(check(&name).is_ok(), is_valid(&name));
        }
    }
}
