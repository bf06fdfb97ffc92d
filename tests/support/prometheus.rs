//! A real Prometheus, and the tool that goes with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::guarded::Guarded;
use super::http::get;
use super::{eventually, free_ports, scratch_dir};

const PATIENCE: Duration = Duration::from_secs(30);

/// A Prometheus that scrapes, killed when dropped.
pub struct Prometheus {
    at: SocketAddr,
    dir: TempDir,
    _process: Guarded,
}

/// A series' labels, its name among them as `__name__`, and what it is now.
pub type Sample = (BTreeMap<String, String>, f64);

impl Prometheus {
    /// One that scrapes these targets each half second: each with the name of its job. `native` has it take histograms as
    /// they are counted.
    pub async fn scraping(targets: &[(&str, SocketAddr)], native: bool) -> Prometheus {
        let dir = scratch_dir();
        let mut config =
            "global: { scrape_interval: 500ms, scrape_timeout: 500ms }\nscrape_configs:\n"
                .to_owned();
        for (job, at) in targets {
            config +=
                &format!("  - job_name: {job}\n    static_configs: [{{ targets: [\"{at}\"] }}]\n");
        }
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("a configuration");
        for port in free_ports() {
            let at = SocketAddr::from(([127, 0, 0, 1], port));
            let mut command = Command::new(program("STREAMHAND_TEST_PROMETHEUS", "prometheus"));
            let log = std::fs::File::create(dir.path().join("log")).expect("a log");
            command
                .arg(format!("--config.file={}", file.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    dir.path().join("data").display()
                ))
                .arg(format!("--web.listen-address={at}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log);
            if native {
                command.arg("--enable-feature=native-histograms");
            }
            let mut process = Guarded::spawn(&mut command).expect("Prometheus to start");
            let is_there = eventually(PATIENCE, "Prometheus to be ready", async || {
                if process.ended().is_some() {
                    return Ok(false);
                }
                let got = get(at, "/-/ready").await?;
                (got.status == 200).then_some(true).ok_or(got.text())
            })
            .await;
            if is_there {
                let _process = process;
                return Prometheus { at, dir, _process };
            }
        }
        panic!("no port for Prometheus");
    }

    /// Waits until every target has been scraped, and none has an error.
    pub async fn is_up(&self) {
        eventually(PATIENCE, "all targets to be up", async || {
            let targets = self.asked("/api/v1/targets").await?;
            let targets = targets["activeTargets"].as_array().cloned();
            let down = targets.into_iter().flatten();
            let down: Vec<Value> = down.filter(|target| target["health"] != "up").collect();
            match down.is_empty() {
                true => Ok(()),
                false => Err(format!("{down:?}")),
            }
        })
        .await;
    }

    /// What an expression comes to now.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>, String> {
        let query: String = url::form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let data = self.asked(&format!("/api/v1/query?query={query}")).await?;
        let series = data["result"].as_array().cloned().unwrap_or_default();
        let sample = |series: &Value| {
            let labels = serde_json::from_value(series["metric"].clone()).ok()?;
            let value = series["value"][1].as_str()?.parse().ok()?;
            Some((labels, value))
        };
        Ok(series.iter().filter_map(sample).collect())
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    async fn asked(&self, path: &str) -> Result<Value, String> {
        let got = get(self.at, path).await?;
        let answer: Value =
            serde_json::from_slice(&got.body).map_err(|error| format!("{error}: {got:?}"))?;
        match answer["status"] == "success" {
            true => Ok(answer["data"].clone()),
            false => Err(answer.to_string()),
        }
    }
}

/// `promtool`, to be given arguments.
pub fn promtool() -> Command {
    Command::new(program("STREAMHAND_TEST_PROMTOOL", "promtool"))
}

/// What the environment names, or else the first on `PATH`, or else what `make test` has fetched to `.servers/`.
fn program(variable: &str, name: &str) -> PathBuf {
    if let Some(given) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        return given.into();
    }
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).map(|folder| folder.join(name));
    let fetched = PathBuf::from(super::ROOT).join(".servers").join(name);
    on_path
        .chain([fetched])
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no {name} to test with: set {variable} or run `make test`"))
}
