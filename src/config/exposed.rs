//! Files with secrets in them that everyone on the machine can read.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use toml::{Table, Value};

use super::Settings;
use super::error::{Origin, Problem, ProblemKind};
use super::hidden::is_secret_key;
use super::secret::has_credentials;
use super::tree::{KeyPath, Tree};

/// A note on every such file that `settings` were read from, or name.
pub(super) fn notes(settings: &Settings, tree: &Tree) -> Vec<Problem> {
    let (redis, web) = (&settings.redis, &settings.web);
    let at = |key: &str| KeyPath::plain(key);
    let user_at = |name: &str| KeyPath::plain("web.users").key(name);
    let tokens = web.users.iter();
    let tokens = tokens.map(|(name, user)| {
        (
            user_at(name).key("token_file"),
            "the token",
            &user.token_file,
        )
    });
    let mut notes = Vec::new();
    for (key, what, file) in [
        (
            at("redis.password_file"),
            "the password",
            &redis.password_file,
        ),
        (at("redis.tls_key"), "the key", &redis.tls_key),
        (
            at("redis.sentinel.password_file"),
            "the password",
            &redis.sentinel.password_file,
        ),
        (
            at("redis.sentinel.tls_key"),
            "the key",
            &redis.sentinel.tls_key,
        ),
        (
            at("telemetry.token_file"),
            "the token",
            &settings.telemetry.token_file,
        ),
        (
            at("alerts.webhook_file"),
            "the webhook",
            &settings.alerts.webhook_file,
        ),
        (
            at("telemetry.otlp.headers_file"),
            "the headers",
            &settings.telemetry.otlp.headers_file,
        ),
        (
            at("web.redis.password_file"),
            "the password",
            &web.redis.password_file,
        ),
    ]
    .into_iter()
    .chain(tokens)
    {
        if let Some(mode) = file.as_deref().and_then(readable_by_all) {
            let message = exposed(what, file.as_deref(), mode);
            notes.push(note(tree.value_origin(&key), Some(key), message));
        }
    }
    if let Some((file, key)) = configuration(settings, tree)
        && let Some(mode) = readable_by_all(&file)
    {
        let message = exposed(&key.to_string(), None, mode);
        notes.push(note(Origin::File(file, None), None, message));
    }
    notes
}

/// The configuration file, if it says a secret, and the first setting that is one.
fn configuration(settings: &Settings, tree: &Tree) -> Option<(std::path::PathBuf, KeyPath)> {
    let redis = &settings.redis;
    let own = [
        (KeyPath::plain("redis.password"), redis.password.is_some()),
        (KeyPath::plain("redis.url"), redis.url.has_password()),
        (
            KeyPath::plain("redis.sentinel.password"),
            redis.sentinel.password.is_some(),
        ),
        (
            KeyPath::plain("telemetry.token"),
            settings.telemetry.token.is_some(),
        ),
        (
            KeyPath::plain("alerts.webhook"),
            settings.alerts.webhook.is_some(),
        ),
        (
            KeyPath::plain("telemetry.otlp.headers"),
            settings.telemetry.otlp.headers.is_some(),
        ),
    ];
    let web = &settings.web;
    let of_web = [
        (
            KeyPath::plain("web.redis.password"),
            web.redis.password.is_some(),
        ),
        (
            KeyPath::plain("web.redis.url"),
            web.redis.url.as_ref().is_some_and(|url| url.has_password()),
        ),
    ];
    let users = web.users.iter().flat_map(|(name, user)| {
        let at = KeyPath::plain("web.users").key(name);
        [
            (at.key("token"), user.token.is_some()),
            (at.key("password_hash"), user.password_hash.is_some()),
        ]
    });
    let own = own
        .into_iter()
        .chain(of_web)
        .chain(users)
        .filter(|(_, is_secret)| *is_secret);
    let app = secret_in(&KeyPath::plain("app"), &settings.app);
    own.map(|(path, _)| path).chain(app).find_map(|path| {
        // What only the environment says is in no file.
        tree.get(&path)?;
        match tree.value_origin(&path) {
            Origin::File(file, _) => Some((file, path)),
            _ => None,
        }
    })
}

/// The first of the user's own settings that looks like a secret.
fn secret_in(at: &KeyPath, table: &Table) -> Option<KeyPath> {
    table.iter().find_map(|(key, value)| {
        let path = at.key(key);
        match value {
            Value::Table(table) => secret_in(&path, table),
            Value::String(text) if text.is_empty() => None,
            Value::String(text) if has_credentials(text) => Some(path),
            _ => is_secret_key(key).then_some(path),
        }
    })
}

fn note(origin: Origin, key: Option<KeyPath>, message: String) -> Problem {
    Problem {
        kind: ProblemKind::Exposed,
        origin,
        key: key.map(|key| key.to_string()),
        message,
    }
}

fn exposed(what: &str, file: Option<&Path>, mode: u32) -> String {
    let file = file.map_or_else(|| "it".to_owned(), |file| file.display().to_string());
    format!(
        "everyone on this machine can read {what}: {file} has mode {mode:04o}; chmod 600 it, or 640 for a group"
    )
}

/// The mode of a file that others than its owner and its group may read.
fn readable_by_all(file: &Path) -> Option<u32> {
    let data = std::fs::metadata(file).ok()?;
    let mode = data.permissions().mode() & 0o7777;
    (data.is_file() && mode & 0o004 != 0).then_some(mode)
}
