//! `entry`: the life of one entry.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;

use super::CommandError;
use super::away::say_away;
use super::data::laid_out;
use super::terminal::{print, print_json, progress, say};
use super::text::{count, printable, time};
use crate::admin::{Admin, Budget, Covered, EntryLife, GroupLife, Hit, Place, Relations, Search};
use crate::config::Settings;
use crate::event::EntryId;
use crate::names::shown;

#[derive(Args)]
pub(super) struct EntryArgs {
    /// The entry's id, its event's, or anything else that find takes: the newest that is found is shown
    #[arg(value_name = "ID")]
    id: String,
    /// The stream it is of, if the worker reads several; what it caused is looked for there, too; may be repeated
    #[arg(long)]
    stream: Vec<String>,
    /// The group that is meant first; others of the stream are told of, too [default: worker.group]
    #[arg(long)]
    pub(super) group: Option<String>,
    /// Look at about so many entries for what it has to do with
    #[arg(long, value_name = "NUMBER", default_value_t = 200_000)]
    entries: u64,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: EntryArgs, settings: Settings) -> Result<(), CommandError> {
    let mut admin = Admin::new(&settings)?;
    if let Some(group) = &args.group {
        admin = admin.for_group(group)?;
    }
    let mut away = BTreeMap::new();
    let (stream, id) = find(&args, &admin, &mut away).await?;
    let mut life = admin.entry(&stream, id).await?;
    let budget = Budget::default().entries(args.entries);
    let bar = progress(None, "entries looked at");
    let related = admin.entry_relations(&life, &args.stream, &budget).await;
    bar.finish_and_clear();
    let related = related?;
    life.know(&related);
    for trouble in &related.in_trouble {
        away.entry(trouble.stream.clone())
            .or_insert(trouble.error.clone());
    }
    for (stream, error) in &away {
        say_away(stream, error);
    }
    if args.json {
        let mut json = serde_json::to_value(&life).unwrap_or_default();
        json["relations"] = serde_json::to_value(&related).unwrap_or_default();
        return print_json(&json);
    }
    print(readable(&life, &related).trim_end())?;
    if related.is_cut && related.in_trouble.is_empty() {
        say(
            "not all was looked through for what it has to do with: raise --entries, or use streamhand find",
        );
    }
    Ok(())
}

/// Which entry is meant. `away` is told which streams can't be looked at, and why.
async fn find(
    args: &EntryArgs,
    admin: &Admin,
    away: &mut BTreeMap<String, String>,
) -> Result<(String, EntryId), CommandError> {
    let streams = match args.stream.is_empty() {
        true => admin.streams().to_vec(),
        false => args
            .stream
            .iter()
            .flat_map(|name| admin.streams_of(name))
            .collect(),
    };
    if let Ok(id) = args.id.parse::<EntryId>() {
        let mut there = Vec::new();
        for stream in &streams {
            let life = match admin.entry(stream, id).await {
                Err(error) if streams.len() > 1 && admin.is_of_one_node(&error) => {
                    away.insert(stream.clone(), error.to_string());
                    continue;
                }
                life => life?,
            };
            if life.is_there || streams.len() == 1 {
                there.push(stream.clone());
            }
        }
        match &there[..] {
            [only] => return Ok((only.clone(), id)),
            [] => {}
            several => {
                return Err(CommandError::usage(format!(
                    "{id} is an entry of {}: add --stream {}",
                    several.join(" and of "),
                    several.join(" or --stream ")
                )));
            }
        }
    }
    let mut search = Search::new(&args.id)?.streams(streams).places([
        Place::Stream,
        Place::Dead,
        Place::Replayed,
    ]);
    let budget = Budget::default().entries(args.entries).hits(1);
    let page = admin.search(&mut search, &budget).await?;
    let found = page.hits.iter().find_map(|hit| {
        let id = match hit.place {
            Place::Dead => hit.event.get("entry")?.as_str()?,
            _ => &hit.id[..],
        };
        Some((hit.stream.clone(), id.parse().ok()?))
    });
    let troubles = page.in_trouble.iter();
    away.extend(troubles.map(|trouble| (trouble.stream.clone(), trouble.error.clone())));
    found.ok_or_else(|| {
        let is_away = |covered: &&Covered| away.contains_key(&covered.stream);
        let looked = page.covered.iter().filter(|covered| !is_away(covered));
        let looked = looked.map(ToString::to_string);
        let not = away
            .iter()
            .map(|(stream, error)| format!("{stream} can't be looked at: {error}"));
        let looked: Vec<String> = looked.chain(not).collect();
        CommandError::failed(format!(
            "no entry is or has {}: looked at {}",
            shown(&args.id),
            looked.join("; ")
        ))
    })
}

fn readable(life: &EntryLife, related: &Relations) -> String {
    let mut text = format!(
        "entry {} of {}, added {}\n",
        life.id,
        shown(&life.stream),
        time(life.at)
    );
    for group in &life.groups {
        group_lines(&mut text, group, "  ");
    }
    if !related.letters.is_empty() {
        text.push_str("\ndead letters and replays\n");
        for hit in &related.letters {
            let dead = hit.event.get("dead");
            let said = |name: &str| {
                dead.and_then(|dead| dead.get(name))
                    .and_then(|value| value.as_str())
            };
            let _ = match hit.place {
                Place::Dead => writeln!(
                    text,
                    "  {} dead letter {}: {}, {}",
                    time(hit.at),
                    hit.id,
                    said("reason").unwrap_or_default(),
                    printable(said("error").unwrap_or_default())
                ),
                _ => writeln!(text, "  {} replayed as {}", time(hit.at), hit.id),
            };
        }
    }
    if let Some(cause) = &related.cause {
        let _ = writeln!(text, "\ncaused by\n  {}", line(cause));
    }
    if !related.caused.is_empty() {
        text.push_str("\nhas caused\n");
        for caused in &related.caused {
            let _ = writeln!(text, "  {}", line(&caused.hit));
            for group in &caused.groups {
                group_lines(&mut text, group, "    ");
            }
        }
    }
    if life.is_there {
        let json = serde_json::to_string(&life.event).unwrap_or_default();
        let _ = writeln!(
            text,
            "\nevent, {}\n{}",
            count(life.bytes, "byte"),
            super::text::printable_json(&laid_out(&json))
        );
    }
    text
}

fn group_lines(text: &mut String, group: &GroupLife, indent: &str) {
    let asked = group.to_be_cancelled_by.as_deref();
    let asked = asked.map_or_else(String::new, |by| {
        format!("; {} has asked for it to be cancelled", shown(by))
    });
    let (name, standing) = (shown(&group.group), &group.standing);
    let _ = writeln!(text, "{indent}{name}: {standing}{asked}");
    if group.deliveries > 0 && !group.errors.is_empty() || group.released > 0 {
        let given = match group.released {
            0 => String::new(),
            released => format!(", {released} released"),
        };
        let _ = writeln!(
            text,
            "{indent}  {}{given}",
            count(group.attempts(), "attempt")
        );
    }
    for error in &group.errors {
        let when = error
            .at
            .map(|at| format!(" at {}", time(at)))
            .unwrap_or_default();
        let which = error.attempt.map_or_else(
            || "last error".to_owned(),
            |attempt| format!("attempt {attempt}"),
        );
        let times = match error.times {
            1 => String::new(),
            times => format!(", {times} times in a row"),
        };
        let _ = writeln!(
            text,
            "{indent}  {which}{when}{times}: {}",
            printable(&error.error)
        );
    }
}

fn line(hit: &Hit) -> String {
    let field = |name: &str| {
        hit.event
            .get(name)
            .and_then(|value| value.as_str())
            .unwrap_or("-")
    };
    format!(
        "{} of {}: {}, event {}, {}",
        hit.id,
        shown(&hit.stream),
        shown(field("type")),
        shown(field("id")),
        time(hit.at)
    )
}
