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

/// Stops the compiler at what is not an event type, with a message that shows it.
pub const fn demand(name: &str) {
    if let Some(flaw) = flaw(name) {
        let message = Message::EMPTY.about(name, flaw);
        panic!("{}", message.text());
    }
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

/// A text that is put together while something is compiled.
struct Message {
    bytes: [u8; 400],
    len: usize,
}

/// Most bytes of a name that are shown in a message of the compiler.
const SHOWN: usize = 100;

impl Message {
    const EMPTY: Message = Message {
        bytes: [0; 400],
        len: 0,
    };

    /// What is wrong with an event type, and what would be right.
    const fn about(self, name: &str, flaw: Flaw) -> Self {
        let message = self.add("the event type \"").add_shortened(name).add("\" ");
        let message = match flaw {
            Flaw::Empty => message.add("is empty"),
            Flaw::NoDot => message.add("has no dot"),
            Flaw::EmptySegment(at) => message
                .add("has an empty part at position ")
                .add_position(name, at),
            Flaw::Start(at) => message
                .add("has a part that begins with a digit, '_' or '-' at position ")
                .add_position(name, at),
            Flaw::Character(at) => message
                .add("has something else than a-z, 0-9, '_', '-' and dots at position ")
                .add_position(name, at),
        };
        message.add("; Event::TYPE is a noun and what happened to it, dotted and lower-case, like \"order.created\"")
    }

    const fn add(self, text: &str) -> Self {
        self.add_bytes(text.as_bytes(), text.len())
    }

    const fn add_shortened(self, text: &str) -> Self {
        let mut end = text.len();
        if end <= SHOWN {
            return self.add(text);
        }
        end = SHOWN;
        // A byte that continues a character.
        while text.as_bytes()[end] & 0xC0 == 0x80 {
            end -= 1;
        }
        self.add_bytes(text.as_bytes(), end).add("…")
    }

    /// The number, from 1, of the character at a byte.
    const fn add_position(self, name: &str, at: usize) -> Self {
        let (mut position, mut byte) = (1, 0);
        while byte < at {
            position += (name.as_bytes()[byte] & 0xC0 != 0x80) as usize;
            byte += 1;
        }
        self.add_number(position)
    }

    const fn add_number(self, number: usize) -> Self {
        let before = if number >= 10 {
            self.add_number(number / 10)
        } else {
            self
        };
        before.add_bytes(&[b'0' + (number % 10) as u8], 1)
    }

    const fn add_bytes(mut self, bytes: &[u8], end: usize) -> Self {
        let mut at = 0;
        while at < end {
            self.bytes[self.len] = bytes[at];
            self.len += 1;
            at += 1;
        }
        self
    }

    const fn text(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => "an event type breaks the grammar",
        }
    }
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
    fn types_are_those_that_are_published() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../conformance/types.json")).unwrap();
        for (list, is) in [("types", true), ("not_types", false)] {
            let names = vectors[list].as_array().unwrap();
            assert!(names.len() > 5);
            for name in names {
                assert_eq!(is_valid(name.as_str().unwrap()), is, "{name}");
            }
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

    #[test]
    fn the_compiler_shows_the_type_that_it_refuses() {
        let long = format!("Order.{}", "ä".repeat(2000));
        let refusals = [
            "",
            "order",
            "Order.Created",
            "order..created",
            "order.-created",
            "ordér. created",
            &long,
        ]
        .map(|name| {
            let flaw = flaw(name).expect(name);
            Message::EMPTY.about(name, flaw).text().to_owned()
        })
        .join("\n");
        insta::assert_snapshot!(refusals, @r#"
        the event type "" is empty; Event::TYPE is a noun and what happened to it, dotted and lower-case, like "order.created"
        the event type "order" has no dot; Event::TYPE is a noun and what happened to it, dotted and lower-case, like "order.created"
        the event type "Order.Created" has something else than a-z, 0-9, '_', '-' and dots at position 1; Event::TYPE is a noun and what happened to it, dotted and lower-case, like "order.created"
        the event type "order..created" has an empty part at position 7; Event::TYPE is a noun and what happened to it, dotted and lower-case, like "order.created"
        the event type "order.-created" has a part that begins with a digit, '_' or '-' at position 7; Event::TYPE is a noun and what happened to it, dotted and lower-case, like "order.created"
        the event type "ordér. created" has something else than a-z, 0-9, '_', '-' and dots at position 4; Event::TYPE is a noun and what happened to it, dotted and lower-case, like "order.created"
        the event type "Order.äääääääääääääääääääääääääääääääääääääääääääääää…" has something else than a-z, 0-9, '_', '-' and dots at position 1; Event::TYPE is a noun and what happened to it, dotted and lower-case, like "order.created"
        "#);
        for right in ["order.created", "a.0"] {
            demand(right);
        }
    }

    #[test]
    #[should_panic(expected = "the event type \"Order.Created\" has")]
    fn what_breaks_the_grammar_is_refused_where_it_is_compiled() {
        demand("Order.Created");
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
