//! Passwords, kept as their Argon2 hashes; and comparing what is secret without telling how much of it was right.

use std::sync::LazyLock;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};

use crate::called;
use crate::config::Secret;
use crate::error::{Error, ErrorKind, Result};

/// The hash of nobody's password: whoever asks for somebody unknown waits as long as for somebody known.
static NOBODYS: LazyLock<Option<String>> = LazyLock::new(|| hash("").ok());

/// The hash of a password, with a salt of its own.
pub(crate) fn hash(password: &str) -> Result<String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    let hash: PasswordHash = hash.map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            format!("can't hash a password: {error}"),
        )
    })?;
    Ok(hash.to_string())
}

/// Whether it can be the hash of a password; else the end of a sentence about it.
pub(super) fn check(hash: &Secret) -> Result<(), String> {
    PasswordHash::new(hash.expose()).map(drop).map_err(|error| {
        let command = called::command("web hash");
        format!("can't be read ({error}); make one with `{command}`")
    })
}

/// Whether a password is the one with that hash. Without a hash it never is, and takes as long.
pub(super) fn verify(hash: Option<&Secret>, password: &Secret) -> bool {
    let known = hash.map(Secret::expose).or(NOBODYS.as_deref());
    let Some(Ok(known)) = known.map(PasswordHash::new) else {
        return false;
    };
    let is_right = Argon2::default().verify_password(password.expose().as_bytes(), &known);
    hash.is_some() && is_right.is_ok()
}

/// Whether two secrets are the same. How long that takes depends on the length of the second one alone.
pub(super) fn is_same(known: &str, given: &str) -> bool {
    let known = known.as_bytes();
    let mut differ = known.len() ^ given.len();
    for (at, byte) in given.bytes().enumerate() {
        let of_known = known.get(at % known.len().max(1)).copied().unwrap_or(0);
        differ |= usize::from(byte ^ of_known);
    }
    std::hint::black_box(differ) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_secret_is_the_same() {
        assert!(is_same("hunter2", "hunter2"));
        for other in ["", "hunter", "hunter22", "hunter2hunter2", "Hunter2"] {
            assert!(!is_same("hunter2", other), "{other}");
        }
        assert!(!is_same("", "x"));
        assert!(is_same("", ""));
    }

    #[test]
    fn a_hash_is_of_its_password_alone() {
        let made = Secret::new(hash("correct horse").expect("a hash"));
        assert_eq!(check(&made), Ok(()));
        assert!(verify(Some(&made), &Secret::new("correct horse")));
        assert!(!verify(Some(&made), &Secret::new("")));
        assert!(!verify(None, &Secret::new("")));
        check(&Secret::new("$argon2id$hunter2")).expect_err("no hash");
    }
}
