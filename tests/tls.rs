//! Redis behind TLS: everything works there, what is wrong with a certificate is said, and nothing spins meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::jobs::{self, Action, Job, many};
use crate::support::{Authority, Cli, Identity, Kind, Setup, TlsServer, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);

/// A worker and the program, reaching a server by TLS, with further lines of `[redis]`.
fn reaching(url: &str, lines: &[String]) -> (Setup, Cli) {
    let setup = Setup::at(url.to_owned());
    let setup = lines.iter().fold(setup, |setup, line| setup.redis(line));
    let config = lines.join("\n") + "\n[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]\n";
    (setup, Cli::at(url, &config))
}

fn line(key: &str, path: &Path) -> String {
    format!("{key} = {path:?}")
}

fn own(identity: &Identity) -> [String; 2] {
    [
        line("tls_cert", &identity.cert),
        line("tls_key", &identity.key),
    ]
}

/// What a command says that can't reach its server.
async fn said(url: &str, lines: &[String]) -> String {
    let (_, program) = reaching(url, lines);
    program.run(&["status"]).await.failed(1)
}

on_both_servers! {
    async fn a_worker_and_every_command_work_where_both_ends_show_a_certificate(kind: Kind) {
        let ca = Authority::new();
        let server = TlsServer::start(kind, &ca.issue("localhost"), Some(&ca)).await;
        let [cert, key] = own(&ca.issue("worker"));
        let (setup, program) = reaching(&server.url("localhost"), &[line("tls_ca", &ca.file()), cert, key]);
        let mut worker = setup.process();
        for job in [Job::new("good", Action::Succeed), Job::new("bad", Action::FailForGood)] {
            let data = serde_json::to_string(&job).unwrap();
            program.run(&["publish", "jobs", "test.job", &data]).await.ok();
        }
        let mut redis = server.plain.connect().await;
        let dead = async || program.run(&["dlq", "stats", "--json"]).await.json()["total"] == 1;
        eventually(PATIENCE, "the bad one to be dead", dead).await;
        assert!(jobs::handled(&mut redis).await.contains_key("good"), "a handler reached Redis");
        let replayed = program.run(&["dlq", "replay", "--all"]).await;
        assert!(replayed.ok().contains("replayed 1"));
        eventually(PATIENCE, "it to be dead again", dead).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        program.run(&["dlq", "purge", "--all", "--yes"]).await.ok();
        let status = program.run(&["status", "--json"]).await.json();
        assert_eq!(status["streams"][0]["dead"], 0, "{status}");
        worker.terminate();
        assert!(worker.wait(PATIENCE).await.success(), "{}", worker.log());
    }

    async fn a_certificate_that_is_its_own_ca_will_do_where_it_says_that_it_is_none(kind: Kind) {
        for (is_ca, does) in [(false, true), (true, false)] {
            let identity = Authority::sign_itself("localhost", is_ca);
            let server = TlsServer::start(kind, &identity, None).await;
            let (_, program) = reaching(&server.url("localhost"), &[line("tls_ca", &identity.cert)]);
            let ran = program.run(&["status"]).await;
            assert_eq!(ran.code == 0, does, "{ran:?}");
            assert!(does || ran.err.contains("is a CA's own"), "{ran:?}");
        }
    }

    /// OpenSSL's variables say where the system's CAs are.
    async fn the_cas_that_the_system_trusts_are_trusted_though_one_be_damaged(kind: Kind) {
        let ca = Authority::new();
        let server = TlsServer::start(kind, &ca.issue("localhost"), None).await;
        let (_, program) = reaching(&server.url("localhost"), &[]);
        let said = program.run(&["status"]).await.failed(1);
        assert!(said.contains("issued by nobody we trust"), "{said}");
        let system = program.file("certificates");
        std::fs::create_dir(&system).unwrap();
        std::fs::copy(ca.file(), system.join("ca.pem")).unwrap();
        let damaged = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n";
        std::fs::write(system.join("damaged.pem"), damaged).unwrap();
        program.with_env("SSL_CERT_DIR", system.to_str().unwrap()).run(&["status"]).await.ok();
    }

    async fn what_keeps_the_two_ends_apart_is_said(kind: Kind) {
        let (ca, other) = (Authority::new(), Authority::new());
        let trust = |ca: &Authority| vec![line("tls_ca", &ca.file())];
        let server = TlsServer::start(kind, &ca.issue("localhost"), None).await;
        let url = server.url("localhost");
        for trusted in [trust(&other), Vec::new()] {
            let said = said(&url, &trusted).await;
            assert!(said.contains("issued by nobody we trust: redis.tls_ca must"), "{said}");
        }
        let name = said(&server.url("127.0.0.1"), &trust(&ca)).await;
        assert!(name.contains("not valid for name \"127.0.0.1\"") && name.contains("redis.url must name"), "{name}");
        let plain = said(&url.replace("rediss", "redis"), &[]).await;
        assert!(plain.contains("redis.url must begin with rediss://"), "{plain}");
        let tls = said(&format!("rediss://127.0.0.1:{}", server.plain.port()), &trust(&ca)).await;
        assert!(tls.contains("redis.url must begin with redis://"), "{tls}");

        let server = TlsServer::start(kind, &ca.issue("localhost"), Some(&ca)).await;
        let url = server.url("localhost");
        let nothing = said(&url, &trust(&ca)).await;
        assert!(nothing.contains("set redis.tls_cert and redis.tls_key"), "{nothing}");
        let [cert, key] = own(&other.issue("worker"));
        let foreign = said(&url, &[trust(&ca), vec![cert, key]].concat()).await;
        assert!(foreign.contains("does not accept the certificate in redis.tls_cert"), "{foreign}");
        for said in [name, plain, tls, nothing, foreign] {
            assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        }
    }

    async fn a_worker_waits_for_a_certificate_to_be_renewed_and_does_not_spin(kind: Kind) {
        let ca = Authority::new();
        let identity = ca.issue_until("localhost", 2020);
        let mut server = TlsServer::start_behind_front(kind, &identity, None).await;
        let (setup, _) = reaching(&server.url("localhost"), &[line("tls_ca", &ca.file())]);
        let mut worker = setup.process();
        let said = worker.wait_for_log("its certificate expired at 2020-01-01T00:00:00Z", PATIENCE).await;
        assert!(said.contains("can't reach Redis at localhost"), "{said}");
        let (before, since) = (server.connections(), Instant::now());
        eventually(PATIENCE, "three seconds to pass", async || since.elapsed() > Duration::from_secs(3)).await;
        let tried = server.connections() - before;
        println!("{tried} connections in three seconds");
        assert!((1..30).contains(&tried), "{tried} connections in three seconds:\n{}", worker.log());

        let renewed = ca.issue("localhost");
        std::fs::rename(renewed.cert, identity.cert).unwrap();
        std::fs::rename(renewed.key, identity.key).unwrap();
        server.restart_front().await;
        let mut redis = server.plain.connect().await;
        jobs::publish(&mut redis, "jobs", &many("job", 5, &Action::Succeed)).await;
        eventually(PATIENCE, "them to be handled", async || jobs::handled(&mut redis).await.len() == 5).await;
        settled(&mut redis, "jobs", PATIENCE).await;
    }
}
