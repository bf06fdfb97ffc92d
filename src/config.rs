//! The settings of a worker: where they come from, how they are checked, and how they are shown.
//!
//! ```toml
//! [redis]
//! url = "redis://127.0.0.1:6379"
//!
//! [worker]
//! streams = ["orders"]
//! lease = "30s"
//!
//! [handlers."order.created"]
//! timeout = "10s"
//! ```
//!
//! [`Settings::load`] takes them from a file, the environment and the command line, in this order
//! of strength; the submodules do one step of it each. Unknown keys, wrong types and impossible
//! values are refused, all of them at once, each with its place and with what would be right.

#[cfg(feature = "config")]
pub(crate) mod alerts;
#[cfg(feature = "config")]
pub(crate) mod batch;
#[cfg(feature = "config")]
pub(crate) mod check;
#[cfg(feature = "config")]
mod check_web;
#[cfg(feature = "config")]
mod cron;
#[cfg(feature = "config")]
mod environment;
mod error;
#[cfg(feature = "config")]
mod exposed;
#[cfg(feature = "config")]
mod findings;
#[cfg(feature = "config")]
mod hidden;
#[cfg(feature = "config")]
mod keep;
#[cfg(feature = "config")]
mod listen;
#[cfg(feature = "config")]
mod load;
#[cfg(feature = "config")]
pub(crate) mod nearest;
#[cfg(feature = "config")]
mod otlp;
#[cfg(feature = "config")]
mod read;
pub(crate) mod redact;
mod redis;
#[cfg(feature = "config")]
mod resilience;
mod secret;
#[cfg(feature = "config")]
mod section;
mod sentinel;
mod setters;
#[cfg(feature = "config")]
mod settings;
#[cfg(feature = "config")]
mod show;
#[cfg(feature = "config")]
mod size;
mod stream_name;
#[cfg(feature = "config")]
mod targets;
#[cfg(feature = "config")]
mod telemetry;
pub(crate) mod tls;
pub(crate) mod topology;
#[cfg(feature = "config")]
mod tree;
#[cfg(feature = "config")]
mod value;
#[cfg(feature = "config")]
pub(crate) mod web;

#[cfg(feature = "config")]
pub use self::cron::CronSettings;
#[cfg(feature = "config")]
pub use crate::cron::{CatchUp, Overlap};
#[cfg(feature = "config")]
pub use alerts::AlertSettings;
#[cfg(feature = "config")]
pub(crate) use batch::BatchLimits;
#[cfg(feature = "config")]
pub use batch::BatchSettings;
pub use error::{ConfigError, Origin, Position, Problem, ProblemKind};
#[cfg(feature = "config")]
pub use keep::{Keep, Retention};
#[cfg(feature = "config")]
pub use listen::Listen;
#[cfg(feature = "config")]
pub use load::Sources;
#[cfg(feature = "config")]
pub use otlp::{OtlpEndpoint, OtlpSettings, TraceMode};
pub use redis::RedisSettings;
pub(crate) use redis::password_in;
#[cfg(feature = "config")]
pub use resilience::{BreakerScope, BreakerSettings, Counts, Rate, RateScope};
pub use secret::{RedisUrl, Secret};
pub use sentinel::{RedisMode, SentinelSettings};
#[cfg(feature = "config")]
pub use settings::{
    DeadLetterSettings, HandlerPolicy, HandlerSettings, OnBadEvent, OnCrash, OnDead, Order,
    ProjectionSettings, PulseSettings, RetrySettings, Settings, Start, StreamSettings, Unhandled,
    WorkerSettings,
};
#[cfg(feature = "config")]
pub use size::ByteSize;
pub(crate) use stream_name::{check_stream, stream_name};
#[cfg(feature = "config")]
pub use targets::{TargetContract, TargetFormat, TargetMode, TargetSettings, TargetUrl};
#[cfg(feature = "config")]
pub use telemetry::TelemetrySettings;
pub(crate) use topology::NodeAddress;
#[cfg(feature = "config")]
pub use web::{Network, Role, WebRedisSettings, WebSettings, WebUser};

#[cfg(feature = "config")]
use serde::Serialize;
#[cfg(feature = "config")]
use serde::de::DeserializeOwned;

#[cfg(feature = "config")]
use crate::error::{Error, ErrorKind, Result};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

#[cfg(feature = "config")]
impl Settings {
    /// Reads the settings from `sources` and checks them. A password file is read too; the
    /// password in it is then that of [`RedisSettings::password`]. Certificates and keys are read
    /// to see whether they can be used, and again when something connects.
    ///
    /// # Errors
    /// Everything that is wrong in any of the sources.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        Self::load_noting(sources, |note| tracing::warn!("{note}"))
    }

    /// The same; what can be worked with, and yet is most likely not meant, is told to `note` in place of the log.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn load_noting(sources: Sources, note: impl FnMut(&Problem)) -> Result<Self, ConfigError> {
        load::load(&sources, note)
    }

    /// Reads the settings from the text of a configuration file alone, as [`Settings::load`] does.
    ///
    /// # Errors
    /// Everything that is wrong in the text.
    pub fn from_toml_str(text: &str) -> Result<Self, ConfigError> {
        load::from_text(text)
    }

    /// Checks settings that a program has made or changed. Those that were loaded have been
    /// checked.
    ///
    /// # Errors
    /// Every value that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let problems: Vec<Problem> = check::check(self)
            .into_iter()
            .map(|finding| Problem {
                kind: ProblemKind::Invalid,
                origin: Origin::Code,
                key: Some(finding.path.to_string()),
                message: finding.message,
            })
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::new(problems))
        }
    }

    /// `[app]`, the user's own, as a type of theirs.
    ///
    /// ```
    /// # use streamhand::Settings;
    /// #[derive(serde::Deserialize)]
    /// struct App {
    ///     greeting: String,
    /// }
    ///
    /// let settings = Settings::from_toml_str("[app]\ngreeting = \"hello\"").unwrap();
    /// let app: App = settings.app().unwrap();
    /// assert_eq!(app.greeting, "hello");
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where it is not what the type wants. Texts are not quoted: they may be secrets.
    pub fn app<T: DeserializeOwned>(&self) -> Result<T> {
        let app = toml::Value::Table(self.app.clone());
        app.try_into().map_err(|error: toml::de::Error| {
            let message = hidden::without_texts(error.message());
            Error::new(
                ErrorKind::Invalid,
                format!("the settings in [app]: {message}"),
            )
        })
    }

    /// The same settings, with `app` as `[app]`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] where `app` can't be written as a table of TOML.
    pub fn with_app<T: Serialize>(mut self, app: &T) -> Result<Self> {
        self.app = toml::Table::try_from(app).map_err(|error| {
            let message = hidden::without_texts(&error.to_string());
            Error::new(
                ErrorKind::Invalid,
                format!("what is to be [app] is no table of TOML: {message}"),
            )
        })?;
        Ok(self)
    }

    /// What is in force, as TOML, with the secrets hidden: passwords, and every value of `[app]`, where only the user
    /// knows what is one.
    pub fn to_toml(&self) -> String {
        self.to_toml_showing(&[])
    }

    /// The same, with those values of `[app]` shown whose dotted keys these are: `["greeting", "smtp.host"]`.
    pub fn to_toml_showing(&self, app: &[&str]) -> String {
        show::to_toml(self, app)
    }
}
