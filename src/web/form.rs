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
    /// Whether it can't be undone.
    pub danger: bool,
}

impl ActForm {
    pub fn new(label: impl Into<String>, path: &str, command: CommandLine) -> Self {
        ActForm {
            label: label.into(),
            action: path.to_owned(),
            command,
            hidden: Vec::new(),
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

    /// One that can't be undone.
    pub fn danger(mut self) -> Self {
        self.danger = true;
        self
    }
}
