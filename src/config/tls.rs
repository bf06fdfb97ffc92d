//! Certificates and keys for TLS: PEM files, read and tried before anything is connected to.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::error::ProblemKind;
use super::redis::RedisSettings;

/// What the files of `[redis]` hold, as PEM.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Certificates {
    /// Who is trusted to issue the server's certificate; None is for those that the system trusts.
    pub(crate) ca: Option<Vec<u8>>,
    /// Our own certificate and its key.
    pub(crate) client: Option<(Vec<u8>, Vec<u8>)>,
}

/// A file that can't be used.
pub(crate) struct Unusable {
    /// The key in `[redis]` that names it.
    pub(crate) key: &'static str,
    pub(super) kind: ProblemKind,
    pub(crate) message: String,
}

/// The three settings, and whether they name a file.
pub(super) fn settings(redis: &RedisSettings) -> [(&'static str, Option<&PathBuf>); 3] {
    [
        ("tls_ca", redis.tls_ca.as_ref()),
        ("tls_cert", redis.tls_cert.as_ref()),
        ("tls_key", redis.tls_key.as_ref()),
    ]
}

/// Reads the files. An empty path, and a key or a certificate without the other, are refused elsewhere.
pub(crate) fn read(redis: &RedisSettings) -> Result<Certificates, Vec<Unusable>> {
    let mut wrong = Vec::new();
    let mut files = settings(redis).map(|(key, path)| {
        let path = path.filter(|path| !path.as_os_str().is_empty())?;
        std::fs::read(path)
            .map_err(|error| wrong.push(Unusable::unreadable(key, path, &error)))
            .map(|pem| (path.as_path(), pem))
            .ok()
    });
    let [ca, cert, key] = &files;
    if let Some((path, pem)) = ca
        && let Err(message) = check_ca(path, pem)
    {
        wrong.push(Unusable::wrong("tls_ca", message));
    }
    let chain = cert.as_ref().map(|(path, pem)| certificates(path, pem));
    let key = key
        .as_ref()
        .map(|(path, pem)| (path, private_key(path, pem)));
    match (chain, key) {
        (Some(Ok(chain)), Some((path, Ok(key)))) => {
            if let Err(message) = check_pair(chain, path, key) {
                wrong.push(Unusable::wrong("tls_key", message));
            }
        }
        (chain, key) => {
            let chain = chain.and_then(Result::err);
            let key = key.and_then(|(_, key)| key.err());
            wrong.extend(chain.map(|message| Unusable::wrong("tls_cert", message)));
            wrong.extend(key.map(|message| Unusable::wrong("tls_key", message)));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let [ca, cert, key] = &mut files;
    let pem = |file: &mut Option<(&Path, Vec<u8>)>| file.take().map(|(_, pem)| pem);
    Ok(Certificates {
        ca: pem(ca),
        client: pem(cert).zip(pem(key)),
    })
}

impl Unusable {
    fn unreadable(key: &'static str, path: &Path, error: &std::io::Error) -> Self {
        Unusable {
            key,
            kind: ProblemKind::Unreadable,
            message: format!("cannot read {}: {error}", path.display()),
        }
    }

    fn wrong(key: &'static str, message: String) -> Self {
        Unusable {
            key,
            kind: ProblemKind::Invalid,
            message,
        }
    }
}

fn check_ca(path: &Path, pem: &[u8]) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        store
            .add(certificate)
            .map_err(|_| format!("{} holds a certificate that is damaged", path.display()))?;
    }
    Ok(())
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let path = path.display();
    let found: Vec<CertificateDer> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{path} is no PEM file: {error}"))?;
    if found.is_empty() {
        return Err(format!(
            "{path} holds no certificate in PEM form, which begins with -----BEGIN CERTIFICATE-----"
        ));
    }
    Ok(found)
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let path = path.display();
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        pem::Error::NoItemsFound if pem.windows(9).any(|part| part == b"ENCRYPTED") => format!(
            "{path} is encrypted, and nobody is there to be asked for its password; write it without one \
             (openssl pkey -in FILE -out FILE)"
        ),
        pem::Error::NoItemsFound => format!(
            "{path} holds no private key in PEM form, which begins with -----BEGIN PRIVATE KEY-----"
        ),
        // Not the error itself, which quotes what it read.
        _ => format!("{path} is no PEM file, or a damaged one"),
    })
}

fn check_pair(
    chain: Vec<CertificateDer<'static>>,
    path: &Path,
    key: PrivateKeyDer<'static>,
) -> Result<(), String> {
    let provider = rustls::crypto::ring::default_provider();
    match CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(format!(
            "{} is not the key of the certificate in redis.tls_cert",
            path.display()
        )),
        Err(error) => Err(format!("{} can't be used: {error}", path.display())),
    }
}
