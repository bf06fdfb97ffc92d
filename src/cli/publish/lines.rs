//! Lines of a file or of standard input, each turned into an event; what is read ahead is bounded in bytes.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::CommandError;
use super::event::Template;
use crate::cli::terminal::say;
use crate::event::Envelope;

/// Most lines handed over at once: each time costs as much as a line does.
const CHUNK: usize = 100;
/// Most of those that are published in one go.
const BATCH: usize = 40;
/// Most bytes read ahead of what has been published; one longer line passes alone.
const AHEAD: usize = 8 << 20;
/// The longest line.
const LONGEST: usize = 64 << 20;

/// The events of a file or of standard input.
pub(super) struct Lines {
    name: String,
    size: Option<u64>,
    events: mpsc::Receiver<Chunk>,
}

/// Where an event stood.
pub(super) struct Line {
    pub number: u64,
    /// The bytes up to its end.
    pub end: u64,
    /// Its share of what may be read ahead, released when it has been published.
    _room: OwnedSemaphorePermit,
}

type Event = (Line, Envelope);

/// Events of lines that follow each other, and what is wrong with the line behind them.
type Chunk = (Vec<Event>, Option<String>);

/// What could be had without waiting for more.
pub(super) struct Batch {
    pub lines: Vec<Event>,
    /// Whether that was all: up to the end, or up to what is wrong.
    pub end: Option<Result<(), String>>,
}

impl Lines {
    /// Begins to read `file`, or standard input where there is none or it is called `-`.
    pub async fn open(file: Option<&Path>, template: Template) -> Result<Self, CommandError> {
        let (send, events) = mpsc::channel(2 * BATCH);
        let Some(path) = file.filter(|path| path.as_os_str() != "-") else {
            if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
                say("reading events from standard input, one a line; end with Ctrl-D");
            }
            tokio::spawn(read(BufReader::new(tokio::io::stdin()), template, send));
            return Ok(Lines {
                name: "standard input".to_owned(),
                size: None,
                events,
            });
        };
        let name = path.display().to_string();
        let cannot = |why: std::io::Error| CommandError::usage(format!("can't open {name}: {why}"));
        let file = tokio::fs::File::open(path).await.map_err(cannot)?;
        let metadata = file.metadata().await.map_err(cannot)?;
        if metadata.is_dir() {
            return Err(CommandError::usage(format!(
                "can't read {name}: it is a directory; name a file with one JSON value a line"
            )));
        }
        tokio::spawn(read(
            BufReader::with_capacity(256 << 10, file),
            template,
            send,
        ));
        Ok(Lines {
            name,
            size: metadata.is_file().then_some(metadata.len()),
            events,
        })
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes, where they are known.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next events: waits for one, and takes what has been read besides. Nothing is lost where it is dropped.
    pub async fn next(&mut self) -> Batch {
        let mut chunks = Vec::new();
        let count = self.events.recv_many(&mut chunks, BATCH).await;
        let mut batch = Batch {
            lines: Vec::with_capacity(count * CHUNK),
            end: (count == 0).then_some(Ok(())),
        };
        for (events, wrong) in chunks {
            batch.lines.extend(events);
            if let Some(why) = wrong {
                batch.end = Some(Err(why));
            }
        }
        batch
    }
}

/// Reads up to the end, or to the first line that is wrong.
async fn read(
    mut from: BufReader<impl AsyncRead + Unpin>,
    template: Template,
    to: mpsc::Sender<Chunk>,
) {
    let room = Arc::new(Semaphore::new(AHEAD));
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut bytes = Vec::new();
    let (mut number, mut end) = (0, 0);
    loop {
        // Whoever waits for the next line, or for room, has handed over those before.
        let is_time = chunk.len() == CHUNK || !from.buffer().contains(&b'\n');
        if is_time && !hand_over(&mut chunk, &to).await {
            return;
        }
        bytes.clear();
        number += 1;
        let read = (&mut from)
            .take(LONGEST as u64 + 1)
            .read_until(b'\n', &mut bytes)
            .await;
        let result = match read {
            Ok(0) => return,
            Ok(length) if length > LONGEST => Err(format!(
                "is longer than {} MiB; a stream is not the place for it: publish where it is kept",
                LONGEST >> 20
            )),
            Ok(length) => {
                end += length as u64;
                match text(&bytes, number) {
                    Ok("") => continue,
                    Ok(text) => template.event(text),
                    Err(why) => Err(why),
                }
            }
            Err(error) => Err(format!("can't be read: {error}")),
        };
        let envelope = match result {
            Ok(envelope) => envelope,
            Err(why) => {
                let _ = to.send((chunk, Some(format!("line {number} {why}")))).await;
                return;
            }
        };
        let wanted = bytes.len().clamp(1, AHEAD) as u32;
        let permit = match room.clone().try_acquire_many_owned(wanted) {
            Ok(permit) => permit,
            Err(_) => {
                if !hand_over(&mut chunk, &to).await {
                    return;
                }
                match room.clone().acquire_many_owned(wanted).await {
                    Ok(permit) => permit,
                    Err(_) => return,
                }
            }
        };
        let line = Line {
            number,
            end,
            _room: permit,
        };
        chunk.push((line, envelope));
    }
}

/// Hands over what has been read. Answers whether there is still somebody to take it.
async fn hand_over(chunk: &mut Vec<Event>, to: &mpsc::Sender<Chunk>) -> bool {
    if chunk.is_empty() {
        return true;
    }
    let full = std::mem::replace(chunk, Vec::with_capacity(CHUNK));
    to.send((full, None)).await.is_ok()
}

/// A line as text, without what is around it.
fn text(bytes: &[u8], number: u64) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        format!(
            "is not UTF-8 from its byte {} on; convert the file, or was it packed?",
            error.valid_up_to() + 1
        )
    })?;
    let text = match number {
        1 => text.strip_prefix('\u{feff}').unwrap_or(text),
        _ => text,
    };
    Ok(text.trim_matches([' ', '\t', '\r', '\n']))
}
