//! TLS: whom a client trusts, and what can be done where the two ends do not come together.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine};
use redis::{Client, ClientTlsConfig, ConnectionInfo, RedisError, RedisResult, TlsCertificates};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::tls::Certificates;

/// A client for a server that speaks TLS, and what our own sockets speak it by.
pub(super) fn client(
    info: ConnectionInfo,
    files: Certificates,
) -> RedisResult<(Client, TlsConnector)> {
    // The redis client takes the process's provider, and panics where a program with several in it has chosen none.
    if CryptoProvider::get_default().is_none() {
        // Somebody else may have been faster.
        let _ = ring::default_provider().install_default();
    }
    let files = Certificates {
        ca: files.ca.or_else(system_roots),
        ..files
    };
    let sockets = sockets(&files).map_err(std::io::Error::other)?;
    let client_tls = files
        .client
        .map(|(client_cert, client_key)| ClientTlsConfig {
            client_cert,
            client_key,
        });
    let certificates = TlsCertificates {
        client_tls,
        root_cert: files.ca,
    };
    Ok((Client::build_with_tls(info, certificates)?, sockets))
}

/// The same trust, and the same certificate of ours, as the redis client makes of these files.
fn sockets(files: &Certificates) -> Result<TlsConnector, rustls::Error> {
    let unreadable = |error: pem::Error| rustls::Error::General(error.to_string());
    let chain = |pem: &[u8]| -> Result<Vec<CertificateDer<'static>>, rustls::Error> {
        let certificates = CertificateDer::pem_slice_iter(pem);
        certificates
            .map(|found| found.map_err(unreadable))
            .collect()
    };
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(pem) => {
            roots.add_parsable_certificates(chain(pem)?);
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    let config = match &files.client {
        Some((cert, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key).map_err(unreadable)?;
            config.with_client_auth_cert(chain(cert)?, key)?
        }
        None => config.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Speaks TLS over a socket.
pub(super) async fn over(
    connector: &TlsConnector,
    host: &str,
    socket: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    connector.connect(name, socket).await
}

/// The CAs that the system trusts, as PEM. None if it has none: then those count that Mozilla's list has, which
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
