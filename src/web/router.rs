//! All routes, and what stands before them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::get;
use tower_http::csrf::CsrfLayer;

use super::app::App;
use super::hub::{self, Hub, LIVE};
use super::problem::Problem;
use super::route::Route;
use super::{assets, front, guard, pages};

/// Largest form: one event to be edited.
const LARGEST: usize = 1 << 20;

/// Everything that is served. A request comes to it through `front::arrived`.
pub(super) fn router(app: App) -> Router {
    let pages = behind_the_guard(&app, pages::routes());
    let hub = Hub::new(app.clone(), pages.clone());
    let live: Router = Router::new()
        .route(LIVE, get(hub::live))
        .with_state(Arc::clone(&hub));
    let known = pages
        .merge(live)
        .fallback(|| async { Problem::not_found("there is no such page") })
        .layer(CsrfLayer::new())
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(from_fn_with_state(app, guard::guard));
    // What is the same for everybody needs nobody's name.
    let open: Router = Router::new()
        .route(assets::ROUTE, get(assets::asset))
        .route("/health", get(|| async { StatusCode::NO_CONTENT }));
    open.fallback_service(known)
        .layer(map_response(|response: Response<Body>| async {
            front::leaving(response)
        }))
}

/// The routes, each behind the role it needs.
fn behind_the_guard(app: &App, routes: Vec<Route>) -> Router {
    let mut router = Router::new();
    for route in routes {
        let needs = (app.clone(), route.needs, route.scope);
        let handler = route.handler.layer(from_fn_with_state(needs, guard::may));
        router = router.route(route.path, handler);
    }
    router.with_state(app.clone())
}
