//! Signatures as Standard Webhooks have them: HMAC-SHA256 over the id, the time and the body, one for each secret, so that
//! a secret can be replaced while both are known.

use std::path::PathBuf;
use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use ring::hmac;

use super::files::text_of;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Standard Webhooks ask for 24 to 64 bytes.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// What requests are signed with; by none, they are not.
pub(super) struct Keys(Vec<hmac::Key>);

impl Keys {
    /// The secrets in these files.
    pub fn read(files: &[PathBuf]) -> Result<Self, String> {
        let keys = files.iter().map(|file| {
            let text = text_of(file)?;
            key(text.trim()).map_err(|why| format!("the secret in {} {why}", file.display()))
        });
        keys.collect::<Result<_, _>>().map(Keys)
    }

    /// Adds the signature of a body to its headers.
    pub fn sign(&self, id: &str, now: SystemTime, body: &[u8], headers: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let timestamp = since.as_secs().to_string();
        let signed = |key: &hmac::Key| {
            let mut context = hmac::Context::with_key(key);
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                context.update(part);
            }
            format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
        };
        let signatures = self.0.iter().map(signed).collect::<Vec<_>>().join(" ");
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", &timestamp[..]),
            ("webhook-signature", &signatures[..]),
        ] {
            let value = HeaderValue::from_str(value).expect("hexadecimal, digits and base64");
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn key(text: &str) -> Result<hmac::Key, String> {
    const RIGHT: &str = "make one by `echo \"whsec_$(openssl rand -base64 32)\"`";
    let encoded = text.strip_prefix(PREFIX).unwrap_or(text);
    let secret = BASE64_STANDARD.decode(encoded).map_err(|_| {
        format!("is not whsec_ and base64 behind it, as Standard Webhooks have it; {RIGHT}")
    })?;
    if !LENGTH.contains(&secret.len()) {
        let (least, most) = (LENGTH.start(), LENGTH.end());
        return Err(format!(
            "has {} bytes; Standard Webhooks ask for {least} to {most}; {RIGHT}",
            secret.len()
        ));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_body_is_signed_as_in_the_example_of_standard_webhooks() {
        let keys = Keys(vec![
            key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret"),
        ]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_614_265_330);
        let mut headers = HeaderMap::new();
        keys.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            now,
            b"{\"test\": 2432232314}",
            &mut headers,
        );
        assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(
            headers["webhook-signature"],
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn signatures_are_those_that_are_published() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../conformance/signatures.json")).unwrap();
        let signatures = vectors["signatures"].as_array().unwrap();
        assert!(signatures.len() > 4);
        for of in signatures {
            let secrets = of["secrets"].as_array().unwrap().iter();
            let secrets = secrets.map(|secret| key(secret.as_str().unwrap()).unwrap());
            let keys = Keys(secrets.collect());
            let at = Duration::from_secs(of["timestamp"].as_u64().unwrap());
            let (id, body) = (of["id"].as_str().unwrap(), of["body"].as_str().unwrap());
            let mut headers = HeaderMap::new();
            let now = SystemTime::UNIX_EPOCH + at;
            keys.sign(id, now, body.as_bytes(), &mut headers);
            assert_eq!(
                headers["webhook-signature"],
                of["signature"].as_str().unwrap()
            );
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_without_quoting_it() {
        for (wrong, reason) in [("hunter2!", "base64"), ("whsec_c2hvcnQ=", "has 5 bytes")] {
            let why = key(wrong).expect_err(wrong);
            assert!(why.contains(reason) && !why.contains(wrong), "{why}");
        }
        let mut headers = HeaderMap::new();
        Keys(Vec::new()).sign("a", SystemTime::now(), b"", &mut headers);
        assert!(headers.is_empty());
    }
}
