//! Which environment variable sets which setting.

use super::tree::KeyPath;
use super::{nearest, read};

/// What the variables begin with that are meant for this program.
pub(super) const PREFIX: &str = "STREAMHAND_";

/// As deep as the TOML parser goes in a file. Much deeper tables could not even be dropped, which
/// happens recursively.
const DEEPEST: usize = 80;

/// The setting that a variable sets; none where it is not a setting's. An error says what is wrong
/// with the name.
pub(super) fn setting(variable: &str, value: &str) -> Result<Option<KeyPath>, String> {
    let Some(name) = variable.strip_prefix(PREFIX) else {
        return Ok(None);
    };
    if name == "REDIS" {
        return Ok(Some(KeyPath::plain("redis.url")));
    }
    if is_reserved(name) || is_service_link(name, value) {
        return Ok(None);
    }
    let parts: Vec<String> = name.split("__").map(str::to_lowercase).collect();
    if parts.len() > DEEPEST {
        return Err(format!("leads into more than {DEEPEST} sections"));
    }
    if parts[0] == "app" && parts.len() > 1 && parts.iter().all(|part| !part.is_empty()) {
        return Ok(Some(parts.iter().map(String::as_str).collect()));
    }
    let known = read::known();
    match known.iter().find(|path| name_of(path) == variable) {
        Some(path) => Ok(Some(path.clone())),
        None => Err(advice(variable, &known)),
    }
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

/// Variables of the program that are not settings: the file to read, what is logged, and what the
/// tests of a handler crate need.
fn is_reserved(name: &str) -> bool {
    name == "CONFIG" || name.starts_with("LOG") || name.starts_with("TEST_")
}

/// Kubernetes gives every container variables about every service beside it. A service called
/// `streamhand`, or `streamhand-redis`, must not keep workers from starting.
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

    fn path(variable: &str) -> Option<String> {
        let value = "tcp://10.0.0.1:6379";
        let path = setting(variable, value).expect(variable);
        path.map(|path| path.to_string())
    }

    #[test]
    fn two_underscores_lead_into_a_section() {
        assert_eq!(
            path("STREAMHAND_WORKER__LEASE").as_deref(),
            Some("worker.lease")
        );
        assert_eq!(
            path("STREAMHAND_RETRY__BACKOFF__INITIAL").as_deref(),
            Some("retry.backoff.initial")
        );
        assert_eq!(path("STREAMHAND_REDIS").as_deref(), Some("redis.url"));
        assert_eq!(
            path("STREAMHAND_APP__SMTP__HOST").as_deref(),
            Some("app.smtp.host")
        );
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
        ] {
            assert_eq!(path(variable), None, "{variable}");
        }
    }

    #[test]
    fn unknown_variables_are_refused_with_the_nearest() {
        let refusals = [
            "STREAMHAND_WORKER_LEASE",
            "STREAMHAND_WORKER__LAESE",
            "STREAMHAND_worker__lease",
            "STREAMHAND_REDIS_PORT",
            "STREAMHAND_RETRY__BACKOFF",
            "STREAMHAND_WORKER",
            "STREAMHAND_HANDLERS__ORDER_CREATED__TIMEOUT",
            "STREAMHAND_COLOUR",
            "STREAMHAND_APP",
            "STREAMHAND_",
        ]
        .map(|variable| {
            let refusal = setting(variable, "6379").expect_err(variable);
            format!("{variable} {refusal}")
        })
        .join("\n");
        insta::assert_snapshot!(refusals, @"
        STREAMHAND_WORKER_LEASE sets no setting; did you mean STREAMHAND_WORKER__LEASE?
        STREAMHAND_WORKER__LAESE sets no setting; did you mean STREAMHAND_WORKER__LEASE?
        STREAMHAND_worker__lease sets no setting; did you mean STREAMHAND_WORKER__LEASE?
        STREAMHAND_REDIS_PORT sets no setting; did you mean STREAMHAND_REDIS__URL?
        STREAMHAND_RETRY__BACKOFF is a section; set what is in it one by one, as in STREAMHAND_RETRY__BACKOFF__INITIAL
        STREAMHAND_WORKER is a section; set what is in it one by one, as in STREAMHAND_WORKER__GROUP
        STREAMHAND_HANDLERS__ORDER_CREATED__TIMEOUT no variable can name a section of [handlers]; write it in the file
        STREAMHAND_COLOUR sets no setting; names are made as in STREAMHAND_WORKER__LEASE
        STREAMHAND_APP sets no setting; names are made as in STREAMHAND_WORKER__LEASE
        STREAMHAND_ sets no setting; names are made as in STREAMHAND_WORKER__LEASE
        ");
    }
}
