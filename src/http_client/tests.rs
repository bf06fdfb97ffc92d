//! What comes back from servers that do well, badly, or nothing at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A request as it came, and what is written back to it.
type Answer = dyn Fn(usize, String) -> Vec<u8> + Send + Sync;

/// Serves each connection once. Returns the port and how many came.
async fn serve(
    tls: Option<TlsAcceptor>,
    answer: impl Fn(usize, String) -> Vec<u8> + Send + Sync + 'static,
) -> (u16, Arc<AtomicUsize>) {
    serve_at("127.0.0.1:0", tls, answer).await
}

async fn serve_at(
    address: &str,
    tls: Option<TlsAcceptor>,
    answer: impl Fn(usize, String) -> Vec<u8> + Send + Sync + 'static,
) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (count, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let at = count.fetch_add(1, Ordering::SeqCst);
            let (tls, answer): (_, Arc<Answer>) = (tls.clone(), answer.clone());
            tokio::spawn(async move {
                match tls {
                    None => exchange(socket, at, &*answer).await,
                    Some(tls) => {
                        let Ok(socket) = tls.accept(socket).await else {
                            return;
                        };
                        exchange(socket, at, &*answer).await;
                    }
                }
            });
        }
    });
    (port, counted)
}

async fn exchange(mut socket: impl AsyncRead + AsyncWrite + Unpin, at: usize, answer: &Answer) {
    let mut read = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().expect("a length"));
            if body.len() >= length {
                let _ = socket.write_all(&answer(at, text)).await;
                let _ = socket.shutdown().await;
                return;
            }
        }
        match socket.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(some) => read.extend_from_slice(&chunk[..some]),
        }
    }
}

fn reply(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

fn post(url: &str) -> Post {
    let url = Url::parse(url).expect(url);
    Post::new(&url, "text/plain", "how are you").expect("a request")
}

fn client() -> HttpClient {
    HttpClient::new(None).expect("a client")
}

fn tries(most: u32) -> Tries {
    Tries {
        most,
        each: PATIENCE,
        all: PATIENCE,
        backoff: Backoff::new(Duration::from_millis(1)),
    }
}

#[tokio::test]
async fn a_body_and_its_headers_arrive_and_the_reply_comes_back() {
    let (port, _) = serve(None, |_, request| reply("201 Created", "", &request)).await;
    let post = post(&format!("http://me:my%20word@127.0.0.1:{port}/a/b?c=d#e"));
    let post = post.header("X-Scope", "of nobody").expect("a header");
    let came = client().post(&post, PATIENCE).await.expect("a reply");
    assert_eq!(came.status, 201);
    let text = String::from_utf8(came.body.to_vec()).expect("text");
    assert!(text.starts_with("POST /a/b?c=d HTTP/1.1\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nhow are you"), "{text}");
    for line in [
        "x-scope: of nobody",
        "content-type: text/plain",
        "authorization: Basic bWU6bXkgd29yZA==",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}: {text}");
    }
    let shown = format!("{post:?}");
    assert!(
        !shown.contains("word") && !shown.contains("nobody"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_server_is_trusted_by_the_certificate_that_is_named_and_by_no_other() {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a certificate and its key");
    let tls = TlsAcceptor::from(Arc::new(config));
    let (port, _) = serve(Some(tls), |_, _| reply("200 OK", "", "fine")).await;
    let to = post(&format!("https://localhost:{port}/secret"));
    let trusting = HttpClient::new(Some(certificate.pem().as_bytes())).expect("a client");
    let came = trusting.post(&to, PATIENCE).await.expect("a reply");
    assert_eq!(came.text(), "fine");

    let refused = client().post(&to, PATIENCE).await.expect_err("no trust");
    assert_eq!(refused.kind, FailedKind::Untrusted);
    let said = refused.to_string();
    assert!(said.contains("issued by nobody we trust"), "{said}");
    assert!(!said.contains("secret"), "{said}");

    // Waiting mends no certificate: it is tried once.
    let started = Instant::now();
    let refused = client().post_until_heard(&to, tries(1_000_000)).await;
    assert_eq!(refused.expect_err("no trust").kind, FailedKind::Untrusted);
    assert!(started.elapsed() < PATIENCE);

    let (plain, _) = serve(None, |_, _| reply("200 OK", "", "fine")).await;
    let wrong = post(&format!("https://localhost:{plain}/"));
    let refused = client().post(&wrong, Duration::from_millis(500)).await;
    // A plain server waits for the end of what it takes for a request.
    let kind = refused.expect_err("no TLS").kind;
    assert!(matches!(kind, FailedKind::TooSlow | FailedKind::Untrusted));
    assert!(HttpClient::new(Some(b"no certificate")).is_err());
}

#[tokio::test]
async fn nobody_there_is_told_with_the_host_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let to = post(&format!("http://127.0.0.1:{port}/secret?token=secret"));
    let failed = client()
        .post(&to, PATIENCE)
        .await
        .expect_err("nobody there");
    assert_eq!(failed.kind, FailedKind::Unreachable);
    let said = failed.to_string();
    let begin = format!("http://127.0.0.1:{port} can't be reached: Connection refused");
    assert!(said.starts_with(&begin), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[tokio::test]
async fn a_server_that_hangs_or_drips_is_left_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let mut held: Vec<TcpStream> = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            if held.is_empty() {
                held.push(socket);
                continue;
            }
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 1024]).await;
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
                let _ = socket.write_all(head).await;
                while socket.write_all(b".").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
    });
    let to = post(&format!("http://127.0.0.1:{port}/"));
    for _ in 0..2 {
        let started = Instant::now();
        let failed = client().post(&to, Duration::from_millis(300)).await;
        let failed = failed.expect_err("no reply");
        assert_eq!(failed.kind, FailedKind::TooSlow);
        assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
        assert!(
            failed
                .to_string()
                .ends_with("has not answered within 300ms"),
            "{failed}"
        );
    }
}

#[tokio::test]
async fn of_a_reply_without_end_the_beginning_is_read() {
    let (port, _) = serve(None, |_, _| {
        reply("400 Bad Request", "", &"far too long ".repeat(1 << 20))
    })
    .await;
    let to = post(&format!("http://127.0.0.1:{port}/"));
    let came = client().post(&to, PATIENCE).await.expect("a reply");
    assert_eq!((came.status.as_u16(), came.body.len()), (400, MOST_READ));
    assert_eq!(came.text().chars().count(), 201);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, asked) = serve(None, |_, _| reply("200 OK", "", "")).await;
    let location = format!("location: http://127.0.0.1:{elsewhere}/\r\n");
    let (port, _) = serve(None, move |_, _| {
        reply("307 Temporary Redirect", &location, "")
    })
    .await;
    let to = post(&format!("http://127.0.0.1:{port}/"));
    let came = client().post_until_heard(&to, tries(5)).await;
    assert_eq!(came.expect("a reply").status, 307);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn who_has_too_much_to_do_is_asked_again_and_who_refuses_is_not() {
    let (port, asked) = serve(None, |at, _| match at {
        0 => reply("503 Service Unavailable", "retry-after: 0\r\n", ""),
        1 => reply("429 Too Many Requests", "", ""),
        _ => reply("200 OK", "", ""),
    })
    .await;
    let to = post(&format!("http://127.0.0.1:{port}/"));
    let came = client().post_until_heard(&to, tries(5)).await;
    assert_eq!(came.expect("a reply").status, 200);
    assert_eq!(asked.load(Ordering::SeqCst), 3);

    let (port, asked) = serve(None, |_, _| reply("403 Forbidden", "", "no")).await;
    let to = post(&format!("http://127.0.0.1:{port}/"));
    let came = client().post_until_heard(&to, tries(5)).await;
    assert_eq!(came.expect("a reply").status, 403);
    assert_eq!(asked.load(Ordering::SeqCst), 1);

    let (port, asked) = serve(None, |_, _| reply("502 Bad Gateway", "", "")).await;
    let to = post(&format!("http://127.0.0.1:{port}/"));
    let came = client().post_until_heard(&to, tries(3)).await;
    assert_eq!(came.expect("the last reply").status, 502);
    assert_eq!(asked.load(Ordering::SeqCst), 3);

    // A wait beyond what all of it may take is not begun.
    let (port, asked) = serve(None, |_, _| {
        reply("503 Service Unavailable", "retry-after: 86400\r\n", "")
    })
    .await;
    let to = post(&format!("http://127.0.0.1:{port}/"));
    let came = client().post_until_heard(&to, tries(3)).await;
    assert_eq!(came.expect("the last reply").status, 503);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_date_to_come_again_at_is_a_wait() {
    let reply = |value: &str| Reply {
        status: StatusCode::SERVICE_UNAVAILABLE,
        headers: [(header::RETRY_AFTER, value.parse().expect("a value"))]
            .into_iter()
            .collect(),
        body: Bytes::new(),
        is_whole: true,
    };
    assert_eq!(reply("7").retry_after(), Some(Duration::from_secs(7)));
    let past = reply("Sun, 06 Nov 1994 08:49:37 GMT").retry_after();
    assert_eq!(past, Some(Duration::ZERO));
    let future = reply("Fri, 31 Dec 2286 08:49:37 GMT").retry_after();
    assert!(future > Some(Duration::from_secs(86_400)));
    assert_eq!(reply("soon").retry_after(), None);
}

#[test]
fn an_address_that_cannot_work_is_refused_without_quoting_it() {
    for url in ["ftp://secret/", "unix:///secret", "data:secret"] {
        let url = Url::parse(url).expect(url);
        let refused = Post::new(&url, "text/plain", "").expect_err("no address");
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }
    let to = post("http://127.0.0.1/");
    let refused = to.clone().header("X", "sec\nret").expect_err("no value");
    assert!(!refused.to_string().contains("ret\""), "{refused}");
    assert!(to.header("é", "").is_err());
}

/// A name that leads to an allowed address when it is looked at, and to this machine's own the next time.
#[tokio::test]
async fn a_name_that_comes_to_mean_another_address_is_not_followed_there() {
    let fine = |_: usize, _: String| reply("200 OK", "", "fine");
    let (port, asked) = serve_at("127.0.0.2:0", None, fine).await;
    let (_, victim) = serve_at(&format!("127.0.0.1:{port}"), None, fine).await;
    let lookups = Arc::new(AtomicUsize::new(0));
    let count = lookups.clone();
    let lookup: Lookup = Arc::new(move |name| {
        assert_eq!(name, "rebinds.example");
        let address = match count.fetch_add(1, Ordering::SeqCst) {
            0 => "127.0.0.2",
            1 => "127.0.0.1",
            _ => "::ffff:169.254.169.254",
        };
        Ok(vec![address.parse().expect(address)])
    });
    let client = HttpClient::with(Options {
        vetting: Some(Vetting::new(vec!["127.0.0.2".parse().expect("a network")])),
        lookup: Some(lookup),
        ..Options::default()
    })
    .expect("a client");
    let to = post(&format!("http://rebinds.example:{port}/"));
    let came = client.post(&to, PATIENCE).await.expect("a reply");
    assert_eq!(came.text(), "fine");
    for what in ["127.0.0.1 is an address of this machine", "metadata"] {
        let failed = client.post(&to, PATIENCE).await.expect_err("forbidden");
        assert_eq!(failed.kind, FailedKind::Forbidden);
        assert!(failed.to_string().contains(what), "{failed}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(victim.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn of_several_addresses_those_that_may_be_are_dialled() {
    let (port, asked) = serve_at("127.0.0.2:0", None, |_, _| reply("200 OK", "", "fine")).await;
    let lookup: Lookup = Arc::new(|_| {
        let all = ["10.0.0.1", "127.0.0.2", "::1"];
        Ok(all.map(|address| address.parse().expect(address)).to_vec())
    });
    let client = HttpClient::with(Options {
        vetting: Some(Vetting::new(vec!["127.0.0.2".parse().expect("a network")])),
        lookup: Some(lookup),
        ..Options::default()
    })
    .expect("a client");
    let to = post(&format!("http://both.example:{port}/"));
    client.post(&to, PATIENCE).await.expect("a reply");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
