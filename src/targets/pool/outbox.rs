//! What goes to a child. It is written where it comes up, if the pipe has room; what has none waits here, and is written
//! by the child's keeper. Nobody ever waits for a child that does not read.

use std::io;
use std::sync::Arc;

use tokio::net::unix::pipe::Sender;
use tokio::sync::Notify;

pub(super) struct Outbox {
    pipe: Arc<Sender>,
    /// What the pipe had no room for.
    rest: Vec<u8>,
    /// Up to here it is written.
    written: usize,
    /// The child does not take anything more.
    pub is_closed: bool,
    /// Has the keeper look.
    stir: Arc<Notify>,
}

impl Outbox {
    pub fn new(pipe: Arc<Sender>, stir: Arc<Notify>) -> Self {
        Outbox {
            pipe,
            rest: Vec::new(),
            written: 0,
            is_closed: false,
            stir,
        }
    }

    /// Sends a line, now or as soon as there is room.
    pub fn send(&mut self, line: &[u8]) {
        let done = match self.rest.is_empty() {
            true => self.write(line),
            false => 0,
        };
        if done < line.len() && !self.is_closed {
            self.rest.extend_from_slice(&line[done..]);
            self.stir.notify_one();
        }
    }

    /// Writes what waits, as far as there is room. Returns whether that is all.
    pub fn flush(&mut self) -> bool {
        let rest = std::mem::take(&mut self.rest);
        self.written += self.write(&rest[self.written..]);
        if self.written < rest.len() && !self.is_closed {
            self.rest = rest;
            return false;
        }
        self.written = 0;
        true
    }

    pub fn stir(&self) {
        self.stir.notify_one();
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.pipe.try_write(&bytes[written..]) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.is_closed = true;
                    self.stir.notify_one();
                    break;
                }
            }
        }
        written
    }
}
