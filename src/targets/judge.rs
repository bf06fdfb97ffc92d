//! What a reply over HTTP means for an event: decisions without IO.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;

use super::answer::Answer;
use super::outcome::Outcome;
use super::request::Request;
use crate::config::TargetContract;
use crate::http_client::Reply;

/// The longest that a service may have an event wait.
const LONGEST: Duration = Duration::from_secs(3600);
/// Most bytes of a body that are kept as an error.
const ERROR_BYTES: usize = 1000;

/// What a reply means for the event that was sent.
pub(super) fn of_reply(reply: &Reply, contract: TargetContract, request: &Request) -> Outcome {
    let status = reply.status;
    match status.as_u16() {
        200..=299 if !reply.is_whole => Outcome::Failed {
            why: format!("answered {status} with more than 1 MiB, which is the most that is read"),
            counts: true,
        },
        200..=299 => match of_success(reply, contract, request) {
            Ok(outcome) => outcome,
            // The service may have done what it is there for, but can't say what is to leave.
            Err(why) => Outcome::Failed { why, counts: false },
        },
        400 | 413 | 415 | 422 => Outcome::Permanent(said(reply)),
        300..=399 | 401 | 403 | 404 | 405 | 410 => Outcome::WrongTarget(said(reply)),
        408 | 425 | 429 | 503 => match reply.retry_after() {
            Some(after) => Outcome::Later {
                after: after.min(LONGEST),
                why: said(reply),
            },
            None => Outcome::Failed {
                why: said(reply),
                counts: false,
            },
        },
        _ => Outcome::Failed {
            why: said(reply),
            counts: true,
        },
    }
}

fn of_success(
    reply: &Reply,
    contract: TargetContract,
    request: &Request,
) -> Result<Outcome, String> {
    let body = &reply.body[..];
    match contract {
        TargetContract::Status => Ok(done()),
        TargetContract::Answer if speaks_json(reply) => Answer::parse(body).map(Outcome::Answered),
        // "OK", or a page: nothing that could be meant to leave.
        TargetContract::Answer => Ok(done()),
        TargetContract::Dapr => of_dapr(body),
        TargetContract::Lambda => of_lambda(reply, request),
    }
}

fn done() -> Outcome {
    Outcome::Answered(Answer::default())
}

/// Whether a body is meant to be read: it is said to be JSON, or begins like an object. A service that forgets to say so
/// must not lose what it emits.
fn speaks_json(reply: &Reply) -> bool {
    let content_type = reply.headers.get(hyper::header::CONTENT_TYPE);
    let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let first = reply.body.iter().find(|byte| !byte.is_ascii_whitespace());
    content_type.is_some_and(|kind| kind.contains("json")) || first == Some(&b'{')
}

/// <https://docs.dapr.io/reference/api/pubsub_api/>, but for an event that it drops, which is buried here.
fn of_dapr(body: &[u8]) -> Result<Outcome, String> {
    #[derive(Deserialize)]
    struct Written {
        #[serde(default)]
        status: Option<String>,
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(done());
    }
    let written: Written = serde_json::from_slice(body)
        .map_err(|error| format!("its answer can't be read by Dapr's contract: {error}"))?;
    match written.status.as_deref() {
        None | Some("" | "SUCCESS") => Ok(done()),
        Some("RETRY") => Err("answered RETRY".to_owned()),
        Some("DROP") => Ok(Outcome::Permanent("answered DROP".to_owned())),
        Some(other) => Err(format!(
            "answered the status {other:?}; Dapr's contract has SUCCESS, RETRY and DROP"
        )),
    }
}

/// An answer as functions on AWS Lambda give it for a batch, here of one event. Whoever names an item that was not in it,
/// or none, says that all have failed.
fn of_lambda(reply: &Reply, request: &Request) -> Result<Outcome, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Written {
        #[serde(default)]
        batch_item_failures: Option<Vec<Item>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item {
        #[serde(default)]
        item_identifier: Option<String>,
    }
    if reply.headers.contains_key("x-amz-function-error") {
        return Err(format!(
            "the function failed: {}",
            reply.text_of(ERROR_BYTES)
        ));
    }
    let body = &reply.body[..];
    if body.iter().all(u8::is_ascii_whitespace) || body == b"null" {
        return Ok(done());
    }
    let written: Written = serde_json::from_slice(body)
        .map_err(|error| format!("its answer can't be read by Lambda's contract: {error}"))?;
    let failures = written.batch_item_failures.unwrap_or_default();
    let Some(first) = failures.first() else {
        return Ok(done());
    };
    let id = request.envelope.id();
    let is_it = |item: &Item| item.item_identifier.as_deref() == Some(&*id);
    Err(match failures.iter().any(is_it) {
        true => "is among its batchItemFailures".to_owned(),
        false => format!(
            "batchItemFailures has {:?}, which is not the id of the event, and so means all",
            first.item_identifier.as_deref().unwrap_or_default()
        ),
    })
}

/// The status and the beginning of the body.
fn said(reply: &Reply) -> String {
    let status = reply.status;
    let named = match status.canonical_reason() {
        Some(_) => status.to_string(),
        None => StatusCode::as_str(&status).to_owned(),
    };
    match reply.text_of(ERROR_BYTES) {
        text if text.is_empty() => format!("answered {named}"),
        text => format!("answered {named}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;
    use crate::context::Context;
    use crate::event::Envelope;

    fn reply(status: u16, headers: &[(&'static str, &str)], body: &str) -> Reply {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.insert(*name, value.parse().expect("a value"));
        }
        Reply {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: all,
            body: body.to_owned().into(),
            is_whole: true,
        }
    }

    fn judged(contract: TargetContract, reply: &Reply) -> String {
        let event = Envelope::new("a.b").with("id", "e-1");
        let ctx = Context::for_test_with(event, None);
        let request = Request::of(&ctx, Duration::from_secs(1));
        match of_reply(reply, contract, &request) {
            Outcome::Answered(_) => "done".to_owned(),
            Outcome::Permanent(why) => format!("permanent: {why}"),
            Outcome::WrongTarget(why) => format!("wrong: {why}"),
            Outcome::Later { after, why } => format!("later {}: {why}", after.as_secs()),
            Outcome::Failed { why, counts } => format!("failed {counts}: {why}"),
        }
    }

    #[test]
    fn whoever_says_when_to_come_again_is_waited_for_an_hour_at_most() {
        let said = |status, after: &str| {
            let reply = reply(status, &[("retry-after", after)], "busy");
            judged(TargetContract::Answer, &reply)
        };
        for status in [408, 425, 429, 503] {
            assert!(
                said(status, "7").starts_with("later 7: answered"),
                "{status}"
            );
            assert!(
                said(status, "86400").starts_with("later 3600: "),
                "{status}"
            );
            assert!(said(status, "Fri, 31 Dec 2286 08:49:37 GMT").starts_with("later 3600: "));
            assert!(said(status, "Sun, 06 Nov 1994 08:49:37 GMT").starts_with("later 0: "));
            assert!(
                said(status, "soon").starts_with("failed false: answered"),
                "{status}"
            );
        }
        // Others have no say in it.
        assert!(said(500, "7").starts_with("failed true: answered 500"));
        assert!(said(404, "7").starts_with("wrong: answered 404"));
    }

    #[test]
    fn the_contract_of_dapr_is_followed_and_drops_nothing() {
        let said = |body: &str| judged(TargetContract::Dapr, &reply(200, &[], body));
        for done in ["", "{}", r#"{"status": ""}"#, r#"{"status": "SUCCESS"}"#] {
            assert_eq!(said(done), "done");
        }
        assert_eq!(
            said(r#"{"status": "RETRY"}"#),
            "failed false: answered RETRY"
        );
        assert_eq!(said(r#"{"status": "DROP"}"#), "permanent: answered DROP");
        assert!(said(r#"{"status": "drop"}"#).contains("SUCCESS, RETRY and DROP"));
        assert!(said("OK").starts_with("failed false: its answer can't be read"));
        let gone = judged(TargetContract::Dapr, &reply(404, &[], ""));
        assert!(gone.starts_with("wrong: "), "{gone}");
    }

    #[test]
    fn the_contract_of_lambda_is_followed_for_a_batch_of_one() {
        let said = |body: &str| judged(TargetContract::Lambda, &reply(200, &[], body));
        for done in [
            "",
            "null",
            "{}",
            r#"{"batchItemFailures": null}"#,
            r#"{"batchItemFailures": []}"#,
        ] {
            assert_eq!(said(done), "done");
        }
        let of = |id: &str| {
            said(&format!(
                r#"{{"batchItemFailures": [{{"itemIdentifier": {id}}}]}}"#
            ))
        };
        assert_eq!(
            of("\"e-1\""),
            "failed false: is among its batchItemFailures"
        );
        for all in ["\"e-2\"", "\"\"", "null"] {
            assert!(
                of(all).contains("which is not the id of the event"),
                "{all}"
            );
        }
        let failed = reply(
            200,
            &[("x-amz-function-error", "Unhandled")],
            "{\"errorMessage\": \"no\"}",
        );
        assert!(judged(TargetContract::Lambda, &failed).contains("the function failed"));
    }

    #[test]
    fn what_is_no_answer_is_passed_over_and_what_is_cut_off_is_none() {
        let answer = |headers: &[(&'static str, &str)], body| {
            judged(TargetContract::Answer, &reply(200, headers, body))
        };
        for done in ["", "OK", "<html>", "[]"] {
            assert_eq!(answer(&[("content-type", "text/html")], done), "done");
        }
        let json = [("content-type", "application/json; charset=utf-8")];
        assert!(answer(&json, "\"OK\"").contains("no JSON object"));
        assert!(answer(&[], " {\"status\": \"ok\"}").contains("unknown field"));
        let status = judged(
            TargetContract::Status,
            &reply(200, &json, "{\"status\": \"ok\"}"),
        );
        assert_eq!(status, "done");
        let cut = Reply {
            is_whole: false,
            ..reply(200, &json, "{}")
        };
        assert!(judged(TargetContract::Answer, &cut).contains("1 MiB"));
    }
}
