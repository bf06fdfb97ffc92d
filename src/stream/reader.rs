//! The reader: a connection that sends nothing but XREADGROUP, and decodes the answers where they arrive. It is made
//! and logged in by the client crate, as every other connection, and then taken out of its hands.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::{Answer, Trouble};
use super::life::Life;
use super::read::Read;
use super::resp::{Decoder, Reply};
use super::socket::{Greeting, Socket};
use super::topology::{Cluster, Node};
use crate::error::{Error, ErrorKind};
use crate::event::{Entry, EntryId};

const DOING: &str = "reading new entries";

/// What is asked of the socket at once: little while little comes, so that an idle worker stays small.
const LEAST: usize = 4 << 10;
const MOST: usize = 256 << 10;

/// A connection for reading new entries.
pub(crate) struct Reader {
    socket: Box<dyn Socket>,
    decoder: Decoder,
    /// What has arrived and is not decoded yet.
    arrived: Vec<u8>,
    ask: usize,
    request: Vec<u8>,
    /// Requests that have not been answered.
    outstanding: usize,
    /// Entries that were passed over for want of room, by their streams' places.
    passed: Vec<(usize, Vec<EntryId>)>,
    /// How long an answer may take, beyond what the read may block.
    patience: Duration,
    pub greeting: Greeting,
    life: Life,
    /// The node of a cluster that it is at.
    node: Option<(Arc<Cluster>, Arc<Node>)>,
}

impl Reader {
    pub(super) fn new(
        socket: Box<dyn Socket>,
        greeting: Greeting,
        patience: Duration,
        life: Life,
        node: Option<(Arc<Cluster>, Arc<Node>)>,
    ) -> Self {
        Reader {
            socket,
            decoder: Decoder::default(),
            arrived: Vec::new(),
            ask: LEAST,
            request: Vec::new(),
            outstanding: 0,
            passed: Vec::new(),
            patience,
            greeting,
            life,
            node,
        }
    }

    /// Whether a request has not been answered yet.
    pub fn is_waiting(&self) -> bool {
        self.outstanding > 0
    }

    /// Whether nothing has arrived that is not decoded.
    pub fn is_drained(&self) -> bool {
        self.arrived.is_empty()
    }

    /// The entries of the last answer that there was no room for, by their streams' places: they have been delivered.
    pub fn take_passed(&mut self) -> Vec<(usize, Vec<EntryId>)> {
        std::mem::take(&mut self.passed)
    }

    /// Asks for new entries, so many times: each is worked on once the one before it has been answered. More may be
    /// asked before that.
    pub async fn send(&mut self, read: &Read<'_>, times: usize) -> Result<(), Trouble> {
        if self.life.is_over() {
            return Err(self.left());
        }
        self.request.clear();
        let command = read.command();
        for _ in 0..times {
            command.write_packed_command(&mut self.request);
        }
        let sending = self.socket.write_all(&self.request);
        match tokio::time::timeout(self.patience, sending).await {
            Ok(Ok(())) => {
                self.outstanding += times;
                Ok(())
            }
            Ok(Err(error)) => Err(broken(error)),
            Err(_) => Err(broken(io::ErrorKind::TimedOut.into())),
        }
    }

    /// The answer to the oldest request: of each stream that has some, its place in `streams` and the entries.
    ///
    /// Entries that begin after `room` bytes of others are not kept: see [`take_passed`](Self::take_passed).
    ///
    /// May be dropped before it has ended, as long as it is called again: what has arrived is kept.
    pub async fn receive(
        &mut self,
        streams: &[&str],
        block: Duration,
        room: usize,
    ) -> Result<Vec<(usize, Vec<Entry>)>, Trouble> {
        let answer = self.answer(streams, block, room).await;
        if let (Err(trouble), Some(metrics)) = (&answer, self.life.metrics()) {
            metrics.requests().failed("xreadgroup", trouble.what());
        }
        answer
    }

    async fn answer(
        &mut self,
        streams: &[&str],
        block: Duration,
        room: usize,
    ) -> Result<Vec<(usize, Vec<Entry>)>, Trouble> {
        self.decoder.room = Some(room);
        let patience = self.patience + block;
        let life = self.life.clone();
        let reply = tokio::select! {
            biased;
            reply = tokio::time::timeout(patience, self.reply()) => match reply {
                Ok(reply) => reply?,
                Err(_) => return Err(broken(io::ErrorKind::TimedOut.into())),
            },
            () = life.ended() => return Err(self.left()),
        };
        self.outstanding -= 1;
        // They come in the order in which they were asked for, most often that of `streams`.
        let mut from = 0;
        let streams_of = |(name, entries): (Vec<u8>, Vec<Entry>)| {
            let mut places = (from..streams.len()).chain(0..from);
            let at = places.find(|at| streams[*at].as_bytes() == name)?;
            from = at + 1;
            Some((at, entries))
        };
        match reply {
            Reply::Entries(of) => {
                let passed = self.decoder.take_passed();
                for (name, ids) in passed {
                    let at = streams.iter().position(|stream| stream.as_bytes() == name);
                    self.passed.extend(at.map(|at| (at, ids)));
                }
                let delivered: Option<_> = of.into_iter().map(streams_of).collect();
                delivered.ok_or_else(|| Trouble::garbled(DOING))
            }
            Reply::Error(error) => {
                let said = server_error(&error);
                match (Answer::of(&said), &self.node) {
                    (Some(answer), Some((cluster, node))) if answer.is_about_the_place() => {
                        cluster.heard(&self.life, &node.at, &answer);
                    }
                    (Some(answer), None) if answer.is_elsewhere() => self.life.end(&error),
                    _ => {}
                }
                Err(Trouble::of(DOING, said))
            }
        }
    }

    /// The connection has ended with all others to its server.
    fn left(&self) -> Trouble {
        broken(io::ErrorKind::NotConnected.into())
    }

    async fn reply(&mut self) -> Result<Reply, Trouble> {
        loop {
            let (used, reply) = self
                .decoder
                .decode(&self.arrived)
                .map_err(|_| Trouble::garbled(DOING))?;
            // What is left over is the beginning of a string, or of the next answer.
            self.arrived.drain(..used);
            if let Some(reply) = reply {
                if self.arrived.capacity() > 4 * MOST && self.arrived.len() < MOST {
                    self.arrived.shrink_to(MOST);
                }
                return Ok(reply);
            }
            self.arrived.reserve(self.ask);
            let room = self.arrived.capacity() - self.arrived.len();
            let came = self
                .socket
                .read_buf(&mut self.arrived)
                .await
                .map_err(broken)?;
            if came == 0 {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
            self.ask = if came == room {
                (self.ask * 2).min(MOST)
            } else if came < self.ask / 8 {
                (self.ask / 2).max(LEAST)
            } else {
                self.ask
            };
        }
    }
}

fn broken(error: io::Error) -> Trouble {
    let message = format!("{DOING}: {error}");
    Trouble::Broken(Error::new(ErrorKind::Unreachable, message).with_source(error))
}

/// The server's error, as the client crate would have it.
fn server_error(error: &str) -> RedisError {
    let parsed = redis::parse_redis_value(format!("-{error}\r\n").as_bytes());
    match parsed.and_then(redis::Value::extract_error) {
        Err(error) => error,
        Ok(_) => (redis::ErrorKind::Parse, "an error that can't be understood").into(),
    }
}
