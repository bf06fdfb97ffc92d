//! Tracing what a program publishes that is no worker.

use super::exporter::{Exporter, Sources};
use super::resource::Resource;
use crate::config::{TelemetrySettings, TraceMode};
use crate::error::Result;
use crate::publisher::Publisher;
use crate::trace::Tracer;

/// Sends spans of what publishers publish to the collector of `[telemetry.otlp]`, from a thread of its own. A worker does
/// so by itself, for what its handlers publish and emit.
///
/// ```no_run
/// # use streamhand::{Publisher, Settings, Tracing};
/// # async fn example(settings: Settings) -> streamhand::Result<()> {
/// let tracing = Tracing::start(&settings.telemetry, "web")?;
/// let publisher = Publisher::new(&settings.redis)?.traced_by(&tracing);
/// // …
/// tracing.stop().await;
/// # Ok(()) }
/// ```
#[must_use]
pub struct Tracing {
    /// None if there is no collector.
    tracer: Option<Tracer>,
    exporter: Option<Exporter>,
}

impl Tracing {
    /// Begins to send spans, of a service with this name unless the settings name it. Does nothing if no endpoint is set.
    ///
    /// # Errors
    /// If the settings are wrong, or no thread can be started.
    pub fn start(settings: &TelemetrySettings, service: &str) -> Result<Self> {
        let otlp = &settings.otlp;
        let tracer = Tracer::new(otlp.sample, settings.trace == TraceMode::Child);
        let sources = Sources {
            tracer: tracer.clone(),
            resource: Resource {
                service: otlp.service.as_deref().unwrap_or(service).to_owned(),
                instance: uuid::Uuid::now_v7().to_string(),
            },
            snapshot: None,
        };
        let exporter = Exporter::start(otlp, sources)?;
        Ok(Tracing {
            tracer: exporter.is_some().then_some(tracer),
            exporter,
        })
    }

    /// Sends the last spans, within half a second or so.
    pub async fn stop(self) {
        if let Some(exporter) = self.exporter {
            exporter.stop().await;
        }
    }
}

impl std::fmt::Debug for Tracing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_on = self.tracer.is_some();
        f.debug_struct("Tracing").field("is_on", &is_on).finish()
    }
}

impl Publisher {
    /// The same publisher, whose requests are spans. An event that has no `traceparent` gets the context of its span; one
    /// that has its own keeps it, and the span is part of that trace.
    pub fn traced_by(self, tracing: &Tracing) -> Self {
        match &tracing.tracer {
            Some(tracer) => self.traced(tracer.clone()),
            None => self,
        }
    }
}
