//! Servers that speak TLS, and the certificates for it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::server::scratch_dir;
use super::{Kind, Server, eventually, free_ports};

/// A CA, and the files of what it has issued.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: Arc<TempDir>,
}

/// The files of a certificate and its key.
#[derive(Clone)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
    _dir: Arc<TempDir>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("a name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "the tests' CA");
        let dir = Arc::new(scratch_dir());
        let pem = params.self_signed(&key).expect("a certificate").pem();
        std::fs::write(dir.path().join("ca.pem"), pem).expect("a file");
        let issuer = Issuer::new(params, key);
        Authority { issuer, dir }
    }

    /// The file of its own certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate that is its own CA, whether it says so or not.
    pub fn sign_itself(name: &str, is_ca: bool) -> Identity {
        let (authority, key) = (Authority::new(), KeyPair::generate().expect("a key"));
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let cert = params.self_signed(&key).expect("a certificate");
        authority.write(name, &cert, &key)
    }

    /// A certificate for a host's name or address.
    pub fn issue(&self, name: &str) -> Identity {
        self.issue_until(name, 4000)
    }

    /// The same, valid until a year begins.
    pub fn issue_until(&self, name: &str, year: i32) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        self.write(&format!("{name}-{year}"), &cert, &key)
    }

    fn write(&self, name: &str, cert: &rcgen::Certificate, key: &KeyPair) -> Identity {
        let file = |what: &str, pem: String| {
            let path = self.dir.path().join(format!("{name}.{what}"));
            std::fs::write(&path, pem).expect("a file");
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, mode).expect("to keep it from others");
            path
        };
        Identity {
            cert: file("pem", cert.pem()),
            key: file("key", key.serialize_pem()),
            _dir: self.dir.clone(),
        }
    }
}

/// A server that is reached by TLS on one port and without on another. Where its program was built without TLS there
/// is a front before it that speaks it, as in front of such a server elsewhere.
pub struct TlsServer {
    pub plain: Server,
    /// Where it speaks TLS.
    port: u16,
    front: Option<Front>,
}

/// Accepts TLS and passes on what comes.
struct Front {
    setup: FrontSetup,
    accepted: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// Its certificate, whose clients it wants to see certificates of, and where it passes them on to.
type FrontSetup = (Identity, Option<PathBuf>, u16);

impl TlsServer {
    /// A server with a certificate; with a CA it asks its clients for one of theirs.
    pub async fn start(kind: Kind, identity: &Identity, clients: Option<&Authority>) -> TlsServer {
        let clients = clients.map(Authority::file);
        for port in free_ports() {
            let options = options(port, identity, clients.as_deref());
            match Server::builder(kind).args(options).try_start().await {
                Ok(plain) => {
                    return TlsServer {
                        plain,
                        port,
                        front: None,
                    };
                }
                Err(log) if log.contains(&format!("Failed listening on port {port} ")) => {}
                Err(log) if log.to_lowercase().contains("tls") => break,
                Err(log) => panic!("the server ended:\n{log}"),
            }
        }
        TlsServer::start_behind_front(kind, identity, clients.as_deref()).await
    }

    /// A server with a front before it, whatever it can do itself.
    pub async fn start_behind_front(
        kind: Kind,
        identity: &Identity,
        clients: Option<&Path>,
    ) -> TlsServer {
        let plain = Server::start(kind).await;
        let setup = (identity.clone(), clients.map(Path::to_owned), plain.port());
        for port in free_ports() {
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
                let front = Some(Front::start(listener, setup));
                return TlsServer { plain, port, front };
            }
        }
        panic!("no free port for TLS");
    }

    /// A port where TLS is spoken before whatever listens at another one, for as long as the test runs.
    pub async fn before(identity: &Identity, to: u16) -> u16 {
        for port in free_ports() {
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
                std::mem::forget(Front::start(listener, (identity.clone(), None, to)));
                return port;
            }
        }
        panic!("no free port for TLS");
    }

    /// Its address, by one of its names.
    pub fn url(&self, name: &str) -> String {
        format!("rediss://{name}:{}", self.port)
    }

    /// How many connections its front has accepted, trusted or not.
    pub fn connections(&self) -> u64 {
        let front = self.front.as_ref().expect("a front");
        front.accepted.load(Ordering::Relaxed)
    }

    /// Starts its front again, with what is in the files by now.
    pub async fn restart_front(&mut self) {
        let front = self.front.take().expect("a front");
        let setup = front.setup.clone();
        drop(front);
        let listener = eventually(Duration::from_secs(10), "the port to be free", async || {
            TcpListener::bind(("127.0.0.1", self.port)).await
        })
        .await;
        self.front = Some(Front::start(listener, setup));
    }
}

fn options(port: u16, identity: &Identity, clients: Option<&Path>) -> Vec<String> {
    let path = |path: &Path| path.to_str().expect("a path in Unicode").to_owned();
    [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", path(&identity.cert)),
        ("--tls-key-file", path(&identity.key)),
        (
            "--tls-ca-cert-file",
            path(clients.unwrap_or(&identity.cert)),
        ),
        (
            "--tls-auth-clients",
            if clients.is_some() { "yes" } else { "no" }.to_owned(),
        ),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect()
}

impl Front {
    fn start(listener: TcpListener, setup: FrontSetup) -> Front {
        let (identity, clients, to) = &setup;
        let acceptor = acceptor(identity, clients.as_deref());
        let accepted = Arc::new(AtomicU64::new(0));
        let (to, count) = (*to, accepted.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut server = TcpStream::connect(("127.0.0.1", to)).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Front {
            setup,
            accepted,
            task,
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn acceptor(identity: &Identity, clients: Option<&Path>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions of TLS");
    let certificate = |path: &Path| CertificateDer::from_pem_file(path).expect("a certificate");
    let config = match clients {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(certificate(ca)).expect("a CA");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            config.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
        None => config.with_no_client_auth(),
    };
    let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
    let config = config.with_single_cert(vec![certificate(&identity.cert)], key);
    TlsAcceptor::from(Arc::new(config.expect("a certificate and its key")))
}
