//! Runs of replays: what each is to do and how far it is, kept in Redis so that anybody can go on with it.

use std::collections::BTreeMap;

use redis::{AsyncCommands, Value};

use super::error::{Trouble, Who, refusal, refusal_in};
use super::keys::Keys;
use super::letters::{BYTES, LETTERS, Ticket, newer};
use super::pool::Pool;
use super::script::script;
use super::{PROTOCOL, reply};
use crate::error::Result;
use crate::event::EntryId;

script!(BEGIN, "run_begin", behind "common/runs", behind "common/rights");
script!(TURN, "run_turn", behind "common/runs", behind "common/rights");
script!(
    STEP,
    "run_step",
    behind "common/ids",
    behind "common/death",
    behind "common/fingerprint",
    behind "common/left",
    behind "common/replay_letter",
    behind "common/rights",
    behind "common/runs"
);
script!(
    LOOK,
    "run_look",
    behind "common/ids",
    behind "common/death",
    behind "common/left",
    behind "common/rights"
);

/// Runs that are over and still remembered.
const REMEMBERED: u64 = 100;

/// What state a run is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunState {
    Waiting,
    Running,
    Stopped,
    Done,
}

/// A run as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunRecord {
    pub number: u64,
    /// What it is to do, as JSON.
    pub what: String,
    pub state: RunState,
    pub why: String,
    pub cursor: String,
    pub driver: Option<String>,
    /// Until when nobody else drives it (ms).
    pub until_ms: u64,
    pub began_ms: u64,
    /// When it is to begin (ms), where it waits for that.
    pub at_ms: Option<u64>,
    pub ended_ms: Option<u64>,
    pub replayed: u64,
    pub died: u64,
    pub succeeded: u64,
    pub gone: u64,
    /// Replayed, died and succeeded when it was last resumed.
    pub base: [u64; 3],
}

/// What is to become of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunTurn {
    Stop,
    Resume,
    Drive,
    Leave,
    Trip,
    Finish,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TurnOf {
    Ok,
    Missing,
    /// It is stopped, and why.
    Stopped(String),
    Done,
    /// It begins in so many milliseconds.
    Waiting(u64),
    /// Another drives it.
    Taken(String),
}

/// What a step of a run did.
#[derive(Debug)]
pub(crate) struct Stepped {
    /// Whether it goes on; else nothing was done.
    pub goes_on: bool,
    /// Of every letter it came to the id of its copy, None where it was gone.
    pub copies: Vec<Option<EntryId>>,
}

impl Pool {
    /// Notes a run. Returns its number.
    pub async fn begin_run(&self, keys: &Keys, what: &str, at_ms: Option<u64>) -> Result<u64> {
        let doing = format!("beginning a run in {}", keys.runs);
        let mut conn = self.at(&keys.stream).get().await?;
        let value: Value = BEGIN
            .key(&keys.runs)
            .key(&keys.protocol)
            .arg(PROTOCOL)
            .arg(what)
            .arg(at_ms.map(|ms| ms.to_string()).unwrap_or_default())
            .arg(REMEMBERED)
            .invoke_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let garbled = || Trouble::garbled(&doing).into_error();
        let [number, protocol] = reply::tuple(value).ok_or_else(garbled)?;
        match (reply::int(&number), reply::text(protocol)) {
            (Some(number), _) => Ok(number as u64),
            (None, Some(protocol)) => Err(newer(&protocol)),
            _ => Err(garbled()),
        }
    }

    /// All runs that are remembered, the first one first.
    pub async fn runs(&self, keys: &Keys) -> Result<Vec<RunRecord>> {
        let doing = format!("reading the runs in {}", keys.runs);
        let mut conn = self.at(&keys.stream).get().await?;
        let value: Value = conn
            .hgetall(&keys.runs)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let mut runs: BTreeMap<u64, BTreeMap<String, String>> = BTreeMap::new();
        let mut pairs = reply::array(value).unwrap_or_default().into_iter();
        while let (Some(name), Some(value)) = (pairs.next(), pairs.next()) {
            let (Some(name), Some(value)) = (reply::text(name), reply::text(value)) else {
                continue;
            };
            if let Some((number, what)) = name.split_once(':')
                && let Ok(number) = number.parse()
            {
                let run = runs.entry(number).or_default();
                run.insert(what.to_owned(), value);
            }
        }
        let runs = runs.into_iter();
        Ok(runs
            .filter_map(|(number, values)| RunRecord::of(number, values))
            .collect())
    }

    /// Changes a run's state, or takes its driver's seat for so many milliseconds. `said` is why, or by whom.
    pub async fn turn_run(
        &self,
        keys: &Keys,
        number: u64,
        turn: RunTurn,
        said: &str,
        driver: &str,
        lease_ms: u64,
    ) -> Result<TurnOf> {
        let doing = format!("changing the run r-{number} in {}", keys.runs);
        let mut conn = self.at(&keys.stream).get().await?;
        let value: Value = TURN
            .key(&keys.runs)
            .arg(number)
            .arg(turn.name())
            .arg(said)
            .arg(driver)
            .arg(lease_ms)
            .invoke_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let garbled = || Trouble::garbled(&doing).into_error();
        let [state, detail] = reply::tuple(value).ok_or_else(garbled)?;
        let detail = reply::text(detail).unwrap_or_default();
        Ok(match reply::text(state).as_deref() {
            Some("ok") => TurnOf::Ok,
            Some("missing") => TurnOf::Missing,
            Some("stopped") => TurnOf::Stopped(detail),
            Some("done") => TurnOf::Done,
            Some("waiting") => TurnOf::Waiting(detail.parse().unwrap_or(0)),
            Some("taken") => TurnOf::Taken(detail),
            _ => return Err(garbled()),
        })
    }

    /// Replays letters for a run, as many as it may have unsettled. `next` is where it goes on once all are done.
    #[expect(
        clippy::too_many_arguments,
        reason = "one for each argument of the script"
    )]
    pub async fn step_run(
        &self,
        keys: &Keys,
        number: u64,
        by: &str,
        driver: &str,
        lease_ms: u64,
        unsettled: u64,
        next: &str,
        tickets: &[Ticket],
    ) -> Result<Stepped> {
        let doing = format!("replaying dead letters in {}", keys.dead);
        let mut call = STEP.key(&keys.dead);
        call.key(&keys.again)
            .key(&keys.protocol)
            .key(&keys.notes)
            .key(&keys.groups)
            .key(&keys.runs)
            .key(&keys.out)
            .arg(PROTOCOL)
            .arg(by)
            .arg(BYTES)
            .arg(number)
            .arg(driver)
            .arg(lease_ms)
            .arg(unsettled)
            .arg(next);
        for ticket in tickets {
            call.arg(ticket.id.to_string()).arg(&ticket.mark[..]);
        }
        let mut conn = self.at(&keys.stream).get().await?;
        let value: Value = call
            .invoke_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let garbled = || Trouble::garbled(&doing).into_error();
        let [state, copies, error, protocol] = reply::tuple(value).ok_or_else(garbled)?;
        if let Some(protocol) = reply::text(protocol) {
            return Err(newer(&protocol));
        }
        if let Some(error) = reply::text(error) {
            return Err(refusal_in(Who::Operator, &doing, &error));
        }
        let copies = reply::array(copies).ok_or_else(garbled)?;
        Ok(Stepped {
            goes_on: reply::text(state).as_deref() == Some("running"),
            copies: copies.iter().map(reply::id).collect(),
        })
    }

    /// Looks what has become of all copies that runs of this stream have out.
    pub async fn look_at_runs(&self, keys: &Keys) -> Result<()> {
        let doing = format!("looking what became of the runs in {}", keys.runs);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut cursor = "0".to_owned();
        loop {
            let value: Value = LOOK
                .key(&keys.dead)
                .key(&keys.again)
                .key(&keys.runs)
                .key(&keys.out)
                .arg(&cursor)
                .arg(LETTERS)
                .arg(BYTES)
                .invoke_async(&mut conn)
                .await
                .map_err(|error| refusal(Who::Operator, &doing, error))?;
            let garbled = || Trouble::garbled(&doing).into_error();
            let [more, next] = reply::tuple(value).ok_or_else(garbled)?;
            cursor = reply::text(next).ok_or_else(garbled)?;
            if reply::int(&more) == Some(0) && cursor == "0" {
                return Ok(());
            }
        }
    }
}

impl RunTurn {
    fn name(self) -> &'static str {
        match self {
            RunTurn::Stop => "stop",
            RunTurn::Resume => "resume",
            RunTurn::Drive => "drive",
            RunTurn::Leave => "leave",
            RunTurn::Trip => "trip",
            RunTurn::Finish => "finish",
        }
    }
}

impl RunRecord {
    fn of(number: u64, mut values: BTreeMap<String, String>) -> Option<Self> {
        let state = match &values.get("state")?[..] {
            "waiting" => RunState::Waiting,
            "running" => RunState::Running,
            "stopped" => RunState::Stopped,
            _ => RunState::Done,
        };
        let number_of = |name: &str| values.get(name).and_then(|text| text.parse::<u64>().ok());
        let count = |name: &str| number_of(name).unwrap_or(0);
        let base = values.get("base").map(String::as_str).unwrap_or_default();
        let mut base = base.split(' ').map(|text| text.parse().unwrap_or(0));
        let base = std::array::from_fn(|_| base.next().unwrap_or(0));
        Some(RunRecord {
            number,
            state,
            until_ms: count("until"),
            began_ms: count("began"),
            at_ms: number_of("at").filter(|_| state == RunState::Waiting),
            ended_ms: number_of("ended"),
            replayed: count("replayed"),
            died: count("died"),
            succeeded: count("succeeded"),
            gone: count("gone"),
            base,
            why: values.remove("why").unwrap_or_default(),
            cursor: values.remove("cursor").unwrap_or_default(),
            driver: values.remove("driver"),
            what: values.remove("what")?,
        })
    }
}
