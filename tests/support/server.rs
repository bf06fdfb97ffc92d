//! Private servers: each on a port and in a directory of its own, gone with the test.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::guarded::Guarded;
use super::{Clock, Kind, free_ports};

/// How long a server may take from its start to its first answer.
const START: Duration = Duration::from_secs(20);

/// A server that runs for one test and is killed when dropped.
pub struct Server {
    setup: Builder,
    dir: TempDir,
    port: u16,
    process: Option<Guarded>,
    frozen: bool,
}

impl Server {
    /// A server that keeps nothing on disk and asks for no password.
    pub async fn start(kind: Kind) -> Server {
        Server::builder(kind).start().await
    }

    pub fn builder(kind: Kind) -> Builder {
        Builder {
            kind,
            args: Vec::new(),
            persistent: false,
            sentinel: false,
            password: None,
            env: Vec::new(),
        }
    }

    /// Whether it was not stopped. One that is frozen does not run either, for whoever asks it something.
    pub fn is_running(&self) -> bool {
        self.process.is_some() && !self.frozen
    }

    pub fn kind(&self) -> Kind {
        self.setup.kind
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where to reach it, with the password if it has one.
    pub fn url(&self) -> String {
        self.setup.url_at(self.port)
    }

    /// A connection for the test's own questions. It waits a minute for an answer: the client's
    /// default of half a second would give up a blocking read and lose what it is sent.
    pub async fn connect(&self) -> MultiplexedConnection {
        connect(&self.url(), Duration::from_secs(60))
            .await
            .unwrap_or_else(|error| panic!("no connection to {}: {error}", self.url()))
    }

    /// Kills the server, as a crash would.
    pub fn stop(&mut self) {
        self.process.take().expect("a server that runs").kill();
        self.frozen = false;
    }

    /// Starts a stopped server on the same port and directory; what it kept on disk is there again.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        let started = self.setup.launch(&self.dir, self.port).await;
        self.process = Some(started.unwrap_or_else(|log| panic!("the server ended:\n{log}")));
    }

    pub async fn restart(&mut self) {
        self.stop();
        self.start_again().await;
    }

    /// Leaves it connected, but unable to answer, until [`Server::thaw`].
    pub fn freeze(&mut self) {
        self.process.as_mut().expect("a server that runs").freeze();
        self.frozen = true;
    }

    pub fn thaw(&mut self) {
        self.process.as_mut().expect("a server that runs").thaw();
        self.frozen = false;
    }
}

/// How a server is to be started.
pub struct Builder {
    kind: Kind,
    args: Vec<String>,
    persistent: bool,
    sentinel: bool,
    password: Option<String>,
    env: Vec<(&'static str, String)>,
}

impl Builder {
    /// Further options, as on the command line: `["--maxmemory", "10mb"]`.
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Builder {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Every write is on disk before it is answered, and survives a restart.
    pub fn persistent(mut self, persistent: bool) -> Builder {
        self.persistent = persistent;
        self
    }

    /// It watches others, which it is told of later, and keeps nothing else.
    pub fn sentinel(mut self) -> Builder {
        self.sentinel = true;
        self
    }

    /// The password of the default user: letters and digits, for it becomes part of a URL.
    pub fn password(mut self, password: &str) -> Builder {
        self.password = Some(password.to_owned());
        self
    }

    /// Its time of day is this clock's.
    pub fn clock(mut self, clock: &Clock) -> Builder {
        self.env.extend(clock.env());
        self
    }

    pub async fn start(self) -> Server {
        self.start_on(free_ports()).await
    }

    /// Starts on the first of `ports` that is free.
    pub async fn start_on(self, ports: impl IntoIterator<Item = u16>) -> Server {
        let started = self.try_start_on(ports).await;
        started.unwrap_or_else(|log| panic!("the server ended:\n{log}"))
    }

    /// Starts it, or answers its log where it does not start with these options.
    pub async fn try_start(self) -> Result<Server, String> {
        self.try_start_on(free_ports()).await
    }

    async fn try_start_on(self, ports: impl IntoIterator<Item = u16>) -> Result<Server, String> {
        let dir = scratch_dir();
        for port in ports {
            match self.launch(&dir, port).await {
                Ok(process) => {
                    return Ok(Server {
                        setup: self,
                        dir,
                        port,
                        process: Some(process),
                        frozen: false,
                    });
                }
                Err(log) if log.contains(&format!("Failed listening on port {port} ")) => {}
                // A node of a cluster takes the port 10,000 above as well.
                Err(log) if log.contains("(cluster), aborting") => {}
                Err(log) => return Err(log),
            }
        }
        panic!("no free port for a server");
    }

    /// Starts the program and returns when it answers, or its log when it has ended instead.
    async fn launch(&self, dir: &TempDir, port: u16) -> Result<Guarded, String> {
        let log_path = dir.path().join("server.log");
        let log = || std::fs::read_to_string(&log_path).unwrap_or_default();
        let output = File::create(&log_path).expect("a log file");
        let errors = output.try_clone().expect("a second handle on it");
        let keeps = ["--appendonly", if self.persistent { "yes" } else { "no" }];
        let mut command = Command::new(self.kind.program());
        if self.sentinel {
            // Where it writes down what it knows.
            let known = dir.path().join("sentinel.conf");
            File::create(&known).expect("a file for it");
            command.arg(known).arg("--sentinel");
        } else {
            command
                .args(["--save", "", "--appendfsync", "always"])
                .args(keeps);
        }
        let mut process = Guarded::spawn(
            command
                .args([
                    "--bind",
                    "127.0.0.1",
                    "--port",
                    &port.to_string(),
                    "--daemonize",
                    "no",
                ])
                .args(
                    self.password
                        .iter()
                        .flat_map(|password| ["--requirepass", password]),
                )
                .args(&self.args)
                .envs(self.env.iter().cloned())
                .current_dir(dir.path())
                .stdin(Stdio::null())
                .stdout(output)
                .stderr(errors),
        )
        .expect("the server's program to start");

        let url = self.url_at(port);
        let deadline = Instant::now() + START;
        loop {
            // Another process may have been faster on this port: an answer counts only from ours.
            let answer = answering_process(&url).await;
            if process.ended().is_some() {
                return Err(log());
            }
            if answer.as_ref().is_ok_and(|pid| *pid == process.pid()) {
                return Ok(process);
            }
            if Instant::now() >= deadline {
                panic!(
                    "no answer from the server after {START:?}: {answer:?}\n{}",
                    log()
                );
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn url_at(&self, port: u16) -> String {
        match &self.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{port}"),
            None => format!("redis://127.0.0.1:{port}"),
        }
    }
}

/// A directory for one test, among cargo's build products: what a killed test leaves there goes
/// with `cargo clean`. In a process that a test has started it is within that process' directory,
/// which the test removes.
pub fn scratch_dir() -> TempDir {
    let parent = std::env::var_os(SCRATCH).unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    std::fs::create_dir_all(&parent).expect("cargo's directory for tests");
    TempDir::new_in(parent).expect("a directory for the test")
}

/// Names a started process' own directory to it.
pub const SCRATCH: &str = "STREAMHAND_TEST_SCRATCH";

async fn connect(url: &str, patience: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience))
        .set_response_timeout(Some(patience));
    Client::open(url)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// The id of the server process that answers at `url`, once it has loaded its data.
async fn answering_process(url: &str) -> RedisResult<u32> {
    let mut connection = connect(url, Duration::from_secs(2)).await?;
    // Fails while the server is still loading, when INFO answers already.
    let _: () = redis::cmd("PING").query_async(&mut connection).await?;
    let info: redis::InfoDict = redis::cmd("INFO")
        .arg("server")
        .query_async(&mut connection)
        .await?;
    Ok(info.get("process_id").unwrap_or_default())
}
