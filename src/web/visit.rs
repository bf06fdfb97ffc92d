//! One request by somebody known: who it is, what they may do, and what they want to see.

use std::collections::BTreeMap;
use std::convert::Infallible;

use askama::Template;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;

use super::assets;
use super::nav;
use super::problem::Problem;
use crate::config::Role;
use crate::partition::Partition;

/// Who asks for what. The guard has made it, and let it through.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    pub who: String,
    pub rights: Rights,
    /// What paths begin with, as the visitor's browser sees them.
    pub prefix: String,
    /// The path within it.
    pub path: String,
    pub query: String,
    pub wants: Wants,
    pub group: String,
    /// What the last action has to say.
    pub said: Option<String>,
    pub stream: Option<String>,
}

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    Page,
    Json,
    /// What is between `<main>` and its end: to bring an open page up to date.
    Main,
}

/// What somebody may do: with streams of their own list what it says, with others the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    pub role: Option<Role>,
    pub streams: BTreeMap<String, Role>,
}

/// What every page has around it.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub title: String,
    pub prefix: String,
    pub path: String,
    pub group: String,
    pub who: String,
    pub said: Option<String>,
    pub style: &'static str,
    pub script: &'static str,
    pub icon: &'static str,
    pub chart_style: &'static str,
    pub chart_script: &'static str,
}

impl Rights {
    /// What they may do with a stream; with a partition as with its topic, if nothing is said of it.
    pub fn on(&self, stream: &str) -> Option<Role> {
        let of_topic = || self.streams.get(Partition::parse(stream)?.topic);
        let own = self.streams.get(stream).or_else(of_topic);
        own.copied().or(self.role)
    }

    pub fn may(&self, role: Role, stream: &str) -> bool {
        self.on(stream) >= Some(role)
    }
}

impl Visit {
    /// Whether the visitor may do this with a stream.
    pub fn may(&self, role: Role, stream: &str) -> bool {
        self.rights.may(role, stream)
    }

    /// Whether the visitor may do this with all of them.
    pub fn may_all(&self, role: Role, streams: &[String]) -> bool {
        !streams.is_empty() && streams.iter().all(|stream| self.may(role, stream))
    }

    /// Whether the visitor is shown what events of a stream hold; redacted even so.
    pub fn sees_payload(&self, stream: &str) -> bool {
        self.may(Role::Operate, stream)
    }

    /// Whether JSON is asked for, by a program that wants to know of a mistake by its status.
    pub fn wants_json(&self) -> bool {
        self.wants == Wants::Json
    }

    /// The stream that the path's `?stream=` names, for routes of one stream.
    pub fn stream(&self) -> &str {
        self.stream.as_deref().unwrap_or_default()
    }

    /// What the page of this visit has around it.
    pub fn frame(&self, title: impl Into<String>) -> Frame {
        Frame {
            title: title.into(),
            prefix: self.prefix.clone(),
            path: self.path.clone(),
            group: self.group.clone(),
            who: self.who.clone(),
            said: self.said.clone(),
            style: assets::path_of("style.css"),
            script: assets::path_of("live.js"),
            icon: assets::path_of("icon.svg"),
            chart_style: assets::path_of("uPlot.min.css"),
            chart_script: assets::path_of("uPlot.iife.min.js"),
        }
    }

    /// A page of what it shows; or that as JSON, where it is asked for so.
    pub fn page(&self, data: &impl Serialize, page: impl Template) -> Result<Response, Problem> {
        match self.wants {
            Wants::Json => Ok(axum::Json(data).into_response()),
            Wants::Page => Ok(Html(page.render()?).into_response()),
            Wants::Main => {
                let page = page.render()?;
                let from = page.find(MAIN).map_or(0, |at| at + MAIN.len());
                let to = page.rfind(MAIN_END).unwrap_or(page.len());
                Ok(Html(page[from..to].to_owned()).into_response())
            }
        }
    }

    /// The address of a page here: `visit.to("/flow")`.
    pub fn to(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Sends the visitor to another page.
    pub fn lead_to(&self, address: &str) -> Response {
        let mut response = axum::http::StatusCode::SEE_OTHER.into_response();
        if let Ok(address) = HeaderValue::from_str(address) {
            response.headers_mut().insert(header::LOCATION, address);
        }
        response
    }
}

/// The value of a parameter in the query of an address.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let (_, value) = pairs.find(|(key, value)| key == name && !value.is_empty())?;
    Some(value.into_owned())
}

/// In `templates/base.html`. What events hold is escaped, so that it can't have these.
const MAIN: &str = "<!--main-->";
const MAIN_END: &str = "<!--/main-->";

impl Frame {
    pub fn entries(&self) -> Vec<(&'static str, &'static str, bool)> {
        let is_here = |path: &str| match path {
            "/" => self.path == "/",
            path => self.path == path || self.path.starts_with(&format!("{path}/")),
        };
        let entries = nav::ENTRIES.iter();
        entries
            .map(|(path, title)| (*path, *title, is_here(path)))
            .collect()
    }
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let visit = parts.extensions.get::<Visit>();
        Ok(visit.cloned().expect("the guard is before every route"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_streams_wins_over_the_role() {
        let rights = Rights {
            role: Some(Role::Operate),
            streams: BTreeMap::from([
                ("payments".to_owned(), Role::View),
                ("orders".to_owned(), Role::Admin),
            ]),
        };
        assert!(rights.may(Role::Admin, "orders"));
        assert!(!rights.may(Role::Operate, "payments"));
        assert!(rights.may(Role::Operate, "parcels"));
        assert!(!rights.may(Role::Admin, "parcels"));
        assert!(!Rights::default().may(Role::View, "orders"));
    }
}
