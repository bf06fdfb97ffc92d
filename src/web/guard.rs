//! Who may pass. Before a page: whether the host is one of ours, who the visitor is, whether the request comes from a
//! page of ours, and whether the visitor may do this.

use askama::Template;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};

use super::access::{Somebody, Stranger};
use super::app::App;
use super::filters;
use super::front::Front;
use super::problem::Problem;
use super::route::Scope;
use super::visit::{Frame, Rights, Visit, Wants, parameter};
use crate::config::Role;
use crate::partition::Partition;

/// How long a page may take.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(30);

/// Around everything: who is it, and what did it come to?
pub(super) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let front = request.extensions().get::<Front>().cloned();
    let front = front.expect("every request comes through the front");
    let mut visit = visit(&app, &front, &request);
    if let Err(refused) = host(&app, request.headers()) {
        return said(refused.into_response(), &visit);
    }
    if let Err(refused) = proxy(&app, &front, request.headers()) {
        return said(refused.into_response(), &visit);
    }
    let who = app.access().who(front.from, request.headers()).await;
    match who {
        Ok(Somebody { who, rights }) => (visit.who, visit.rights) = (who, rights),
        Err(stranger) => return said(refuse(&app, stranger), &visit),
    }
    request.extensions_mut().insert(visit.clone());
    let response = match tokio::time::timeout(LONGEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!(
                "this took longer than {} s, and was given up",
                LONGEST.as_secs()
            ),
        )
        .into_response(),
    };
    said(response, &visit)
}

/// Before one route: may the visitor do this?
pub(super) async fn may(
    State((app, needs, scope)): State<(App, Role, Scope)>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let visit = request.extensions_mut().get_mut::<Visit>();
    let visit = visit.expect("the guard is before every route");
    let named = parameter(&visit.query, "stream");
    app.follow_topics().await;
    let admin = app.admin();
    let streams = admin.streams();
    if scope == Scope::Stream && named.is_none() {
        return Err(Problem::wrong(
            "the address names no stream; write ?stream=orders",
        ));
    }
    let may = match scope {
        Scope::Stream => {
            let named = named.unwrap_or_default();
            // A topic stands for all of its partitions where a stream is paused or resumed.
            let is_for_topics = visit.path.contains("/streams/");
            let parts = streams.iter().filter(|stream| is_of(stream, &named));
            let parts: Vec<String> = parts.filter(|_| is_for_topics).cloned().collect();
            let may = match streams.contains(&named) || parts.is_empty() {
                true => visit.may(needs, &named),
                false => visit.may_all(needs, &parts),
            };
            // Whoever may not see a stream is not told whether there is one.
            if may && parts.is_empty() && !streams.contains(&named) {
                return Err(Problem::not_found(format!(
                    "{named:?} is none of the group's streams"
                )));
            }
            visit.stream = Some(named);
            may
        }
        Scope::Any => streams.iter().any(|stream| visit.may(needs, stream)),
        Scope::Every => visit.may_all(needs, streams),
    };
    if !may {
        let of = match scope {
            Scope::Stream => "with this stream",
            Scope::Any => "with any stream of this group",
            Scope::Every => "with every stream of this group",
        };
        return Err(Problem::forbidden(format!(
            "this needs the role {needs} {of}, which {} has not",
            visit.who
        )));
    }
    Ok(next.run(request).await)
}

/// Whether a stream is a partition of this topic.
fn is_of(stream: &str, topic: &str) -> bool {
    Partition::parse(stream).is_some_and(|partition| partition.topic == topic)
}

fn visit(app: &App, front: &Front, request: &Request) -> Visit {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let accepts = request.headers().get(header::ACCEPT);
    let accepts = accepts
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let wants_json =
        front.json || accepts.contains("application/json") && !accepts.contains("text/html");
    Visit {
        who: String::new(),
        rights: Rights::default(),
        prefix: front.prefix.clone(),
        path: request.uri().path().to_owned(),
        said: parameter(&query, "said").and_then(|number| app.said().get(&number)),
        query,
        wants: if wants_json { Wants::Json } else { Wants::Page },
        group: app.admin().group().to_owned(),
        stream: None,
    }
}

/// Another site can have a name of its own lead here, and would then be one with us to a browser; but not an address.
fn host(app: &App, headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.ok_or_else(|| Problem::wrong("the request names no host"))?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let is_address = bare.parse::<std::net::IpAddr>().is_ok();
    let is_ours = |known: &String| known.eq_ignore_ascii_case(name);
    if is_address || name.eq_ignore_ascii_case("localhost") || app.hosts().iter().any(is_ours) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        format!("{name:?} is not a name of this server; if it is to be, add it to web.hosts"),
    ))
}

/// Without authentication the pages are for this machine. A proxy on it would show them to whoever comes to it.
fn proxy(app: &App, front: &Front, headers: &HeaderMap) -> Result<(), Problem> {
    const TELL_TALES: [&str; 4] = [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
    ];
    let came = TELL_TALES.iter().any(|name| headers.contains_key(*name));
    if !came || app.settings().web.authenticates() || app.access().is_proxy(front.from) {
        return Ok(());
    }
    Err(Problem::forbidden(
        "this came through a proxy, and nobody is asked here who they are: set web.users, or web.identity_header, or name \
         the proxy in web.proxies if whoever reaches it may come in",
    ))
}

fn refuse(app: &App, stranger: Stranger) -> Response {
    let message = match stranger {
        Stranger::Unsaid => "say who you are: a name and a password, or a token",
        Stranger::Wrong => "this name and password, or this token, are not right",
        Stranger::Unknown => {
            "you are known to the proxy, but nobody has said what you may do here: web.users, or web.role"
        }
    };
    let status = match stranger {
        Stranger::Unknown => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    let mut response = Problem::new(status, message).into_response();
    if status == StatusCode::UNAUTHORIZED && app.access().asks() {
        let asks = HeaderValue::from_static("Basic realm=\"streamhand\", charset=\"UTF-8\"");
        response
            .headers_mut()
            .append(header::WWW_AUTHENTICATE, asks);
        let asks = HeaderValue::from_static("Bearer realm=\"streamhand\"");
        response
            .headers_mut()
            .append(header::WWW_AUTHENTICATE, asks);
    }
    response
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    frame: Frame,
    problem: Problem,
}

/// What went wrong, as the visitor wants it.
fn said(mut response: Response, visit: &Visit) -> Response {
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        // What axum refuses by itself, such as a form that lacks a field.
        None if response.status().is_client_error() => refused_by_axum(response.status()),
        None => return response,
    };
    let mut known = match visit.wants {
        Wants::Json => {
            let error = serde_json::json!({ "error": problem.message });
            (problem.status, axum::Json(error)).into_response()
        }
        Wants::Page | Wants::Main => {
            let status = problem.status;
            let frame = visit.frame(status.canonical_reason().unwrap_or("Refused"));
            let text = problem.message.clone();
            match (ProblemPage { frame, problem }).render() {
                Ok(page) => (status, Html(page)).into_response(),
                Err(_) => (status, text).into_response(),
            }
        }
    };
    // The body is another one; who asks for a password still has to.
    for (name, value) in response.headers() {
        if name == header::WWW_AUTHENTICATE || name == header::ALLOW || name == header::RETRY_AFTER
        {
            known.headers_mut().append(name, value.clone());
        }
    }
    known
}

fn refused_by_axum(status: StatusCode) -> Problem {
    let message = match status {
        StatusCode::NOT_FOUND => "there is no such page",
        StatusCode::METHOD_NOT_ALLOWED => {
            "this address is for the other method: pages are read with GET, actions sent with POST"
        }
        StatusCode::PAYLOAD_TOO_LARGE => "this form is too large",
        StatusCode::FORBIDDEN => "this request comes from another site's page",
        _ => "the request lacks something, or has what can't be read",
    };
    Problem::new(status, message)
}
