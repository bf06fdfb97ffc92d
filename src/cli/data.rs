//! Values of an entry as text: JSON and MessagePack laid out, other text as it is, the rest in hexadecimal.

use std::fmt::Write;

use crate::admin::data::json;
use crate::codec;

/// A value to be shown.
#[derive(Debug, PartialEq)]
pub(super) enum Shown {
    Text(String),
    /// What it is, and its lines.
    Block(&'static str, String),
}

/// The data of an event of this content type; where it is not what it says it is, as any other value.
pub(super) fn decoded(content_type: Option<&str>, data: &[u8]) -> Shown {
    match json(content_type.unwrap_or(codec::JSON), data) {
        Some((format, json)) => Shown::Block(format, laid_out(&json)),
        None => value(data),
    }
}

/// Any other value.
pub(super) fn value(bytes: &[u8]) -> Shown {
    match std::str::from_utf8(bytes) {
        Ok(text) => Shown::Text(text.to_owned()),
        Err(_) => Shown::Block("not UTF-8, in hexadecimal", hexadecimal(bytes)),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for line in bytes.chunks(32) {
        for (at, byte) in line.iter().enumerate() {
            let space = if at > 0 { " " } else { "" };
            let _ = write!(text, "{space}{byte:02x}");
        }
        text.push('\n');
    }
    text
}

/// JSON over several lines, its numbers and strings as they were written.
pub(super) fn laid_out(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0;
    let (mut in_string, mut escaped) = (false, false);
    let mut chars = json.chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::data::on_one_line;

    #[test]
    fn json_is_laid_out_and_otherwise_left_alone() {
        let json = r#"{ "n":99999999999999999999,"s":"a{\"b\\",  "l":[1, [ ] ,{}],"e":"" }"#;
        let Shown::Block("JSON", text) = decoded(None, json.as_bytes()) else {
            panic!("no JSON");
        };
        insta::assert_snapshot!(text, @r#"
        {
          "n": 99999999999999999999,
          "s": "a{\"b\\",
          "l": [
            1,
            [],
            {}
          ],
          "e": ""
        }
        "#);
        assert_eq!(on_one_line(&text), json.replace([' '], ""));
    }

    #[test]
    fn messagepack_is_shown_as_json_whatever_is_in_it() {
        // {"id": 7, 1: bin(ff 00), "x": ext(5, aa bb)}
        let data = b"\x83\xa2id\x07\x01\xc4\x02\xff\x00\xa1x\xd5\x05\xaa\xbb";
        let Shown::Block("MessagePack", text) = decoded(Some("application/msgpack"), data) else {
            panic!("no MessagePack");
        };
        insta::assert_snapshot!(text, @r#"
        {
          "1": "0xff00",
          "id": 7,
          "x": [
            5,
            "0xaabb"
          ]
        }
        "#);
    }

    #[test]
    fn what_is_not_what_it_says_is_shown_all_the_same() {
        assert_eq!(decoded(None, b"{oops"), Shown::Text("{oops".to_owned()));
        let data = b"\x93\x01\xff";
        assert_eq!(
            decoded(Some("application/msgpack"), data),
            Shown::Block("not UTF-8, in hexadecimal", "93 01 ff\n".to_owned())
        );
    }
}
