//! Whom spans and metrics are of.

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource as Message;

use super::messages::{number, text};

/// Whom spans and metrics are of.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    /// The service: what all its instances do.
    pub service: String,
    /// Unlike any other instance's.
    pub instance: String,
}

impl Resource {
    /// A program's part in a group, unless the settings name it: `shop/fulfilment`, or only the one if both are the same.
    pub fn of_group(named: Option<&str>, group: &str, instance: &str) -> Self {
        let program = program();
        let service = match named {
            Some(named) => named.to_owned(),
            None if program.is_empty() || program == group => group.to_owned(),
            None => format!("{program}/{group}"),
        };
        Resource {
            service,
            instance: instance.to_owned(),
        }
    }

    pub(super) fn message(&self) -> Message {
        let host = gethostname::gethostname();
        let pid = i64::from(std::process::id());
        Message {
            attributes: vec![
                text("service.name", &self.service),
                text("service.instance.id", &self.instance),
                text("host.name", &host.to_string_lossy()),
                number("process.pid", pid),
                text("telemetry.sdk.name", "streamhand"),
                text("telemetry.sdk.language", "rust"),
                text("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
            ],
            ..Message::default()
        }
    }
}

/// Who has made spans and metrics.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "streamhand".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// The program's name.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let name = path.file_stem().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
