//! What `deploy/` has for containers is what the program is: each argument, setting, path, port and number in it exists, and
//! a stop has the time it needs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use streamhand::Settings;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use yaml_rust2::{Yaml, YamlLoader};

use crate::support::http::{get, get_with};
use crate::support::{Cli, Server, eventually};

const PATIENCE: Duration = Duration::from_secs(30);
/// What a stop takes after the drain: handlers that are cut off, settling, the log's reader.
const AFTER_DRAIN: Duration = Duration::from_secs(5);

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize/base")
}

fn read(name: &str) -> String {
    let path = base().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All that the base makes, by kind and name, and what its kustomization says.
struct Base {
    resources: Vec<Yaml>,
    kustomization: Yaml,
}

impl Base {
    fn read() -> Base {
        let parsed = |name: &str| {
            YamlLoader::load_from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let kustomization = parsed("kustomization.yaml").remove(0);
        let names = strings(&kustomization["resources"]);
        let resources = names.iter().flat_map(|name| parsed(name)).collect();
        Base {
            resources,
            kustomization,
        }
    }

    fn of(&self, kind: &str, name: &str) -> &Yaml {
        let is_it = |of: &&Yaml| text(&of["kind"]) == kind && text(&of["metadata"]["name"]) == name;
        self.resources
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// The pod of a Deployment, and its only container.
    fn pod(&self, name: &str) -> (&Yaml, &Yaml) {
        let pod = &self.of("Deployment", name)["spec"]["template"]["spec"];
        let containers = pod["containers"].as_vec().expect("containers");
        assert_eq!(containers.len(), 1);
        (pod, &containers[0])
    }
}

fn text(yaml: &Yaml) -> &str {
    yaml.as_str().unwrap_or_else(|| panic!("no text: {yaml:?}"))
}

fn strings(yaml: &Yaml) -> Vec<String> {
    let items = yaml.as_vec().unwrap_or_else(|| panic!("no list: {yaml:?}"));
    items.iter().map(|item| text(item).to_owned()).collect()
}

/// The port of a container by its name.
fn port(container: &Yaml, name: &str) -> i64 {
    let ports = container["ports"].as_vec().expect("ports");
    let port = ports.iter().find(|port| text(&port["name"]) == name);
    port.unwrap_or_else(|| panic!("no port {name}"))["containerPort"]
        .as_i64()
        .expect("a number")
}

/// The configuration of the base, with its secrets in files of a folder.
fn config(secrets: &Path) -> String {
    let mut config = read("config.toml");
    for secret in ["redis-password", "telemetry-token"] {
        let path = secrets.join(secret);
        std::fs::write(&path, "tr0ub4dor").expect("a file");
        let mounted = format!("/run/secrets/shop/{secret}");
        assert!(config.contains(&mounted), "{mounted}");
        config = config.replace(&mounted, path.to_str().expect("a path"));
    }
    config
}

#[test]
fn a_stop_in_kubernetes_has_longer_than_a_drain_takes() {
    let base = Base::read();
    let secrets = tempfile::tempdir().expect("a folder");
    let settings = Settings::from_toml_str(&config(secrets.path())).expect("a right configuration");
    let (pod, container) = base.pod("shop");
    let grace = pod["terminationGracePeriodSeconds"]
        .as_i64()
        .expect("seconds");
    let grace = Duration::from_secs(grace.try_into().expect("seconds"));
    assert!(
        grace >= settings.worker.drain + AFTER_DRAIN,
        "{grace:?}, {:?}",
        settings.worker.drain
    );
    // The configuration listens where the probes ask.
    let listens = settings.telemetry.listen.address().expect("an address");
    assert_eq!(i64::from(listens.port()), port(container, "telemetry"));
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(text(&container[probe]["httpGet"]["port"]), "telemetry");
    }
    for deployment in ["shop", "shop-exporter"] {
        let (pod, container) = base.pod(deployment);
        assert_eq!(pod["securityContext"]["runAsNonRoot"].as_bool(), Some(true));
        // Variables of Services look like settings.
        assert_eq!(pod["enableServiceLinks"].as_bool(), Some(false));
        assert_eq!(
            container["securityContext"]["readOnlyRootFilesystem"].as_bool(),
            Some(true)
        );
        assert_eq!(
            container["securityContext"]["allowPrivilegeEscalation"].as_bool(),
            Some(false)
        );
        assert_eq!(
            strings(&container["securityContext"]["capabilities"]["drop"]),
            ["ALL"]
        );
        assert!(!container["resources"]["limits"]["memory"].is_badvalue());
        // What is mounted is where the configuration and the arguments look for it.
        let mounts = container["volumeMounts"].as_vec().expect("mounts");
        let paths: Vec<&str> = mounts
            .iter()
            .map(|mount| text(&mount["mountPath"]))
            .collect();
        assert_eq!(paths, ["/etc/shop", "/run/secrets/shop"]);
        assert_eq!(
            strings(&container["args"])[..2],
            ["--config", "/etc/shop/config.toml"]
        );
    }
    let labels = &base.of("Deployment", "shop")["spec"]["template"]["metadata"]["labels"];
    let budget = &base.of("PodDisruptionBudget", "shop")["spec"];
    assert_eq!(&budget["selector"]["matchLabels"], labels);
    assert_eq!(budget["maxUnavailable"].as_i64(), Some(1));
    let maps = base.kustomization["configMapGenerator"]
        .as_vec()
        .expect("config maps");
    assert_eq!(strings(&maps[0]["files"]), ["config.toml"]);
}

#[test]
fn workers_are_scaled_by_what_the_exporter_tells() {
    let base = Base::read();
    let scaled = &base.of("ScaledObject", "shop")["spec"];
    assert_eq!(text(&scaled["scaleTargetRef"]["name"]), "shop");
    // An apply would set the number back.
    assert!(base.of("Deployment", "shop")["spec"]["replicas"].is_badvalue());
    let (_, container) = base.pod("shop-exporter");
    let args = strings(&container["args"]);
    let port = port(container, "http");
    assert_eq!(
        args[2..],
        [
            "exporter".to_owned(),
            "--listen".to_owned(),
            format!("0.0.0.0:{port}")
        ]
    );
    let metadata = &scaled["triggers"].as_vec().expect("triggers")[0]["metadata"];
    let namespace = text(&base.kustomization["namespace"]);
    // The scaler asks from another namespace.
    assert_eq!(
        text(&metadata["url"]),
        format!("http://shop-exporter.{namespace}.svc:{port}/scale")
    );
    let service = &base.of("Service", "shop-exporter")["spec"];
    assert_eq!(
        service["ports"].as_vec().expect("ports")[0]["port"].as_i64(),
        Some(port)
    );
    assert_eq!(
        &service["selector"],
        &base.of("Deployment", "shop-exporter")["spec"]["template"]["metadata"]["labels"]
    );
    let token = &base.of("TriggerAuthentication", "shop-exporter")["spec"]["secretTargetRef"];
    assert_eq!(
        text(&token.as_vec().expect("tokens")[0]["key"]),
        "telemetry-token"
    );
}

#[test]
fn the_image_stops_by_the_signal_that_drains_and_runs_as_nobody() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/Containerfile");
    let file = std::fs::read_to_string(path).expect("the file");
    let of = |word: &str| {
        let mut lines = file
            .lines()
            .filter_map(|line| line.trim().strip_prefix(word));
        lines
            .next_back()
            .unwrap_or_else(|| panic!("no {word}"))
            .trim()
            .to_owned()
    };
    assert_eq!(of("STOPSIGNAL "), "SIGTERM");
    assert_eq!(of("FROM "), "scratch");
    let base = Base::read();
    let user = base.pod("shop").0["securityContext"]["runAsUser"]
        .as_i64()
        .expect("a number");
    assert_eq!(of("USER "), format!("{user}:{user}"));
    // Not a shell's: that would keep the signal to itself, and there is none.
    let entrypoint: Vec<String> = serde_json::from_str(&of("ENTRYPOINT ")).expect("the exec form");
    let check = of("HEALTHCHECK ");
    let check: Vec<String> = serde_json::from_str(check.split_once("CMD ").expect("a command").1)
        .expect("the exec form");
    assert_eq!(check, [&entrypoint[0][..], "health"]);
    assert_eq!(of("CMD "), "[\"run\"]");
    for part in [
        "--locked",
        "--bin \"$PROGRAM\"",
        "unknown-linux-musl",
        "ARG PROGRAM=shop",
        "ARG FEATURES=shop",
    ] {
        assert!(file.contains(part), "{part}");
    }
}

/// A program as a container of a Deployment runs it, at an address of this machine.
struct Container {
    process: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStderr>>,
}

impl Container {
    fn start(cli: &Cli, container: &Yaml) -> Container {
        let mut args = strings(&container["args"]);
        args[1] = cli.file("config.toml").to_str().expect("a path").to_owned();
        if let Some(listen) = args.iter_mut().find(|arg| arg.starts_with("0.0.0.0:")) {
            *listen = "127.0.0.1:0".to_owned();
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut process = cli.command(&args).spawn().expect("the program to start");
        let said = process.stderr.take().expect("its standard error");
        Container {
            process,
            lines: BufReader::new(said).lines(),
        }
    }

    /// The address that its log names behind this word.
    async fn address(&mut self, before: &str) -> std::net::SocketAddr {
        let reading = async {
            let mut all = Vec::new();
            while let Some(line) = self.lines.next_line().await.expect("a line") {
                if let Some((_, rest)) = line.split_once(before) {
                    let end = rest.find([' ', '/']).unwrap_or(rest.len());
                    return rest[..end].parse().unwrap_or_else(|_| panic!("{line}"));
                }
                all.push(line);
            }
            panic!("it has ended: {all:?}");
        };
        tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("an address")
    }

    /// Stops it as Kubernetes does.
    async fn stop(&mut self) {
        let pid = self
            .process
            .id()
            .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        rustix::process::kill_process(pid.expect("a process"), rustix::process::Signal::TERM)
            .expect("a signal");
        let ended = tokio::time::timeout(PATIENCE, self.process.wait()).await;
        assert!(ended.expect("its end").expect("its end").success());
    }
}

on_both_servers! {
    /// With the arguments, the configuration, the probes and the number of the files, each as it stands there.
    async fn the_deployments_run_answer_their_probes_and_tell_what_to_scale_by(server: Server) {
        let mut redis = server.connect().await;
        let rule = ["SETUSER", "worker", "on", ">tr0ub4dor", "~*", "&*", "+@all"];
        let () = redis::cmd("ACL").arg(&rule).query_async(&mut redis).await.unwrap();
        let base = Base::read();
        let cli = Cli::new(&server, "").with_nothing_set();
        let secrets = cli.file("secrets");
        std::fs::create_dir(&secrets).expect("a folder");
        let config = config(&secrets).replace("@redis:6379", &format!("@127.0.0.1:{}", server.port()));
        let config = config.replace("0.0.0.0:9464", "127.0.0.1:0");
        std::fs::write(cli.file("config.toml"), config).expect("a configuration");
        cli.run(&["config", "check"]).await.ok();

        let (_, worker) = base.pod("shop");
        let mut running = Container::start(&cli, worker);
        let at = running.address("address=").await;
        for probe in ["livenessProbe", "readinessProbe"] {
            let path = text(&worker[probe]["httpGet"]["path"]);
            eventually(PATIENCE, probe, async || {
                let got = get(at, path).await?;
                (got.status == 200).then_some(()).ok_or(format!("{got:?}"))
            })
            .await;
        }
        running.stop().await;

        for _ in 0..3 {
            cli.run(&["publish", "orders", "order.created", "{}"]).await.ok();
        }
        let (_, exporter) = base.pod("shop-exporter");
        let mut running = Container::start(&cli, exporter);
        let at = running.address("http://").await;
        let path = text(&exporter["livenessProbe"]["httpGet"]["path"]);
        assert_eq!(get(at, path).await.unwrap().status, 200);
        let metadata = &base.of("ScaledObject", "shop")["spec"]["triggers"].as_vec().unwrap()[0]["metadata"];
        assert_eq!(text(&metadata["authMode"]), "bearer");
        let url = text(&metadata["url"]);
        let scale = &url[url.rfind('/').expect("a path")..];
        assert_eq!(get(at, scale).await.unwrap().status, 401);
        let bearer = [("authorization", "Bearer tr0ub4dor")];
        let told: Value = get_with(at, scale, &bearer).await.unwrap().json();
        assert_eq!(told[text(&metadata["valueLocation"])], 3, "{told}");
        running.stop().await;
    }
}
