//! A small HTTP client for what streamhand sends to others: telemetry to a collector, alerts to a webhook, events to their
//! targets.
//!
//! Whoever is at the other end may be away, slow, or hostile. So every request has a deadline for all of it, what is read
//! of a reply is bounded, a redirect is a reply like any other, and an error names the host alone: the rest of a webhook's
//! address is most often a secret.

mod resolver;
mod vetting;

pub(crate) use resolver::Lookup;
pub(crate) use vetting::Vetting;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::time::Instant;
use tower::ServiceExt;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::failure::with_sources;
use crate::retry::Backoff;
use resolver::Resolver;
use vetting::Forbidden;

/// How long a connection may take to come about, TLS not counted.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Most bytes that are read of a reply; the rest is left.
const MOST_READ: usize = 64 << 10;

/// Sends requests, and keeps connections for the next. Cheap to clone.
#[derive(Clone)]
pub(crate) struct HttpClient {
    connector: HttpsConnector<HttpConnector<Resolver>>,
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    most_read: usize,
}

/// What a client is like.
pub(crate) struct Options<'a> {
    /// The certificates (PEM) of who is trusted; None trusts those that the system does.
    pub ca: Option<&'a [u8]>,
    /// What is shown to those who ask.
    pub identity: Option<&'a Identity>,
    /// Which addresses are connected to; all if there is none.
    pub vetting: Option<Vetting>,
    /// How names become addresses, if not as the system has it.
    pub lookup: Option<Lookup>,
    /// How many connections to one host are kept that nobody uses.
    pub idle_per_host: usize,
    /// Most bytes that are read of a reply; the rest is left.
    pub most_read: usize,
}

/// A certificate and its key (PEM).
pub(crate) struct Identity {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

/// What is sent to an address, as often as it takes.
#[derive(Clone)]
pub(crate) struct Post {
    url: Arc<Target>,
    headers: HeaderMap,
    body: Bytes,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The beginning of the body: as much as the client reads.
    pub body: Bytes,
    /// Whether that is all of it.
    pub is_whole: bool,
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub kind: FailedKind,
    /// Lower-case, with the host, and what would be right.
    message: String,
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailedKind {
    /// Nobody is there, or the connection broke.
    Unreachable,
    /// It took longer than the deadline.
    TooSlow,
    /// The other end can't be trusted, or does not trust us.
    Untrusted,
    /// It is at an address that must not be connected to.
    Forbidden,
}

/// How often, and for how long in all, something is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tries {
    /// At most so often,
    pub most: u32,
    /// each of them at most so long,
    pub each: Duration,
    /// and all of them, with the waits between, at most so long.
    pub all: Duration,
    pub backoff: Backoff,
}

/// An address that was checked.
struct Target {
    uri: hyper::Uri,
    /// Scheme, host and port: what may be shown.
    shown: String,
    authorization: Option<HeaderValue>,
}

impl HttpClient {
    /// A client that trusts who issued these certificates (PEM); None trusts those that the system does.
    ///
    /// # Errors
    /// Where there is no certificate in it.
    pub fn new(ca: Option<&[u8]>) -> Result<Self> {
        Self::with(Options {
            ca,
            ..Options::default()
        })
    }

    /// A client that is like that.
    ///
    /// # Errors
    /// Where there is no certificate in what should have one, or a key does not fit its certificate.
    pub fn with(options: Options<'_>) -> Result<Self> {
        let invalid = |why: String| Error::new(ErrorKind::Invalid, why);
        let roots = match options.ca {
            Some(pem) => named_roots(pem).map_err(invalid)?,
            None => system_roots(),
        };
        // By name: the process's provider may be another one, or none.
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(ErrorKind::Internal, format!("TLS: {error}")))?
            .with_root_certificates(roots);
        let tls = match options.identity {
            Some(identity) => {
                let (chain, key) = identity.read().map_err(invalid)?;
                tls.with_client_auth_cert(chain, key)
                    .map_err(|error| invalid(format!("the certificate and its key: {error}")))?
            }
            None => tls.with_no_client_auth(),
        };
        let resolver = Resolver::new(options.vetting, options.lookup);
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(options.idle_per_host)
            .pool_timer(TokioTimer::new())
            .build(connector.clone());
        Ok(HttpClient {
            connector,
            client,
            most_read: options.most_read,
        })
    }

    /// Sends it once. What comes back is a reply whatever its status is; a redirect is not followed.
    pub async fn post(&self, post: &Post, deadline: Duration) -> Result<Reply, Failed> {
        let asking = async {
            let sent = self.client.request(post.request()).await;
            let response = sent.map_err(|error| Failed::of(&post.url, &error))?;
            let (parts, body) = response.into_parts();
            let (body, is_whole) = beginning(body, self.most_read)
                .await
                .map_err(|error| Failed::of(&post.url, &error))?;
            Ok(Reply {
                status: parts.status,
                headers: parts.headers,
                body,
                is_whole,
            })
        };
        match tokio::time::timeout(deadline, asking).await {
            Ok(result) => result,
            Err(_) => Err(Failed::too_slow(&post.url, deadline)),
        }
    }

    /// Connects to whom it is for, and sends nothing.
    pub async fn connect(&self, post: &Post, deadline: Duration) -> Result<(), Failed> {
        let connecting = self.connector.clone().oneshot(post.url.uri.clone());
        match tokio::time::timeout(deadline, connecting).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failed::of(&post.url, &*error)),
            Err(_) => Err(Failed::too_slow(&post.url, deadline)),
        }
    }

    /// Sends it until the reply says that trying again is of no use, or the tries are over. The last reply or failure
    /// counts. What is sent may arrive more than once.
    pub async fn post_until_heard(&self, post: &Post, tries: Tries) -> Result<Reply, Failed> {
        let end = Instant::now() + tries.all;
        let mut tried = 0;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let result = self.post(post, tries.each.min(left)).await;
            tried += 1;
            let wait = match &result {
                Ok(reply) if !reply.asks_to_come_again() => return result,
                Ok(reply) => reply.retry_after(),
                Err(failed) if failed.kind == FailedKind::Untrusted => return result,
                Err(_) => None,
            };
            let wait = wait.unwrap_or(tries.backoff.delay(tried, fastrand::f64()));
            if tried >= tries.most || Instant::now() + wait >= end {
                return result;
            }
            tokio::time::sleep(wait).await;
        }
    }
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            ca: None,
            identity: None,
            vetting: None,
            lookup: None,
            idle_per_host: 2,
            most_read: MOST_READ,
        }
    }
}

impl Identity {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate);
        let chain: Vec<_> = chain
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the certificate is no PEM file: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| format!("the certificate's key is no PEM file: {error}"))?;
        Ok((chain, key))
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

impl Post {
    /// A body for `url`: `http://` or `https://`, with a user and a password if need be, which are sent as
    /// `Authorization: Basic`.
    ///
    /// # Errors
    /// Where the address can't be one, without quoting it.
    pub fn new(url: &Url, content_type: &'static str, body: impl Into<Bytes>) -> Result<Self> {
        let target = Target::new(url)
            .map_err(|why| Error::new(ErrorKind::Invalid, format!("the address {why}")))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let agent = concat!("streamhand/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        if let Some(authorization) = &target.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        Ok(Post {
            url: Arc::new(target),
            headers,
            body: body.into(),
        })
    }

    /// The same with a header, in place of one of that name. Its value is hidden in what is shown.
    ///
    /// # Errors
    /// Where that is no name or no value of a header, without quoting the value.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let invalid = |what| {
            let message = format!("the header {name:?} {what}");
            Error::new(ErrorKind::Invalid, message)
        };
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| invalid("is no name of a header"))?;
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| invalid("has a value with control characters"))?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    /// The same to the same address, with another body.
    pub fn with_body(&self, body: impl Into<Bytes>) -> Self {
        Post {
            url: self.url.clone(),
            headers: self.headers.clone(),
            body: body.into(),
        }
    }

    /// The same to the same address, with other headers and another body.
    pub fn with(&self, headers: HeaderMap, body: impl Into<Bytes>) -> Self {
        Post {
            url: self.url.clone(),
            headers,
            body: body.into(),
        }
    }

    /// The headers that go with it.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Whom it is for: scheme, host and port.
    pub fn shown(&self) -> &str {
        &self.url.shown
    }

    /// The port, if the address names one.
    pub fn port(&self) -> Option<u16> {
        self.url.uri.port_u16()
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post")
            .field("to", &self.url.shown)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Reply {
    /// Whether it may be different the next time: the other end has too much to do, or is away for now.
    pub fn asks_to_come_again(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 425 | 429 | 500 | 502..=504)
    }

    /// How long it asks to wait, in seconds or until a date.
    pub fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = value.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let at = time::OffsetDateTime::parse(value, &time::format_description::well_known::Rfc2822);
        let at = SystemTime::from(at.ok()?);
        Some(at.duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// The beginning of the body, as a text for people.
    pub fn text(&self) -> String {
        self.text_of(200)
    }

    /// The same, of at most so many characters.
    pub fn text_of(&self, most: usize) -> String {
        // Each character has four bytes at most, and what is cut off is cut off anyway.
        let body = &self.body[..self.body.len().min(4 * most + 4)];
        let text = String::from_utf8_lossy(body);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match text.char_indices().nth(most) {
            Some((at, _)) => format!("{}…", &text[..at]),
            None => text,
        }
    }
}

impl Target {
    /// Checks an address; an error is the end of a sentence about it.
    fn new(url: &Url) -> Result<Self, String> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err("must begin with http:// or https://".to_owned());
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or("has no host")?;
        let shown = match url.port() {
            Some(port) => format!("{}://{host}:{port}", url.scheme()),
            None => format!("{}://{host}", url.scheme()),
        };
        let mut bare = url.clone();
        bare.set_fragment(None);
        let authorization = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                let (user, password) = (decoded(user), decoded(password.unwrap_or_default()));
                let credentials = BASE64_STANDARD.encode([&user[..], b":", &password].concat());
                let value = HeaderValue::from_str(&format!("Basic {credentials}"));
                let mut value = value.map_err(|error| error.to_string())?;
                value.set_sensitive(true);
                // They are no part of what is asked for.
                let _ = bare.set_username("");
                let _ = bare.set_password(None);
                Some(value)
            }
        };
        let uri = bare.as_str().parse();
        Ok(Target {
            uri: uri.map_err(|_| "can't be asked for by HTTP")?,
            shown,
            authorization,
        })
    }
}

impl Failed {
    fn of(to: &Target, error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let forbidden = with_sources(error).find_map(|error| error.downcast_ref::<Forbidden>());
        if let Some(forbidden) = forbidden {
            return Failed {
                kind: FailedKind::Forbidden,
                message: format!("{} is not connected to: {forbidden}", to.shown),
            };
        }
        let tls = causes.clone().find_map(tls_error);
        let (kind, why) = match tls {
            Some(error) => (FailedKind::Untrusted, explain(error)),
            None => {
                // The outermost says no more than that it failed.
                let last = causes.last().map(ToString::to_string);
                (FailedKind::Unreachable, last.unwrap_or_default())
            }
        };
        let is_too_slow = tls.is_none() && why.contains("timed out");
        Failed {
            kind: match is_too_slow {
                true => FailedKind::TooSlow,
                false => kind,
            },
            message: format!("{} can't be reached: {why}", to.shown),
        }
    }

    fn too_slow(to: &Target, deadline: Duration) -> Self {
        let message = match deadline < Duration::from_millis(1) {
            true => format!("no time was left for {} to answer", to.shown),
            false => {
                let deadline = crate::duration::format(deadline);
                format!("{} has not answered within {deadline}", to.shown)
            }
        };
        Failed {
            kind: FailedKind::TooSlow,
            message,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failed {}

/// The beginning of a body, and whether that is all of it.
async fn beginning(mut body: Incoming, most: usize) -> Result<(Bytes, bool), hyper::Error> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let room = most - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok((read.freeze(), false));
        }
    }
    Ok((read.freeze(), true))
}

fn named_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("no PEM file: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate that is damaged: {error}"))?;
    }
    if roots.is_empty() {
        return Err(
            "no certificate in PEM form, which begins with -----BEGIN CERTIFICATE-----".into(),
        );
    }
    Ok(roots)
}

/// Those that the system trusts, or where it has none those of Mozilla's list.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

/// The error of TLS that this one is, or wraps.
fn tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    error.downcast_ref().or_else(|| {
        let wrapped = error.downcast_ref::<std::io::Error>()?.get_ref()?;
        tls_error(wrapped)
    })
}

fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "its certificate was issued by nobody we trust; name the CA's certificate in `ca`".into(),
        rustls::Error::InvalidCertificate(error) => {
            format!("its certificate can't be trusted: {error}")
        }
        rustls::Error::InvalidMessage(_) => {
            "it does not speak TLS there; if it is right not to, the address must begin with http://".into()
        }
        error => error.to_string(),
    }
}

/// Text of a URL without its percent signs.
fn decoded(text: &str) -> Vec<u8> {
    // As a form's value, where a plus alone means something else.
    let pair = format!("v={}", text.replace('+', "%2B"));
    let value = url::form_urlencoded::parse(pair.as_bytes()).next();
    value.map_or_else(Vec::new, |(_, value)| value.into_owned().into_bytes())
}

#[cfg(test)]
mod tests;
