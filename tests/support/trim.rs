//! The step that trims a stream, called by hand, and what has to be there after it.

use std::collections::BTreeSet;

use redis::Value;
use redis::aio::MultiplexedConnection;
use streamhand::EntryId;

/// A step of trimming the stream `jobs`.
#[derive(Clone)]
pub struct Trim {
    pub group: &'static str,
    /// `acked`, `age` or `count`, and what is kept.
    pub kind: &'static str,
    pub kept: u64,
    pub force: bool,
    pub step: &'static str,
    pub consumer: &'static str,
    /// Milliseconds between two turns, and for which a destroyed group holds.
    pub every: u64,
    pub grace: u64,
}

/// What a step answers.
#[derive(Debug, Default, PartialEq)]
pub struct Trimmed {
    pub state: String,
    pub entries: u64,
    pub forced: u64,
    pub more: bool,
    /// Group, why, first id, and whether it should not (1), or it is time to say so (2).
    pub hold: Option<(String, String, String, u64)>,
    pub could: u64,
}

impl Trim {
    pub fn acked() -> Self {
        Trim {
            group: "workers",
            kind: "acked",
            kept: 0,
            force: false,
            step: "turn",
            consumer: "me",
            every: 0,
            grace: 0,
        }
    }

    pub fn to(kind: &'static str, kept: u64, force: bool) -> Self {
        Trim {
            kind,
            kept,
            force,
            ..Trim::acked()
        }
    }

    /// One step, of the groups that are there.
    pub async fn step(&self, redis: &mut MultiplexedConnection) -> Trimmed {
        let groups = groups(redis, "jobs").await;
        self.step_for(redis, &groups).await
    }

    pub async fn step_for(&self, redis: &mut MultiplexedConnection, groups: &[String]) -> Trimmed {
        let mut call = redis::cmd("EVAL");
        call.arg(super::scripts::text("trim")).arg(2 + groups.len());
        call.arg("jobs").arg("{jobs}:trimmed");
        for group in groups {
            call.arg(format!("{{jobs}}:{group}:retry"));
        }
        call.arg(self.group).arg(self.kind).arg(self.kept);
        call.arg(u8::from(self.force)).arg(self.step);
        call.arg(self.consumer).arg(self.every).arg(self.grace);
        call.arg(10_000).arg(3_600_000).arg(600_000);
        call.arg(1000).arg(4 << 20).arg("").arg("").arg(groups);
        let Value::Array(answer) = call.query_async(redis).await.expect("an answer") else {
            panic!("no list");
        };
        let text = |value: &Value| match value {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Int(number) => number.to_string(),
            _ => String::new(),
        };
        let number = |at: usize| {
            answer
                .get(at)
                .map_or(0, |value| text(value).parse().unwrap_or(0))
        };
        Trimmed {
            state: text(&answer[0]),
            entries: number(1),
            forced: number(2),
            more: number(3) == 1,
            hold: match answer.get(4) {
                Some(Value::Array(hold)) => Some((
                    text(&hold[0]),
                    text(&hold[1]),
                    text(&hold[2]),
                    text(&hold[5]).parse().unwrap(),
                )),
                _ => None,
            },
            could: number(5),
        }
    }

    /// Steps until there is no more to do: all that they trimmed, and what the last one says.
    pub async fn all(&self, redis: &mut MultiplexedConnection) -> Trimmed {
        let mut step = self.clone();
        let mut sum = step.step(redis).await;
        step.step = "on";
        while sum.more {
            let next = step.step(redis).await;
            assert!(next.entries <= 20_000, "a step is bounded: {next:?}");
            let (entries, forced) = (sum.entries + next.entries, sum.forced + next.forced);
            let said = |hold: &Trimmed| hold.hold.as_ref().is_some_and(|hold| hold.3 == 2);
            let was_said = said(&sum);
            sum = Trimmed {
                entries,
                forced,
                ..next
            };
            if let Some(hold) = sum.hold.as_mut().filter(|_| was_said) {
                hold.3 = 2;
            }
        }
        sum
    }
}

/// The names of a stream's groups.
pub async fn groups(redis: &mut MultiplexedConnection, stream: &str) -> Vec<String> {
    let info: redis::streams::StreamInfoGroupsReply = redis::cmd("XINFO")
        .arg("GROUPS")
        .arg(stream)
        .query_async(redis)
        .await
        .expect("a stream");
    info.groups.into_iter().map(|group| group.name).collect()
}

/// The ids of a stream's entries.
pub async fn ids(redis: &mut MultiplexedConnection, stream: &str) -> Vec<EntryId> {
    let entries = super::entries(redis, stream).await;
    entries.into_iter().map(|entry| entry.id).collect()
}

/// Panics where an entry of `jobs` that some group has not read, or has pending, is gone: all of it at one moment.
/// `added` are entries that were there before. Answers how many there are.
pub async fn nothing_is_missing(redis: &mut MultiplexedConnection, added: &[EntryId]) -> usize {
    const LOOK: &str = "
        local out = {}
        for _, g in ipairs(redis.call('XINFO', 'GROUPS', 'jobs')) do
          local of = {}
          for i = 1, #g, 2 do of[g[i]] = g[i + 1] end
          local pending = {}
          for _, p in ipairs(redis.call('XPENDING', 'jobs', of.name, '-', '+', 1000000)) do
            pending[#pending + 1] = p[1]
          end
          out[#out + 1] = { of.name, of['last-delivered-id'], pending }
        end
        local ids = {}
        for _, e in ipairs(redis.call('XRANGE', 'jobs', '-', '+')) do ids[#ids + 1] = e[1] end
        return { out, ids }";
    type Groups = Vec<(String, String, Vec<String>)>;
    let mut call = redis::cmd("EVAL");
    let (groups, ids): (Groups, Vec<String>) = call
        .arg(LOOK)
        .arg(0)
        .query_async(redis)
        .await
        .expect("a look");
    let parse = |id: &String| -> EntryId { id.parse().expect("an id") };
    let there: BTreeSet<EntryId> = ids.iter().map(parse).collect();
    for (group, last, pending) in groups {
        for id in pending.iter().map(parse) {
            assert!(
                there.contains(&id),
                "{id} is pending with {group}, and gone"
            );
        }
        let last = parse(&last);
        for id in added.iter().filter(|id| **id > last) {
            assert!(there.contains(id), "{id} is unread by {group}, and gone");
        }
    }
    there.len()
}
