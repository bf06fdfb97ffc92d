//! `find`: events by what is in them.

use std::time::{Duration, SystemTime};

use clap::Args;

use super::CommandError;
use super::away::say_away;
use super::moment::Moment;
use super::terminal::{print, print_json, progress, say};
use super::text::{table, time};
use crate::admin::{Admin, Budget, Covered, Hit, Place, Search};
use crate::called;
use crate::config::Settings;
use crate::duration;
use crate::names::shown;

#[derive(Args)]
pub(super) struct FindArgs {
    /// What to look for: an id, a subject, type:order.created, data.order_id:o-1 (see below)
    #[arg(
        value_name = "WORD",
        required_unless_present = "from",
        conflicts_with = "from"
    )]
    words: Vec<String>,
    /// The group that is meant [default: worker.group]
    #[arg(long)]
    pub(super) group: Option<String>,
    /// Look in this stream only, be it of the group or not; may be repeated
    #[arg(long, conflicts_with = "from")]
    stream: Vec<String>,
    /// Look there only: stream, dead, replayed, parked, scheduled; may be repeated
    #[arg(long = "in", value_name = "PLACE", conflicts_with = "from")]
    places: Vec<String>,
    /// Only what was added since then: 2026-01-31T12:00:00Z, or a duration ago such as 2h
    #[arg(long, value_name = "TIME", value_parser = Moment::parse, conflicts_with = "from")]
    since: Option<Moment>,
    /// Only what was added until then
    #[arg(long, value_name = "TIME", value_parser = Moment::parse, conflicts_with = "from")]
    until: Option<Moment>,
    /// So many are enough
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    limit: usize,
    /// Look at about so many entries
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000_000)]
    entries: u64,
    /// Look for about so long
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    time: Duration,
    /// Go on where a search was left, as it has said
    #[arg(long, value_name = "CURSOR")]
    from: Option<String>,
    /// Print one JSON value
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: FindArgs, settings: Settings) -> Result<(), CommandError> {
    let mut admin = Admin::new(&settings)?;
    if let Some(group) = &args.group {
        admin = admin.for_group(group)?;
    }
    let mut search = args.search(&admin).await?;
    let budget = Budget::default()
        .entries(args.entries)
        .time(args.time)
        .hits(args.limit);
    let bar = progress(None, "entries looked at");
    let page = admin.search(&mut search, &budget).await;
    bar.finish_and_clear();
    let page = page?;
    for away in &page.in_trouble {
        say_away(&away.stream, &away.error);
    }
    if args.json {
        return print_json(&page);
    }
    if !page.hits.is_empty() {
        let rows: Vec<Vec<String>> = page.hits.iter().map(row).collect();
        print(table(
            &["ID", "IN", "TYPE", "EVENT", "SUBJECT", "AT"],
            &["TYPE", "EVENT", "SUBJECT"],
            &rows,
        ))?;
    }
    let covered: Vec<String> = page.covered.iter().map(Covered::to_string).collect();
    let found = match (page.hits.len(), &page.cursor) {
        (0, None) => "found nothing: ",
        (0, Some(_)) => "found nothing so far: ",
        _ => "",
    };
    say(format_args!("{found}looked at {}", covered.join("; ")));
    if let Some(cursor) = &page.cursor {
        say(format_args!(
            "there is more: {}",
            called::command(format_args!("find --from {cursor}"))
        ));
    }
    Ok(())
}

impl FindArgs {
    async fn search(&self, admin: &Admin) -> Result<Search, CommandError> {
        if let Some(cursor) = &self.from {
            return Ok(Search::resume(cursor)?);
        }
        let mut search = Search::new(&self.words.join(" "))?.streams(&self.stream);
        if !self.places.is_empty() {
            let places: Result<Vec<Place>, _> =
                self.places.iter().map(|name| name.parse()).collect();
            search = search.places(places?);
        }
        let asks = [self.since, self.until].into_iter().flatten();
        let now = match asks.into_iter().any(Moment::is_ago) {
            true => admin.now().await?,
            false => SystemTime::UNIX_EPOCH,
        };
        if let Some(since) = self.since {
            search = search.since(since.from(now));
        }
        if let Some(until) = self.until {
            search = search.until(until.from(now));
        }
        Ok(search)
    }
}

fn row(hit: &Hit) -> Vec<String> {
    let field = |name: &str| match hit.event.get(name).and_then(|value| value.as_str()) {
        Some(text) => shown(text).to_string(),
        None => "-".to_owned(),
    };
    let place = match hit.place {
        Place::Stream => hit.stream.clone(),
        place => format!("{} of {}", place.name(), hit.stream),
    };
    vec![
        shown(&hit.id).to_string(),
        place,
        field("type"),
        field("id"),
        field("subject"),
        time(hit.at),
    ]
}
