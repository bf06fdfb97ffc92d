//! The pages to watch and operate a group by: `streamhand web`, and `[web] listen` beside a worker.
//!
//! HTML is made here and can be read without JavaScript; a little of that keeps it up to date. What is asked of Redis is
//! shared by all who look (`hub.rs`). Who may do what is decided before a page's code runs (`guard.rs`).
//!
//! A request's way: `server.rs` (connections) → `front.rs` (prefix, `.json`, headers) → `guard.rs` (host, who is it,
//! role, cross-site) → a page → `problem.rs` where it fails.
//!
//! # How to add a page
//! 1. A file in `pages/` with `pub(super) fn routes() -> Vec<Route>`, and a line for it in `pages/mod.rs`. A route is
//!    a path, the least role, and of what: `route::Scope`. `Scope::Stream` takes the stream from `?stream=`; the guard
//!    has looked whether the visitor may do this with that stream, and `visit.stream()` is it. A test goes through all
//!    routes × roles by this list.
//! 2. A template in `templates/` that begins `{% extends "base.html" %}` and fills the block `main`; its struct has
//!    `frame: Frame`, from `visit::Visit::frame`. A link is `{{ frame.prefix }}/path`; a name from outside is shown by
//!    `{{ name|shown }}` (see `filters.rs`, which a page's file imports by `use crate::web::filters;`).
//! 3. The handler takes `State<App>` and `Visit`, reads its data into one serializable struct, and ends with
//!    `visit.page(&data, Template { … })`: that is HTML, or JSON where the path ends with `.json` or JSON is accepted.
//! 4. What lives: nothing to do. A page whose template sets the block `live` to `yes` is made again each second while
//!    somebody looks at it, once for all who may see the same, and what changed is sent to them. So what it reads must
//!    be cheap, and better shared: `app::App::status`.
//! 5. An entry of the menu: `nav.rs`.
//!
//! # How to write an action
//! A form by the macro `act` of `templates/act.html`, which asks for a reason and shows the command line that does the
//! same; a route by `Route::action`; a handler that takes `Form<…>` with a `reason` and calls
//! `app.act(&visit, Act { command, reason, back }, async { …; Ok("said to the visitor".into()) })`, which writes to the
//! audit first, then does it, and leads back to the page `back` with what was said. See `pages/now.rs`.
//!
//! What an event holds is shown only where `visit.sees_payload(stream)`, and always through `app.redaction()`.

mod access;
mod app;
mod assets;
mod chart;
mod command;
mod counting;
mod filters;
mod form;
mod front;
mod guard;
mod hub;
mod json;
mod link;
mod nav;
mod pages;
mod past;
mod problem;
mod range;
mod redact;
mod route;
mod router;
mod said;
mod seconds;
mod seen;
mod sentence;
mod serve;
mod server;
mod trend;
mod visit;

#[cfg(feature = "cli")]
pub(crate) use access::password::hash;
pub use serve::Web;

#[cfg(test)]
mod tests;
