//! Which environment variable sets which setting.

use super::tree::KeyPath;
use super::{nearest, read};

/// What the variables begin with that are meant for this program.
pub(super) const PREFIX: &str = "STREAMHAND_";

/// Variables of the program that are not settings: the file to read, and what is logged. What begins with `TEST_` is for
/// the tests of a handler crate.
const OTHERS: [&str; 3] = ["CONFIG", "LOG", "LOG_FORMAT"];

/// As deep as the TOML parser goes in a file. Much deeper tables could not even be dropped, which
/// happens recursively.
const DEEPEST: usize = 80;

/// What a variable is to this program.
pub(super) enum Meaning {
    /// It sets this.
    Setting(KeyPath),
    /// It is not meant for it.
    Nothing,
    /// It sets nothing, and was most likely meant to; the end of a sentence says what was meant.
    NearMiss(String),
}

/// What a variable is to this program. An error says what is wrong with the name of a setting.
///
/// Only names with two underscores are settings. Whatever else begins with `STREAMHAND_` may be anybody's: Kubernetes
/// gives every container variables about every service beside it, and one called `streamhand-worker` must not keep
/// workers from starting.
pub(super) fn meaning(variable: &str, value: &str) -> Result<Meaning, String> {
    let Some(name) = variable.strip_prefix(PREFIX) else {
        return Ok(Meaning::Nothing);
    };
    if name == "REDIS" {
        return Ok(Meaning::Setting(KeyPath::plain("redis.url")));
    }
    if OTHERS.contains(&name) || name.starts_with("TEST_") || is_service_link(name, value) {
        return Ok(Meaning::Nothing);
    }
    if !name.contains("__") {
        return Ok(near_miss(variable).map_or(Meaning::Nothing, Meaning::NearMiss));
    }
    let parts: Vec<String> = name.split("__").map(str::to_lowercase).collect();
    if parts.len() > DEEPEST {
        return Err(format!("leads into more than {DEEPEST} sections"));
    }
    if parts[0] == "app" && parts.len() > 1 && parts.iter().all(|part| !part.is_empty()) {
        let path = parts.iter().map(String::as_str).collect();
        return Ok(Meaning::Setting(path));
    }
    let known = read::known();
    match known.iter().find(|path| name_of(path) == variable) {
        Some(path) => Ok(Meaning::Setting(path.clone())),
        None => Err(advice(variable, &known)),
    }
}

/// What a variable with single underscores was most likely meant to be.
fn near_miss(variable: &str) -> Option<String> {
    let app = format!("{PREFIX}APP_");
    if let Some(key) = variable.strip_prefix(&app).filter(|key| !key.is_empty()) {
        let meant = format!("{PREFIX}APP__{key}");
        return Some(format!(
            "sets nothing: a setting's name has two underscores, as in {meant}"
        ));
    }
    let settings: Vec<String> = read::known().iter().map(name_of).collect();
    // What all begin with would make all of them alike.
    let bare = |name: &str| name[PREFIX.len()..].to_owned();
    let names: Vec<String> = settings.iter().map(|name| bare(name)).collect();
    let names = names.iter().map(String::as_str).chain(OTHERS);
    nearest::of(&bare(variable), names)
        .map(|name| format!("sets nothing; did you mean {PREFIX}{name}?"))
}

/// What a setting's variable is called.
fn name_of(path: &KeyPath) -> String {
    let parts: Vec<String> = path.keys().map(str::to_uppercase).collect();
    format!("{PREFIX}{}", parts.join("__"))
}

fn advice(variable: &str, known: &[KeyPath]) -> String {
    let names: Vec<String> = known.iter().map(name_of).collect();
    for section in ["HANDLERS", "STREAMS"] {
        if variable.starts_with(&format!("{PREFIX}{section}_")) {
            let section = section.to_lowercase();
            return format!("no variable can name a section of [{section}]; write it in the file");
        }
    }
    let within = format!("{variable}__");
    if let Some(name) = names.iter().find(|name| name.starts_with(&within)) {
        return format!("is a section; set what is in it one by one, as in {name}");
    }
    match nearest::of(variable, names.iter().map(String::as_str)) {
        Some(name) => format!("sets no setting; did you mean {name}?"),
        None => format!(
            "sets no setting; names are made as in {}",
            name_of(&KeyPath::plain("worker.lease"))
        ),
    }
}

/// What Kubernetes says about a service called `streamhand`, or `streamhand-redis`: not even a note.
fn is_service_link(name: &str, value: &str) -> bool {
    // `redis_service_port` as in `redis_service_port_metrics`, whatever stands before and after.
    let words = format!("_{name}_");
    let has = |part: &str| words.contains(part);
    let is_address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let protocol = has("_TCP_") || has("_UDP_") || has("_SCTP_");
    !name.contains("__")
        && (has("_SERVICE_HOST_")
            || has("_SERVICE_PORT_")
            || has("_PORT_") && (is_address || protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a variable means, in words.
    fn told(variable: &str, value: &str) -> String {
        match meaning(variable, value) {
            Ok(Meaning::Setting(path)) => path.to_string(),
            Ok(Meaning::Nothing) => "nothing".to_owned(),
            Ok(Meaning::NearMiss(why)) => format!("a note: {why}"),
            Err(why) => format!("refused: {why}"),
        }
    }

    #[test]
    fn two_underscores_lead_into_a_section() {
        for (variable, setting) in [
            ("STREAMHAND_WORKER__LEASE", "worker.lease"),
            (
                "STREAMHAND_RETRY__BACKOFF__INITIAL",
                "retry.backoff.initial",
            ),
            ("STREAMHAND_REDIS", "redis.url"),
            ("STREAMHAND_APP__SMTP__HOST", "app.smtp.host"),
        ] {
            assert_eq!(told(variable, "tcp://10.0.0.1:6379"), setting);
        }
    }

    #[test]
    fn variables_that_are_no_settings_are_passed_over() {
        for variable in [
            "PATH",
            "STREAMHAND_CONFIG",
            "STREAMHAND_LOG",
            "STREAMHAND_LOG_FORMAT",
            "STREAMHAND_TEST_REDIS",
            "STREAMHAND_SERVICE_HOST",
            "STREAMHAND_PORT",
            "STREAMHAND_PORT_6379_TCP_ADDR",
            "STREAMHAND_REDIS_SERVICE_PORT",
            "STREAMHAND_REDIS_SERVICE_PORT_REDIS",
            "STREAMHAND_REDIS_PORT",
            "STREAMHAND_REDIS_PORT_6379_TCP",
            "STREAMHAND_WORKER_PORT",
            "STREAMHAND_APP_PORT",
            "STREAMHAND_WORKER_LEASE_PORT",
            "STREAMHAND_COLOUR",
            "STREAMHAND_IMAGE_TAG",
            "STREAMHAND_VERSION",
            "STREAMHAND_",
        ] {
            assert_eq!(
                told(variable, "tcp://10.0.0.1:6379"),
                "nothing",
                "{variable}"
            );
        }
    }

    #[test]
    fn a_near_miss_is_a_note_and_a_wrong_setting_is_refused_with_the_nearest() {
        let all = [
            "STREAMHAND_WORKER_LEASE",
            "STREAMHAND_WORKER_GRUOP",
            "STREAMHAND_REDIS_URL",
            "STREAMHAND_APP_SMTP_HOST",
            "STREAMHAND_LOG_FROMAT",
            "STREAMHAND_WORKER__LAESE",
            "STREAMHAND_worker__lease",
            "STREAMHAND_RETRY__BACKOFF",
            "STREAMHAND_HANDLERS__ORDER_CREATED__TIMEOUT",
        ]
        .map(|variable| format!("{variable} {}", told(variable, "6379")))
        .join("\n");
        insta::assert_snapshot!(all, @"
        STREAMHAND_WORKER_LEASE a note: sets nothing; did you mean STREAMHAND_WORKER__LEASE?
        STREAMHAND_WORKER_GRUOP a note: sets nothing; did you mean STREAMHAND_WORKER__GROUP?
        STREAMHAND_REDIS_URL a note: sets nothing; did you mean STREAMHAND_REDIS__URL?
        STREAMHAND_APP_SMTP_HOST a note: sets nothing: a setting's name has two underscores, as in STREAMHAND_APP__SMTP_HOST
        STREAMHAND_LOG_FROMAT a note: sets nothing; did you mean STREAMHAND_LOG_FORMAT?
        STREAMHAND_WORKER__LAESE refused: sets no setting; did you mean STREAMHAND_WORKER__LEASE?
        STREAMHAND_worker__lease refused: sets no setting; did you mean STREAMHAND_WORKER__LEASE?
        STREAMHAND_RETRY__BACKOFF refused: is a section; set what is in it one by one, as in STREAMHAND_RETRY__BACKOFF__INITIAL
        STREAMHAND_HANDLERS__ORDER_CREATED__TIMEOUT refused: no variable can name a section of [handlers]; write it in the file
        ");
    }
}
