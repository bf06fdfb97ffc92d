//! What cannot work in `[web]`.

use super::findings::Findings;
use super::secret::Secret;
use super::stream_name;
use super::tree::KeyPath;
use super::web::{
    SHORTEST_TOKEN, WebSettings, WebUser, is_header, is_host, prefix_of, refused_without, too_short,
};
use crate::called;

/// Everything in `[web]` that cannot work.
pub(super) fn check(web: &WebSettings, findings: &mut Findings) {
    let path = KeyPath::plain("web");
    if let Some(prefix) = &web.prefix
        && let Err(why) = prefix_of(prefix)
    {
        findings.add(path.key("prefix"), why);
    }
    for (index, host) in web.hosts.iter().enumerate() {
        if !is_host(host) {
            let message =
                format!("{host:?} is not a host; write a name, as in \"streams.example.com\"");
            findings.add(path.key("hosts").index(index), message);
        }
    }
    for (index, rule) in web.redact.iter().enumerate() {
        if rule.split('.').any(str::is_empty) {
            let message = format!("{rule:?} is no path of a field; write \"data.card\"");
            findings.add(path.key("redact").index(index), message);
        }
    }
    let header = web.identity_header.as_deref();
    if let Some(header) = header.filter(|header| !is_header(header)) {
        let message = format!("{header:?} is not the name of a header; write \"X-Forwarded-User\"");
        findings.add(path.key("identity_header"), message);
    }
    if header.is_some() && web.proxies.is_empty() {
        findings.add_with(
            path.key("identity_header"),
            vec![path.key("proxies")],
            "would be believed of nobody; name the proxies that send it in web.proxies",
        );
    }
    let any = web.authenticates();
    if let Some(listen) = web
        .listen
        .filter(|listen| !listen.ip().is_loopback() && !any)
    {
        findings.add_with(
            path.key("listen"),
            vec![path.key("users")],
            refused_without(listen),
        );
    }
    for (name, user) in &web.users {
        check_user(user, &path.key("users").key(name), findings);
    }
    if web.redis.password.is_some() && web.redis.password_file.is_some() {
        let message = "stands beside web.redis.password; leave one of them out";
        findings.add(path.key("redis").key("password_file"), message);
    }
}

fn check_user(user: &WebUser, path: &KeyPath, findings: &mut Findings) {
    if user.role.is_none() && user.streams.is_empty() {
        findings.add(
            path.key("role"),
            "is not set, so that they may do nothing; write \"view\", \"operate\" or \"admin\"",
        );
    }
    for stream in user.streams.keys() {
        if let Err(why) = stream_name(stream) {
            findings.add(
                path.key("streams").key(stream),
                format!("the stream name {why}"),
            );
        }
    }
    let hash = user.password_hash.as_ref().map(Secret::expose);
    if hash.is_some_and(|hash| !hash.starts_with("$argon2")) {
        findings.add(
            path.key("password_hash"),
            format!(
                "is not the hash of a password; make one with `{}`",
                called::command("web hash")
            ),
        );
    }
    if user
        .token
        .as_ref()
        .is_some_and(|token| token.expose().len() < SHORTEST_TOKEN)
    {
        findings.add(path.key("token"), too_short());
    }
    if user.token.is_some() && user.token_file.is_some() {
        findings.add(
            path.key("token_file"),
            "stands beside token; leave one of them out",
        );
    }
}
