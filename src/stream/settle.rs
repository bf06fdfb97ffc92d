//! How an entry leaves a worker: acknowledged, parked or buried. Every step is safe to repeat.

use std::time::Duration;

use redis::Value;

use super::call::at_once;
use super::connection::Link;
use super::error::Trouble;
use super::keys::Keys;
use super::obstacle::need;
use super::reply;
use super::script::script;
use crate::delay;
use crate::event::EntryId;
use crate::fields::Fields;

script!(ACK, "ack", behind "common/rights", behind "common/guards");
script!(
    PARK,
    "park",
    behind "common/packed",
    behind "common/pending",
    behind "common/errors",
    behind "common/rights",
    behind "common/ids",
    behind "common/reading",
    behind "common/guards"
);
script!(
    BURY,
    "bury",
    behind "common/packed",
    behind "common/pending",
    behind "common/letter",
    behind "common/errors",
    behind "common/rights",
    behind "common/guards"
);

/// Most entries that one call acknowledges, and parks, by how many arguments each takes.
const ACKS: usize = at_once(3);
const PARKINGS: usize = at_once(9);
/// Most entries that one call buries, and about how many bytes they may have: the script copies each of them.
const BURIALS: (usize, usize) = (100, 1 << 20);

/// One entry to be acknowledged by the script.
#[derive(Clone, Copy)]
pub(crate) struct Ack<'a> {
    pub id: EntryId,
    pub consumer: &'a str,
    pub count: u32,
}

/// What is asked of an entry before it is acknowledged by the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fence {
    /// Nothing: success is success, whoever reports it.
    None,
    /// That it is still this worker's, for its id may by now be another entry's.
    Mine,
    /// Nothing, but if another worker has taken it over, that one learns that it succeeded.
    Late,
}

/// One entry to be parked.
#[derive(Clone)]
pub(crate) struct Parking<'a> {
    pub id: EntryId,
    pub consumer: &'a str,
    pub count: u32,
    pub delay: Duration,
    /// A release: this delivery uses up no attempt.
    pub released: bool,
    /// How long ago it was delivered.
    pub age: Duration,
    /// The reason it is to be buried for once it can be.
    pub doomed: Option<&'a str>,
    /// What it is listed as, for workers that can handle it may take it before its time: see [`super::waiting`].
    pub listed: Option<Vec<u8>>,
    pub error: &'a str,
}

/// What became of a parking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParkOutcome {
    Parked,
    /// Another delivery of the entry is under way, or it was parked already.
    Taken,
    /// It is not pending.
    Nobody,
    /// It was ours until now, and is no longer in the stream.
    Trimmed,
}

/// What became of the parking of an entry that is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BroughtBack {
    Parked,
    /// It was parked already, or another delivery of it is under way.
    Taken,
    /// It came to its end elsewhere.
    Settled,
    /// It has not been read yet, as the group stands now: it will come as a new one.
    Unread,
    /// It is no longer in the stream.
    Missing,
    /// Its record is gone, and it has no attempts left.
    Unknown,
    /// The time is over in which its end was this worker's to write: nothing was done. And the server's time (ms).
    Late(u64),
}

/// One entry to be buried.
pub(crate) struct Burial<'a> {
    pub id: EntryId,
    pub consumer: &'a str,
    pub count: u32,
    /// Until when (ms, by the server's clock) its burial is this worker's should it be nobody's; 0 where it is not.
    pub own_until: u64,
    pub age: Duration,
    pub reason: &'a str,
    pub error: &'a str,
    pub attempts: u32,
    /// Runs behind the last attempt.
    pub crash_checks: u32,
    pub handler: &'a str,
    pub stream: &'a str,
    pub replays: u32,
    /// The fields as this worker got them, used where the stream no longer has the entry.
    pub fields: &'a Fields,
    /// The key that says its event is done, where its handler deduplicates: a claim on it goes.
    pub mark: Option<String>,
    /// It holds its subject, if it has one.
    pub holds: bool,
}

/// What became of a burial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Buried {
    Done,
    Taken,
    Nobody,
    /// It is no longer in the stream, and nothing of it is here.
    Missing,
    /// It is nobody's, and the time is over in which it was this worker's: nothing was done. And the server's time (ms).
    Late(u64),
}

/// Entries of one stream that are acknowledged in one command.
pub(crate) struct Plain<'a> {
    pub keys: &'a Keys,
    pub group: &'a str,
    pub ids: &'a [EntryId],
}

impl Link {
    /// Acknowledges entries that have no record, of each stream in one command, all of them at once. Returns for each how
    /// many there were to acknowledge, or what stood in the way.
    pub async fn ack(
        &mut self,
        acks: &[Plain<'_>],
    ) -> Result<Vec<Result<usize, Trouble>>, Trouble> {
        let doing = "acknowledging";
        let mut pipe = redis::Pipeline::with_capacity(acks.len());
        pipe.ignore_errors();
        let mut text = String::with_capacity(24);
        let mut digits = itoa::Buffer::new();
        for Plain { keys, group, ids } in acks {
            let mut cmd = redis::Cmd::with_capacity(ids.len() + 3, ids.len() * 24 + 64);
            cmd.arg("XACK").arg(&keys.stream).arg(group);
            for id in *ids {
                text.clear();
                text.push_str(digits.format(id.ms));
                text.push('-');
                text.push_str(digits.format(id.seq));
                cmd.arg(&text[..]);
            }
            pipe.add_command(cmd);
        }
        let answers: Vec<redis::RedisResult<i64>> = pipe
            .query_async(&mut self.conn)
            .await
            .map_err(|error| Trouble::of(doing, error))?;
        let mut acked = Vec::with_capacity(answers.len());
        for (Plain { keys, .. }, answer) in acks.iter().zip(answers) {
            let needs = || vec![need(&keys.stream, "stream", "XACK")];
            let answer = self.answered(|| doing.to_owned(), answer, needs);
            acked.push(answer.await.map(|count: i64| count as usize));
        }
        Ok(acked)
    }

    /// Acknowledges entries along with their records. Returns how many there were to acknowledge.
    pub async fn ack_with_records(
        &mut self,
        keys: &Keys,
        group: &str,
        fence: Fence,
        delete: bool,
        acks: &[Ack<'_>],
    ) -> Result<usize, Trouble> {
        let mut acked = 0;
        for chunk in acks.chunks(ACKS) {
            let mut call = ACK.key(&keys.stream);
            call.key(&keys.retry).key(&keys.failures).key(&keys.guards);
            let which = match fence {
                Fence::None => "0",
                Fence::Mine => "1",
                Fence::Late => "late",
            };
            call.arg(group).arg(which).arg(u8::from(delete));
            for ack in chunk {
                call.arg(ack.id.to_string())
                    .arg(ack.consumer)
                    .arg(ack.count);
            }
            let answer = call.invoke_async(&mut self.conn).await;
            let needs = || {
                vec![
                    need(&keys.stream, "stream", "XACK XDEL XPENDING"),
                    need(&keys.retry, "zset", "ZCARD ZREM"),
                    need(&keys.failures, "hash", "HLEN HMGET HDEL"),
                ]
            };
            let doing = || format!("acknowledging entries of {}", keys.stream);
            let count: i64 = self.answered(doing, answer, needs).await?;
            acked += count as usize;
        }
        Ok(acked)
    }

    /// Parks entries; answers for each what became of it.
    pub async fn park(
        &mut self,
        keys: &Keys,
        group: &str,
        parkings: &[Parking<'_>],
    ) -> Result<Vec<ParkOutcome>, Trouble> {
        let mut outcomes = Vec::with_capacity(parkings.len());
        for chunk in parkings.chunks(PARKINGS) {
            for outcome in self.park_some(keys, group, chunk, None).await? {
                outcomes.push(match &outcome[..] {
                    b"ok" => ParkOutcome::Parked,
                    b"taken" => ParkOutcome::Taken,
                    b"nobody" => ParkOutcome::Nobody,
                    b"trimmed" => ParkOutcome::Trimmed,
                    _ => return Err(Trouble::garbled(&parking_in(keys))),
                });
            }
        }
        Ok(outcomes)
    }

    /// Whether entries can be parked, as far as rights and keys go.
    pub async fn can_park(&mut self, keys: &Keys, group: &str) -> Result<(), Trouble> {
        self.park_some(keys, group, &[], None).await.map(drop)
    }

    /// Parks an entry that is nobody's. Until `own_until` (ms, by the server's clock) its end is this worker's to write;
    /// `released`: so many attempts had been given back when it was delivered, if it had a failure record; and whether it has
    /// more.
    pub async fn bring_back(
        &mut self,
        keys: &Keys,
        group: &str,
        parking: Parking<'_>,
        nobodys: (u64, Option<u32>, bool),
    ) -> Result<BroughtBack, Trouble> {
        let outcomes = self
            .park_some(keys, group, &[parking], Some(nobodys))
            .await?;
        let outcome = outcomes.first().map(Vec::as_slice).unwrap_or_default();
        Ok(match outcome {
            b"ok" => BroughtBack::Parked,
            b"taken" => BroughtBack::Taken,
            b"settled" => BroughtBack::Settled,
            b"unread" => BroughtBack::Unread,
            b"missing" | b"trimmed" => BroughtBack::Missing,
            b"unknown" => BroughtBack::Unknown,
            other => std::str::from_utf8(other)
                .ok()
                .and_then(late)
                .map(BroughtBack::Late)
                .ok_or_else(|| Trouble::garbled(&parking_in(keys)))?,
        })
    }

    async fn park_some(
        &mut self,
        keys: &Keys,
        group: &str,
        parkings: &[Parking<'_>],
        nobodys: Option<(u64, Option<u32>, bool)>,
    ) -> Result<Vec<Vec<u8>>, Trouble> {
        let doing = || parking_in(keys);
        let usual = parkings.first().map_or("", |parking| parking.consumer);
        let (first, last) = ends(parkings.iter().map(|parking| parking.id));
        let mut call = PARK.key(&keys.stream);
        call.key(&keys.retry)
            .key(&keys.failures)
            .key(&keys.waiting)
            .arg(group)
            .arg(usual)
            .arg(first)
            .arg(last);
        match nobodys {
            None => call.arg(&["", "", ""]),
            Some((own_until, released, has_more)) => {
                let released = released.map_or("-".to_owned(), |released| released.to_string());
                call.key(&keys.guards)
                    .arg(own_until)
                    .arg(released)
                    .arg(u8::from(has_more))
            }
        };
        for parking in parkings {
            call.arg(parking.id.to_string())
                .arg(parking.consumer)
                .arg(parking.count)
                .arg(delay::millis(parking.delay))
                .arg(u8::from(parking.released))
                .arg(parking.age.as_millis() as u64)
                .arg(parking.doomed.unwrap_or("-"))
                .arg(parking.error)
                .arg(parking.listed.as_deref().unwrap_or(b"-"));
        }
        call.pack();
        let answer = call.invoke_async(&mut self.conn).await;
        let needs = || {
            let mut needs = vec![
                need(&keys.stream, "stream", "XPENDING XCLAIM"),
                need(&keys.retry, "zset", "ZCARD ZADD"),
                need(&keys.failures, "hash", "HLEN HMGET HSET HDEL"),
            ];
            if nobodys.is_some() {
                needs.push(need(&keys.stream, "stream", "XRANGE XINFO|GROUPS"));
                needs.push(need(&keys.guards, "zset", "ZSCORE"));
            }
            needs
        };
        let value: Value = self.answered(doing, answer, needs).await?;
        let outcomes =
            reply::array(value).and_then(|all| all.into_iter().map(reply::bytes).collect());
        outcomes.ok_or_else(|| Trouble::garbled(&doing()))
    }

    /// Moves entries of one stream to the dead letters; answers for each what became of it.
    pub async fn bury(
        &mut self,
        keys: &Keys,
        group: &str,
        delete: bool,
        burials: &[Burial<'_>],
    ) -> Vec<Result<Buried, Trouble>> {
        let mut outcomes = Vec::with_capacity(burials.len());
        let mut left = burials;
        while !left.is_empty() {
            let (lot, others) = left.split_at(lot_of(left));
            left = others;
            match self.bury_some(keys, group, delete, lot, false).await {
                Err(trouble) => outcomes.extend(lot.iter().map(|_| Err(trouble.again()))),
                Ok(answers) => {
                    for (burial, answer) in lot.iter().zip(answers) {
                        let is_missing = answer == "missing" && !burial.fields.is_empty();
                        outcomes.push(match is_missing || answer == "refused" {
                            true => {
                                self.bury_alone(keys, group, delete, burial, is_missing)
                                    .await
                            }
                            false => {
                                buried(&answer).ok_or_else(|| Trouble::garbled(&burying_in(keys)))
                            }
                        });
                    }
                }
            }
        }
        outcomes
    }

    /// Moves one that could not be moved with others, with its fields if the stream has it no longer.
    async fn bury_alone(
        &mut self,
        keys: &Keys,
        group: &str,
        delete: bool,
        burial: &Burial<'_>,
        with_fields: bool,
    ) -> Result<Buried, Trouble> {
        let one = std::slice::from_ref(burial);
        let answers = self
            .bury_some(keys, group, delete, one, with_fields)
            .await?;
        let answer = answers.first().and_then(|answer| buried(answer));
        answer.ok_or_else(|| Trouble::garbled(&burying_in(keys)))
    }

    async fn bury_some(
        &mut self,
        keys: &Keys,
        group: &str,
        delete: bool,
        burials: &[Burial<'_>],
        with_fields: bool,
    ) -> Result<Vec<String>, Trouble> {
        let holds = burials.iter().any(|burial| burial.holds);
        let of_all = burials.first();
        let (first, last) = ends(burials.iter().map(|burial| burial.id));
        let mut call = BURY.key(&keys.stream);
        call.key(&keys.retry)
            .key(&keys.dead)
            .key(&keys.failures)
            .key(&keys.guards)
            .key(&keys.notes)
            .key(if holds { &keys.held } else { &keys.stream });
        call.arg(group)
            .arg(u8::from(delete))
            .arg(of_all.map_or("", |burial| burial.stream))
            .arg(of_all.map_or("", |burial| burial.consumer))
            .arg(first)
            .arg(last);
        for burial in burials {
            if let Some(mark) = &burial.mark {
                call.key(mark);
            }
            let letters = match (burial.mark.is_some(), burial.holds) {
                (true, true) => "mh",
                (true, false) => "m",
                (false, true) => "h",
                (false, false) => "",
            };
            let fields = with_fields.then_some(burial.fields);
            call.arg(burial.consumer)
                .arg(burial.id.to_string())
                .arg(burial.count)
                .arg(burial.own_until)
                .arg(burial.age.as_millis() as u64)
                .arg(burial.reason)
                .arg(burial.error)
                .arg(burial.attempts)
                .arg(burial.handler)
                .arg(burial.replays)
                .arg(burial.crash_checks)
                .arg(letters)
                .arg(fields.map_or(0, |fields| 2 * fields.len()));
            for (name, value) in fields.into_iter().flatten() {
                call.arg(name).arg(value);
            }
        }
        call.pack();
        let answer = call.invoke_async(&mut self.conn).await;
        let needs = || {
            vec![
                need(&keys.stream, "stream", "XPENDING XRANGE XACK XDEL"),
                need(&keys.dead, "stream", "XLEN XADD"),
                need(&keys.retry, "zset", "ZCARD ZREM"),
                need(&keys.failures, "hash", "HMGET HDEL"),
                need(&keys.guards, "zset", "ZCARD ZSCORE ZADD"),
                need(&keys.held, "hash", "HLEN HSET"),
            ]
        };
        let answers: Vec<String> = self.answered(|| burying_in(keys), answer, needs).await?;
        match answers.len() == burials.len() {
            true => Ok(answers),
            false => Err(Trouble::garbled(&burying_in(keys))),
        }
    }
}

/// How many of these are buried by one call: one at least.
fn lot_of(burials: &[Burial<'_>]) -> usize {
    let mut bytes = 0;
    let fit = burials.iter().take(BURIALS.0).take_while(|burial| {
        bytes += burial.fields.size();
        bytes <= BURIALS.1
    });
    fit.count().max(1)
}

/// What became of a burial.
fn buried(answer: &str) -> Option<Buried> {
    Some(match answer {
        "ok" => Buried::Done,
        "taken" => Buried::Taken,
        "nobody" => Buried::Nobody,
        "missing" => Buried::Missing,
        other => Buried::Late(late(other)?),
    })
}

fn burying_in(keys: &Keys) -> String {
    format!("writing a dead letter to {}", keys.dead)
}

/// The first and the last of these ids.
pub(super) fn ends(ids: impl Iterator<Item = EntryId> + Clone) -> (String, String) {
    let (first, last) = (ids.clone().min(), ids.max());
    let text = |id: Option<EntryId>| id.unwrap_or_default().to_string();
    (text(first), text(last))
}

fn parking_in(keys: &Keys) -> String {
    format!("parking entries in {} and {}", keys.retry, keys.failures)
}

/// The server's time (ms), if it says that a request came too late.
pub(super) fn late(answer: &str) -> Option<u64> {
    answer.strip_prefix("late ")?.parse().ok()
}
