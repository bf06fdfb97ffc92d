//! Where one message of the Redis protocol ends and the next begins.

/// The length in bytes of the first message in `bytes`, a request or a reply of either version of
/// the protocol, or `None` when it is not all there yet.
pub fn message_len(bytes: &[u8]) -> Option<usize> {
    let line = line_len(bytes)?;
    let parts = match bytes[0] {
        b'$' | b'=' | b'!' => {
            let end = match number(bytes, line) {
                size @ 0.. => line + size as usize + 2,
                _ => line,
            };
            return (bytes.len() >= end).then_some(end);
        }
        b'*' | b'~' | b'>' => number(bytes, line),
        b'%' => 2 * number(bytes, line),
        // Attributes come before the message they belong to.
        b'|' => 2 * number(bytes, line) + 1,
        _ => 0,
    };
    (0..parts).try_fold(line, |end, _| Some(end + message_len(&bytes[end..])?))
}

/// The name of the command in a whole request, in capitals.
pub fn command_name(request: &[u8]) -> String {
    let name = match request.first() {
        Some(b'*') => line_len(request).and_then(|line| {
            let bulk = &request[line..];
            let start = line_len(bulk)?;
            bulk.get(start..start + usize::try_from(number(bulk, start)).ok()?)
        }),
        _ => request.split(|byte| byte.is_ascii_whitespace()).next(),
    };
    String::from_utf8_lossy(name.unwrap_or_default()).to_ascii_uppercase()
}

fn line_len(bytes: &[u8]) -> Option<usize> {
    Some(bytes.windows(2).position(|pair| pair == b"\r\n")? + 2)
}

/// The number after the type byte of a line, -1 for one that is no number (`$?`).
fn number(bytes: &[u8], line: usize) -> i64 {
    std::str::from_utf8(&bytes[1..line - 2])
        .ok()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_its_last_part_ends() {
        for message in [
            "+OK\r\n",
            "-ERR no\r\n",
            ":12\r\n",
            "_\r\n",
            "$-1\r\n",
            "$0\r\n\r\n",
            "$4\r\n\r\n\r\n\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*2\r\n*1\r\n$1\r\na\r\n:1\r\n",
            "%1\r\n+key\r\n*2\r\n:1\r\n:2\r\n",
            ">2\r\n+message\r\n+hello\r\n",
            "|1\r\n+ttl\r\n:5\r\n$2\r\nab\r\n",
        ] {
            let followed = format!("{message}+NEXT\r\n");
            assert_eq!(
                message_len(followed.as_bytes()),
                Some(message.len()),
                "{message:?}"
            );
            for part in 0..message.len() {
                assert_eq!(
                    message_len(&message.as_bytes()[..part]),
                    None,
                    "{message:?} cut at {part}"
                );
            }
        }
    }

    #[test]
    fn a_request_names_its_command() {
        assert_eq!(command_name(b"*2\r\n$4\r\nxack\r\n$1\r\na\r\n"), "XACK");
        assert_eq!(command_name(b"PING now\r\n"), "PING");
    }
}
