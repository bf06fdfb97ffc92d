//! Whether a worker lives and is ready, as probes, `health` and systemd are told.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use streamhand::Observer;
use streamhand::cli::Program;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::http::{get, get_with, served_by};
use crate::support::jobs::{self, Action, Job, many};
use crate::support::{
    Cli, ProcessBuilder, Server, Setup, WorkerProcess, eventually, run_program, scratch_dir,
    settled,
};

const PATIENCE: Duration = Duration::from_secs(30);
const LEASE: Duration = Duration::from_secs(2);
const LISTEN: &str = "[telemetry]\nlisten = \"127.0.0.1:0\"";

/// Blocks the thread that speaks to Redis once entries come: it is called there, and must not.
struct Blocks;

impl Observer for Blocks {
    fn delivered(&self, _: &str, _: usize) {
        std::thread::sleep(Duration::from_secs(600));
    }
}

#[test]
#[ignore = "run by other tests"]
fn worker_that_blocks() {
    let config = std::env::var("STREAMHAND_TEST_CONFIG").expect("a configuration");
    let program = Program::new(jobs::registry()).observer(Blocks);
    let ended = program.run_from(["streamhand", "--config", &config, "run"]);
    std::process::exit(i32::from(ended.is_err()));
}

/// Says how it is, by its probe.
#[test]
#[ignore = "run by other tests"]
fn program() {
    run_program(Program::without_handlers());
}

on_both_servers! {
    async fn redis_away_makes_a_worker_unready_and_restarts_nothing(server: Server) {
        let mut server = server;
        let mut worker = Setup::new(&server).more(LISTEN).process();
        let at = served_by(&mut worker).await;
        is_ready(at).await;
        for by_killing in [false, true] {
            match by_killing {
                true => server.stop(),
                false => server.freeze(),
            }
            let since = Instant::now();
            let why = is_not_ready(at).await;
            let noticed = since.elapsed();
            assert!(why.contains("Redis has not answered for"), "{why}");
            // The last answer may have been as old as a third of the lease.
            assert!(noticed > LEASE / 3, "{noticed:?}");
            assert!(noticed < LEASE + Duration::from_secs(3), "{noticed:?}");
            // The heart beats on.
            eventually(PATIENCE, "two more seconds to pass", async || {
                lives(at).await;
                since.elapsed() > noticed + Duration::from_secs(2)
            })
            .await;
            health(&server, &worker).await.ok();
            match by_killing {
                true => server.start_again().await,
                false => server.thaw(),
            }
            is_ready(at).await;
        }
        assert!(!worker.has_ended());
    }

    async fn a_worker_that_waits_for_its_first_redis_lives_and_is_not_ready(server: Server) {
        let mut server = server;
        server.freeze();
        let mut worker = Setup::new(&server).more(LISTEN).process();
        let at = served_by(&mut worker).await;
        let why = is_not_ready(at).await;
        assert!(why.contains("have not been joined yet"), "{why}");
        lives(at).await;
        server.thaw();
        is_ready(at).await;
    }

    async fn a_stopped_thread_is_told_by_every_probe(server: Server) {
        let systemd = Systemd::start();
        let builder = WorkerProcess::builder()
            .test("telemetry::worker_that_blocks")
            .config(&Setup::new(&server).more(LISTEN).toml());
        let mut worker = systemd.watch(builder, Duration::from_secs(1)).start();
        let at = served_by(&mut worker).await;
        is_ready(at).await;
        health(&server, &worker).await.ok();
        let mut redis = server.connect().await;
        let since = Instant::now();
        jobs::publish(&mut redis, "jobs", &many("job", 1, &Action::Succeed)).await;
        systemd.is_silent(Duration::from_secs(2)).await;
        let why = eventually(PATIENCE, "a probe that says so", async || {
            let got = get(at, "/livez").await?;
            (got.status == 503).then(|| got.text()).ok_or(format!("{got:?}"))
        })
        .await;
        assert!(why.contains("the thread that speaks to Redis has not turned for 1"), "{why}");
        assert!(since.elapsed() > Duration::from_secs(9), "{:?}", since.elapsed());
        let said = health_within(&server, &worker, "300ms").await.failed(1);
        assert!(said.contains("has not answered within 300ms"), "{said}");
    }

    /// A runtime that another thread has taken over from a handler turns as well as before.
    async fn a_handler_that_blocks_stops_nothing(server: Server) {
        let systemd = Systemd::start();
        let builder = WorkerProcess::builder().config(&Setup::new(&server).more(LISTEN).toml());
        let mut worker = systemd.watch(builder, Duration::from_secs(1)).start();
        let at = served_by(&mut worker).await;
        is_ready(at).await;
        let mut redis = server.connect().await;
        let since = Instant::now();
        jobs::publish(&mut redis, "jobs", &many("job", 2, &Action::Compute(11_500))).await;
        eventually(PATIENCE, "it to block for longer than a stopped thread may", async || {
            lives(at).await;
            systemd.is_told("WATCHDOG=1").await;
            since.elapsed() > Duration::from_secs(11)
        })
        .await;
        is_ready(at).await;
        health(&server, &worker).await.ok();
    }

    async fn a_stop_is_told_until_its_end_and_waits_for_no_connection(server: Server) {
        let systemd = Systemd::start();
        let setup = Setup::new(&server).worker("drain = \"20s\"").more(LISTEN);
        let builder = WorkerProcess::builder().config(&setup.toml());
        let mut worker = systemd.watch(builder, Duration::from_secs(1)).start();
        let at = served_by(&mut worker).await;
        is_ready(at).await;
        let mut redis = server.connect().await;
        jobs::publish(&mut redis, "jobs", &[Job::new("long", Action::Take(3_000))]).await;
        eventually(PATIENCE, "it to run", async || jobs::starts_of(&mut redis, "long").await == 1).await;
        let mut open = TcpStream::connect(at).await.expect("a connection");
        open.write_all(b"GET /livez HTTP/1.1\r\nhost:").await.expect("half a request");
        worker.terminate();
        let why = is_not_ready(at).await;
        assert!(why.contains("the worker stops"), "{why}");
        lives(at).await;
        systemd.is_told("STOPPING=1").await;
        // Sent again and again as long as it takes.
        for _ in 0..3 {
            let told = systemd.is_told("EXTEND_TIMEOUT_USEC=").await;
            assert!(told.contains("STATUS=stops: 1 handlers run, 1 entries"), "{told}");
        }
        assert_eq!(worker.wait(PATIENCE).await.code(), Some(0), "{}", worker.log());
        assert_eq!(jobs::ended(&mut redis).await.len(), 1);
        drop(open);
    }

    async fn systemd_is_told_of_the_start_and_of_what_a_worker_is_at(server: Server) {
        let mut server = server;
        server.freeze();
        let systemd = Systemd::start();
        let builder = WorkerProcess::builder().config(&Setup::new(&server).toml());
        let worker = systemd.watch(builder, Duration::from_secs(1)).start();
        for _ in 0..3 {
            let told = systemd.is_told("STATUS=waits for Redis at ").await;
            assert!(told.contains("EXTEND_TIMEOUT_USEC=30000000\n"), "{told}");
            assert!(!told.contains("READY"), "{told}");
        }
        server.thaw();
        let told = systemd.is_told("READY=1").await;
        assert!(!told.contains("EXTEND"), "{told}");
        assert!(told.contains("STATUS=works on jobs for the group workers\n"), "{told}");
        server.freeze();
        systemd.is_told("has not answered for ").await;
        server.thaw();
        systemd.is_told("STATUS=works on jobs").await;
        drop(worker);
    }

    /// Nobody reads what it is told: its queue is full, and a worker works on.
    async fn a_systemd_that_does_not_listen_holds_up_nothing(server: Server) {
        let systemd = Systemd::start();
        let builder = WorkerProcess::builder().config(&Setup::new(&server).more(LISTEN).toml());
        // Told each millisecond: any queue is full in a second.
        let mut worker = systemd.watch(builder, Duration::from_millis(2)).start();
        let at = served_by(&mut worker).await;
        is_ready(at).await;
        eventually(PATIENCE, "more to be told than there is room for", async || {
            systemd.socket.local_addr().is_ok() && systemd.began.elapsed() > Duration::from_secs(2)
        })
        .await;
        let mut redis = server.connect().await;
        jobs::publish(&mut redis, "jobs", &many("job", 100, &Action::Succeed)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        lives(at).await;
        worker.terminate();
        assert_eq!(worker.wait(PATIENCE).await.code(), Some(0), "{}", worker.log());
    }

    async fn a_stream_in_trouble_is_told_of_and_does_not_count(server: Server) {
        let mut redis = server.connect().await;
        let set = redis::cmd("SET").arg("broken").arg("x").query_async::<()>(&mut redis).await;
        set.expect("a string");
        let mut worker = Setup::new(&server)
            .worker("streams = [\"jobs\", \"broken\"]")
            .more(LISTEN)
            .process();
        let at = served_by(&mut worker).await;
        is_ready(at).await;
        let said = get(at, "/readyz").await.expect("an answer").json();
        assert_eq!(said["status"], "ok");
        let notes = said["notes"].to_string();
        assert!(notes.contains("broken") && !notes.contains("jobs"), "{notes}");
    }

    async fn several_workers_are_asked_at_once_or_one_by_its_process(server: Server) {
        let setup = Setup::new(&server).worker("group = \"several\"");
        let workers = [setup.process(), setup.process()];
        let cli = Cli::new(&server, "").of_test("telemetry::program");
        let all = eventually(PATIENCE, "both to be there", async || {
            let all = cli.run(&["health", "--group", "several"]).await;
            let count = all.out.lines().filter(|line| line.ends_with("of the group several lives")).count();
            // Tests of the other server have a group of this name, too.
            let ours = workers.iter().all(|worker| all.out.contains(&format!("process {} ", worker.pid())));
            (ours && count >= 2).then_some(all).ok_or("not yet")
        })
        .await;
        all.ok();
        let [one, other] = workers;
        let pid = one.pid().to_string();
        let said = cli.run(&["health", "--pid", &pid]).await.ok();
        assert_eq!(said, format!("process {pid} of the group several lives\n"));
        drop(one);
        // Nothing of it is left to be taken for alive.
        let said = cli.run(&["health", "--group", "several", "--pid", &pid]).await.failed(1);
        assert_eq!(said, format!("error: no worker of the group \"several\" in process {pid} runs here as this user\n"));
        health(&server, &other).await.ok();
    }

    async fn metrics_are_for_who_shows_the_token_and_probes_for_everybody(server: Server) {
        let token = "[telemetry]\nlisten = \"127.0.0.1:0\"\ntoken = \"tr0ub4dor\"";
        let mut worker = Setup::new(&server).more(token).process();
        let at = served_by(&mut worker).await;
        is_ready(at).await;
        lives(at).await;
        let scrape = async |token: &[(&str, &str)]| get_with(at, "/metrics", token).await.expect("an answer");
        for wrong in ["", "Bearer", "Bearer tr0ub4do", "Bearer tr0ub4dor3", "Basic tr0ub4dor", "tr0ub4dor"] {
            let refused = scrape(&[("authorization", wrong)]).await;
            assert_eq!(refused.status, 401, "{wrong:?}: {refused:?}");
            assert!(refused.head.to_lowercase().contains("www-authenticate: bearer"), "{refused:?}");
            assert!(!refused.text().contains("streamhand_"), "{refused:?}");
        }
        assert_eq!(scrape(&[]).await.status, 401);
        let mut redis = server.connect().await;
        jobs::publish(&mut redis, "jobs", &many("job", 7, &Action::Succeed)).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let shown = ("authorization", "bearer tr0ub4dor");
        let got = scrape(&[shown]).await;
        assert!(got.head.contains("content-type: text/plain; version=0.0.4"), "{got:?}");
        let text = got.text();
        assert!(text.contains("\nstreamhand_redis_request_duration_seconds_count{request=\"xack\"} "), "{text}");
        let got = scrape(&[shown, ("accept", "application/openmetrics-text")]).await;
        assert!(got.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{got:?}");
        assert!(got.text().ends_with("# EOF\n"), "{got:?}");
        assert!(!worker.log().contains("tr0ub4dor"));
    }

    async fn a_taken_port_ends_a_start_with_what_to_do(server: Server) {
        let mut worker = Setup::new(&server).more(LISTEN).process();
        let at = served_by(&mut worker).await;
        let config = format!("[telemetry]\nlisten = \"{at}\"");
        let said = Cli::new(&server, &config).run(&["run"]).await.failed(1);
        let begin = format!("telemetry.listen: can't listen on {at}: Address already in use");
        assert!(said.contains(&begin) && said.contains("STREAMHAND_TELEMETRY__LISTEN"), "{said}");
        let open = "[telemetry]\nlisten = \"0.0.0.0:0\"";
        let said = Cli::new(&server, open).run(&["run"]).await.failed(2);
        assert!(said.contains("telemetry.listen: 0.0.0.0:0 would show the metrics"), "{said}");
        let said = Cli::new(&server, open).run(&["config", "check"]).await.failed(2);
        assert!(said.contains("set telemetry.token_file"), "{said}");
    }
}

async fn lives(at: SocketAddr) {
    let got = get(at, "/livez").await.expect("an answer");
    assert_eq!(
        (got.status, got.json()["status"].as_str()),
        (200, Some("ok")),
        "{got:?}"
    );
}

async fn is_ready(at: SocketAddr) {
    eventually(PATIENCE, "it to be ready", async || {
        let got = get(at, "/readyz").await?;
        (got.status == 200).then_some(()).ok_or(format!("{got:?}"))
    })
    .await;
}

/// Why it is not.
async fn is_not_ready(at: SocketAddr) -> String {
    eventually(PATIENCE, "it to be not ready", async || {
        let got = get(at, "/readyz").await?;
        let is_so = got.status == 503 && got.json()["status"] == "failing";
        is_so
            .then(|| got.json()["why"].to_string())
            .ok_or(format!("{got:?}"))
    })
    .await
}

async fn health(server: &Server, worker: &WorkerProcess) -> crate::support::Ran {
    health_within(server, worker, "10s").await
}

async fn health_within(
    server: &Server,
    worker: &WorkerProcess,
    within: &str,
) -> crate::support::Ran {
    let cli = Cli::new(server, "").of_test("telemetry::program");
    let pid = worker.pid().to_string();
    cli.run(&["health", "--pid", &pid, "--within", within])
        .await
}

/// Listens as systemd does.
struct Systemd {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
    began: Instant,
}

impl Systemd {
    fn start() -> Self {
        // The name of a socket may have 107 bytes.
        let dir = tempfile::tempdir().unwrap_or_else(|_| scratch_dir());
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let began = Instant::now();
        Systemd { socket, dir, began }
    }

    /// A worker that it watches, and that has to be heard of so often.
    fn watch(&self, builder: ProcessBuilder, often: Duration) -> ProcessBuilder {
        let path: &Path = &self.dir.path().join("notify");
        builder
            .env("NOTIFY_SOCKET", path.to_str().expect("a path in Unicode"))
            .env("WATCHDOG_USEC", often.as_micros().to_string())
    }

    fn heard(&self) -> Option<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).into_owned())
    }

    /// Waits for a message with this text.
    async fn is_told(&self, text: &str) -> String {
        let mut last = None;
        eventually(PATIENCE, format!("to be told {text:?}"), async || {
            while let Some(message) = self.heard() {
                if message.contains(text) {
                    return Ok(message);
                }
                last = Some(message);
            }
            Err(format!("last told {last:?}"))
        })
        .await
    }

    /// Waits until nothing has come for so long.
    async fn is_silent(&self, long: Duration) {
        let mut since = Instant::now();
        eventually(
            PATIENCE,
            format!("nothing to be told for {long:?}"),
            async || {
                while self.heard().is_some() {
                    since = Instant::now();
                }
                since.elapsed() >= long
            },
        )
        .await;
    }
}
