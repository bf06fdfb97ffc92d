//! `[telemetry.otlp]`: the collector that spans and metrics are sent to.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use url::Url;

use super::secret::Secret;
use super::setters::setters;
use super::value::{Given, Refusal, Setting, invalid, one_of, text};
use crate::duration;
use crate::error::{Error, ErrorKind};

/// How a run of a handler stands to what published its event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TraceMode {
    /// `"link"`: each run is a trace of its own, which is linked to the publisher's.
    #[default]
    Link,
    /// `"child"`: it is a part of the publisher's trace.
    Child,
}

/// `[telemetry.otlp]`: the collector that spans and metrics are sent to.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct OtlpSettings {
    /// Where a collector takes OTLP over HTTP, without `/v1/traces`; nothing is sent unless it is set.
    pub endpoint: OtlpEndpoint,
    /// Headers of each request, as `name=value,name=value`. Where `headers_file` is set, what was in the file.
    pub headers: Option<Secret>,
    /// The file that holds the headers, read at start. A newline at its end is no part of them.
    pub headers_file: Option<PathBuf>,
    /// The certificates (PEM) of who issued the collector's; those that the system trusts.
    pub tls_ca: Option<PathBuf>,
    /// How often metrics are sent, and how long spans wait at most; 10 s.
    pub interval: Duration,
    /// How long a request may take; 10 s.
    pub timeout: Duration,
    /// Which part of the traces is kept that begin here, from 0 to 1; 0.1. If an event came with a trace context, that
    /// decides.
    pub sample: f64,
    /// What the resource attribute `service.name` is; program and group.
    pub service: Option<String>,
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            endpoint: OtlpEndpoint::default(),
            headers: None,
            headers_file: None,
            tls_ca: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            sample: 0.1,
            service: None,
        }
    }
}

setters!(OtlpSettings {
    plain endpoint: OtlpEndpoint,
    some_into headers: Secret,
    some_into headers_file: PathBuf,
    some_into tls_ca: PathBuf,
    plain interval: Duration,
    plain timeout: Duration,
    plain sample: f64,
    some_into service: String,
});

impl OtlpSettings {
    pub(super) fn is_unset(&self) -> bool {
        *self == OtlpSettings::default()
    }

    /// The headers, each with its value, in which `%2C` stands for a comma, as the standard variable
    /// `OTEL_EXPORTER_OTLP_HEADERS` has it. An error completes a sentence about them, and quotes no value.
    pub(crate) fn pairs(&self) -> Result<Vec<(&str, String)>, String> {
        let headers = self.headers.as_ref().map_or("", |headers| headers.expose());
        let mut pairs = Vec::new();
        for (at, pair) in headers.split(',').enumerate() {
            if pair.trim().is_empty() {
                continue;
            }
            let Some((name, value)) = pair.split_once('=') else {
                let nth = at + 1;
                return Err(format!(
                    "have no '=' in number {nth}; write \"name=value,name=value\", with %2C for a comma in a value"
                ));
            };
            pairs.push((name.trim(), decoded(value.trim())));
        }
        Ok(pairs)
    }

    /// The headers with their values hidden, as they can be read back.
    fn hidden(&self) -> Option<String> {
        self.headers.as_ref()?;
        let pairs = self.pairs().unwrap_or_default();
        let hidden: Vec<String> = pairs
            .iter()
            .map(|(name, _)| format!("{name}=***"))
            .collect();
        Some(hidden.join(","))
    }
}

/// A text in which bytes may be written as `%` and two hexadecimal digits.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The headers once: from a file they are shown as the file's name alone.
impl Serialize for OtlpSettings {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut otlp = to.serialize_struct("otlp", 7)?;
        otlp.serialize_field("endpoint", &self.endpoint)?;
        if let Some(path) = &self.headers_file {
            otlp.serialize_field("headers_file", path)?;
        } else if let Some(headers) = self.hidden() {
            otlp.serialize_field("headers", &headers)?;
        }
        if let Some(path) = &self.tls_ca {
            otlp.serialize_field("tls_ca", path)?;
        }
        otlp.serialize_field("interval", &duration::format(self.interval).to_string())?;
        otlp.serialize_field("timeout", &duration::format(self.timeout).to_string())?;
        otlp.serialize_field("sample", &self.sample)?;
        if let Some(service) = &self.service {
            otlp.serialize_field("service", service)?;
        }
        otlp.end()
    }
}

/// Where a collector takes OTLP over HTTP: `http://collector:4318`. Nowhere if it is `""`. A password in it is hidden.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OtlpEndpoint(Option<Url>);

impl OtlpEndpoint {
    const ADVICE: &'static str =
        "write the address of a collector, as in \"http://collector:4318\"";

    /// The address of one signal: `traces` or `metrics`. None if nothing is sent.
    pub(crate) fn of(&self, signal: &str) -> Option<Url> {
        let mut url = self.0.clone()?;
        let path = format!("{}/v1/{signal}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Some(url)
    }

    /// Whether nothing is sent.
    pub fn is_nowhere(&self) -> bool {
        self.0.is_none()
    }

    /// An error completes a sentence about the text, and does not quote it: it may hold a password.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(OtlpEndpoint(None));
        }
        let advice = Self::ADVICE;
        let url = Url::parse(text).map_err(|error| format!("is no address ({error}); {advice}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "begins with neither http:// nor https://; {advice}"
            ));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("has no host; {advice}"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("has a '?' or a '#'; {advice}"));
        }
        if let Some(signal) = ["traces", "metrics", "logs"].iter().find(|signal| {
            url.path()
                .trim_end_matches('/')
                .ends_with(&format!("/v1/{signal}"))
        }) {
            return Err(format!(
                "ends in /v1/{signal}, which is added to it; leave that out"
            ));
        }
        Ok(OtlpEndpoint(Some(url)))
    }
}

/// As the configuration has it.
impl FromStr for OtlpEndpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |why| Error::new(ErrorKind::Invalid, format!("the endpoint {why}"));
        Self::parse(text).map_err(invalid)
    }
}

/// The password is hidden.
impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(url) = &self.0 else { return Ok(()) };
        let mut shown = url.clone();
        if shown.password().is_some() {
            let _ = shown.set_password(Some("***"));
        }
        f.write_str(shown.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for OtlpEndpoint {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Setting for OtlpEndpoint {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        const EXPECTED: &str = "an address in quotes, as in \"http://collector:4318\"";
        Self::parse(text(given, EXPECTED)?).map_err(invalid)
    }
}

impl Setting for TraceMode {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        one_of(given, &[("link", Self::Link), ("child", Self::Child)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_has_its_address() {
        for (text, traces) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            (
                "https://cloud.example/otlp",
                "https://cloud.example/otlp/v1/traces",
            ),
        ] {
            let endpoint: OtlpEndpoint = text.parse().expect(text);
            assert_eq!(
                endpoint.of("traces").map(String::from),
                Some(traces.to_owned())
            );
        }
        assert!(OtlpEndpoint::default().of("traces").is_none());
    }

    #[test]
    fn a_password_is_hidden() {
        let endpoint: OtlpEndpoint = "https://user:hunter2@cloud.example".parse().expect("one");
        assert_eq!(
            format!("{endpoint} {endpoint:?}")
                .matches("hunter2")
                .count(),
            0
        );
        assert_eq!(endpoint.to_string(), "https://user:***@cloud.example");
    }

    #[test]
    fn headers_are_pairs() {
        let settings =
            OtlpSettings::default().headers("authorization=Bearer%20a=b, x-tenant = t%2Cu%,");
        let pairs = settings.pairs().expect("pairs");
        assert_eq!(
            pairs,
            [
                ("authorization", "Bearer a=b".to_owned()),
                ("x-tenant", "t,u%".to_owned())
            ]
        );
        let wrong = OtlpSettings::default()
            .headers("a=b,hunter2")
            .pairs()
            .expect_err("no '='");
        assert!(
            wrong.contains("number 2") && !wrong.contains("hunter2"),
            "{wrong}"
        );
    }
}
