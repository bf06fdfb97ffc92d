//! A browser without a window, driven by its driver: each with a profile of its own, gone with the test.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Guarded, ROOT, eventually, scratch_dir};

const START: Duration = Duration::from_secs(30);
/// How long a page may take to be as expected.
pub const SOON: Duration = Duration::from_secs(20);

/// What the pages are looked at with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    pub width: u32,
    pub dark: bool,
    pub script: bool,
}

/// Narrow and wide, dark and light.
pub const LOOKS: [Look; 4] = [
    Look {
        width: 1440,
        dark: false,
        script: true,
    },
    Look {
        width: 1440,
        dark: true,
        script: true,
    },
    Look {
        width: 360,
        dark: false,
        script: true,
    },
    Look {
        width: 360,
        dark: true,
        script: true,
    },
];

/// A browser with one open page.
pub struct Browser {
    pub page: Client,
    _driver: Guarded,
    _profile: TempDir,
}

impl Browser {
    pub async fn start() -> Browser {
        let (chromium, chromedriver) = (program("chromium"), program("chromedriver"));
        let profile = scratch_dir();
        let log = profile.path().join("driver.log");
        let output = std::fs::File::create(&log).expect("a file for the driver's log");
        let mut command = Command::new(&chromedriver);
        command
            .arg("--port=0")
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(Stdio::null());
        let driver = Guarded::spawn(&mut command)
            .unwrap_or_else(|error| panic!("{}: {error}", chromedriver.display()));
        let port = eventually(START, "the driver's port", async || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let (_, port) = log
                .split_once("started successfully on port ")
                .ok_or(log.clone())?;
            port.trim()
                .trim_end_matches('.')
                .parse::<u16>()
                .map_err(|_| log)
        })
        .await;
        let data = format!(
            "--user-data-dir={}",
            profile.path().join("profile").display()
        );
        let capabilities = json!({
            "goog:chromeOptions": {
                "binary": chromium,
                "args": [
                    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                    "--disable-background-networking", "--disable-component-update", "--disable-sync",
                    "--hide-scrollbars", "--window-size=1440,900", &data,
                ],
            },
        });
        let Value::Object(capabilities) = capabilities else {
            unreachable!("it is written above");
        };
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", chromium.display()));
        Browser {
            page,
            _driver: driver,
            _profile: profile,
        }
    }

    /// From now on pages are looked at like this.
    pub async fn look(&self, look: Look) {
        let size =
            json!({ "width": look.width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.command("Emulation.setDeviceMetricsOverride", size)
            .await;
        let scheme = if look.dark { "dark" } else { "light" };
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", scheme).await;
        let script = json!({ "value": !look.script });
        self.command("Emulation.setScriptExecutionDisabled", script)
            .await;
    }

    pub async fn goto(&self, address: &str) {
        self.page
            .goto(address)
            .await
            .unwrap_or_else(|error| panic!("{address}: {error}"));
    }

    /// Waits until the page has this text.
    pub async fn shows(&self, text: &str) {
        eventually(SOON, format!("{text:?} on the page"), async || {
            let seen = self.text().await;
            if seen.contains(text) {
                Ok(())
            } else {
                Err(seen)
            }
        })
        .await;
    }

    /// What there is to read.
    pub async fn text(&self) -> String {
        let body = self.page.find(Locator::Css("body")).await;
        match body {
            Ok(body) => body.text().await.unwrap_or_default(),
            Err(error) => format!("no page: {error}"),
        }
    }

    /// Clicks it, once it is there. A page that lives may put another in its place between finding and clicking.
    pub async fn click(&self, selector: &str) {
        eventually(SOON, format!("{selector} to be clicked"), async || {
            let found = self.page.find(Locator::Css(selector)).await;
            let found = found.map_err(|error| error.to_string())?;
            found.click().await.map_err(|error| error.to_string())
        })
        .await;
    }

    /// Types into it, once it is there.
    pub async fn fill(&self, selector: &str, text: &str) {
        eventually(SOON, format!("{selector} to be filled"), async || {
            let found = self.page.find(Locator::Css(selector)).await;
            let found = found.map_err(|error| error.to_string())?;
            found
                .send_keys(text)
                .await
                .map_err(|error| error.to_string())
        })
        .await;
    }

    /// Presses a key, wherever the focus is: text, or one of WebDriver's keys.
    pub async fn press(&self, keys: &str) {
        // The page may be brought up to date between the two: the key was not pressed then.
        eventually(SOON, format!("{keys:?} to be pressed"), async || {
            let focused = self.page.active_element().await;
            let focused = focused.map_err(|error| error.to_string())?;
            match focused.send_keys(keys).await {
                Err(error)
                    if error.is_stale_element_reference()
                        || error.is_element_not_interactable() =>
                {
                    Err(error.to_string())
                }
                Err(error) => panic!("{keys:?}: {error}"),
                Ok(()) => Ok(()),
            }
        })
        .await;
    }

    pub async fn run(&self, script: &str) -> Value {
        let result = self.page.execute(script, Vec::new()).await;
        result.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// What axe has against the page as it is: nothing, most often.
    pub async fn complaints(&self) -> Vec<String> {
        let axe =
            std::fs::read_to_string(format!("{ROOT}/tests/browser/axe/axe.min.js")).expect("axe");
        self.run(&axe).await;
        let script = "const done = arguments[0];
            axe.run(document, { resultTypes: ['violations'] }).then((found) => done(found.violations.map((one) =>
                one.id + ': ' + one.help + ': ' + one.nodes.map((node) => node.html + ' ' + node.any.concat(node.all, node.none).map((check) => check.message).join('; ')).join(' | '))),
                (error) => done(['axe failed: ' + error]));";
        let found = self
            .page
            .execute_async(script, Vec::new())
            .await
            .expect("axe");
        let found = found.as_array().cloned().unwrap_or_default();
        found
            .iter()
            .filter_map(|one| one.as_str().map(str::to_owned))
            .collect()
    }

    /// By how many pixels the page is wider than the window: nobody should scroll a page sideways.
    pub async fn overflow(&self) -> i64 {
        let script =
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        self.run(script).await.as_i64().unwrap_or(i64::MAX)
    }

    /// Keeps a picture of the page under `target/pages/`.
    pub async fn picture(&self, name: &str) {
        let size = "return document.documentElement.scrollHeight";
        let height = self
            .run(size)
            .await
            .as_u64()
            .unwrap_or(900)
            .clamp(600, 4000);
        let width = self.run("return innerWidth").await.as_u64().unwrap_or(1440);
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let taken = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let taken = self.command("Page.captureScreenshot", taken).await;
        let bytes = taken["data"].as_str().map(decode).unwrap_or_default();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("pages");
        std::fs::create_dir_all(&folder).expect("a folder for pictures");
        std::fs::write(folder.join(format!("{name}.png")), bytes).expect("a picture");
    }

    /// A command of Chrome's own protocol.
    async fn command(&self, name: &str, parameters: Value) -> Value {
        let command = ChromeCommand {
            name: name.to_owned(),
            parameters,
        };
        let result = self.page.issue_cmd(command).await;
        result.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Ends the session: the browser goes with it.
    pub async fn close(self) {
        let _ = self.page.close().await;
    }
}

#[derive(Debug)]
struct ChromeCommand {
    name: String,
    parameters: Value,
}

impl WebDriverCompatibleCommand for ChromeCommand {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!(
            "session/{}/goog/cdp/execute",
            session.unwrap_or_default()
        ))
    }

    fn method_and_body(&self, _: &url::Url) -> (hyper::Method, Option<String>) {
        let body = json!({ "cmd": self.name, "params": self.parameters });
        (hyper::Method::POST, Some(body.to_string()))
    }
}

fn decode(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .expect("base64")
}

/// What the environment names, or else the first on `PATH`, or else the copy that `make test` has fetched.
fn program(name: &str) -> PathBuf {
    let variable = format!("STREAMHAND_TEST_{}", name.to_uppercase());
    if let Some(given) = std::env::var_os(&variable).filter(|path| !path.is_empty()) {
        return PathBuf::from(given);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    let fetched = PathBuf::from(ROOT).join(".servers").join(name);
    let mut all = on_path.chain([fetched]);
    all.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("no {name} to look at pages with: set {variable} or run `make test`")
    })
}
