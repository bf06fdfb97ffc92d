//! A form that does something: what its button says, where it goes, and the command line that does the same.

use super::command::CommandLine;

/// A form, for the macro `act` of `templates/act.html`.
#[derive(Clone, Debug)]
pub(super) struct ActForm {
    pub label: String,
    /// Within the prefix, with its query.
    pub action: String,
    pub command: CommandLine,
    /// What is sent besides the reason.
    pub hidden: Vec<(&'static str, String)>,
    /// What is asked for besides the reason.
    pub fields: Vec<Field>,
    /// Whether it can't be undone.
    pub danger: bool,
}

/// Something that a form asks for.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub name: &'static str,
    pub label: &'static str,
    pub value: String,
    pub hint: &'static str,
    /// A box to be ticked, or text of several lines; else one line.
    pub kind: FieldKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldKind {
    Line,
    Lines,
    Tick,
}

impl Field {
    /// One line of text.
    pub fn text(name: &'static str, label: &'static str) -> Self {
        Field {
            name,
            label,
            value: String::new(),
            hint: "",
            kind: FieldKind::Line,
        }
    }

    /// Text of several lines.
    pub fn lines(name: &'static str, label: &'static str) -> Self {
        Field {
            kind: FieldKind::Lines,
            ..Field::text(name, label)
        }
    }

    /// A box to be ticked.
    pub fn tick(name: &'static str, label: &'static str) -> Self {
        Field {
            kind: FieldKind::Tick,
            ..Field::text(name, label)
        }
    }

    /// What is in it at first.
    pub fn value(mut self, value: impl Into<String>) -> Self {
        self.value = value.into();
        self
    }

    /// What it looks like, or what empty means.
    pub fn hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }

    pub fn is(&self, kind: FieldKind) -> bool {
        self.kind == kind
    }
}

impl ActForm {
    pub fn new(label: impl Into<String>, path: &str, command: CommandLine) -> Self {
        ActForm {
            label: label.into(),
            action: path.to_owned(),
            command,
            hidden: Vec::new(),
            fields: Vec::new(),
            danger: false,
        }
    }

    /// One that concerns this stream: routes of `Scope::Stream` take it from the address.
    pub fn on(mut self, stream: &str) -> Self {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("stream", stream)
            .finish();
        self.action = format!("{}?{query}", self.action);
        self
    }

    /// One that sends this besides.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.hidden.push((name, value.into()));
        self
    }

    /// One that asks for this besides.
    pub fn ask(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    /// One that can't be undone.
    pub fn danger(mut self) -> Self {
        self.danger = true;
        self
    }
}
