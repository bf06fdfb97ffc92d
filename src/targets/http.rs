//! A target at an address: an event is one request, CloudEvents over HTTP, signed as Standard Webhooks have it.

mod files;
mod headers;
mod signature;

use std::path::Path;
use std::time::{Duration, SystemTime};

use url::Url;

use self::files::text_of;
use super::judge;
use super::outcome::Outcome;
use super::request::Request;
use crate::config::{TargetContract, TargetFormat, TargetSettings, TargetUrl};
use crate::http_client::{FailedKind, HttpClient, Identity, Options, Post, Vetting};
use signature::Keys;

/// Most bytes that are read of an answer.
const MOST_READ: usize = 1 << 20;

/// A target at an address.
pub(super) struct Http {
    client: HttpClient,
    /// Everything but the event.
    post: Post,
    format: TargetFormat,
    contract: TargetContract,
    keys: Keys,
}

impl Http {
    /// The service at `address`.
    pub fn new(address: &TargetUrl, settings: &TargetSettings) -> Result<Self, String> {
        let url = address.expose();
        let vetting = Vetting::new(settings.allow.clone());
        refuse_literal(url, &vetting)?;
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let ca = settings.tls_ca.as_deref().map(read).transpose()?;
        let identity = match (&settings.tls_cert, &settings.tls_key) {
            (Some(certificate), Some(key)) => Some(Identity {
                certificate: read(certificate)?,
                key: read(key)?,
            }),
            _ => None,
        };
        let client = HttpClient::with(Options {
            ca: ca.as_deref(),
            identity: identity.as_ref(),
            vetting: Some(vetting),
            idle_per_host: usize::MAX,
            most_read: MOST_READ,
            ..Options::default()
        })
        .map_err(|error| error.to_string())?;
        let contract = settings.contract.unwrap_or_default();
        let usual = match contract {
            TargetContract::Dapr => TargetFormat::Structured,
            _ => TargetFormat::default(),
        };
        let mut post = Post::new(url, "application/octet-stream", "").map_err(|e| e.to_string())?;
        if let Some(file) = &settings.token_file {
            let token = text_of(file)?;
            post = post
                .header("authorization", &format!("Bearer {token}"))
                .map_err(|_| {
                    format!(
                        "the token in {} has characters that no header can have",
                        file.display()
                    )
                })?;
        }
        Ok(Http {
            client,
            post,
            format: settings.format.unwrap_or(usual),
            contract,
            keys: Keys::read(&settings.secret_files)?,
        })
    }

    /// Whether there is somebody to connect to; nothing is sent.
    pub async fn connect(&self, timeout: Duration) -> Result<(), String> {
        let connected = self.client.connect(&self.post, timeout).await;
        connected.map_err(|failed| failed.to_string())
    }

    /// Sends it an event, and waits for so long for what comes of it.
    pub async fn call(&self, request: &Request, timeout: Duration) -> Outcome {
        let mut headers = self.post.headers().clone();
        let body = match self.format {
            TargetFormat::Structured => {
                headers::structured(request, &mut headers);
                request.event_json()
            }
            TargetFormat::Binary => {
                headers::binary(request, &mut headers);
                request.data.bytes.clone()
            }
        };
        headers::beside(request, &mut headers);
        self.keys.sign(
            &request.idempotency_key,
            SystemTime::now(),
            &body,
            &mut headers,
        );
        let post = self.post.with(headers, body);
        match self.client.post(&post, timeout).await {
            Ok(reply) => judge::of_reply(&reply, self.contract, request),
            Err(failed) if failed.kind == FailedKind::Forbidden => {
                Outcome::WrongTarget(failed.to_string())
            }
            Err(failed) => Outcome::Failed {
                why: failed.to_string(),
                counts: true,
            },
        }
    }
}

/// An address that is written as one is not asked of any resolver.
fn refuse_literal(url: &Url, vetting: &Vetting) -> Result<(), String> {
    let address = match url.host() {
        Some(url::Host::Ipv4(address)) => address.into(),
        Some(url::Host::Ipv6(address)) => address.into(),
        _ => return Ok(()),
    };
    vetting.vet(address)
}
