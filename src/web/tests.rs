//! Every route with every role, by the router's own list; and what stands before the routes.

use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::app::App;
use super::route::Scope;
use super::{front, pages, router};
use crate::config::{Role, Settings, WebSettings, WebUser};

const ROLES: [Role; 3] = [Role::View, Role::Operate, Role::Admin];

/// What each route is meant to need. A route that is not here, or needs something else, fails the test.
const MEANT: &[(&str, &str, Role, Scope)] = &[
    ("GET", "/", Role::View, Scope::Any),
    ("GET", "/dead", Role::View, Scope::Any),
    ("GET", "/dead/group", Role::View, Scope::Stream),
    ("GET", "/dead/letter", Role::View, Scope::Stream),
    ("GET", "/dead/export", Role::Operate, Scope::Stream),
    ("POST", "/dead/replay", Role::Operate, Scope::Stream),
    ("POST", "/dead/stop", Role::Operate, Scope::Stream),
    ("POST", "/dead/resume", Role::Operate, Scope::Stream),
    ("POST", "/dead/purge", Role::Admin, Scope::Stream),
    ("POST", "/dead/undo", Role::Admin, Scope::Stream),
    ("POST", "/dead/edit", Role::Admin, Scope::Stream),
    ("POST", "/dead/note", Role::Operate, Scope::Stream),
    ("POST", "/dead/assign", Role::Operate, Scope::Stream),
    ("POST", "/dead/hold", Role::Operate, Scope::Stream),
    ("POST", "/dead/release", Role::Operate, Scope::Stream),
    ("GET", "/find", Role::View, Scope::Any),
    ("GET", "/entry", Role::View, Scope::Any),
    ("GET", "/scheduled", Role::View, Scope::Any),
    ("GET", "/crons", Role::View, Scope::Any),
    ("POST", "/crons/pause", Role::Operate, Scope::Stream),
    ("POST", "/crons/resume", Role::Operate, Scope::Stream),
    ("POST", "/crons/trigger", Role::Operate, Scope::Stream),
    ("GET", "/projections", Role::View, Scope::Any),
    ("GET", "/aggregates", Role::View, Scope::Any),
    ("GET", "/limits", Role::View, Scope::Any),
    ("GET", "/redis", Role::View, Scope::Any),
    ("GET", "/audit", Role::View, Scope::Every),
    ("POST", "/scheduled/cancel", Role::Operate, Scope::Stream),
    ("POST", "/projections/resume", Role::Operate, Scope::Stream),
    ("POST", "/limits/pause", Role::Operate, Scope::Stream),
    ("POST", "/limits/resume", Role::Operate, Scope::Stream),
    ("POST", "/streams/pause", Role::Operate, Scope::Stream),
    ("POST", "/streams/resume", Role::Operate, Scope::Stream),
    ("GET", "/flow", Role::View, Scope::Any),
    ("GET", "/types", Role::View, Scope::Any),
    ("GET", "/workers", Role::View, Scope::Any),
    ("POST", "/workers/quiet", Role::Operate, Scope::Every),
    ("POST", "/workers/drain", Role::Operate, Scope::Every),
    ("POST", "/workers/resume", Role::Operate, Scope::Every),
];

fn token(role: Role) -> String {
    format!("a token of the {role} role")
}

/// A group of two streams at a Redis that is not there; a user for each role, and one with a role on one stream alone.
fn settings() -> Settings {
    let mut web = WebSettings::default();
    for role in ROLES {
        web = web.user(role.to_string(), WebUser::new(role).token(token(role)));
    }
    let one = WebUser::default().stream("orders", Role::Admin);
    web = web.user("one", one.token("a token for one stream"));
    let mut settings = Settings::default().web(web);
    settings.redis.url = "redis://127.0.0.1:1".parse().expect("a URL");
    settings.worker.group = "fulfilment".to_owned();
    settings.worker.streams = vec!["orders".to_owned(), "payments".to_owned()];
    settings
}

struct Site {
    app: App,
    router: Router,
}

impl Site {
    fn new(settings: &Settings) -> Self {
        let app = App::new(settings, None, CancellationToken::new()).expect("an app");
        Site {
            router: router::router(app.clone()),
            app,
        }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        self.ask_from("127.0.0.1:5000", method, path, headers).await
    }

    async fn ask_from(
        &self,
        from: &str,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:9465");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match method {
            "POST" => {
                request = request.header("content-type", "application/x-www-form-urlencoded");
                Body::from("reason=test")
            }
            _ => Body::empty(),
        };
        let from: SocketAddr = from.parse().expect("an address");
        let prefix = self.app.settings().web.prefix.clone();
        let request = request.body(body).expect("a request");
        let request = front::arrived(request, from, self.app.access(), prefix.as_deref());
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    async fn status(&self, path: &str, headers: &[(&str, &str)]) -> u16 {
        self.ask("GET", path, headers).await.status().as_u16()
    }
}

async fn text(response: Response<Body>) -> String {
    let body = to_bytes(response.into_body(), 1 << 20)
        .await
        .expect("a body");
    String::from_utf8(body.to_vec()).expect("UTF-8")
}

#[test]
fn every_route_needs_what_it_is_meant_to() {
    let is: Vec<String> = pages::routes()
        .iter()
        .map(|route| {
            format!(
                "{:?}",
                (route.method.as_str(), route.path, route.needs, route.scope)
            )
        })
        .collect();
    let meant: Vec<String> = MEANT.iter().map(|meant| format!("{meant:?}")).collect();
    let mut unmeant = is.clone();
    unmeant.retain(|route| !meant.contains(route));
    let mut gone = meant;
    gone.retain(|route| !is.contains(route));
    assert!(
        unmeant.is_empty() && gone.is_empty(),
        "routes that MEANT does not say: {unmeant:#?}, and that are not: {gone:#?}"
    );
    for route in pages::routes() {
        let writes = route.method != Method::GET;
        assert!(
            !writes || route.needs >= Role::Operate,
            "{} writes",
            route.path
        );
    }
}

#[tokio::test]
async fn no_role_gets_further_than_its_routes() {
    let site = Site::new(&settings());
    for (method, path, needs, scope) in MEANT {
        let path = match scope {
            Scope::Stream => format!("{path}?stream=payments"),
            Scope::Any | Scope::Every => (*path).to_owned(),
        };
        assert_eq!(
            site.ask(method, &path, &[]).await.status(),
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
        for role in ROLES {
            let bearer = format!("Bearer {}", token(role));
            let response = site.ask(method, &path, &[("authorization", &bearer)]).await;
            let is_refused = response.status() == StatusCode::FORBIDDEN;
            assert_eq!(
                is_refused,
                role < *needs,
                "{method} {path} as {role}: {}",
                response.status()
            );
        }
        // Their one stream is not this one, nor is it every one.
        let of_one = [("authorization", "Bearer a token for one stream")];
        let status = site.ask(method, &path, &of_one).await.status();
        assert_eq!(
            status == StatusCode::FORBIDDEN,
            *scope != Scope::Any,
            "{method} {path}: {status}"
        );
    }
}

#[tokio::test]
async fn an_action_is_for_forms_of_ours() {
    let site = Site::new(&settings());
    let bearer = format!("Bearer {}", token(Role::Admin));
    let path = "/streams/pause?stream=orders";
    for (name, value, refused) in [
        ("sec-fetch-site", "cross-site", true),
        ("sec-fetch-site", "same-site", true),
        ("origin", "https://evil.example", true),
        ("origin", "null", true),
        ("sec-fetch-site", "same-origin", false),
        ("origin", "http://localhost:9465", false),
    ] {
        let headers = [("authorization", &bearer[..]), (name, value)];
        let status = site.ask("POST", path, &headers).await.status();
        assert_eq!(
            status == StatusCode::FORBIDDEN,
            refused,
            "{name}: {value}: {status}"
        );
    }
    let headers = [("authorization", &bearer[..])];
    assert_eq!(
        site.ask("GET", path, &headers).await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(
        site.ask("POST", "/", &headers).await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    let elsewhere = site
        .ask("POST", "/streams/pause?stream=invoices", &headers)
        .await;
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        site.ask("POST", "/streams/pause", &headers).await.status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn another_sites_name_leads_nowhere() {
    let mut settings = settings();
    settings.web = WebSettings::default().hosts(["streams.example.com"]);
    let site = Site::new(&settings);
    for host in [
        "evil.example",
        "evil.example:9465",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
    ] {
        assert_eq!(
            site.status("/nothing", &[("host", host)]).await,
            421,
            "{host}"
        );
    }
    for host in [
        "localhost",
        "127.0.0.1:9465",
        "[::1]:9465",
        "10.1.2.3",
        "Streams.Example.com:443",
    ] {
        assert_eq!(
            site.status("/nothing", &[("host", host)]).await,
            404,
            "{host}"
        );
    }
}

#[tokio::test]
async fn who_is_not_asked_is_not_let_in_through_a_proxy() {
    let mut settings = settings();
    settings.web = WebSettings::default();
    let forwarded = [("x-forwarded-for", "203.0.113.7")];
    assert_eq!(
        Site::new(&settings).status("/nothing", &forwarded).await,
        403
    );
    settings.web.proxies = vec!["127.0.0.1".parse().expect("an address")];
    assert_eq!(
        Site::new(&settings).status("/nothing", &forwarded).await,
        404
    );
}

#[tokio::test]
async fn a_prefix_is_a_proxys_word_or_a_setting() {
    let mut settings = settings();
    settings.web = WebSettings::default().proxies(vec!["10.0.0.1".parse().expect("an address")]);
    let site = Site::new(&settings);
    let home = async |site: &Site, from: &str, path: &str, prefix: &str| {
        let headers = [("x-forwarded-prefix", prefix)];
        let response = site.ask_from(from, "GET", path, &headers).await;
        let page = text(response).await;
        page.split("class=\"brand\" href=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap_or("")
            .to_owned()
    };
    let proxy = "10.0.0.1:5000";
    assert_eq!(
        home(&site, proxy, "/nothing", "/ops/streams").await,
        "/ops/streams/"
    );
    assert_eq!(
        home(&site, proxy, "/ops/streams/nothing", "/ops/streams").await,
        "/ops/streams/"
    );
    assert_eq!(
        home(&site, proxy, "/nothing", "//evil.example").await,
        "/evil.example/"
    );
    assert_eq!(home(&site, proxy, "/nothing", "/\"><script>").await, "/");
    assert_eq!(home(&site, "10.0.0.2:5000", "/nothing", "/ops").await, "/");
    settings.web.prefix = Some("/pages".to_owned());
    let site = Site::new(&settings);
    assert_eq!(
        home(&site, "10.0.0.2:5000", "/pages/nothing", "/ops").await,
        "/pages/"
    );
    assert_eq!(site.status("/pages/health", &[]).await, 204);
}

#[tokio::test]
async fn every_response_tells_a_browser_what_it_may_do() {
    let site = Site::new(&settings());
    let style = super::assets::path_of("style.css");
    let bearer = format!("Bearer {}", token(Role::View));
    for path in [
        "/",
        "/nothing",
        "/health",
        style,
        "/assets/nothing.css",
        "/live?page=/",
    ] {
        for headers in [&[][..], &[("authorization", &bearer[..])]] {
            let response = site.ask("GET", path, headers).await;
            let header = |name: &str| {
                response
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or("")
            };
            let policy = header("content-security-policy");
            assert!(
                policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
                "{path}: {policy}"
            );
            assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(header("x-frame-options"), "DENY", "{path}");
            let kept = header("cache-control");
            assert_eq!(kept.contains("immutable"), path == style, "{path}: {kept}");
            assert!(kept.contains("no-") || path == style, "{path}: {kept}");
        }
    }
}

#[tokio::test]
async fn a_file_is_sent_once() {
    let site = Site::new(&settings());
    let style = super::assets::path_of("style.css");
    let first = site.ask("GET", style, &[]).await;
    assert_eq!(first.status(), StatusCode::OK);
    let tag = first.headers()["etag"].to_str().expect("a tag").to_owned();
    let again = site.ask("GET", style, &[("if-none-match", &tag)]).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert!(text(again).await.is_empty());
}

#[tokio::test]
async fn a_refusal_is_a_page_or_json() {
    let site = Site::new(&settings());
    let page = text(site.ask("GET", "/", &[]).await).await;
    assert!(
        page.contains("<h1>Unauthorized</h1>") && page.contains("say who you are"),
        "{page}"
    );
    let json = text(site.ask("GET", "/now.json", &[]).await).await;
    assert!(json.starts_with("{\"error\":\"say who you are"), "{json}");
    let asked = site.ask("GET", "/", &[]).await;
    let asks: Vec<_> = asked.headers().get_all("www-authenticate").iter().collect();
    assert_eq!(asks.len(), 2, "{asks:?}");
}
