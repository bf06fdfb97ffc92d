//! Crons: looked at and gone on with by workers, listed, paused and resumed by operators.

use std::time::Duration;

use redis::Value;

use super::connection::Link;
use super::error::{Trouble, Who, refusal};
use super::keys::StreamKeys;
use super::obstacle::need;
use super::pool::Pool;
use super::reply;
use super::script::script;
use crate::cron::Write;
use crate::error::Result;
use crate::event::Envelope;

script!(
    PLAN,
    "plan_cron",
    behind "common/scheduled", behind "common/rights", behind "common/ids", behind "common/reading", behind "common/cron"
);
script!(LIST, "cron_list", behind "common/ids", behind "common/reading", behind "common/cron");
script!(PAUSE, "cron_pause", behind "common/ids", behind "common/reading", behind "common/cron");

/// What there is of a cron.
pub(crate) struct CronLook {
    /// What was to be written was: nothing had changed.
    pub is_written: bool,
    /// Its record, as it is kept.
    pub record: Option<String>,
    pub now_ms: u64,
    /// Its next occurrence stands on the schedule.
    pub stands: bool,
}

/// What is kept of a cron.
pub(crate) struct KeptCron {
    pub name: String,
    /// Its record, as it is kept.
    pub record: String,
    /// The lines of its history, the newest first.
    pub history: String,
    /// The group still has the event that was added last.
    pub is_out: bool,
}

impl Link {
    /// Looks at a cron; with `write` goes on with it, if it is as `seen`. The event of its next occurrence comes along where
    /// one is to be put on the schedule.
    pub async fn plan_cron(
        &mut self,
        keys: &StreamKeys,
        name: &str,
        seen: Option<&str>,
        write: Option<(&Write, Option<&Envelope>)>,
    ) -> Result<CronLook, Trouble> {
        let doing = || format!("planning the cron {name:?} in {}", keys.cron);
        let mut call = PLAN.key(&keys.stream);
        call.key(&keys.scheduled).key(&keys.events).key(&keys.cron);
        call.arg(name);
        if let Some((write, event)) = write {
            let put = write.put.as_ref().map_or("", |put| &put.name);
            let note = write.note.as_ref();
            let note = note.map(|(why, due, names)| format!("{why} {due} - {names}"));
            call.arg(seen.unwrap_or_default());
            call.arg(write.record.text());
            call.arg(write.take_off.as_deref().unwrap_or_default());
            call.arg(put).arg(&write.record.due);
            call.arg(note.unwrap_or_default());
            for (field, value) in event.into_iter().flat_map(|event| event.fields().iter()) {
                call.arg(field).arg(value);
            }
        }
        let answer = call.invoke_async(&mut self.conn).await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XLEN XPENDING XINFO|GROUPS XRANGE"),
                need(&keys.scheduled, "zset", "ZCARD ZSCORE ZADD ZREM"),
                need(&keys.events, "hash", "HLEN HGET HEXISTS HSET HDEL"),
                need(&keys.cron, "hash", "HGET HSET"),
            ]
        };
        let value: Value = self.answered(doing, answer, needs).await?;
        let parse = |value| {
            let [is_written, record, now, stands] = reply::tuple(value)?;
            Some(CronLook {
                is_written: reply::int(&is_written)? == 1,
                record: reply::text(record),
                now_ms: reply::int(&now)? as u64,
                stands: reply::int(&stands)? == 1,
            })
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing()))
    }
}

impl Pool {
    /// What is kept of a stream's crons, and what time it is there, in ms.
    pub async fn crons(&self, keys: &StreamKeys) -> Result<(u64, Vec<KeptCron>)> {
        let doing = format!("listing the crons in {}", keys.cron);
        let mut conn = self.at(&keys.stream).get().await?;
        let value: Value = LIST
            .key(&keys.stream)
            .key(&keys.cron)
            .read_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let one = |value| {
            let [name, record, history, out] = reply::tuple(value)?;
            Some(KeptCron {
                name: reply::text(name)?,
                record: reply::text(record)?,
                history: reply::text(history)?,
                is_out: reply::int(&out)? == 1,
            })
        };
        let parse = |value| {
            let [now, crons] = reply::tuple(value)?;
            let crons = reply::array(crons)?.into_iter().filter_map(one);
            Some((reply::int(&now)? as u64, crons.collect()))
        };
        parse(value).ok_or_else(|| Trouble::garbled(&doing).into_error())
    }

    /// Pauses a cron, for so long if that is said. Returns whether it was not paused before, and until when it is, in ms;
    /// None if there is no such cron.
    pub async fn pause_cron(
        &self,
        keys: &StreamKeys,
        name: &str,
        by: &str,
        lasts: Option<Duration>,
        note: Option<&str>,
    ) -> Result<Option<(bool, Option<u64>)>> {
        let lasts = lasts.map(|lasts| lasts.as_millis().to_string());
        let args = [
            name,
            "pause",
            by,
            lasts.as_deref().unwrap_or_default(),
            note.unwrap_or_default(),
        ];
        let was = self.switch_cron(keys, &args).await?;
        Ok(was.map(|(was, until)| (was == "running", until.parse().ok())))
    }

    /// Ends the pause of a cron. Returns whether there was one; None if there is no such cron.
    pub async fn resume_cron(
        &self,
        keys: &StreamKeys,
        name: &str,
        by: &str,
    ) -> Result<Option<bool>> {
        let was = self
            .switch_cron(keys, &[name, "resume", by, "", ""])
            .await?;
        Ok(was.map(|(was, _)| was == "paused"))
    }

    async fn switch_cron(
        &self,
        keys: &StreamKeys,
        args: &[&str],
    ) -> Result<Option<(String, String)>> {
        let doing = format!("pausing or resuming a cron in {}", keys.cron);
        let mut conn = self.at(&keys.stream).get().await?;
        let mut call = PAUSE.key(&keys.stream);
        call.key(&keys.cron).arg(args);
        let value: Value = call
            .invoke_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &doing, error))?;
        let parse = |value| {
            let [was, until] = reply::tuple(value)?;
            Some((reply::text(was)?, reply::text(until)?))
        };
        let answer: Option<(String, String)> = parse(value);
        let answer = answer.ok_or_else(|| Trouble::garbled(&doing).into_error())?;
        Ok(Some(answer).filter(|(was, _)| was != "none"))
    }
}
