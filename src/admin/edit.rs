//! Editing a dead letter before it is replayed. The letter stays as it was buried; the edit stands beside it, and a replay puts
//! it in the place of the original values, which go along as `edited.was.data` and the like.
//!
//! [`Admin::edit`] gives a [`LetterEdit`], which is changed in memory; [`LetterEdit::validate`] asks the handler's own decoder
//! and upcasters; [`Admin::save_edit`] keeps it, unless somebody else has edited the letter meanwhile.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::Admin;
use super::data::{json, on_one_line};
use super::splice::{differences, path, set_in_json, set_in_msgpack};
use crate::codec::{self, Format};
use crate::dead_letters::WholeLetter;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Entry, EntryId, Envelope};
use crate::failure::Failure;
use crate::fields::Fields;
use crate::handler::{Registry, Validity};

/// A dead letter whose fields are being edited, by [`Admin::edit`].
#[derive(Clone, Debug)]
pub struct LetterEdit {
    letter: WholeLetter,
    /// The values that are replaced or added.
    fields: Fields,
}

/// A field that an edit changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FieldChange {
    /// The field's name.
    pub name: String,
    /// What the letter has; None if the field is added. JSON where it is data that JSON can show, else text.
    pub before: Option<String>,
    /// What a replay puts in its place.
    pub after: String,
}

impl Admin {
    /// A dead letter to be edited, as its last edit left it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of this id; if Redis can't be reached.
    ///
    /// ```no_run
    /// use streamhand::Registry;
    /// use streamhand::admin::Admin;
    ///
    /// # async fn example(admin: &Admin, registry: &Registry) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut edit = admin.edit("orders", "1732360000000-0".parse()?).await?;
    /// edit.set("data.amount", "0")?;
    /// if let Err(failure) = edit.validate(registry) {
    ///     return Err(format!("the handler could not decode it: {failure}").into());
    /// }
    /// admin.save_edit(&edit, "alice").await?;
    /// # Ok(()) }
    /// ```
    pub async fn edit(&self, stream: &str, id: EntryId) -> Result<LetterEdit> {
        let letter = self.dead_letters()?.get(stream, id).await?;
        let edit = letter.notes.edit.as_ref();
        let fields = edit.map_or_else(Fields::new, |edit| edit.fields.clone());
        Ok(LetterEdit { letter, fields })
    }

    /// Keeps an edit beside its letter, for a replay to apply; with no change there is none any more. Nothing is validated here.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the letter is gone; [`ErrorKind::Exists`] if somebody else has edited it meanwhile.
    pub async fn save_edit(&self, edit: &LetterEdit, by: &str) -> Result<()> {
        let LetterEdit { letter, fields } = edit;
        let seen = letter.notes.edit.as_ref();
        let dead = self.dead_letters()?;
        dead.set_edit(&letter.head, by, seen, fields).await
    }
}

impl LetterEdit {
    /// The letter, as it was buried and as it was edited before.
    pub fn letter(&self) -> &WholeLetter {
        &self.letter
    }

    /// The value of a field as the edit has it.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        let edited = self.fields.value(name);
        edited.or_else(|| self.letter.fields.value(name))
    }

    /// Sets one value: `data.amount` within the data, whose other bytes stay as they are; `data`, or any other field, as a
    /// whole. Within data the value is JSON, or a text if it is none.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if there is no such place, or it can't hold this value.
    pub fn set(&mut self, place: &str, value: &str) -> Result<()> {
        let mut way = path(place);
        let name = way.remove(0);
        if name != "data" {
            if !way.is_empty() {
                return Err(invalid(format!(
                    "{place}: only the data has values within; {name} is a field of its own"
                )));
            }
            if !is_field(&name) {
                return Err(invalid(format!("{name:?} is no field that can be edited")));
            }
            self.put(&name, value.as_bytes());
            return Ok(());
        }
        let value: Cow<'_, str> = match serde_json::from_str::<Value>(value) {
            Ok(_) => value.into(),
            Err(_) => Value::from(value).to_string().into(),
        };
        let edited = self.with_value(&way, &value);
        let edited = edited.map_err(|why| invalid(format!("{place}: {why}")))?;
        self.put("data", &edited);
        Ok(())
    }

    /// The data as JSON, to be edited as a whole: MessagePack too. Text that is no JSON is that text; None where it is none.
    pub fn data_text(&self) -> Option<Cow<'_, str>> {
        let data = self.value("data").unwrap_or_default();
        match json(&self.content_type(), data) {
            Some((_, json)) => Some(json),
            None => std::str::from_utf8(data).ok().map(Cow::Borrowed),
        }
    }

    /// Sets the data as a whole, by JSON. Of MessagePack only what differs is written anew, so that what JSON can't hold
    /// stays where it is left alone.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if it is no JSON, or changes what JSON can't hold.
    pub fn set_data_text(&mut self, text: &str) -> Result<()> {
        let after: Value = serde_json::from_str(text)
            .map_err(|error| invalid(format!("the data is no JSON: {error}")).with_source(error))?;
        let data = self.value("data").unwrap_or_default();
        let before = json(&self.content_type(), data);
        let edited = match before {
            Some(("MessagePack", before)) => {
                let before: Value = serde_json::from_str(&before).unwrap_or_default();
                let mut edited = data.to_vec();
                for (path, value) in differences(&before, &after) {
                    edited = set_in_msgpack(&edited, &path, &value).map_err(invalid)?;
                }
                edited
            }
            Some((_, before)) if on_one_line(&before) == on_one_line(text) => data.to_vec(),
            _ => self.encoded(text).map_err(invalid)?,
        };
        self.put("data", &edited);
        Ok(())
    }

    /// Takes all changes back, those of earlier edits too.
    pub fn undo(&mut self) {
        self.fields = Fields::new();
    }

    /// Whether a replay would give back something else than what was buried.
    pub fn is_changed(&self) -> bool {
        !self.fields.is_empty()
    }

    /// Whether it differs from what is kept already.
    pub fn is_new(&self) -> bool {
        let kept = self.letter.notes.edit.as_ref();
        kept.map_or(!self.fields.is_empty(), |kept| kept.fields != self.fields)
    }

    /// What a replay puts in the place of what.
    pub fn changes(&self) -> Vec<FieldChange> {
        let before_type = self.letter.fields.value("datacontenttype");
        let before_type = before_type.map(String::from_utf8_lossy);
        let after_type = self.content_type();
        let shown = |name: &str, content_type: &str, value: &[u8]| {
            let as_json = (name == "data")
                .then(|| json(content_type, value))
                .flatten();
            as_json.map_or_else(
                || String::from_utf8_lossy(value).into_owned(),
                |(_, json)| json.into_owned(),
            )
        };
        let change = |(name, value): (&[u8], &[u8])| {
            let name = String::from_utf8_lossy(name).into_owned();
            let before = self.letter.fields.value(&name);
            let content_type = before_type.as_deref().unwrap_or(codec::JSON);
            FieldChange {
                before: before.map(|before| shown(&name, content_type, before)),
                after: shown(&name, &after_type, value),
                name,
            }
        };
        self.fields.iter().map(change).collect()
    }

    /// The event as a replay would give it back.
    ///
    /// # Errors
    /// If it is no event: [`ErrorKind::Codec`].
    pub fn envelope(&self) -> Result<Envelope> {
        let mut fields = Fields::new();
        for (name, value) in &self.letter.fields {
            let edited = self
                .fields
                .value(name)
                .filter(|_| fields.value(name).is_none());
            fields.push(name, edited.unwrap_or(value));
        }
        for (name, value) in &self.fields {
            if self.letter.fields.value(name).is_none() {
                fields.push(name, value);
            }
        }
        let entry = Entry {
            id: self.letter.head.id,
            fields,
        };
        Envelope::decode(entry).map_err(|(_, error)| {
            Error::new(ErrorKind::Codec, format!("it is no event: {error}")).with_source(error)
        })
    }

    /// What its handler says of the edited event, by its own decoder and upcasters.
    ///
    /// # Errors
    /// If it could not decode it, or it is no event.
    pub fn validate(&self, registry: &Registry) -> Result<Validity, Failure> {
        match self.envelope() {
            Ok(envelope) => registry.validate(&envelope),
            Err(error) => Err(Failure::permanent(error)),
        }
    }

    fn content_type(&self) -> String {
        let said = self
            .value("datacontenttype")
            .filter(|said| !said.is_empty());
        said.map_or_else(
            || codec::JSON.to_owned(),
            |said| String::from_utf8_lossy(said).into_owned(),
        )
    }

    /// The data with another value within, which is JSON.
    fn with_value(&self, way: &[String], value: &str) -> Result<Vec<u8>, String> {
        if way.is_empty() {
            return self.encoded(value);
        }
        let data = self.value("data").unwrap_or_default();
        match codec::format(&self.content_type()).map_err(|error| error.to_string())? {
            Format::Json => {
                let text = std::str::from_utf8(data).map_err(|_| "the data is not UTF-8")?;
                set_in_json(text, way, value).map(String::into_bytes)
            }
            Format::MessagePack => {
                let value = serde_json::from_str(value).map_err(|error| error.to_string())?;
                set_in_msgpack(data, way, &value)
            }
        }
    }

    /// JSON as the data's content type has it.
    fn encoded(&self, json: &str) -> Result<Vec<u8>, String> {
        match codec::format(&self.content_type()).map_err(|error| error.to_string())? {
            Format::Json => Ok(on_one_line(json).into_bytes()),
            Format::MessagePack => {
                let value: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
                rmp_serde::to_vec(&value).map_err(|error| error.to_string())
            }
        }
    }

    /// Keeps a value, unless it is the one that the letter has.
    fn put(&mut self, name: &str, value: &[u8]) {
        let mut fields = Fields::new();
        for (other, kept) in self
            .fields
            .iter()
            .filter(|(other, _)| *other != name.as_bytes())
        {
            fields.push(other, kept);
        }
        if self.letter.fields.value(name) != Some(value) {
            fields.push(name, value);
        }
        self.fields = fields;
    }
}

/// Whether a field's value may be edited: not what is written by a replay, or by an edit itself.
fn is_field(name: &str) -> bool {
    let written = ["replay.", "edited.", "dead.", "streamhand."];
    !name.is_empty() && !written.iter().any(|begin| name.starts_with(begin))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}
