//! A server that is too old, played by a task that answers as Redis 6.2 introduces itself: every command says what is
//! wrong with it as `run` does, and none what the server makes of a command that it does not know.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::Cli;

const INFO: &str = "# Server\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\nrun_id:abc\r\n";

/// The words of the requests that came whole, and how many bytes they took.
fn requests(bytes: &[u8]) -> (Vec<Vec<String>>, usize) {
    let text = String::from_utf8_lossy(bytes);
    let (mut all, mut taken) = (Vec::new(), 0);
    loop {
        let mut lines = text[taken..].split_inclusive("\r\n");
        let mut line = || lines.next().filter(|line| line.ends_with("\r\n"));
        let Some(head) = line() else {
            return (all, taken);
        };
        let count: usize = head[1..].trim().parse().expect("an array");
        let (mut words, mut length) = (Vec::new(), head.len());
        for _ in 0..count {
            let (Some(size), Some(word)) = (line(), line()) else {
                return (all, taken);
            };
            length += size.len() + word.len();
            words.push(word.trim_end().to_ascii_uppercase());
        }
        taken += length;
        all.push(words);
    }
}

fn answer(words: &[String]) -> String {
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    match (&words[0][..], words.get(1).map(String::as_str)) {
        ("HELLO", _) => {
            let pairs = [("server", "redis"), ("version", "6.2.14")]
                .map(|(name, value)| bulk(name) + &bulk(value));
            format!("*4\r\n{}", pairs.concat())
        }
        ("INFO", _) => bulk(INFO),
        ("PING", _) => "+PONG\r\n".to_owned(),
        ("CLIENT", Some("ID")) => ":7\r\n".to_owned(),
        ("CLIENT", _) => "+OK\r\n".to_owned(),
        (name, _) => format!("-ERR unknown command `{name}`, with args beginning with: \r\n"),
    }
}

async fn serve(mut client: TcpStream) {
    let mut unread = Vec::new();
    while client
        .read_buf(&mut unread)
        .await
        .is_ok_and(|read| read > 0)
    {
        let (requests, taken) = requests(&unread);
        unread.drain(..taken);
        let answers: String = requests.iter().map(|words| answer(words)).collect();
        if client.write_all(answers.as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_says_that_it_is_too_old() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client));
        }
    });
    let cli = Cli::at(&format!("redis://127.0.0.1:{port}"), "");
    for command in [
        "run",
        "status",
        "dlq list",
        "dlq show 1-1",
        "dlq stats",
        "dlq replay --all",
        "dlq purge --all --yes",
        "publish orders order.created {}",
        "publish orders order.created {} --delay 1h",
        "scheduled list",
        "pause orders",
        "resume orders",
        "projection list",
        "aggregate show order:o-1",
        "aggregate history order:o-1",
        "aggregate verify",
        "dlq groups",
        "dlq runs",
        "find order.created",
        "entry 1-1",
        "worker list",
        "redis",
    ] {
        let ran = cli.run(&command.split(' ').collect::<Vec<_>>()).await;
        assert_eq!((ran.code, &ran.out[..]), (1, ""), "{command}: {ran:?}");
        let said = format!(
            "the server at 127.0.0.1:{port} is Redis 6.2; streamhand needs Redis 7.0 or Valkey 7.2"
        );
        assert!(ran.err.contains(&said), "{command}: {}", ran.err);
    }
}
