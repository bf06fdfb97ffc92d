//! TLS: whom a client trusts, and what can be done where the two ends do not come together.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine};
use redis::{Client, ClientTlsConfig, ConnectionInfo, RedisError, RedisResult, TlsCertificates};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{AlertDescription, CertificateError, RootCertStore};

use crate::config::tls::Certificates;

/// A client for a server that speaks TLS.
pub(super) fn client(info: ConnectionInfo, files: Certificates) -> RedisResult<Client> {
    // The redis client takes the process's provider, and panics where a program with several in it has chosen none.
    if CryptoProvider::get_default().is_none() {
        // Somebody else may have been faster.
        let _ = ring::default_provider().install_default();
    }
    let client_tls = files
        .client
        .map(|(client_cert, client_key)| ClientTlsConfig {
            client_cert,
            client_key,
        });
    let certificates = TlsCertificates {
        client_tls,
        root_cert: files.ca.or_else(system_roots),
    };
    Client::build_with_tls(info, certificates)
}

/// The CAs that the system trusts, as PEM. None where it has none: then those count that Mozilla's list has, which
/// the redis client brings along.
///
/// The client could look for them itself, but would do so for each connection, and fail where a single one is damaged.
fn system_roots() -> Option<Vec<u8>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!("a certificate of the system is passed over: {error}");
    }
    let mut pem = String::new();
    for certificate in found.certs {
        let text = BASE64_STANDARD.encode(&certificate);
        if RootCertStore::empty().add(certificate).is_ok() {
            pem += &format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        }
    }
    (!pem.is_empty()).then(|| pem.into_bytes())
}

/// What went wrong between the two ends of a connection that was to be made, and what an operator can do about it.
pub(super) fn explain(error: &RedisError, is_tls: bool) -> String {
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(error)) => certificate(error),
        Some(rustls::Error::AlertReceived(alert)) => format!("{error}{}", advice(*alert)),
        Some(rustls::Error::InvalidMessage(_)) => format!("it does not speak TLS there{NO_TLS}"),
        Some(_) => error.to_string(),
        // Over several lines.
        None if error.kind() == redis::ErrorKind::Parse => {
            format!("it does not speak as Redis does{TLS}")
        }
        None if is_tls && error.is_timeout() => format!("{error}{NO_TLS}"),
        None if !is_tls && error.is_connection_dropped() && !error.is_connection_refusal() => {
            format!("{error}{TLS}")
        }
        None => error.to_string(),
    }
}

const TLS: &str = " (if it speaks TLS there, redis.url must begin with rediss://)";
const NO_TLS: &str = " (if it is right not to speak TLS there, redis.url must begin with redis://)";

/// Why a server's certificate is refused.
fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate was issued by nobody we trust: redis.tls_ca must name a file with the certificate of the \
             CA that issued it"
                .to_owned()
        }
        CertificateError::ExpiredContext { not_after: at, .. } => format!(
            "its certificate expired at {}, if this machine's clock is right: it must be renewed",
            time(at.as_secs())
        ),
        CertificateError::NotValidYetContext { not_before: at, .. } => format!(
            "its certificate is valid from {}: is this machine's clock right?",
            time(at.as_secs())
        ),
        CertificateError::NotValidForNameContext { .. } | CertificateError::NotValidForName => {
            format!("its {error}: redis.url must name the server as its certificate does")
        }
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "its certificate is a CA's own, which can't be a server's too: let the CA issue one, or make one that is \
             no CA's (openssl req -x509 -addext basicConstraints=CA:FALSE)"
                .to_owned()
        }
        _ => format!("its certificate can't be trusted: {error}"),
    }
}

fn time(seconds: u64) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// What to do where the server has ended the handshake.
fn advice(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired
        | AlertDescription::NoCertificate
        | AlertDescription::HandshakeFailure => {
            " (if it asks for a certificate of ours, set redis.tls_cert and redis.tls_key)"
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => {
            " (it does not accept the certificate in redis.tls_cert)"
        }
        _ => "",
    }
}

/// The error of TLS within one of the client.
fn tls_error(error: &RedisError) -> Option<&rustls::Error> {
    type Shared = Arc<dyn std::error::Error + Send + Sync>;
    let inner = error.source()?.downcast_ref::<Shared>()?;
    inner.downcast_ref().or_else(|| {
        inner
            .downcast_ref::<std::io::Error>()?
            .get_ref()?
            .downcast_ref()
    })
}
