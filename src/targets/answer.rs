//! What a handler in another language answers: what is to leave with the acknowledgement, or what failed. It is read
//! strictly, for a member that is passed over is an event that is lost.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::aggregate_id::AggregateId;
use crate::codec;
use crate::conflict::Expected;
use crate::context::Context;
use crate::duration;
use crate::effects::Effect;
use crate::event::Envelope;
use crate::eventstore::PublicStreams;
use crate::failure::Failure;
use crate::outbox::When;
use crate::rfc3339;

/// An answer that was understood.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// What was scheduled before is taken off first, so that one answer can do it anew.
    cancels: Vec<Cancel>,
    emits: Vec<(String, Envelope, Option<When>)>,
    effects: Vec<Effect>,
    appends: Vec<Appended>,
    failure: Option<Told>,
}

/// What the handler says of the event if it did not succeed.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Failed(String),
    RetryAfter(Duration, String),
    Later(Duration, String),
    Permanent(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    #[serde(borrow, default)]
    emit: Vec<Emit<'a>>,
    #[serde(default)]
    effects: Vec<Asked<'a>>,
    #[serde(default)]
    cancel: Vec<Cancel>,
    #[serde(borrow, default)]
    append: Vec<Append<'a>>,
    #[serde(default)]
    retry_after: Option<Wait>,
    #[serde(default)]
    later: Option<Wait>,
    #[serde(default)]
    permanent: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Emit<'a> {
    stream: String,
    #[serde(rename = "type")]
    event_type: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    data_base64: Option<String>,
    #[serde(default)]
    datacontenttype: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    schemaversion: Option<u32>,
    /// Other fields, by their names.
    #[serde(default)]
    extensions: BTreeMap<String, String>,
    /// So much later than the acknowledgement.
    #[serde(default)]
    after: Option<Wait>,
    /// At this time.
    #[serde(default)]
    at: Option<String>,
}

/// Takes an event off a stream's schedule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    stream: String,
    id: String,
}

/// Appends events to an aggregate.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Append<'a> {
    /// Its kind and its id: `order:o-1`.
    aggregate: String,
    /// The public stream of its kind.
    stream: String,
    #[serde(default)]
    partitions: Option<u32>,
    expected: At,
    #[serde(borrow)]
    events: Vec<Recorded<'a>>,
}

/// At which version an aggregate is expected: a number, or in words.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a version, \"none\", \"exists\" or \"any\"")]
enum At {
    Version(u64),
    Words(InWords),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum InWords {
    None,
    Exists,
    Any,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded<'a> {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    schemaversion: Option<u32>,
}

#[derive(Debug)]
struct Appended {
    public: PublicStreams,
    aggregate: AggregateId,
    events: Vec<Envelope>,
    expected: Expected,
}

/// An effect by the name of its method on [`Effect`], with that one's arguments.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked<'a> {
    #[serde(borrow)]
    effect: Cow<'a, str>,
    key: String,
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    member: Option<String>,
    #[serde(default)]
    value: Option<Text>,
    #[serde(default)]
    by: Option<i64>,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    at_least: Option<i64>,
    #[serde(default)]
    at_most: Option<i64>,
    #[serde(default)]
    if_absent: bool,
    #[serde(default)]
    if_exists: bool,
    #[serde(default)]
    if_equals: Option<Text>,
}

/// A text, or a whole number as one.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text or a whole number")]
enum Text {
    Text(String),
    Number(i64),
}

/// A wait as the configuration writes it: `"10s"`.
struct Wait(Duration);

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        duration::parse(&text)
            .map(Wait)
            .map_err(serde::de::Error::custom)
    }
}

impl Answer {
    /// Reads an answer. Nothing at all says that it was done.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        match json.iter().find(|byte| !byte.is_ascii_whitespace()) {
            None => return Ok(Answer::default()),
            Some(b'{') => {}
            // As serde reads a list, its items would be members in their order.
            Some(_) => return Err("its answer can't be read: it is no JSON object".to_owned()),
        }
        let written: Written<'_> = serde_json::from_slice(json)
            .map_err(|error| format!("its answer can't be read: {error}"))?;
        written
            .understood()
            .map_err(|why| format!("its answer can't be followed: {why}"))
    }

    /// Does with a handler's context what it says, and ends the handler.
    pub fn follow(self, ctx: &Context) -> Result<(), Failure> {
        match self.failure {
            None => {}
            Some(Told::Failed(why)) => return Err(Failure::retry(why)),
            Some(Told::RetryAfter(wait, why)) => return Err(Failure::retry_after(wait, why)),
            Some(Told::Later(wait, why)) => return Err(Failure::later(wait, why)),
            Some(Told::Permanent(why)) => return Err(Failure::permanent(why)),
        }
        for Cancel { stream, id } in self.cancels {
            ctx.cancel(&stream, &id);
        }
        for (stream, envelope, when) in self.emits {
            match when {
                None => ctx.emit_envelope(&stream, envelope),
                Some(When::After(delay)) => ctx.emit_envelope_after(&stream, envelope, delay),
                Some(When::At(at)) => ctx.emit_envelope_at(&stream, envelope, at),
            }
        }
        for effect in self.effects {
            ctx.effect(effect);
        }
        for it in self.appends {
            ctx.append_envelopes(&it.public, &it.aggregate, it.events, it.expected);
        }
        Ok(())
    }
}

impl Written<'_> {
    fn understood(self) -> Result<Answer, String> {
        let failure = match (self.permanent, self.later, self.retry_after, self.error) {
            (None, None, None, None) => None,
            (Some(why), None, None, None) => Some(Told::Permanent(why)),
            (Some(_), ..) => {
                return Err(
                    "\"permanent\" stands beside \"retry_after\", \"later\" or \"error\"; it says why by itself".into(),
                );
            }
            (None, Some(_), Some(_), _) => {
                return Err("\"later\" stands beside \"retry_after\"; the first uses up no attempt, the other one".into());
            }
            (None, Some(Wait(wait)), None, why) => Some(Told::Later(
                wait,
                why.unwrap_or_else(|| "its handler says later".into()),
            )),
            (None, None, Some(Wait(wait)), why) => Some(Told::RetryAfter(
                wait,
                why.unwrap_or_else(|| "its handler asks for another attempt".into()),
            )),
            (None, None, None, Some(why)) => Some(Told::Failed(why)),
        };
        let is_empty = self.emit.is_empty() && self.effects.is_empty();
        let is_empty = is_empty && self.cancel.is_empty() && self.append.is_empty();
        if failure.is_some() && !is_empty {
            return Err("it says that the event failed, and what is to leave if it succeeds; leave one of them out".into());
        }
        let emits = self.emit.into_iter().enumerate();
        let effects = self.effects.into_iter().enumerate();
        let appends = self.append.into_iter().enumerate();
        Ok(Answer {
            cancels: self.cancel,
            emits: emits
                .map(|(at, emit)| emit.event().map_err(|why| format!("emit[{at}]: {why}")))
                .collect::<Result<_, _>>()?,
            effects: effects
                .map(|(at, asked)| {
                    asked
                        .effect()
                        .map_err(|why| format!("effects[{at}]: {why}"))
                })
                .collect::<Result<_, _>>()?,
            appends: appends
                .map(|(at, append)| append.read().map_err(|why| format!("append[{at}]: {why}")))
                .collect::<Result<_, _>>()?,
            failure,
        })
    }
}

impl Append<'_> {
    fn read(self) -> Result<Appended, String> {
        let (kind, id) = self.aggregate.split_once(':').ok_or_else(|| {
            format!(
                "{:?} is no aggregate; write its kind and its id, \"order:o-1\"",
                self.aggregate
            )
        })?;
        let public = PublicStreams::new(&self.stream).map_err(|error| error.to_string())?;
        let public = match self.partitions {
            Some(partitions) => public
                .partitions(partitions)
                .map_err(|error| error.to_string())?,
            None => public,
        };
        if self.events.is_empty() {
            return Err("there are no events in it".to_owned());
        }
        let events = self.events.into_iter().map(|event| {
            let mut envelope = Envelope::new(event.event_type);
            if let Some(version) = event.schemaversion {
                envelope = envelope.try_with("schemaversion", version.to_string())?;
            }
            envelope = envelope.try_with("datacontenttype", codec::JSON)?;
            match event.data {
                Some(data) => envelope.try_with("data", data.get()),
                None => Ok(envelope),
            }
        });
        Ok(Appended {
            public,
            aggregate: AggregateId::new(kind, id).map_err(|error| error.to_string())?,
            events: events
                .collect::<crate::error::Result<_>>()
                .map_err(|error| error.to_string())?,
            expected: match self.expected {
                At::Version(version) => Expected::Exact(version),
                At::Words(InWords::None) => Expected::NoStream,
                At::Words(InWords::Exists) => Expected::Exists,
                At::Words(InWords::Any) => Expected::Any,
            },
        })
    }
}

impl Emit<'_> {
    fn event(self) -> Result<(String, Envelope, Option<When>), String> {
        let when = match (self.after, self.at) {
            (Some(_), Some(_)) => return Err("\"after\" stands beside \"at\"".into()),
            (Some(Wait(delay)), None) => Some(When::After(delay)),
            (None, Some(time)) => match rfc3339::parse(&time) {
                Ok(time) => Some(When::At(time)),
                Err(why) => return Err(format!("\"at\" {time:?} {why}")),
            },
            (None, None) => None,
        };
        let data = match (self.data, self.data_base64) {
            (Some(_), Some(_)) => return Err("\"data\" stands beside \"data_base64\"".into()),
            (Some(json), None) => Some(json.get().as_bytes().to_vec()),
            (None, Some(text)) => {
                let data = BASE64_STANDARD.decode(text);
                Some(data.map_err(|error| format!("\"data_base64\" is none: {error}"))?)
            }
            (None, None) => None,
        };
        let version = self.schemaversion.map(|version| version.to_string());
        let fields = [
            ("id", self.id),
            ("source", self.source),
            ("subject", self.subject),
            ("time", self.time),
            ("schemaversion", version),
            ("datacontenttype", self.datacontenttype),
        ];
        let mut envelope = Envelope::new(self.event_type);
        for (name, value) in fields {
            if let Some(value) = value {
                envelope = envelope.try_with(name, value).map_err(|e| e.to_string())?;
            }
        }
        for (name, value) in self.extensions {
            if envelope.field(&name).is_some() || matches!(&name[..], "data" | "type") {
                return Err(format!("the extension {name:?} has a meaning of its own"));
            }
            envelope = envelope.try_with(&name, value).map_err(|e| e.to_string())?;
        }
        if let Some(data) = data {
            envelope = envelope.try_with("data", data).map_err(|e| e.to_string())?;
        }
        Ok((self.stream, envelope, when))
    }
}

impl Asked<'_> {
    fn effect(mut self) -> Result<Effect, String> {
        const KNOWN: &str =
            "there are set, del, incr_by, hset, hdel, hincr_by, zadd, zrem, sadd, srem";
        let name = std::mem::take(&mut self.effect);
        let key = std::mem::take(&mut self.key);
        let needs = |what: &str| format!("{name} needs {what:?}");
        let mut effect = match &*name {
            "set" => Effect::set(key, text(self.value.take()).ok_or_else(|| needs("value"))?),
            "del" => Effect::del(key),
            "incr_by" => Effect::incr_by(key, self.by.take().ok_or_else(|| needs("by"))?),
            "hset" => Effect::hset(
                key,
                self.field.take().ok_or_else(|| needs("field"))?,
                text(self.value.take()).ok_or_else(|| needs("value"))?,
            ),
            "hdel" => Effect::hdel(key, self.field.take().ok_or_else(|| needs("field"))?),
            "hincr_by" => Effect::hincr_by(
                key,
                self.field.take().ok_or_else(|| needs("field"))?,
                self.by.take().ok_or_else(|| needs("by"))?,
            ),
            "zadd" => Effect::zadd(
                key,
                self.score.take().ok_or_else(|| needs("score"))?,
                self.member.take().ok_or_else(|| needs("member"))?,
            ),
            "zrem" => Effect::zrem(key, self.member.take().ok_or_else(|| needs("member"))?),
            "sadd" => Effect::sadd(key, self.member.take().ok_or_else(|| needs("member"))?),
            "srem" => Effect::srem(key, self.member.take().ok_or_else(|| needs("member"))?),
            _ => return Err(format!("{name:?} is no effect; {KNOWN}")),
        };
        let left = [
            ("field", self.field.is_some()),
            ("member", self.member.is_some()),
            ("value", self.value.is_some()),
            ("by", self.by.is_some()),
            ("score", self.score.is_some()),
        ];
        if let Some((of_another, _)) = left.into_iter().find(|(_, is_there)| *is_there) {
            return Err(format!("{name} takes no {of_another:?}"));
        }
        let presences = [self.if_absent, self.if_exists, self.if_equals.is_some()];
        if presences.into_iter().filter(|is_asked| *is_asked).count() > 1 {
            return Err(
                "one of \"if_absent\", \"if_exists\" and \"if_equals\" is the guard".into(),
            );
        }
        if let Some(least) = self.at_least {
            effect = effect.at_least(least);
        }
        if let Some(most) = self.at_most {
            effect = effect.at_most(most);
        }
        if self.if_absent {
            effect = effect.if_absent();
        }
        if self.if_exists {
            effect = effect.if_exists();
        }
        if let Some(value) = text(self.if_equals) {
            effect = effect.if_equals(value);
        }
        effect.check().map(|()| effect)
    }
}

fn text(text: Option<Text>) -> Option<String> {
    text.map(|text| match text {
        Text::Text(text) => text,
        Text::Number(number) => number.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;

    fn followed(json: &str) -> (Context, Result<(), Failure>) {
        let ctx = Context::for_test();
        let result = Answer::parse(json.as_bytes()).expect(json).follow(&ctx);
        (ctx, result)
    }

    fn refused(json: &str) -> String {
        Answer::parse(json.as_bytes()).expect_err(json)
    }

    #[test]
    fn what_is_to_leave_leaves_by_the_context() {
        let (ctx, result) = followed(
            r#"{"emit": [
                {"stream": "mails", "type": "mail.wanted", "data": {"n": 12345678901234567890}, "subject": "s",
                 "extensions": {"tenant": "a"}},
                {"stream": "mails", "type": "mail.wanted", "id": "m-1", "datacontenttype": "text/plain",
                 "data_base64": "aGk="}],
              "effects": [
                {"effect": "incr_by", "key": "{jobs}:stock", "by": -3, "at_least": 0},
                {"effect": "set", "key": "k", "value": 7, "if_absent": true},
                {"effect": "hset", "key": "h", "field": "f", "value": "v", "if_equals": "w"},
                {"effect": "zadd", "key": "z", "score": 1.5, "member": "m"}]}"#,
        );
        result.expect("done");
        let emitted = ctx.emitted();
        assert_eq!(emitted[0].stream, "mails");
        assert_eq!(emitted[0].envelope.data(), b"{\"n\": 12345678901234567890}");
        assert_eq!(emitted[0].envelope.content_type(), "application/json");
        assert_eq!(emitted[0].envelope.field("tenant"), Some("a"));
        assert_eq!(emitted[1].envelope.id(), "m-1");
        assert_eq!(emitted[1].envelope.data(), b"hi");
        let effects: Vec<String> = ctx.effects().iter().map(ToString::to_string).collect();
        assert_eq!(
            effects,
            [
                "INCRBY {jobs}:stock -3, at least 0",
                "SET k 7, if it is absent",
                "HSET h f v, if it is \"w\"",
                "ZADD z 1.5 m",
            ]
        );
    }

    #[test]
    fn what_is_for_later_is_scheduled_and_what_is_appended_is() {
        let (ctx, result) = followed(
            r#"{"cancel": [{"stream": "orders", "id": "overdue:o-1"}],
              "emit": [
                {"stream": "orders", "type": "payment.overdue", "id": "overdue:o-1", "after": "15m"},
                {"stream": "orders", "type": "report.due", "at": "2999-02-02T08:00:00+01:00"}],
              "append": [
                {"aggregate": "order:o-1", "stream": "orders", "expected": 4, "events": [{"type": "order.paid", "data": {}}]},
                {"aggregate": "order:o-2", "stream": "orders", "expected": "none", "events": [{"type": "order.paid"}]}]}"#,
        );
        result.expect("done");
        assert_eq!(ctx.cancels()[0].id, "overdue:o-1");
        let scheduled = ctx.scheduled();
        assert_eq!(scheduled[0].when, When::After(Duration::from_secs(900)));
        assert!(matches!(scheduled[1].when, When::At(_)));
        let appended = ctx.appended();
        assert_eq!(appended[0].aggregate.as_str(), "order:o-1");
        assert_eq!(appended[0].expected, Expected::Exact(4));
        assert_eq!(appended[0].events[0].event_type(), "order.paid");
        assert_eq!(appended[1].expected, Expected::NoStream);
    }

    #[test]
    fn what_failed_means_what_it_says() {
        let kind = |json| {
            let (_, result) = followed(json);
            let failure = result.expect_err(json);
            (failure.kind(), failure.to_string())
        };
        let ten = Duration::from_secs(10);
        assert_eq!(
            kind(r#"{"error": "no"}"#),
            (FailureKind::Retry, "no".into())
        );
        assert_eq!(
            kind(r#"{"retry_after": "10s"}"#).0,
            FailureKind::RetryAfter(ten)
        );
        assert_eq!(kind(r#"{"later": "10s"}"#).0, FailureKind::Later(ten));
        assert_eq!(
            kind(r#"{"retry_after": "10s", "error": "busy"}"#),
            (FailureKind::RetryAfter(ten), "busy".into())
        );
        assert_eq!(
            kind(r#"{"permanent": "no such card"}"#),
            (FailureKind::Permanent, "no such card".into())
        );
        for done in ["", " \n", "{}"] {
            followed(done).1.expect(done);
        }
    }

    #[test]
    fn what_can_t_be_followed_is_refused_with_the_reason() {
        for (json, reason) in [
            ("[]", "can't be read"),
            ("{", "can't be read"),
            (
                r#"{"emits": []}"#,
                "unknown field `emits`, expected one of `emit`",
            ),
            (r#"{"emit": [{"type": "a.b"}]}"#, "missing field `stream`"),
            (
                r#"{"emit": [{"stream": "s", "type": "a.b", "date": 1}]}"#,
                "unknown field `date`",
            ),
            (
                r#"{"emit": [{"stream": "s", "type": "a.b", "time": "soon"}]}"#,
                "emit[0]: the time",
            ),
            (
                r#"{"emit": [{"stream": "s", "type": "a.b", "data": 1, "data_base64": ""}]}"#,
                "beside",
            ),
            (
                r#"{"emit": [{"stream": "s", "type": "a.b", "extensions": {"data": ""}}]}"#,
                "meaning of its own",
            ),
            (
                r#"{"effects": [{"effect": "incr", "key": "k"}]}"#,
                "effects[0]: \"incr\" is no effect; there are set,",
            ),
            (
                r#"{"effects": [{"effect": "incr_by", "key": "k"}]}"#,
                "incr_by needs \"by\"",
            ),
            (
                r#"{"effects": [{"effect": "del", "key": "k", "value": 1}]}"#,
                "del takes no \"value\"",
            ),
            (
                r#"{"effects": [{"effect": "set", "key": "k", "value": "1", "at_least": 1}]}"#,
                "at_least is for",
            ),
            (
                r#"{"effects": [{"effect": "set", "key": "k", "value": 1.5}]}"#,
                "a text or a whole number",
            ),
            (
                r#"{"emit": [{"stream": "s", "type": "a.b", "after": "1s", "at": "x"}]}"#,
                "beside",
            ),
            (
                r#"{"emit": [{"stream": "s", "type": "a.b", "at": "monday"}]}"#,
                "\"at\" \"monday\"",
            ),
            (r#"{"cancel": ["overdue"]}"#, "can't be read"),
            (
                r#"{"append": [{"aggregate": "o-1", "stream": "s", "expected": 1, "events": []}]}"#,
                "its kind and its id",
            ),
            (
                r#"{"append": [{"aggregate": "o:1", "stream": "s", "expected": 1, "events": []}]}"#,
                "no events",
            ),
            (
                r#"{"append": [{"aggregate": "o:1", "stream": "s", "expected": "new", "events": []}]}"#,
                "a version, \"none\"",
            ),
            (
                r#"{"error": "no", "cancel": [{"stream": "s", "id": "1"}]}"#,
                "leave one of them out",
            ),
            (r#"{"retry_after": 10}"#, "expected a string"),
            (r#"{"retry_after": "soon"}"#, "soon"),
            (r#"{"permanent": "no", "error": "no"}"#, "by itself"),
            (
                r#"{"later": "1s", "retry_after": "1s"}"#,
                "uses up no attempt",
            ),
            (
                r#"{"error": "no", "emit": [{"stream": "s", "type": "a.b"}]}"#,
                "leave one of them out",
            ),
            (r#"{"emit": [], "emit": []}"#, "duplicate field"),
        ] {
            let said = refused(json);
            assert!(said.contains(reason), "{json}: {said}");
        }
    }
}
