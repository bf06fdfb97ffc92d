//! Which letters a command is about: ids, filters, or all.

use std::io::{self, IsTerminal};
use std::time::SystemTime;

use clap::Args;

use super::CommandError;
use crate::called;
use crate::cli::away::{none_left_out, say_left_out};
use crate::cli::moment::Moment;
use crate::cli::terminal::{ask, progress, say};
use crate::dead_letters::{Counted, DeadLetters, Filter, Selection};
use crate::event::EntryId;

/// The filters; a letter is meant that all of them let through.
#[derive(Args)]
pub(super) struct FilterArgs {
    /// Only letters of this stream
    #[arg(long)]
    pub stream: Option<String>,
    /// Only letters of this event type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// One of failed, permanent, crashed, undecodable, unhandled, too_large, expired
    #[arg(long)]
    reason: Option<String>,
    /// Only letters of this fingerprint, as dlq groups shows it
    #[arg(long)]
    fingerprint: Option<String>,
    /// Only letters in whose error this regular expression is found
    #[arg(long, value_name = "REGEX")]
    error: Option<String>,
    /// Only letters buried since then: 2026-01-31T12:00:00Z, or a duration ago such as 2h
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    since: Option<Moment>,
    /// Only letters buried until then
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    until: Option<Moment>,
    /// Only so many, the oldest first
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// Ids, or filters, or all.
#[derive(Args)]
pub(super) struct Which {
    /// The letters' ids, as `dlq list` shows them
    #[arg(value_name = "ID",
          conflicts_with_all = ["event_type", "reason", "fingerprint", "error", "since", "until", "limit", "all"])]
    ids: Vec<EntryId>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All letters
    #[arg(long, conflicts_with_all = ["event_type", "reason", "fingerprint", "error", "since", "until", "limit"])]
    all: bool,
}

/// What is meant, gone through once.
pub(super) struct Meant {
    pub selection: Selection,
    pub counted: Counted,
    /// Where they are, for messages: `orders, payments`.
    pub place: String,
}

impl FilterArgs {
    /// What is meant of these letters. "Ago" is from one moment on, by the server's clock.
    pub async fn filter(&self, dead: &DeadLetters) -> Result<Filter, CommandError> {
        let mut filter = Filter::new();
        let asks = [self.since, self.until].into_iter().flatten();
        let now = match asks.into_iter().any(Moment::is_ago) {
            true => dead.now().await?,
            false => SystemTime::UNIX_EPOCH,
        };
        if let Some(stream) = &self.stream {
            filter = filter.stream(stream);
        }
        if let Some(event_type) = &self.event_type {
            filter = filter.event_type(event_type);
        }
        if let Some(reason) = &self.reason {
            filter = filter.reason(reason.parse()?);
        }
        if let Some(fingerprint) = &self.fingerprint {
            filter = filter.fingerprint(fingerprint);
        }
        if let Some(regex) = &self.error {
            filter = filter.error(regex)?;
        }
        if let Some(since) = self.since {
            filter = filter.since(since.from(now));
        }
        if let Some(until) = self.until {
            filter = filter.until(until.from(now));
        }
        if let Some(limit) = self.limit {
            filter = filter.limit(limit);
        }
        Ok(filter)
    }

    /// Whether anything is asked for.
    pub fn is_any(&self) -> bool {
        self.stream.is_some()
            || self.event_type.is_some()
            || self.reason.is_some()
            || self.fingerprint.is_some()
            || self.error.is_some()
            || self.since.is_some()
            || self.until.is_some()
            || self.limit.is_some()
    }

    /// Says that nothing was found, on standard error.
    pub fn say_none(&self, dead: &DeadLetters) {
        let group = dead.group();
        let place = place(dead, self.stream.as_deref());
        let narrow = Filtered(self).to_string();
        say(format_args!(
            "no dead letters of {place} in the group {group}{narrow}"
        ));
    }
}

struct Filtered<'a>(&'a FilterArgs);

impl std::fmt::Display for Filtered<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let FilterArgs {
            event_type,
            reason,
            fingerprint,
            error,
            since,
            until,
            ..
        } = self.0;
        let any =
            event_type.is_some() || reason.is_some() || fingerprint.is_some() || error.is_some();
        f.write_str(if any || since.is_some() || until.is_some() {
            " that the filters let through"
        } else {
            ""
        })
    }
}

impl Which {
    /// Goes through what is meant, so that it can be counted before anything is done.
    pub async fn resolve(&self, dead: &DeadLetters, verb: &str) -> Result<Meant, CommandError> {
        let selection = if !self.ids.is_empty() {
            let stream = stream_of_ids(dead, self.filter.stream.as_deref())?;
            let mut ids = self.ids.clone();
            let mut seen = std::collections::HashSet::new();
            ids.retain(|id| seen.insert(*id));
            dead.pick(&stream, ids)?
        } else if self.all || self.filter.is_any() {
            dead.select(self.filter.filter(dead).await?).await?
        } else {
            return Err(CommandError::usage(format!(
                "nothing to {verb}: name letters by their ids ({}), filter them (--type, --reason, --since …), or \
                 write --all",
                called::command("dlq list")
            )));
        };
        let bar = progress(None, "letters looked at");
        let counted = selection.count(|found| bar.set_position(found)).await?;
        bar.finish_and_clear();
        say_strangers(counted.strangers);
        say_left_out(dead);
        if counted.found == 0 && counted.missing.is_empty() {
            self.filter.say_none(dead);
        }
        Ok(Meant {
            selection,
            counted,
            place: place(dead, self.filter.stream.as_deref()),
        })
    }
}

impl Meant {
    /// Fails where ids were asked for that are none, or letters were left out that something was to be done with; said last,
    /// when the others have been dealt with.
    pub fn all_there(&self, dead: &DeadLetters, dry_run: bool) -> Result<(), CommandError> {
        let missing = &self.counted.missing;
        if missing.is_empty() {
            return match dry_run {
                true => Ok(()),
                false => none_left_out(dead),
            };
        }
        let ids: Vec<String> = missing.iter().map(EntryId::to_string).collect();
        Err(CommandError::failed(format!(
            "no dead letter of {} has the id {}: it was replayed or purged, or never was one ({} finds the letter of an entry's or \
             an event's id)",
            self.place,
            ids.join(" or "),
            called::command("dlq show")
        )))
    }
}

/// The stream that ids are of: the only one, or the one that is named.
pub(super) fn stream_of_ids(
    dead: &DeadLetters,
    named: Option<&str>,
) -> Result<String, CommandError> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let streams: Vec<&str> = dead.streams().collect();
    match &streams[..] {
        [only] => Ok((*only).to_owned()),
        several => Err(CommandError::usage(format!(
            "ids are a stream's own, and the worker reads {}: add --stream {}",
            several.len(),
            several.join(" or --stream ")
        ))),
    }
}

/// Says that there is something else among the dead letters.
pub(super) fn say_strangers(strangers: u64) {
    match strangers {
        0 => {}
        1 => say("passed over an entry that no worker wrote"),
        many => say(format_args!(
            "passed over {many} entries that no worker wrote"
        )),
    }
}

/// Asks a yes-or-no question on the terminal. `unasked` is what to say where there is no terminal to ask on.
pub(in crate::cli) fn confirm(question: &str, unasked: &str) -> Result<bool, CommandError> {
    if !io::stdin().is_terminal() {
        return Err(CommandError::usage(unasked));
    }
    ask(format_args!("{question} [y/N] "))
        .map_err(|error| CommandError::failed(format!("can't ask: {error}")))?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| CommandError::failed(format!("can't read the answer: {error}")))?;
    if !answer.ends_with('\n') {
        // Ctrl-D leaves the cursor behind the question.
        say("");
    }
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

fn place(dead: &DeadLetters, stream: Option<&str>) -> String {
    match stream {
        Some(stream) => stream.to_owned(),
        None => dead.streams().collect::<Vec<_>>().join(", "),
    }
}
