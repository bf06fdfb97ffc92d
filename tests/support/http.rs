//! A client of what workers serve: one request a connection.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::WorkerProcess;

/// Longer than any answer should take.
const LIMIT: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Clone, Debug)]
pub struct Got {
    pub status: u16,
    /// The status line and the headers, as they came.
    pub head: String,
    pub body: Vec<u8>,
}

impl Got {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Asks for `path`.
pub async fn get(address: SocketAddr, path: &str) -> Result<Got, String> {
    get_with(address, path, &[]).await
}

/// The same with headers.
pub async fn get_with(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Got, String> {
    let asking = async {
        let mut socket = TcpStream::connect(address).await?;
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await?;
        Ok::<_, std::io::Error>(all)
    };
    let all = tokio::time::timeout(LIMIT, asking)
        .await
        .map_err(|_| format!("no answer within {LIMIT:?}"))?
        .map_err(|error| error.to_string())?;
    let end = b"\r\n\r\n";
    let at = all.windows(end.len()).position(|part| part == end);
    let at = at.ok_or_else(|| format!("no answer: {}", String::from_utf8_lossy(&all)))?;
    let head = String::from_utf8_lossy(&all[..at]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = &all[at + end.len()..];
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = match is_chunked {
        true => dechunked(body).ok_or_else(|| format!("chunks that end early: {head}"))?,
        false => body.to_vec(),
    };
    Ok(Got {
        status: status.ok_or_else(|| format!("no status: {head}"))?,
        body,
        head,
    })
}

/// What came in chunks, each behind its length.
fn dechunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|part| part == b"\r\n")?;
        let length = std::str::from_utf8(&body[..end]).ok()?;
        let length = usize::from_str_radix(length.split(';').next()?.trim(), 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(end + 2..end + 2 + length)?);
        body = body.get(end + 2 + length + 2..)?;
    }
}

/// Where a worker whose port is 0 serves its telemetry.
pub async fn served_by(worker: &mut WorkerProcess) -> SocketAddr {
    let line = worker
        .wait_for_log("telemetry is served", Duration::from_secs(30))
        .await;
    let (_, address) = line.split_once("address=").expect("an address");
    let address = address.split_whitespace().next().expect("an address");
    address.parse().expect("an address")
}
