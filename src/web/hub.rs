//! Open pages that are kept up to date: one page is made again each second for all who look at it and may see the same,
//! and what changed is sent to them as server-sent events.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;

use super::app::App;
use super::problem::Problem;
use super::visit::parameter;
use super::visit::{Rights, Visit, Wants};
use crate::sync::lock;

/// Pages that are open at most. Those behind them are still served, and do not live.
const MOST: usize = 200;
const EVERY: Duration = Duration::from_secs(1);
/// A proxy closes what is silent.
const ALIVE: Duration = Duration::from_secs(15);
const LARGEST: usize = 4 << 20;

/// What all who see the same page have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    page: String,
    prefix: String,
    rights: String,
}

/// The pages that somebody looks at.
pub(super) struct Hub {
    app: App,
    /// The routes behind the guard: what stands before them has let the visitor in.
    pages: Router,
    watched: Mutex<HashMap<Key, watch::Sender<Arc<str>>>>,
    places: Arc<Semaphore>,
    /// How many have come to look: what was begun to be made before somebody came is not for them.
    came: AtomicU64,
}

impl Hub {
    pub fn new(app: App, pages: Router) -> Arc<Self> {
        Arc::new(Hub {
            app,
            pages,
            watched: Mutex::default(),
            places: Arc::new(Semaphore::new(MOST)),
            came: AtomicU64::new(0),
        })
    }

    /// What is sent to one who looks at a page. It ends when the program stops.
    async fn follow(self: Arc<Self>, visit: Visit) -> Result<Response, Problem> {
        let page = parameter(&visit.query, "page").unwrap_or_else(|| "/".to_owned());
        if !page.starts_with('/') || page.starts_with("/live") || page.starts_with("//") {
            return Err(Problem::wrong("the address names no page; write ?page=/"));
        }
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{MOST} pages are open already; this one does not live");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })?;
        let seen = self.clone().watch(page, &visit);
        let stop = self.app.stop().clone();
        let events = stream::unfold((seen, stop, place), |(mut seen, stop, place)| async move {
            let next = async {
                loop {
                    seen.changed().await.ok()?;
                    let page = seen.borrow_and_update().clone();
                    if !page.is_empty() {
                        return Some(Event::default().event("main").data(&*page));
                    }
                }
            };
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                event = next => event,
            };
            Some((Ok::<_, Infallible>(event?), (seen, stop, place)))
        });
        let alive = KeepAlive::new().interval(ALIVE);
        let mut response = Sse::new(events).keep_alive(alive).into_response();
        // Proxies such as nginx would keep it back until it is whole.
        let unbuffered = axum::http::HeaderValue::from_static("no");
        response
            .headers_mut()
            .insert("x-accel-buffering", unbuffered);
        Ok(response)
    }

    fn watch(self: Arc<Self>, page: String, visit: &Visit) -> watch::Receiver<Arc<str>> {
        let Rights { role, streams } = &visit.rights;
        let key = Key {
            page,
            prefix: visit.prefix.clone(),
            rights: format!("{role:?} {streams:?}"),
        };
        let mut watched = lock(&self.watched);
        if let Some(sender) = watched.get(&key) {
            // What there is may be older than the page that it is for, which may show what was just done: all are sent the
            // next one, whatever is in it.
            self.came.fetch_add(1, Ordering::SeqCst);
            sender.send_modify(|known| *known = Arc::from(""));
            return sender.subscribe();
        }
        let (sender, seen) = watch::channel(Arc::from(""));
        watched.insert(key.clone(), sender);
        drop(watched);
        tokio::spawn(self.clone().make_again(key, visit.clone()));
        seen
    }

    /// Makes a page again and again, as long as somebody looks at it.
    async fn make_again(self: Arc<Self>, key: Key, mut visit: Visit) {
        visit.wants = Wants::Main;
        visit.said = None;
        let (path, query) = key.page.split_once('?').unwrap_or((&key.page, ""));
        (visit.path, visit.query) = (path.to_owned(), query.to_owned());
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.app.stop().cancelled() => break,
                _ = every.tick() => {}
            }
            let came = self.came.load(Ordering::SeqCst);
            let page = self.page(&key, &visit).await;
            let mut watched = lock(&self.watched);
            let Some(sender) = watched.get(&key) else {
                break;
            };
            if sender.is_closed() {
                watched.remove(&key);
                break;
            }
            if let Some(page) = page.filter(|_| came == self.came.load(Ordering::SeqCst)) {
                sender.send_if_modified(|known| {
                    let is_new = **known != *page;
                    if is_new {
                        *known = page.into();
                    }
                    is_new
                });
            }
        }
        lock(&self.watched).remove(&key);
    }

    /// None where it can't be made now: what was seen last stays.
    async fn page(&self, key: &Key, visit: &Visit) -> Option<String> {
        let mut request = Request::get(&key.page).body(Body::empty()).ok()?;
        request.extensions_mut().insert(visit.clone());
        let response = self.pages.clone().oneshot(request).await.ok()?;
        if response.status() != StatusCode::OK {
            return None;
        }
        let body = to_bytes(response.into_body(), LARGEST).await.ok()?;
        let page = String::from_utf8(body.to_vec()).ok()?;
        // An event can't carry it.
        Some(page.replace('\r', " "))
    }
}

/// The route by which open pages are kept up to date.
pub(super) fn live(
    State(hub): State<Arc<Hub>>,
    visit: Visit,
) -> impl Future<Output = Result<Response, Problem>> {
    hub.follow(visit)
}

/// Where that is; `Route` has no place for another state.
pub(super) const LIVE: &str = "/live";
