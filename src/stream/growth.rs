//! A topic grows: its partitions are sealed, and events go to a new generation of them.
//!
//! A stream is sealed by an entry with the highest id there is. Every later XADD is refused, that of a client which knows
//! nothing of this as well; reading goes on. First is said how many partitions the new generation is to have, then each
//! stream of the old one is sealed, then the groups are made at the beginning of the new streams, and last the new
//! generation is written down. Each step only adds and can be repeated, so that anyone can finish what another has begun.
//! Nothing is in the new generation before all of the old one is sealed: an order by time is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::Value;

use super::error::{Trouble, Who, is_sealed, refusal};
use super::keys::{Keys, StreamKeys};
use super::outbox::Waiting;
use super::pool::Pool;
use super::reply;
use super::schedule::Kept;
use super::script::script;
use super::topic::{TopicLayout, partitions_key, streams};
use crate::codec;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Entry, EntryId};
use crate::identity;
use crate::partition::Partition;

#[cfg(feature = "worker")]
script!(SETTLED, "settled", behind "common/ids");
script!(UNSCHEDULE, "unschedule", behind "common/scheduled");

/// The id of the entry that seals a stream, and the last there can be.
const SEAL: EntryId = EntryId {
    ms: u64::MAX,
    seq: u64::MAX,
};

/// The type of that entry, for those who read it and do not know it.
const SEALED: &str = "streamhand.sealed";
/// How many streams are worked on at once.
const AT_ONCE: usize = 32;

/// Whether an entry seals its stream, and is no event. Others may have an event under the highest id.
#[cfg(feature = "worker")]
pub(crate) fn is_seal(entry: &Entry) -> bool {
    entry.id == SEAL && entry.fields.value("type") == Some(SEALED.as_bytes())
}

impl Pool {
    /// Makes a topic's next generation, of so many partitions, or finishes making it. Returns what is known of it then.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if somebody has begun to make it with another number. If Redis refuses a step, or can't be
    /// reached: what is done stays done, and the same again goes on behind it.
    pub async fn grow(&self, layout: &TopicLayout, to: u32) -> Result<TopicLayout> {
        let (topic, old) = (&layout.topic[..], layout.generation());
        let new = old + 1;
        let begun = self.say(topic, &format!("sealing:{new}"), to).await?;
        if begun != to {
            return Err(Error::new(
                ErrorKind::Exists,
                format!(
                    "the topic {topic:?} is being grown to {begun} partitions: finish that first, with the same number"
                ),
            ));
        }
        let sealed = layout.streams_of(old);
        let mut groups = BTreeSet::new();
        for lot in sealed.chunks(AT_ONCE) {
            let lot = lot.iter().map(|stream| self.seal(topic, stream));
            groups.extend(try_join_all(lot).await?.into_iter().flatten());
        }
        for lot in streams(topic, new, to).chunks(AT_ONCE) {
            try_join_all(lot.iter().map(|stream| self.make_groups(stream, &groups))).await?;
        }
        self.say(topic, &new.to_string(), to).await?;
        let known = self.known_topic(topic).await?;
        known.ok_or_else(|| {
            let message = format!("{} is gone", partitions_key(topic));
            Error::new(ErrorKind::Redis, message)
        })
    }

    /// Writes a number down, unless there is one. Returns the one that stands then.
    async fn say(&self, topic: &str, field: &str, number: u32) -> Result<u32> {
        let key = partitions_key(topic);
        let mut conn = self.at(&key).get().await?;
        let mut pipe = redis::pipe();
        pipe.cmd("HSETNX").arg(&key).arg(field).arg(number).ignore();
        pipe.cmd("HGET").arg(&key).arg(field);
        let (stands,): (u32,) = pipe
            .query_async(&mut conn)
            .await
            .map_err(|error| refusal(Who::Operator, &format!("growing {topic:?}"), error))?;
        Ok(stands)
    }

    /// Seals a stream. Returns its groups.
    async fn seal(&self, topic: &str, stream: &str) -> Result<Vec<Vec<u8>>> {
        let doing = format!("sealing {stream}");
        let mut conn = self.at(stream).get().await?;
        let mut call = redis::cmd("XADD");
        call.arg(stream).arg(SEAL.to_string());
        call.arg("type").arg(SEALED).arg("subject").arg(topic);
        match call.query_async::<Value>(&mut conn).await {
            Ok(_) => {}
            Err(error) if is_sealed(&error) => {}
            Err(error) => return Err(refusal(Who::Operator, &doing, error)),
        }
        let mut call = redis::cmd("XINFO");
        let answer = call.arg("GROUPS").arg(stream).query_async(&mut conn).await;
        let value: Value = answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
        let groups = reply::array(value).unwrap_or_default().into_iter();
        Ok(groups.filter_map(name).collect())
    }

    /// Makes groups at the beginning of a stream, each unless it is there.
    async fn make_groups(&self, stream: &str, groups: &BTreeSet<Vec<u8>>) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        let doing = format!("making the groups of {stream}");
        let mut conn = self.at(stream).get().await?;
        for group in groups {
            let mut call = redis::cmd("XGROUP");
            call.arg("CREATE").arg(stream).arg(&group[..]);
            call.arg("0").arg("MKSTREAM");
            match call.query_async::<Value>(&mut conn).await {
                Ok(_) => {}
                Err(error) if error.code() == Some("BUSYGROUP") => {}
                Err(error) => return Err(refusal(Who::Operator, &doing, error)),
            }
        }
        Ok(())
    }

    /// A stream of a topic's newest generation that aggregates of an event store are kept beside, if there is one.
    #[cfg(feature = "worker")]
    pub async fn has_aggregates(&self, layout: &TopicLayout) -> Result<Option<String>> {
        for stream in layout.streams_of(layout.generation()) {
            let reached = StreamKeys::new(&stream).reached;
            let mut conn = self.at(&stream).get().await?;
            let mut call = redis::cmd("EXISTS");
            let answer = call.arg(&reached).query_async(&mut conn).await;
            let doing = format!("looking for {reached}");
            let there: u32 = answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
            if there > 0 {
                return Ok(Some(stream));
            }
        }
        Ok(None)
    }

    /// Acknowledges the entry that seals a stream.
    #[cfg(feature = "worker")]
    pub async fn acknowledge_seal(&self, stream: &str, group: &str) -> Result<()> {
        let mut conn = self.at(stream).get().await?;
        let mut call = redis::cmd("XACK");
        call.arg(stream).arg(group).arg(SEAL.to_string());
        let answer = call.query_async(&mut conn).await;
        let doing = format!("acknowledging the end of {stream}");
        let _: Value = answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
        Ok(())
    }

    /// Writes down that a group is through with a generation, if it has settled all that its streams hold, which are sealed
    /// again if they are not. Returns what
    /// it has not, if there is anything; that of `last`, which was the answer before, is looked for first.
    #[cfg(feature = "worker")]
    pub async fn pass_through(
        &self,
        layout: &TopicLayout,
        generation: u32,
        (group, has_order): (&str, bool),
        last: Option<&str>,
    ) -> Result<Option<Unsettled>> {
        if let Some(stream) = last
            && let Some(unsettled) = self.unsettled(stream, group, has_order).await?
        {
            return Ok(Some(unsettled));
        }
        for lot in layout.streams_of(generation).chunks(AT_ONCE) {
            let lot = lot.iter();
            let lot = lot.map(|stream| self.unsettled(stream, group, has_order));
            if let Some(unsettled) = try_join_all(lot).await?.into_iter().flatten().next() {
                return Ok(Some(unsettled));
            }
        }
        let field = format!("through:{generation}:{group}");
        self.say(&layout.topic, &field, 1).await?;
        Ok(None)
    }

    /// Whether there is something of a sealed stream that a group has not settled: not all of it is read, or something is
    /// pending, which what is parked is too. If its events have an order, a dead letter that holds its subject holds up
    /// what comes later of that, and so does what was replayed: both may have nothing behind them that is pending.
    #[cfg(feature = "worker")]
    async fn unsettled(
        &self,
        stream: &str,
        group: &str,
        has_order: bool,
    ) -> Result<Option<Unsettled>> {
        let keys = Keys::new(stream, group);
        let doing = format!("looking whether {group} has settled {stream}");
        let mut conn = self.at(stream).get().await?;
        let mut call = SETTLED.key(&keys.stream);
        call.key(&keys.retry).key(&keys.held).key(&keys.again);
        let answer = call.arg(group).read_async(&mut conn).await;
        let (settled, sealed, held, again): (u64, u64, u64, u64) =
            answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
        let is_held = has_order && held > 0;
        if sealed == 0 {
            // A failover lost that, or somebody deleted the stream. What was added since is settled first.
            let topic = Partition::parse(stream).map_or(stream, |of| of.topic);
            self.seal(topic, stream).await?;
        }
        let is_settled = sealed + settled == 2 && !is_held && !(has_order && again > 0);
        let stream = stream.to_owned();
        Ok((!is_settled).then_some(Unsettled { stream, is_held }))
    }
}

/// A stream of which a group has not settled everything.
#[cfg(feature = "worker")]
pub(crate) struct Unsettled {
    pub stream: String,
    /// There is a dead letter that holds its subject.
    pub is_held: bool,
}

#[cfg(feature = "worker")]
impl Pool {
    /// Adds a scheduled event to where its topic has grown to, and takes it off the schedule of the stream that is
    /// sealed. `lasts` is how long a repeat is known.
    pub async fn move_on(&self, keys: &StreamKeys, event: &Kept, lasts: Duration) -> Result<()> {
        let doing = format!("moving on what is scheduled in {}", keys.scheduled);
        if let Some(fields) = event.packed.clone().and_then(codec::packed) {
            let (name, due) = (String::from_utf8_lossy(&event.place.name), &event.place.due);
            let known_by = [&keys.scheduled[..], &name, due, "", "", ""];
            let mark = identity::emitted(&known_by, &fields);
            let event = Waiting::of(mark, fields);
            let grown = self.grown_for(&keys.stream, &event).await?;
            let grown = grown.ok_or_else(|| Trouble::sealed(&keys.stream).into_error())?;
            let relayed = self
                .relay(&grown, lasts, std::slice::from_ref(&event))
                .await;
            let relayed = relayed.map_err(Trouble::into_error)?;
            if let Some(stopped) = relayed.stopped {
                return Err(stopped.into_error());
            }
            if !relayed.is_safe {
                return Err(Trouble::not_replicated(&grown).into_error());
            }
        }
        let mut conn = self.at(&keys.stream).get().await?;
        let mut call = UNSCHEDULE.key(&keys.scheduled);
        call.key(&keys.events).arg(&event.place.name);
        call.arg(event.packed.as_deref().unwrap_or_default());
        let answer = call.invoke_async(&mut conn).await;
        let _: Value = answer.map_err(|error| refusal(Who::Operator, &doing, error))?;
        Ok(())
    }
}

/// What XINFO GROUPS says a group is called.
fn name(group: Value) -> Option<Vec<u8>> {
    let mut items = reply::array(group)?.into_iter();
    while let (Some(field), Some(value)) = (items.next(), items.next()) {
        if reply::bytes(field)? == b"name" {
            return reply::bytes(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seal_is_the_highest_id_there_can_be() {
        assert_eq!(
            SEAL.to_string(),
            "18446744073709551615-18446744073709551615"
        );
    }
}
