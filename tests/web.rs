//! What the pages cost, what they refuse, and that they hold nothing up; in a browser they are looked at in `browser.rs`.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use streamhand::Settings;
use streamhand::web::Web;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::browser::site::{Site, may_only_read, publish};
use crate::support::{Cli, CommandStats, Kind, Server, Setup, eventually, free_ports};

const SOON: Duration = Duration::from_secs(20);

/// An answer: its head and its body.
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    fn status(&self) -> u16 {
        let status = self
            .head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        status.unwrap_or_else(|| panic!("no answer: {:?}", self.head))
    }
}

async fn ask(site: &str, method: &str, path: &str, more: &str, body: &str) -> Answer {
    let address = site.strip_prefix("http://").expect("an address");
    let mut socket = TcpStream::connect(address).await.expect("the pages");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n{more}\r\n{body}"
    );
    socket
        .write_all(request.as_bytes())
        .await
        .expect("a request");
    let mut answer = Vec::new();
    timeout(SOON, socket.read_to_end(&mut answer))
        .await
        .expect("an answer in time")
        .expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    Answer {
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

async fn get(site: &Site, path: &str) -> Answer {
    ask(&site.address, "GET", path, "", "").await
}

/// An open page: what it was sent so far.
struct Open {
    socket: TcpStream,
    seen: String,
}

impl Open {
    async fn of(site: &Site, page: &str) -> Open {
        let address = site.address.strip_prefix("http://").expect("an address");
        let mut socket = TcpStream::connect(address).await.expect("the pages");
        let request = format!("GET /live?page={page} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        socket
            .write_all(request.as_bytes())
            .await
            .expect("a request");
        Open {
            socket,
            seen: String::new(),
        }
    }

    async fn until(&mut self, text: &str) {
        let read = async {
            let mut bytes = [0; 8192];
            while !self.seen.contains(text) {
                let many = self.socket.read(&mut bytes).await.expect("an open page");
                assert_ne!(many, 0, "it ended before {text:?}: {}", self.seen);
                self.seen.push_str(&String::from_utf8_lossy(&bytes[..many]));
            }
        };
        timeout(SOON, read)
            .await
            .unwrap_or_else(|_| panic!("no {text:?} on the page"));
    }
}

/// What the pages cost in so long.
async fn cost(redis: &mut MultiplexedConnection, long: Duration) -> u64 {
    let before = CommandStats::of(redis).await.all_calls();
    sleep(long).await;
    CommandStats::of(redis).await.all_calls() - before
}

on_both_servers! {
    async fn fifty_browsers_cost_what_one_does(server: Server) {
        let site = Site::start(&server).await;
        let mut redis = server.connect().await;
        publish(&mut redis, "orders", "{}").await;
        let mut first = Open::of(&site, "/").await;
        first.until("1 wait").await;
        let of_one = cost(&mut redis, Duration::from_secs(3)).await;
        assert!(of_one > 0);
        let mut others = Vec::new();
        for _ in 1..50 {
            others.push(Open::of(&site, "/").await);
        }
        for other in &mut others {
            other.until("1 wait").await;
        }
        let of_fifty = cost(&mut redis, Duration::from_secs(3)).await;
        // A second more or less of looking, and the look that is had every ten seconds anyway.
        assert!(of_fifty <= of_one * 2, "one cost {of_one}, fifty {of_fifty}");
        for _ in 0..2 {
            publish(&mut redis, "orders", "{}").await;
        }
        for other in &mut others {
            other.until("3 wait").await;
        }
    }

    async fn nobody_looks_and_it_costs_next_to_nothing(server: Server) {
        let site = Site::start(&server).await;
        let mut redis = server.connect().await;
        let mut open = Open::of(&site, "/").await;
        open.until("no worker").await;
        drop(open);
        eventually(Duration::from_secs(40), "an end of looking", async || {
            // One look of a few commands in ten seconds.
            cost(&mut redis, Duration::from_secs(2)).await <= 25
        })
        .await;
    }

    async fn open_pages_hold_up_no_stop(server: Server) {
        let site = Site::start(&server).await;
        let mut open = Vec::new();
        for page in ["/", "/flow?range=live", "/workers", "/types"] {
            let mut one = Open::of(&site, page).await;
            one.until("event: main").await;
            open.push(one);
        }
        let began = Instant::now();
        site.stop().await.expect("a clean end");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        for mut one in open {
            let mut rest = Vec::new();
            timeout(SOON, one.socket.read_to_end(&mut rest)).await.expect("an end").expect("a clean end");
        }
    }

    async fn an_action_is_audited_with_its_reason_or_not_done(server: Server) {
        let site = Site::start(&server).await;
        let pause = |reason: &'static str| {
            let address = site.address.clone();
            async move { ask(&address, "POST", "/streams/pause?stream=orders", "", reason).await }
        };
        assert_eq!(pause("reason=").await.status(), 400);
        assert_eq!(pause("reason=%20").await.status(), 400);
        assert!(site.audited().await.is_empty());
        let done = pause("reason=deploy%20417").await;
        assert_eq!(done.status(), 303, "{}", done.head);
        let noted = site.audited().await;
        assert_eq!(noted, ["somebody on this machine: streamhand pause orders: deploy 417"]);
        let location = done.head.lines().find_map(|line| line.strip_prefix("location: ")).expect("a place");
        let page = get(&site, location).await;
        assert!(page.body.contains("orders is paused"), "{}", page.body);
        assert!(!get(&site, "/?said=orders+is+gone").await.body.contains("orders is gone"));
    }

    async fn a_user_that_may_only_read_sees_and_does_nothing(server: Server) {
        let mut redis = server.connect().await;
        publish(&mut redis, "orders", "{}").await;
        let site = Site::start_with(&server, may_only_read(&mut redis).await).await;
        let page = get(&site, "/").await;
        assert_eq!(page.status(), 200, "{}", page.body);
        assert!(page.body.contains("1 wait"), "{}", page.body);
        for path in ["/flow", "/types", "/workers"] {
            assert_eq!(get(&site, path).await.status(), 200, "{path}");
        }
        let refused = ask(&site.address, "POST", "/streams/pause?stream=orders", "", "reason=x").await;
        assert!(refused.status() >= 400 && refused.body.contains("audit"), "{}: {}", refused.status(), refused.body);
        let paused: bool = redis::cmd("EXISTS").arg("{orders}:fulfilment:paused").query_async(&mut redis).await.unwrap();
        assert!(!paused);
    }

    async fn a_topic_is_one_line_with_its_partitions_folded_below(server: Server) {
        let site = Site::start_with(&server, "[streams.orders]\npartitions = 3\n").await;
        let mut redis = server.connect().await;
        for stream in ["{orders:0}", "{orders:2}", "{orders:2}"] {
            publish(&mut redis, stream, "{}").await;
        }
        let now = async || {
            let page = get(&site, "/").await;
            assert_eq!(page.status(), 200, "{}", page.body);
            let (lines, below) = page.body.split_once("<details class=\"partitions\">").expect("partitions");
            (lines.to_owned(), below.to_owned())
        };
        let (lines, below) = now().await;
        assert!(lines.contains("3 partitions") && lines.contains("payments"), "{lines}");
        assert!(!lines.contains("{orders:2}") && below.contains("{orders:2}"), "{lines}");
        let done = ask(&site.address, "POST", "/streams/pause?stream=orders", "", "reason=deploy").await;
        assert_eq!(done.status(), 303, "{}", done.body);
        let status = site.admin().status().await.expect("a status");
        let paused = status.streams.iter().filter(|stream| !stream.paused.is_empty());
        assert_eq!(paused.count(), 3);
        eventually(SOON, "the line to say so", async || now().await.0.contains("paused by")).await;
        // It grows while the pages are served.
        site.admin().grow("orders", 5).await.expect("it to grow");
        eventually(SOON, "all partitions to be there", async || {
            let (lines, below) = now().await;
            lines.contains("8 partitions") && below.contains("{orders:2.4}")
        })
        .await;
        assert_eq!(get(&site, "/dead?stream=%7Borders%3A2.4%7D").await.status(), 200);
    }

    async fn a_worker_serves_pages_beside_its_work(server: Server) {
        let port = free_ports().next().expect("a port");
        let listen = format!("127.0.0.1:{port}");
        let setup = Setup::new(&server).more(&format!("[web]\nlisten = \"{listen}\""));
        let mut worker = setup.process();
        worker.wait_for_log("serving the pages", SOON).await;
        let address = format!("http://{listen}");
        eventually(SOON, "the worker on its own page", async || {
            let page = ask(&address, "GET", "/workers", "", "").await;
            let shown = page.body.contains("alive") && page.body.contains("Drain");
            if shown { Ok(()) } else { Err(page.body) }
        })
        .await;
        // It can be told to go from there.
        let page = ask(&address, "GET", "/workers.json", "", "").await;
        let workers: serde_json::Value = serde_json::from_str(&page.body).expect("JSON");
        let name = workers["workers"][0]["name"].as_str().expect("a name").to_owned();
        let form: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("worker", &name)
            .append_pair("reason", "to see it go")
            .finish();
        let done = ask(&address, "POST", "/workers/drain", "", &form).await;
        assert_eq!(done.status(), 303, "{}", done.body);
        assert!(worker.wait(SOON).await.success(), "{}", worker.log());
    }

    /// Somebody's own program has its own name, and these commands.
    async fn commands_are_those_of_the_program_that_shows_them(server: Server) {
        let cli = Cli::new(&server, "[worker]\ngroup = \"fulfilment\"\nstreams = [\"orders\"]\n").of_test("aggregates::program_called_ledger");
        let mut program = cli.command(&["web", "--listen", "127.0.0.1:0"]).spawn().expect("the program to start");
        let mut lines = BufReader::new(program.stderr.take().expect("its standard error")).lines();
        let address = timeout(SOON, async {
            loop {
                let line = lines.next_line().await.expect("a line").expect("an address before its end");
                if line.starts_with("http://") {
                    return line.trim_end_matches('/').to_owned();
                }
            }
        })
        .await
        .expect("its address");
        let page = ask(&address, "GET", "/", "", "").await;
        assert!(page.body.contains("<code>ledger pause orders</code>"), "{}", page.body);
        assert_eq!(ask(&address, "POST", "/streams/pause?stream=orders", "", "reason=x").await.status(), 303);
        let audit = ask(&address, "GET", "/audit", "", "").await;
        assert!(audit.body.contains("ledger pause orders"), "{}", audit.body);
        program.kill().await.expect("its end");
    }

    async fn a_taken_port_is_told_of_before_anything_runs(server: Server) {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let listen = taken.local_addr().expect("an address");
        let cli = Cli::new(&server, &format!("[web]\nlisten = \"{listen}\"\n"));
        for command in ["web", "run"] {
            let said = cli.run(&[command]).await.failed(1);
            let expected = format!("web.listen: can't listen at {listen}: ");
            assert!(said.contains(&expected), "{command}: {said}");
        }
    }
}

#[test]
fn beyond_this_machine_nobody_is_served_unasked() {
    let refusal = |toml: &str| Settings::from_toml_str(toml).expect_err(toml).to_string();
    for listen in ["0.0.0.0:9465", "[::]:9465", "10.0.0.7:80"] {
        let said = refusal(&format!("[web]\nlisten = \"{listen}\""));
        assert!(
            said.contains("nobody would be asked who they are"),
            "{said}"
        );
        assert!(
            said.contains("password_hash") && said.contains("127.0.0.1"),
            "{said}"
        );
        // Settings that a program makes are not checked before.
        let settings =
            Settings::from_toml_str("[web]\nlisten = \"127.0.0.1:0\"").expect("right settings");
        let web = settings
            .web
            .clone()
            .listen(listen.parse().expect("an address"));
        let error = Web::new(&settings.web(web)).expect_err("a refusal");
        assert!(
            error.to_string().contains("nobody would be asked"),
            "{error}"
        );
    }
    let user = "[web]\nlisten = \"0.0.0.0:9465\"\n[web.users.alice]\nrole = \"view\"\ntoken = \"0123456789abcdef\"";
    let _ = Settings::from_toml_str(user).expect("right settings");
    let wrong = [
        (
            "[web]\nlisten = \"localhost\"",
            "is not an address to listen at; write an address and a port",
        ),
        (
            "[web]\nprefix = \"streamhand\"",
            "is no prefix of a path; write \"/streamhand\"",
        ),
        (
            "[web]\nproxies = [\"proxy\"]",
            "is not an address; write \"10.0.0.7\"",
        ),
        (
            "[web]\nidentity_header = \"X-User\"",
            "name the proxies that send it in web.proxies",
        ),
        ("[web]\nrole = \"root\"", "view"),
        (
            "[web]\nredact = [\"data..card\"]",
            "is no path of a field; write \"data.card\"",
        ),
        (
            "[web.users.alice]\ntoken = \"0123456789abcdef\"",
            "so that they may do nothing",
        ),
        (
            "[web.users.alice]\nrole = \"view\"\ntoken = \"short\"",
            "too short for a token",
        ),
        (
            "[web.users.alice]\nrole = \"view\"\npassword_hash = \"hunter2\"",
            "make one with `streamhand web hash`",
        ),
        (
            "[web.users.alice]\nrole = \"view\"\nstreams = { \"a{b\" = \"view\" }",
            "the stream name",
        ),
        (
            "[web]\nlissten = \"127.0.0.1:1\"",
            "did you mean `web.listen`?",
        ),
    ];
    for (toml, expected) in wrong {
        let said = refusal(toml);
        assert!(said.contains(expected), "{toml}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn secrets_of_users_are_not_shown() {
    let toml = "[web.users.alice]\nrole = \"view\"\ntoken = \"hunter2hunter2hunter2\"\n[web.redis]\npassword = \"hunter2\"";
    let settings = Settings::from_toml_str(toml).expect("right settings");
    let shown = format!("{} {settings:?}", settings.to_toml());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("token = \"***\""), "{shown}");
}

/// What every page has to be quicker than, with this much to show.
const ENTRIES: usize = 10_000_000;
const LETTERS: usize = 1_000_000;
const QUICK: Duration = Duration::from_millis(100);

/// Half a minute to make, eight to look: `make test` leaves it out, `make pages` runs it.
#[test]
#[ignore = "takes minutes and a gigabyte: make pages"]
fn pages_of_ten_million_entries_are_quick() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let server = Server::start(Kind::Redis).await;
        let mut redis = server.connect().await;
        many(&mut redis, "orders", ENTRIES, "'type', 'order.created', 'data', '{\"order_id\":\"o-' .. i .. '\"}'").await;
        let of_letter = "'type', 'order.created', 'data', '{}', 'dead.reason', 'failed', 'dead.error', 'no stock for o-' .. i, \
            'dead.attempts', '5', 'dead.handler', 'order.created', 'dead.stream', 'orders', 'dead.group', 'fulfilment', \
            'dead.entry', i .. '-0', 'dead.consumer', 'w', 'dead.first_delivered', '1', 'dead.at', '1796008560000', 'dead.replays', '0'";
        many(&mut redis, "{orders}:fulfilment:dead", LETTERS, of_letter).await;
        let group = ["CREATE", "orders", "fulfilment", "0"];
        redis::cmd("XGROUP").arg(&group).query_async::<()>(&mut redis).await.expect("a group");
        redis::cmd("XREADGROUP").arg(&["GROUP", "fulfilment", "w", "COUNT", "10000", "STREAMS", "orders", ">"])
            .query_async::<redis::Value>(&mut redis).await.expect("a read");
        let site = Site::start(&server).await;
        let mut slow = Vec::new();
        // The first look has them counted, which takes a while, and no page waits for it.
        slow.extend(is_slow(&site, &mut redis, "/dead").await);
        let fingerprint = eventually(Duration::from_secs(300), "a million letters to be counted", async || {
            let page: serde_json::Value = serde_json::from_str(&get(&site, "/dead.json").await.body).expect("JSON");
            let is_counted = page["is_counting"] == false && page["groups"][0]["count"] == LETTERS;
            if is_counted { Ok(page["groups"][0]["fingerprint"].as_str().expect("one").to_owned()) } else { Err(page["total"].clone()) }
        })
        .await;
        let ids = async |key: &str, step: &str| {
            let mut redis = server.connect().await;
            let ends = if step == "XRANGE" { ["-", "+"] } else { ["+", "-"] };
            let found: redis::streams::StreamRangeReply =
                redis::cmd(step).arg(key).arg(&ends).arg("COUNT").arg(5_000).query_async(&mut redis).await.expect("entries");
            found.ids.last().expect("an entry").id.clone()
        };
        let (held, unread, letter) = (ids("orders", "XRANGE").await, ids("orders", "XREVRANGE").await, ids("{orders}:fulfilment:dead", "XRANGE").await);
        let pages = crate::browser::PAGES.iter().map(|(path, _)| (*path).to_owned());
        for path in pages.chain([
            format!("/entry?stream=orders&id={held}"),
            format!("/entry?stream=orders&id={unread}"),
            "/find?q=data.order_id:nothing&in=stream".to_owned(),
            format!("/dead/group?stream=orders&fingerprint={fingerprint}"),
            format!("/dead/letter?stream=orders&id={letter}"),
        ]) {
            slow.extend(is_slow(&site, &mut redis, &path).await);
        }
        assert!(slow.is_empty(), "{slow:?}");
    });
}

/// How long a page takes if that is too long: of 20 looks, a second apart.
async fn is_slow(site: &Site, redis: &mut MultiplexedConnection, path: &str) -> Option<String> {
    let (mut times, mut asked) = (Vec::new(), Vec::new());
    for round in 0..22 {
        // What is shared is a second old at most: each of these is read again.
        sleep(Duration::from_millis(1000)).await;
        let before = CommandStats::of(redis).await.all_calls();
        let began = Instant::now();
        let page = get(site, path).await;
        let took = began.elapsed();
        assert_eq!(page.status(), 200, "{path}: {}", page.body);
        if round >= 2 {
            times.push(took);
            asked.push(CommandStats::of(redis).await.all_calls() - before);
        }
    }
    times.sort();
    asked.sort_unstable();
    let (median, commands) = (times[times.len() / 2], asked[asked.len() / 2]);
    println!(
        "{path}: median {median:?}, slowest {:?}, {commands} commands",
        times[times.len() - 1]
    );
    (median >= QUICK).then(|| format!("{path}: {median:?}"))
}

/// So many entries, made in the server.
async fn many(redis: &mut MultiplexedConnection, key: &str, many: usize, fields: &str) {
    const STEP: usize = 100_000;
    let script = format!(
        "for i = ARGV[1], ARGV[1] + {STEP} - 1 do redis.call('XADD', KEYS[1], '*', {fields}) end"
    );
    for from in (0..many).step_by(STEP) {
        redis::cmd("EVAL")
            .arg(&script)
            .arg(1)
            .arg(key)
            .arg(from)
            .query_async::<()>(redis)
            .await
            .expect("entries");
    }
}
