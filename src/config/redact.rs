//! Texts of servers without our secrets. A server quotes what it does not understand, and that may be what we log in
//! with.

use std::borrow::Cow;
use std::sync::RwLock;

use super::secret::HIDDEN;
use crate::sync::{read, write};

/// A shorter one may be a part of any word; who has such a password hides nothing.
const SHORTEST: usize = 4;

/// How servers begin to quote a command they do not know, up to 128 bytes of it: secrets may be among that, and cut
/// short, and customers' data.
const QUOTED: &str = ", with args beginning with:";

/// All that this process has logged in with, the longest first.
static KNOWN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// From now on `secret` is hidden in what servers say.
pub(crate) fn remember(secret: &str) {
    let mut known = write(&KNOWN);
    if secret.len() >= SHORTEST && !known.iter().any(|one| one == secret) {
        known.push(secret.to_owned());
        known.sort_by_key(|one| std::cmp::Reverse(one.len()));
    }
}

/// What a server said, without our secrets.
pub(crate) fn redacted(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    if let Some(at) = text.find(QUOTED) {
        text = Cow::Owned(text[..at].to_owned());
    }
    let known = read(&KNOWN);
    for secret in known.iter() {
        if text.contains(secret) {
            text = Cow::Owned(text.replace(secret, HIDDEN));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_logs_in_with_is_hidden() {
        remember("correct horse");
        remember("correct horse battery");
        remember("abc");
        let said = "ERR no AUTH 'bob' 'correct horse battery', nor correct horse, abc";
        assert_eq!(redacted(said), "ERR no AUTH 'bob' '***', nor ***, abc");
        assert!(matches!(redacted("ERR nothing of ours"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_a_server_quotes_of_a_command_is_cut_off() {
        let said = "ERR unknown command 'AUTH', with args beginning with: 'bob' 'correct ho";
        assert_eq!(redacted(said), "ERR unknown command 'AUTH'");
    }
}
