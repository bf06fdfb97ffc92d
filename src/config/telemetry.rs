//! `[telemetry]`: where a worker tells how it is doing, and to whom.

use std::path::PathBuf;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::listen::Listen;
use super::otlp::{OtlpSettings, TraceMode};
use super::secret::Secret;
use super::setters::setters;

/// `[telemetry]`: where a worker tells how it is doing, and to whom.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct TelemetrySettings {
    /// Where a worker, and `streamhand exporter`, serve `/metrics`, `/livez` and `/readyz`; nowhere unless it is set.
    pub listen: Listen,
    /// Who asks for `/metrics` has to show this as a bearer token. Where `token_file` is set, what was in the file.
    pub token: Option<Secret>,
    /// The file that holds the token, read at start. A newline at its end is no part of it.
    pub token_file: Option<PathBuf>,
    /// How a run of a handler stands to what published its event; linked to it.
    pub trace: TraceMode,
    /// `[telemetry.otlp]`: the collector that spans and metrics are sent to.
    pub otlp: OtlpSettings,
}

setters!(TelemetrySettings {
    into listen: Listen,
    some_into token: Secret,
    some_into token_file: PathBuf,
    plain trace: TraceMode,
    plain otlp: OtlpSettings,
});

impl TelemetrySettings {
    pub(super) fn is_unset(&self) -> bool {
        *self == TelemetrySettings::default()
    }
}

/// The token once: from a file it is shown as the file's name alone.
impl Serialize for TelemetrySettings {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut telemetry = to.serialize_struct("telemetry", 4)?;
        if !self.listen.is_nowhere() {
            telemetry.serialize_field("listen", &self.listen)?;
        }
        if let Some(path) = &self.token_file {
            telemetry.serialize_field("token_file", path)?;
        } else if let Some(token) = &self.token {
            telemetry.serialize_field("token", token)?;
        }
        if self.trace != TraceMode::default() {
            telemetry.serialize_field("trace", &self.trace)?;
        }
        if !self.otlp.is_unset() {
            telemetry.serialize_field("otlp", &self.otlp)?;
        }
        telemetry.end()
    }
}
