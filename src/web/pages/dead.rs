//! Dead letters: by what they have in common, one by one, and what can be done with them.
//!
//! What may take long, a replay or a purge of many, goes on behind the page: a replay is a run that Redis knows, and whoever
//! serves these pages drives it, or a worker if they are gone. A purge can be undone for an hour.

use std::time::Duration;

use askama::Template;
use axum::extract::{Form, Query as Asked, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admin::{Admin, data};
use crate::config::Role;
use crate::dead_letters::{
    DeadLetter, DeadLetters, EarlierError, Filter, Group, LeftOut, PurgeRun, Run, RunPlan,
    RunStanding, Selection, WholeLetter,
};
use crate::event::EntryId;
use crate::handler::Validity;
use crate::web::app::{Act, App};
use crate::web::command::CommandLine;
use crate::web::filters;
use crate::web::form::{ActForm, Field};
use crate::web::link;
use crate::web::problem::Problem;
use crate::web::route::{Route, Scope};
use crate::web::seen;
use crate::web::visit::{Frame, Visit};

/// Groups, runs and letters that are shown at once.
const GROUPS: usize = 100;
const RUNS: usize = 20;
const LETTERS: usize = 50;
/// Letters of a group are looked for so long: where a group is rare among many, they are found by the program.
const LOOKS: Duration = Duration::from_millis(70);
/// Most letters that are exported from here.
const EXPORTED: usize = 1_000;
/// How long a purge can be undone.
const UNDO_WITHIN: Duration = Duration::from_secs(3600);
/// What is done sooner is told of at once, and goes on behind the page else.
const SOON: Duration = Duration::from_secs(2);

pub(super) fn routes() -> Vec<Route> {
    let (view, operate, admin) = (
        (Role::View, Scope::Stream),
        (Role::Operate, Scope::Stream),
        (Role::Admin, Scope::Stream),
    );
    vec![
        Route::page("/dead", (Role::View, Scope::Any), groups),
        Route::page("/dead/group", view, group),
        Route::page("/dead/letter", view, letter),
        Route::page("/dead/export", operate, export),
        Route::action("/dead/replay", operate, replay),
        Route::action("/dead/stop", operate, stop),
        Route::action("/dead/resume", operate, resume),
        Route::action("/dead/purge", admin, purge),
        Route::action("/dead/undo", admin, undo),
        Route::action("/dead/edit", admin, edit),
        Route::action("/dead/note", operate, note),
        Route::action("/dead/assign", operate, assign),
        Route::action("/dead/hold", operate, hold),
        Route::action("/dead/release", operate, release),
    ]
}

// The groups.

#[derive(Serialize)]
struct Groups {
    total: u64,
    /// They are being counted, and their groups are not known yet.
    is_counting: bool,
    /// When they were counted, if that is a while ago.
    as_of: Option<String>,
    groups: Vec<OneGroup>,
    runs: Vec<OneRun>,
    purges: Vec<OnePurge>,
    left_out: Vec<LeftOut>,
}

#[derive(Serialize)]
struct OneGroup {
    #[serde(flatten)]
    group: Group,
    #[serde(skip)]
    href: String,
    #[serde(skip)]
    first: String,
    #[serde(skip)]
    last: String,
    #[serde(skip)]
    versions: String,
}

#[derive(Serialize)]
struct OneRun {
    #[serde(flatten)]
    run: Run,
    #[serde(skip)]
    began: String,
    #[serde(skip)]
    mood: &'static str,
    #[serde(skip)]
    form: Option<ActForm>,
}

#[derive(Serialize)]
struct OnePurge {
    #[serde(flatten)]
    purge: PurgeRun,
    #[serde(skip)]
    at: String,
    #[serde(skip)]
    until: String,
    #[serde(skip)]
    form: Option<ActForm>,
}

#[derive(Template)]
#[template(path = "dead.html")]
struct GroupsPage<'a> {
    frame: Frame,
    page: &'a Groups,
    more: usize,
}

async fn groups(State(app): State<App>, visit: Visit) -> Result<Response, Problem> {
    let admin = app.admin();
    let streams = admin.streams().iter();
    let seen: Vec<String> = streams
        .filter(|stream| visit.may(Role::View, stream))
        .cloned()
        .collect();
    let dead = Admin::clone(&app.admin())
        .for_streams(seen)?
        .dead_letters()?;
    let dead = dead.leaving_out_unreachable();
    // Each of these waits for Redis, which may be counting.
    let (counted, runs, purges) =
        tokio::join!(app.counting().get(&dead), dead.runs(), dead.purges());
    let (counted, mut runs, purges) = (counted?, runs?, purges?);
    let is_counting = counted.is_none();
    let as_of = counted.as_ref().and_then(|counted| counted.as_of);
    let of_count = counted.as_ref().map(|counted| counted.left_out.clone());
    let (total, found) = match counted {
        Some(counted) => (counted.groups.total, counted.groups.groups.clone()),
        None => {
            let status = app.status().await?;
            let seen = status
                .streams
                .iter()
                .filter(|stream| visit.may(Role::View, &stream.stream));
            (seen.map(|stream| stream.dead).sum(), Vec::new())
        }
    };
    let all = found.len();
    runs.sort_by_key(|run| std::cmp::Reverse(run.began));
    runs.truncate(RUNS);
    let mut left_out = of_count.unwrap_or_default();
    for away in dead.left_out() {
        if left_out.iter().all(|known| known.stream != away.stream) {
            left_out.push(away);
        }
    }
    let first = dead.streams().next().unwrap_or_default().to_owned();
    let page = Groups {
        total,
        is_counting,
        as_of: as_of.map(seen::second),
        groups: found.into_iter().take(GROUPS).map(OneGroup::of).collect(),
        runs: runs
            .into_iter()
            .map(|run| OneRun::of(run, &visit))
            .collect(),
        purges: purges
            .into_iter()
            .map(|purge| OnePurge::of(purge, &first, &visit))
            .collect(),
        left_out,
    };
    let html = GroupsPage {
        frame: visit.frame("Dead letters"),
        more: all.saturating_sub(page.groups.len()),
        page: &page,
    };
    visit.page(&page, html)
}

impl OneGroup {
    fn of(group: Group) -> Self {
        let versions: Vec<String> = group.versions.iter().map(u32::to_string).collect();
        OneGroup {
            href: link::link(
                "/dead/group",
                &[
                    ("stream", &group.stream),
                    ("fingerprint", &group.fingerprint),
                ],
            ),
            first: seen::second(group.first),
            last: seen::second(group.last),
            versions: versions.join(", "),
            group,
        }
    }
}

impl OneRun {
    fn of(run: Run, visit: &Visit) -> Self {
        let may = visit.may(Role::Operate, &run.stream);
        let form = |label, verb: &str| {
            ActForm::new(
                label,
                &format!("/dead/{verb}"),
                run_command(verb, run.number, &run.stream),
            )
            .on(&run.stream)
            .with("run", run.number.to_string())
        };
        let (mood, form) = match run.state {
            RunStanding::Running | RunStanding::Waiting => {
                ("waiting", may.then(|| form("Stop", "stop")))
            }
            RunStanding::Stopped => ("failing", may.then(|| form("Resume", "resume"))),
            _ => ("fine", None),
        };
        OneRun {
            began: seen::second(run.began),
            mood,
            form,
            run,
        }
    }

    fn per_cent_died(&self) -> u64 {
        match self.run.succeeded + self.run.died {
            0 => 0,
            settled => self.run.died * 100 / settled,
        }
    }
}

impl OnePurge {
    fn of(purge: PurgeRun, stream: &str, visit: &Visit) -> Self {
        let form = || {
            ActForm::new(
                "Undo",
                "/dead/undo",
                CommandLine::new(["dlq", "undo", &purge.name]),
            )
            .on(stream)
            .with("name", &purge.name)
        };
        OnePurge {
            at: seen::second(purge.at),
            until: seen::second(purge.until),
            form: visit.may(Role::Admin, stream).then(form),
            purge,
        }
    }
}

fn run_command(verb: &str, number: u64, stream: &str) -> CommandLine {
    CommandLine::new(["dlq", verb, &format!("r-{number}"), "--stream", stream])
}

// One group.

#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    fingerprint: String,
    #[serde(default)]
    id: String,
    /// Behind this letter.
    #[serde(default)]
    after: String,
}

#[derive(Serialize)]
struct Letters {
    stream: String,
    group: Option<Group>,
    letters: Vec<Row>,
    /// Whether there may be more that were not come to.
    is_cut: bool,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    letter: DeadLetter,
    #[serde(skip)]
    at: String,
    #[serde(skip)]
    href: String,
}

#[derive(Template)]
#[template(path = "dead_group.html")]
struct GroupPage<'a> {
    frame: Frame,
    page: &'a Letters,
    forms: Vec<ActForm>,
    some: Option<(String, CommandLine)>,
    further: Option<String>,
    export: Option<String>,
    search: CommandLine,
}

async fn group(
    State(app): State<App>,
    visit: Visit,
    Asked(which): Asked<Which>,
) -> Result<Response, Problem> {
    let stream = visit.stream().to_owned();
    let dead = dead_of(&app, &stream)?;
    let fingerprint = &which.fingerprint;
    let counted = app.counting().get(&dead).await?;
    let group = counted.and_then(|counted| {
        let mut groups = counted.groups.groups.iter();
        groups
            .find(|group| group.fingerprint == *fingerprint)
            .cloned()
    });
    let after: Option<EntryId> = which.after.parse().ok();
    let mut filter = filter_of(&stream, fingerprint).brief();
    if let Some(since) = after
        .map(|id| id.time())
        .or(group.as_ref().map(|group| group.first))
    {
        filter = filter.since(since);
    }
    let (letters, is_cut) = some_letters(&dead, filter, after).await?;
    let page = Letters {
        letters: letters.into_iter().map(Row::of).collect(),
        is_cut,
        group,
        stream: stream.clone(),
    };
    let may = visit.may(Role::Operate, &stream);
    let last = page
        .letters
        .last()
        .filter(|_| page.letters.len() == LETTERS || is_cut);
    let html = GroupPage {
        frame: visit.frame("Dead letters that are alike"),
        forms: group_forms(&visit, &stream, fingerprint),
        some: may.then(|| {
            let action = link::link("/dead/replay", &[("stream", &stream)]);
            (
                action,
                CommandLine::new(["dlq", "replay", "ID", "ID", "--stream", &stream]),
            )
        }),
        further: last.map(|last| {
            link::link(
                "/dead/group",
                &[
                    ("stream", &stream),
                    ("fingerprint", fingerprint),
                    ("after", &last.letter.id.to_string()),
                ],
            )
        }),
        export: may.then(|| {
            link::link(
                "/dead/export",
                &[("stream", &stream), ("fingerprint", fingerprint)],
            )
        }),
        search: CommandLine::new(["dlq", "list", "--stream", &stream])
            .and(fingerprint_args(fingerprint)),
        page: &page,
    };
    visit.page(&page, html)
}

/// Letters of a filter behind one of them, and whether there may be more that were not come to in time.
async fn some_letters(
    dead: &DeadLetters,
    filter: Filter,
    after: Option<EntryId>,
) -> Result<(Vec<DeadLetter>, bool), Problem> {
    let mut letters = dead.select(filter).await?.letters();
    let (mut found, deadline) = (Vec::new(), tokio::time::Instant::now() + LOOKS);
    while found.len() < LETTERS {
        match tokio::time::timeout_at(deadline, letters.next()).await {
            Err(_) => return Ok((found, true)),
            Ok(next) => match next? {
                None => return Ok((found, false)),
                Some(letter) if after.is_some_and(|after| letter.id <= after) => {}
                Some(letter) => found.push(letter),
            },
        }
    }
    Ok((found, false))
}

impl Row {
    fn of(letter: DeadLetter) -> Self {
        Row {
            at: seen::second(letter.at),
            href: link::link(
                "/dead/letter",
                &[("stream", &letter.stream), ("id", &letter.id.to_string())],
            ),
            letter,
        }
    }
}

fn fingerprint_args(fingerprint: &str) -> Vec<String> {
    match fingerprint {
        "" => vec!["--all".to_owned()],
        fingerprint => vec!["--fingerprint".to_owned(), fingerprint.to_owned()],
    }
}

fn filter_of(stream: &str, fingerprint: &str) -> Filter {
    let filter = Filter::new().stream(stream);
    match fingerprint {
        "" => filter,
        fingerprint => filter.fingerprint(fingerprint),
    }
}

/// What can be done with all letters of a group.
fn group_forms(visit: &Visit, stream: &str, fingerprint: &str) -> Vec<ActForm> {
    let replay =
        CommandLine::new(["dlq", "replay", "--stream", stream]).and(fingerprint_args(fingerprint));
    let purge =
        CommandLine::new(["dlq", "purge", "--stream", stream]).and(fingerprint_args(fingerprint));
    let canary = replay
        .clone()
        .and(["--canary", "10", "--then", "50/s", "--stop-at", "5%"]);
    let mut forms = Vec::new();
    if visit.may(Role::Operate, stream) {
        forms.push(
            ActForm::new("Replay as a canary", "/dead/replay", canary)
                .on(stream)
                .with("fingerprint", fingerprint)
                .ask(Field::text("canary", "So many first").value("10"))
                .ask(
                    Field::text("then", "Then so many a second")
                        .value("50")
                        .hint("empty: none, for you to look"),
                )
                .ask(Field::text("stop_at", "Stop by itself over so many per cent").value("5")),
        );
        forms.push(
            ActForm::new("Replay all", "/dead/replay", replay.and(["--yes"]))
                .on(stream)
                .with("fingerprint", fingerprint),
        );
    }
    if visit.may(Role::Admin, stream) {
        forms.push(
            ActForm::new(
                "Purge",
                "/dead/purge",
                purge.and(["--undo-within", "1h", "--yes"]),
            )
            .on(stream)
            .with("fingerprint", fingerprint)
            .danger(),
        );
    }
    forms
}

// One letter.

#[derive(Serialize)]
struct Letter {
    #[serde(flatten)]
    whole: Value,
    event: Value,
}

#[derive(Template)]
#[template(path = "dead_letter.html")]
struct LetterPage<'a> {
    frame: Frame,
    letter: &'a WholeLetter,
    facts: Vec<(&'static str, String, String)>,
    errors: Vec<(String, &'a EarlierError)>,
    json: String,
    replays: Vec<(String, String)>,
    forms: Vec<ActForm>,
    command: CommandLine,
}

async fn letter(
    State(app): State<App>,
    visit: Visit,
    Asked(which): Asked<Which>,
) -> Result<Response, Problem> {
    let stream = visit.stream().to_owned();
    let id: EntryId = which.id.trim().parse()?;
    let dead = dead_of(&app, &stream)?;
    let letter = dead.get(&stream, id).await?;
    let mut event = Value::Object(data::event(&letter.fields, true));
    seen::hide(&app, &visit, &stream, &mut event);
    let mut whole = serde_json::to_value(&letter.head).unwrap_or_default();
    if let (Value::Object(whole), Ok(Value::Object(notes))) =
        (&mut whole, serde_json::to_value(&letter.notes))
    {
        whole.extend(notes.into_iter().filter(|(name, _)| name != "edit"));
    }
    let replays = letter.replay.iter().map(|(name, value)| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            text(name).trim_start_matches("replay.").replace('_', " "),
            text(value),
        )
    });
    let html = LetterPage {
        frame: visit.frame(format!("Dead letter {id}")),
        facts: facts(&letter),
        errors: letter
            .notes
            .errors
            .iter()
            .map(|error| (when(error), error))
            .collect(),
        json: seen::laid_out(&event),
        replays: replays.collect(),
        forms: letter_forms(&visit, &letter),
        command: CommandLine::new(["dlq", "show", &id.to_string(), "--stream", &stream]),
        letter: &letter,
    };
    let page = Letter {
        whole,
        event: event.clone(),
    };
    visit.page(&page, html)
}

fn when(error: &EarlierError) -> String {
    error.at.map(seen::milli).unwrap_or_default()
}

fn facts(letter: &WholeLetter) -> Vec<(&'static str, String, String)> {
    let head = &letter.head;
    let plain = |name, value: String| (name, value, String::new());
    let attempts = match head.crash_checks {
        0 => head.attempts.to_string(),
        checks => format!(
            "{}, and {checks} to find out whether it crashes",
            head.attempts
        ),
    };
    let mut facts = vec![
        plain("Type", head.event_type.clone().unwrap_or_default()),
        plain("Handler", head.handler.clone()),
        plain("Attempts", attempts),
        (
            "Entry",
            head.entry.clone(),
            link::entry(&head.stream, &head.entry),
        ),
        plain("First delivered", seen::milli(head.first_delivered)),
        plain("Buried", seen::milli(head.at)),
        plain("By", head.consumer.clone()),
        plain("Replays", head.replays.to_string()),
        plain("Bytes", head.bytes.to_string()),
    ];
    if let Some(id) = letter.fields.value("id") {
        let id = String::from_utf8_lossy(id).into_owned();
        facts.insert(
            4,
            ("Event", id.clone(), link::find(&format!("id:\"{id}\""))),
        );
    }
    facts
}

fn letter_forms(visit: &Visit, letter: &WholeLetter) -> Vec<ActForm> {
    let (stream, id) = (&letter.head.stream, letter.head.id.to_string());
    let line = |verb: &str| CommandLine::new(["dlq", verb, &id, "--stream", stream]);
    let form = |label: &str, path: &str, command| {
        ActForm::new(label, path, command)
            .on(stream)
            .with("id", &id)
    };
    let mut forms = Vec::new();
    if visit.may(Role::Operate, stream) {
        forms.push(form("Replay", "/dead/replay", line("replay")));
        forms.push(match letter.notes.held {
            Some(_) => form(
                "Hold no longer",
                "/dead/release",
                line("hold").and(["--release"]),
            ),
            None => form("Hold", "/dead/hold", line("hold")),
        });
        let noted = letter
            .notes
            .note
            .as_ref()
            .map(|note| note.text.clone())
            .unwrap_or_default();
        forms.push(
            form("Note", "/dead/note", line("note").and(["…"]))
                .ask(Field::text("text", "What to note").value(noted)),
        );
        forms.push(
            form("Assign", "/dead/assign", line("assign").and(["…"]))
                .ask(Field::text("to", "To whom").hint("empty: nobody")),
        );
    }
    if visit.may(Role::Admin, stream) {
        let command = line("edit").and(["--set", "data.amount=0"]);
        forms.push(
            form("Edit", "/dead/edit", command)
                .ask(Field::lines(
                    "changes",
                    "New values, one a line: data.amount=0",
                ))
                .ask(Field::tick("replay", "Replay it at once"))
                .ask(Field::tick(
                    "unchecked",
                    "Keep it though nobody can say whether its handler could decode it",
                )),
        );
    }
    if visit.may(Role::Admin, stream) {
        forms.push(
            form(
                "Purge",
                "/dead/purge",
                line("purge").and(["--undo-within", "1h", "--yes"]),
            )
            .danger(),
        );
    }
    forms
}

// What is done with them.

/// What a form has sent, in its order; a name may stand several times.
struct Sent(Vec<(String, String)>);

impl Sent {
    fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.trim()).unwrap_or_default()
    }

    fn ids(&self) -> Result<Vec<EntryId>, Problem> {
        let ids = self
            .0
            .iter()
            .filter(|(name, value)| name == "id" && !value.is_empty());
        Ok(ids
            .map(|(_, id)| id.parse())
            .collect::<crate::Result<_>>()?)
    }

    fn number(&self, name: &str, says: &str) -> Result<Option<f64>, Problem> {
        match self
            .get(name)
            .trim_end_matches(['%', ' '])
            .trim_end_matches("/s")
        {
            "" => Ok(None),
            text => match text.parse() {
                Ok(number) if number >= 0.0 => Ok(Some(number)),
                _ => Err(Problem::wrong(format!(
                    "{says} is {text:?}: write a number"
                ))),
            },
        }
    }

    fn act(&self, command: CommandLine, back: String) -> Act {
        Act {
            command,
            reason: self.get("reason").to_owned(),
            back,
        }
    }
}

/// The dead letters of one stream.
fn dead_of(app: &App, stream: &str) -> Result<DeadLetters, Problem> {
    Ok(Admin::clone(&app.admin())
        .for_streams([stream])?
        .dead_letters()?)
}

fn plan(sent: &Sent) -> Result<(RunPlan, Vec<String>), Problem> {
    let (mut plan, mut args) = (RunPlan::new(), Vec::new());
    let mut said = |name: &str, value: String| args.extend([name.to_owned(), value]);
    if let Some(canary) = sent.number("canary", "how many come first")? {
        plan = plan.canary(canary as u64);
        said("--canary", (canary as u64).to_string());
        match sent.number("then", "how many a second come then")? {
            Some(rate) => {
                let rate = std::num::NonZeroU32::new(rate as u32);
                let rate = rate
                    .ok_or_else(|| Problem::wrong("none a second come then: write 1 at least"))?;
                plan = plan.rate(Some(rate));
                said("--then", format!("{rate}/s"));
            }
            None => plan = plan.canary_only(),
        }
    }
    if let Some(stop_at) = sent.number("stop_at", "the share to stop at")? {
        plan = plan.stop_at(stop_at);
        said("--stop-at", format!("{stop_at}%"));
    }
    Ok((plan, args))
}

async fn replay(
    State(app): State<App>,
    visit: Visit,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let (sent, stream) = (Sent(sent), visit.stream().to_owned());
    let (ids, fingerprint) = (sent.ids()?, sent.get("fingerprint").to_owned());
    let dead = dead_of(&app, &stream)?;
    if !ids.is_empty() {
        let named: Vec<String> = ids.iter().map(EntryId::to_string).collect();
        let command = CommandLine::new(["dlq", "replay"])
            .and(named)
            .and(["--stream", &stream]);
        let by = visit.who.clone();
        let doing = async {
            let done = dead.pick(&stream, ids)?.replay(&by, None, |_| ()).await?;
            Ok::<_, Problem>(match done.gone {
                0 => with_handler(done.replayed),
                gone => format!("{}; {gone} were gone", are(done.replayed)),
            })
        };
        let back = visit.to("/dead");
        return app.act(&visit, sent.act(command, back), doing).await;
    }
    let (plan, args) = plan(&sent)?;
    let which = fingerprint_args(&fingerprint);
    let command = CommandLine::new(["dlq", "replay", "--stream", &stream])
        .and(which)
        .and(args);
    let (by, reason) = (visit.who.clone(), sent.get("reason").to_owned());
    let doing = async {
        let groups = dead.groups(Filter::new()).await?;
        let found = match &fingerprint[..] {
            "" => groups.total,
            one => groups
                .groups
                .iter()
                .find(|group| group.fingerprint == one)
                .map_or(0, |group| group.count),
        };
        if found == 0 {
            return Err(Problem::not_found("there is no such dead letter any more"));
        }
        let meant = dead.select(filter_of(&stream, &fingerprint)).await?;
        let begun = dead
            .begin_run(&meant, &by, &reason, plan, None, found)
            .await?;
        let number = begun.run.number;
        drive(&app, &dead, &stream, number, &by, false);
        let shared = match begun.shared.len() {
            0 => "",
            _ => "; another run means some of the same letters",
        };
        let letters = if found == 1 { "letter" } else { "letters" };
        Ok(format!("r-{number} replays {found} dead {letters}{shared}"))
    };
    let back = visit.to("/dead");
    app.act(&visit, sent.act(command, back), doing).await
}

fn with_handler(count: u64) -> String {
    let whose = if count == 1 { "its" } else { "their" };
    format!("{} with {whose} handler again", are(count))
}

fn are(count: u64) -> String {
    match count {
        1 => "1 dead letter is".to_owned(),
        many => format!("{many} dead letters are"),
    }
}

/// Drives a run behind the page. Should these pages end, a worker goes on with it.
fn drive(app: &App, dead: &DeadLetters, stream: &str, number: u64, by: &str, is_resumed: bool) {
    let (dead, stream, by, stop) = (
        dead.clone(),
        stream.to_owned(),
        by.to_owned(),
        app.stop().clone(),
    );
    tokio::spawn(async move {
        let driving = async {
            match is_resumed {
                true => dead.resume_run(&stream, number, &by, |_| ()).await,
                false => dead.drive_run(&stream, number, &by, |_| ()).await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            driven = driving => if let Err(error) = driven {
                tracing::debug!("the run r-{number} is left to others: {error}");
            },
        }
    });
}

async fn stop(
    State(app): State<App>,
    visit: Visit,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let (sent, stream) = (Sent(sent), visit.stream().to_owned());
    let number = run_number(&sent)?;
    let dead = dead_of(&app, &stream)?;
    let doing = async {
        Ok::<_, Problem>(match dead.stop_run(&stream, number, &visit.who).await? {
            true => format!("r-{number} is stopped; what it has not replayed stays a dead letter"),
            false => format!("r-{number} did not go on"),
        })
    };
    let act = sent.act(run_command("stop", number, &stream), visit.to("/dead"));
    app.act(&visit, act, doing).await
}

async fn resume(
    State(app): State<App>,
    visit: Visit,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let (sent, stream) = (Sent(sent), visit.stream().to_owned());
    let number = run_number(&sent)?;
    let dead = dead_of(&app, &stream)?;
    let doing = async {
        let run = dead.run(&stream, number).await?;
        if run.state == RunStanding::Done {
            return Err(Problem::wrong(format!(
                "r-{number} is over: begin another one"
            )));
        }
        drive(&app, &dead, &stream, number, &visit.who, true);
        Ok(format!("r-{number} goes on, its canary first"))
    };
    let act = sent.act(run_command("resume", number, &stream), visit.to("/dead"));
    app.act(&visit, act, doing).await
}

fn run_number(sent: &Sent) -> Result<u64, Problem> {
    let number = sent.get("run").trim_start_matches("r-").parse();
    number.map_err(|_| Problem::wrong("which run? write r-7"))
}

async fn purge(
    State(app): State<App>,
    visit: Visit,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let (sent, stream) = (Sent(sent), visit.stream().to_owned());
    let (ids, fingerprint) = (sent.ids()?, sent.get("fingerprint").to_owned());
    let dead = dead_of(&app, &stream)?;
    let line = CommandLine::new(["dlq", "purge", "--stream", &stream]);
    let line = match ids.is_empty() {
        false => line.and(ids.iter().map(EntryId::to_string)),
        true => line.and(fingerprint_args(&fingerprint)),
    };
    let command = line.and(["--undo-within", "1h", "--yes"]);
    let doing = async {
        let meant: Selection = match ids.is_empty() {
            false => dead.pick(&stream, ids)?,
            true => dead.select(filter_of(&stream, &fingerprint)).await?,
        };
        let run = PurgeRun::begin(&visit.who, UNDO_WITHIN)?;
        let (name, stop) = (run.name.clone(), app.stop().clone());
        let mut purging = tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => Ok(None),
                purged = meant.purge_letters_undoably(&run, |_| ()) => purged.map(Some),
            }
        });
        match tokio::time::timeout(SOON, &mut purging).await {
            Err(_) => Ok(format!(
                "they are being purged; within an hour {name} can be undone"
            )),
            Ok(Ok(Ok(Some(purged)))) => {
                let held = match purged.held {
                    0 => String::new(),
                    1 => "; 1 is held, and stays".to_owned(),
                    held => format!("; {held} are held, and stay"),
                };
                Ok(format!(
                    "{} purged{held}; within an hour {name} can be undone",
                    are(purged.deleted)
                ))
            }
            Ok(Ok(Err(error))) => Err(Problem::from(error)),
            Ok(_) => Err(Problem::wrong("it was cut off: look how many are left")),
        }
    };
    let back = visit.to("/dead");
    app.act(&visit, sent.act(command, back), doing).await
}

async fn undo(
    State(app): State<App>,
    visit: Visit,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let sent = Sent(sent);
    let name = sent.get("name").to_owned();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(Problem::wrong(
            "which purge? its name has letters and digits",
        ));
    }
    let admin = app.admin();
    let streams = admin.streams().iter();
    let seen: Vec<String> = streams
        .filter(|stream| visit.may(Role::Admin, stream))
        .cloned()
        .collect();
    let dead = Admin::clone(&app.admin())
        .for_streams(seen)?
        .dead_letters()?;
    let command = CommandLine::new(["dlq", "undo", &name]);
    let doing = async {
        let mut undoing = tokio::spawn(async move { dead.undo_purge(&name, |_| ()).await });
        match tokio::time::timeout(SOON, &mut undoing).await {
            Err(_) => Ok("they are being brought back".to_owned()),
            Ok(Ok(undone)) => Ok(format!("{} back", are(undone?.restored))),
            Ok(Err(_)) => Err(Problem::wrong("it was cut off: look how many are back")),
        }
    };
    let back = visit.to("/dead");
    app.act(&visit, sent.act(command, back), doing).await
}

/// What a form about one letter does, and what does the same.
async fn about_one<F: Future<Output = crate::Result<String>>>(
    app: &App,
    visit: &Visit,
    sent: &Sent,
    args: &[&str],
    doing: impl FnOnce(DeadLetters, String, EntryId) -> F,
) -> Result<Response, Problem> {
    let stream = visit.stream().to_owned();
    let ids = sent.ids()?;
    let [id] = ids[..] else {
        return Err(Problem::wrong("which dead letter? name one"));
    };
    let (verb, rest) = args.split_first().expect("a verb");
    let id_text = id.to_string();
    let command = CommandLine::new(["dlq", verb, &id_text])
        .and(rest.iter().copied())
        .and(["--stream", &stream]);
    let back = visit.to(&link::link(
        "/dead/letter",
        &[("stream", &stream), ("id", &id_text)],
    ));
    let dead = dead_of(app, &stream)?;
    app.act(visit, sent.act(command, back), doing(dead, stream, id))
        .await
}

async fn note(
    State(app): State<App>,
    visit: Visit,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let sent = Sent(sent);
    let (text, by) = (sent.get("text").to_owned(), visit.who.clone());
    let note = async |dead: DeadLetters, stream: String, id| {
        dead.note(&stream, id, &by, &text).await?;
        Ok("it is noted".to_owned())
    };
    about_one(&app, &visit, &sent, &["note", sent.get("text")], note).await
}

/// Sets values of a letter that a replay puts in the place of the original ones, if its handler could decode that.
async fn edit(
    State(app): State<App>,
    visit: Visit,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let sent = Sent(sent);
    let mut changes = Vec::new();
    for change in sent
        .get("changes")
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let Some((place, value)) = change.split_once('=') else {
            return Err(Problem::wrong(format!(
                "{change:?} is no change: write data.amount=0"
            )));
        };
        changes.push((place.trim().to_owned(), value.trim().to_owned()));
    }
    if changes.is_empty() {
        return Err(Problem::wrong("nothing is changed: write data.amount=0"));
    }
    let (replays, unchecked) = (
        !sent.get("replay").is_empty(),
        !sent.get("unchecked").is_empty(),
    );
    // The audit says what was changed, and not to what: that may be nobody's business.
    let mut args = vec!["edit".to_owned()];
    for (place, _) in &changes {
        args.extend(["--set".to_owned(), format!("{place}=…")]);
    }
    args.extend(unchecked.then(|| "--unchecked".to_owned()));
    args.extend(replays.then(|| "--replay".to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (admin, by) = (Admin::clone(&app.admin()), visit.who.clone());
    let registry = app.registry();
    let edit = async |dead: DeadLetters, stream: String, id| {
        let admin = admin.for_streams([&stream[..]])?;
        let mut edit = admin.edit(&stream, id).await?;
        for (place, value) in &changes {
            edit.set(place, value)?;
        }
        let invalid = |why: String| crate::Error::new(crate::ErrorKind::Invalid, why);
        let says = registry.map(|registry| edit.validate(registry));
        match says {
            Some(Err(failure)) => {
                return Err(invalid(format!(
                    "its handler could not decode it: {failure}"
                )));
            }
            Some(Ok(Validity::NoHandler)) | None if !unchecked => {
                return Err(invalid(
                    "no handler is known here that could say whether it decodes: tick that it is to be kept all the same"
                        .to_owned(),
                ));
            }
            _ => {}
        }
        admin.save_edit(&edit, &by).await?;
        if !replays {
            return Ok("it is edited; a replay takes the new values".to_owned());
        }
        let done = dead
            .pick(&stream, vec![id])?
            .replay(&by, None, |_| ())
            .await?;
        Ok(match done.replayed {
            0 => "it was edited, and gone before it could be replayed".to_owned(),
            _ => "it is edited, and with its handler again".to_owned(),
        })
    };
    about_one(&app, &visit, &sent, &args, edit).await
}

async fn assign(
    State(app): State<App>,
    visit: Visit,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let sent = Sent(sent);
    let (to, by) = (sent.get("to").to_owned(), visit.who.clone());
    let assign = async |dead: DeadLetters, stream: String, id| {
        dead.assign(&stream, id, &by, &to).await?;
        Ok(match &to[..] {
            "" => "it is assigned to nobody".to_owned(),
            to => format!("it is assigned to {to}"),
        })
    };
    about_one(&app, &visit, &sent, &["assign", sent.get("to")], assign).await
}

async fn hold(
    State(app): State<App>,
    visit: Visit,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let sent = Sent(sent);
    let (why, by) = (sent.get("reason").to_owned(), visit.who.clone());
    let hold = async |dead: DeadLetters, stream: String, id| {
        dead.hold(&stream, id, &by, &why).await?;
        Ok("it is held: neither purged nor dropped".to_owned())
    };
    about_one(&app, &visit, &sent, &["hold"], hold).await
}

async fn release(
    State(app): State<App>,
    visit: Visit,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let sent = Sent(sent);
    let release = async |dead: DeadLetters, stream: String, id| {
        dead.release_hold(&stream, id).await?;
        Ok("it is held no longer".to_owned())
    };
    about_one(&app, &visit, &sent, &["hold", "--release"], release).await
}

/// Some letters as lines of JSON, without what rules hide. All of them, byte for byte: `dlq purge --export`.
async fn export(
    State(app): State<App>,
    visit: Visit,
    Asked(which): Asked<Which>,
) -> Result<Response, Problem> {
    let stream = visit.stream().to_owned();
    let dead = dead_of(&app, &stream)?;
    let mut letters = dead
        .select(filter_of(&stream, &which.fingerprint).limit(EXPORTED as u64))
        .await?
        .letters();
    let mut lines = Vec::new();
    while let Some(head) = letters.next().await? {
        let Ok(letter) = dead.get(&stream, head.id).await else {
            continue;
        };
        let mut event = Value::Object(data::event(&letter.fields, true));
        seen::hide(&app, &visit, &stream, &mut event);
        let mut line = serde_json::to_value(&letter.head).unwrap_or_default();
        line["event"] = event;
        lines.extend_from_slice(line.to_string().as_bytes());
        lines.push(b'\n');
    }
    let name = format!(
        "attachment; filename=\"dead-letters-{}.ndjson\"",
        which
            .fingerprint
            .replace(|c: char| !c.is_ascii_alphanumeric(), "")
    );
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((headers, lines).into_response())
}
