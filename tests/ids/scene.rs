//! Every script that has to do with ids, played on six of them, and what it says with the ids' places in their stead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use redis::Value;
use redis::aio::MultiplexedConnection;
use regex::{Captures, Regex};

use crate::support::scripts;

const ME: &str = "sh2-30000-here-1-0000000000000001";
const OTHER: &str = "sh2-30000-there-2-0000000000000002";
const GONE: &str = "sh2-30000-gone-3-0000000000000003";

/// Six ids one after the other.
#[derive(Debug)]
pub struct Ids(Vec<(u64, u64)>);

impl Ids {
    /// Of which so many come behind `edge`, in milliseconds.
    pub fn in_ms(edge: u64, behind: u64) -> Self {
        Ids((0..6).map(|n| (edge - 5 + behind + n, 0)).collect())
    }

    /// The same, within a millisecond.
    pub fn in_seq(edge: u64, behind: u64) -> Self {
        Ids((0..6)
            .map(|n| (3_000_000_000_000, edge - 5 + behind + n))
            .collect())
    }

    /// The last that there are.
    pub fn last() -> Self {
        Ids((0..6).map(|n| (u64::MAX, u64::MAX - 5 + n)).collect())
    }

    fn id(&self, place: usize) -> String {
        format!("{}-{}", self.0[place].0, self.0[place].1)
    }

    /// What stands for these ids, and for those next to them.
    fn places(&self) -> BTreeMap<String, String> {
        let mut places = BTreeMap::new();
        for (place, (ms, seq)) in self.0.iter().enumerate() {
            let below = match seq.checked_sub(1) {
                Some(seq) => Some((*ms, seq)),
                None => ms.checked_sub(1).map(|ms| (ms, u64::MAX)),
            };
            let above = match seq.checked_add(1) {
                Some(seq) => Some((*ms, seq)),
                None => ms.checked_add(1).map(|ms| (ms, 0)),
            };
            for (side, id) in [("<", below), (">", above)] {
                if let Some((ms, seq)) = id {
                    places
                        .entry(format!("{ms}-{seq}"))
                        .or_insert(format!("{side}p{place}"));
                }
            }
        }
        for place in 0..6 {
            places.insert(self.id(place), format!("p{place}"));
        }
        places
    }
}

/// What is played, and what was said.
struct Scene<'a> {
    redis: &'a mut MultiplexedConnection,
    ids: &'a Ids,
    places: BTreeMap<String, String>,
    said: Vec<String>,
    played: BTreeSet<String>,
}

/// Plays it all on an empty server; answers what every step said.
pub async fn play(redis: &mut MultiplexedConnection, ids: &Ids) -> Vec<String> {
    let _: () = redis::cmd("FLUSHALL").query_async(redis).await.unwrap();
    let places = ids.places();
    let mut scene = Scene {
        redis,
        ids,
        places,
        said: Vec::new(),
        played: BTreeSet::new(),
    };
    scene.group().await;
    scene.waiting().await;
    scene.letters().await;
    scene.views().await;
    scene.aggregates().await;
    scene.looks().await;
    scene.runs().await;
    scene.outbox().await;
    let played: Vec<String> = scene.played.into_iter().collect();
    scene.said.push(played.join(" "));
    scene.said
}

/// Scripts that neither compare ids of entries nor count them up or down.
pub const WITHOUT_IDS: &[&str] = &[
    "alerts",
    "ask",
    "breaker",
    "cancel",
    "forget",
    "lacks",
    "limit",
    "list_scheduled",
    "may",
    "order",
    "order_check",
    "outbox_add",
    "pause",
    "permits",
    "pulse_again",
    "pulse_slot",
    "pulse_turn",
    "rate",
    "resume",
    "run_turn",
    "unschedule",
];

/// Which scripts were played.
pub fn played(said: &[String]) -> Vec<&str> {
    let last = said.last().expect("something");
    last.split(' ').collect()
}

impl Scene<'_> {
    fn id(&self, place: usize) -> String {
        self.ids.id(place)
    }

    /// One command, typed; what stands as `@3` is the id at that place.
    async fn by_hand(&mut self, typed: &str) -> Value {
        let words: Vec<String> = typed.split(' ').map(|word| self.of(word)).collect();
        let mut call = redis::cmd(&words[0]);
        call.arg(&words[1..])
            .query_async(self.redis)
            .await
            .unwrap_or_else(|error| panic!("{typed}: {error}"))
    }

    fn of(&self, word: &str) -> String {
        static PLACE: LazyLock<Regex> = LazyLock::new(|| Regex::new("@([0-5])").unwrap());
        let id = |found: &Captures| self.id(found[1].parse().unwrap());
        PLACE.replace_all(word, id).into_owned()
    }

    /// One script; what it answers is noted.
    async fn step(&mut self, script: &str, keys: &[&str], args: &[&str]) -> Value {
        self.played.insert(script.to_owned());
        let text = scripts::text(script);
        let mut call = redis::cmd("EVAL");
        let never: &[&str] = match script {
            // They only read.
            "entry" | "first_events" | "gauges" | "newest" | "parked" | "search" => &[],
            _ => &["never"],
        };
        let count = keys.len() + never.len();
        call.arg(text).arg(count).arg(keys).arg(never);
        let args: Vec<String> = args.iter().map(|arg| self.of(arg)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match scripts::is_packed(script) {
            true => call.arg(scripts::packed(&args)),
            false => call.arg(args),
        };
        let answer: Value = call
            .query_async(self.redis)
            .await
            .unwrap_or_else(|error| panic!("{script}, {:?}: {error}", self.ids));
        self.note(script, &answer);
        answer
    }

    /// A cron on this stream, whose last event has the id at place 3: while the group has it, while it has yet to read it,
    /// and once it is done with it.
    async fn crons(&mut self, stream: &str) {
        let keys = [stream, "due", "events", "cron"];
        self.by_hand(&format!("XGROUP CREATE {stream} readers @2 MKSTREAM"))
            .await;
        self.by_hand(&format!("XADD {stream} @3 type t")).await;
        let record = |state: &str, entry: &str, paused: &str| {
            format!(
                r#"{{"next":"n","names":"n","due":"9000000000000","declared":"9000000000000","overlap":"skip","group":"readers","state":"{state}","entry":"{entry}","paused":"{paused}","paused_until":""}}"#
            )
        };
        let first = self.of(&record("done", "@3", ""));
        let write = ["nightly", "", &first, "", "n", "1", "", "type", "t"];
        self.looked_at(&keys, &write).await;
        for typed in [
            format!("XREADGROUP GROUP readers {ME} COUNT 1 STREAMS {stream} >"),
            format!("XACK {stream} readers @3"),
        ] {
            self.looked_at(&keys, &["nightly"]).await;
            self.by_hand(&typed).await;
        }
        self.looked_at(&keys, &["nightly"]).await;
        self.step(
            "cron_pause",
            &[stream, "cron"],
            &["nightly", "pause", "me", "", ""],
        )
        .await;
        self.step(
            "cron_pause",
            &[stream, "cron"],
            &["nightly", "resume", "me", "", ""],
        )
        .await;
        let list = self.step("cron_list", &[stream, "cron"], &[]).await;
        self.said.pop();
        assert!(self.shown(&list).contains("nightly"));
        self.by_hand(&format!("DEL due events cron {stream}")).await;
    }

    /// What is looked at of a cron: whether its event stands, and whether the one before is out.
    async fn looked_at(&mut self, keys: &[&str], args: &[&str]) {
        let looked = self.step("plan_cron", keys, args).await;
        self.said.pop();
        let Value::Array(items) = &looked else {
            panic!("{looked:?}");
        };
        self.note("plan_cron", &Value::Array(items[3..].to_vec()));
    }

    fn note(&mut self, what: &str, answer: &Value) {
        let said = format!("{what}: {}", self.shown(answer));
        self.said.push(said);
    }

    fn shown(&self, value: &Value) -> String {
        static ID: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d+-\d+").unwrap());
        // Whatever the clock shows; no time here is a place.
        static TIME: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"\b1[6-9]\d{11}\b|\d{4}-\d\d-\d\dT[\d:.]+Z").unwrap());
        let text = match value {
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| self.shown(item)).collect();
                return format!("[{}]", items.join(", "));
            }
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::SimpleString(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            Value::Okay => "OK".to_owned(),
            other => format!("{other:?}"),
        };
        let text = TIME.replace_all(&text, "<time>");
        let place = |found: &Captures| {
            self.places
                .get(&found[0])
                .cloned()
                .unwrap_or(found[0].to_owned())
        };
        ID.replace_all(&text, place).into_owned()
    }

    /// A group from its first entry to its trimming, and made anew.
    async fn group(&mut self) {
        let g = |name: &str| format!("{{jobs}}:workers:{name}");
        let (retry, failures, again, dead) = (
            &g("retry")[..],
            &g("failures")[..],
            &g("again")[..],
            &g("dead")[..],
        );
        let (position, protocol, paused, commits) = (
            &g("position")[..],
            &g("protocol")[..],
            &g("paused")[..],
            &g("commits")[..],
        );
        let joins = ["workers", "0", "2", "a", "", "", "", "1000", "1000000"];
        let join_keys = ["jobs", position, protocol, failures, retry];
        self.step("join", &join_keys, &joins).await;
        for place in 0..5 {
            self.by_hand(&format!("XADD jobs @{place} type test.job id e-{place}"))
                .await;
        }
        self.by_hand(&format!(
            "XREADGROUP GROUP workers {GONE} COUNT 3 STREAMS jobs >"
        ))
        .await;
        self.by_hand(&format!(
            "XREADGROUP GROUP workers {ME} COUNT 1 STREAMS jobs >"
        ))
        .await;
        let renew_keys = ["jobs", position, protocol];
        self.step(
            "renew",
            &renew_keys,
            &[
                "workers", GONE, "-", "+", "1", "@0", "1", "@1", "1", "@2", "1",
            ],
        )
        .await;
        self.step(
            "renew",
            &renew_keys,
            &["workers", ME, "-", "+", "1", "@3", "1"],
        )
        .await;
        self.step(
            "renew",
            &renew_keys,
            &["workers", ME, "-", "@2", "0", "@1", "1"],
        )
        .await;
        let park = [
            "workers", GONE, "@0", "@1", "", "", "", "@0", GONE, "1", "0", "0", "5", "-", "no",
            "-", "@1", GONE, "1", "0", "1", "5", "-", "later", "-",
        ];
        self.step("park", &["jobs", retry, failures, &g("waiting")], &park)
            .await;
        self.step(
            "status",
            &[
                "jobs",
                retry,
                dead,
                again,
                protocol,
                failures,
                position,
                paused,
                &g("breakers"),
                "{jobs}:scheduled",
                "{jobs}:scheduled:events",
                "{jobs}:trimmed",
            ],
            &["workers", "1000", "1000000"],
        )
        .await;
        // How long each has been idle is left out, and that is all there is behind it.
        let status = self.said.pop().unwrap();
        self.said
            .push(status.split("[[").next().unwrap().to_owned());
        self.by_hand(&format!("DEL {retry}")).await;
        self.step("mend", &["jobs", retry], &["workers", "-", "1", "0"])
            .await;
        self.step("mend", &["jobs", retry], &["workers", "@1", "10", "1"])
            .await;
        self.step(
            "sweep",
            &["jobs", retry, failures],
            &["workers", "0", "100", "1"],
        )
        .await;
        let trim_keys = ["jobs", "{jobs}:trimmed", retry];
        for (kind, kept) in [("acked", "0"), ("count", "1"), ("age", "0")] {
            let look = [
                "workers", kind, kept, "0", "look", ME, "0", "0", "10", "3600000", "600000",
                "1000", "1000000", "", "", "workers",
            ];
            self.step("trim", &trim_keys, &look).await;
        }
        let waiting = &g("waiting")[..];
        let wake_keys = [
            "jobs",
            retry,
            failures,
            again,
            paused,
            "{jobs}:scheduled",
            waiting,
        ];
        self.step("wake", &wake_keys, &["workers", ME, "10", "100000"])
            .await;
        // A due time of what has not been read yet, and one of what is nobody's.
        self.by_hand("XACK jobs workers @3").await;
        self.by_hand(&format!("ZADD {retry} 1 @3 1 @4")).await;
        self.step("wake", &wake_keys, &["workers", ME, "10", "100000"])
            .await;
        let late = [
            "workers",
            OTHER,
            GONE,
            "0",
            "10",
            "100000",
            "3",
            "0",
            "-",
            "9000000000000",
            "9000000000000",
        ];
        self.step("reclaim", &["jobs", failures, retry], &late)
            .await;
        self.step(
            "adopt",
            &["jobs", failures, retry],
            &["workers", ME, "10", "100000", "@3"],
        )
        .await;
        self.by_hand("XADD jobs @5 type test.job id e-5").await;
        self.by_hand(&format!("XREADGROUP GROUP workers {ME} STREAMS jobs >"))
            .await;
        self.settle(retry, failures, dead, commits).await;
        self.cancels().await;
        for (kind, kept, step) in [
            ("count", "1", "turn"),
            ("age", "0", "turn"),
            ("acked", "0", "turn"),
        ] {
            let turn = [
                "workers", kind, kept, "0", step, ME, "0", "0", "10", "3600000", "600000", "1000",
                "1000000", "", "", "workers",
            ];
            self.step("trim", &trim_keys, &turn).await;
        }
        let left = self.by_hand("XRANGE jobs - +").await;
        self.note("left", &left);
        self.step(
            "renew",
            &renew_keys,
            &["workers", ME, "-", "+", "1", "@5", "1"],
        )
        .await;
        self.by_hand(&format!("HDEL {position} {GONE}")).await;
        self.by_hand("XGROUP DESTROY jobs workers").await;
        self.step("join", &join_keys, &joins).await;
        let groups = self
            .by_hand(&format!("XREADGROUP GROUP workers {OTHER} STREAMS jobs >"))
            .await;
        self.note("read again", &groups);
        // What comes again as new ones: one that is parked, one that has a record, and one that nobody knows.
        self.by_hand("XGROUP SETID jobs workers @2").await;
        self.by_hand(&format!("XREADGROUP GROUP workers {OTHER} STREAMS jobs >"))
            .await;
        self.by_hand(&format!("DEL {retry} {failures}")).await;
        self.by_hand(&format!("ZADD {retry} 9000000000000 @3"))
            .await;
        let record = redis::cmd("HSET")
            .arg(failures)
            .arg(self.id(4))
            .arg("1 0 3 - - no")
            .to_owned();
        let _: Value = record.query_async(self.redis).await.unwrap();
        let met = ["workers", OTHER, "@3", "@4", "@5"];
        self.step("met_again", &["jobs", retry, failures], &met)
            .await;
        let held = self.by_hand("XPENDING jobs workers @3 @5 10").await;
        let held = self.shown(&held);
        let idle = Regex::new(r", \d+, (\d+)\]").unwrap();
        self.said
            .push(idle.replace_all(&held, ", $1]").into_owned());
        // Made anew at the end by one who can't know it, and joined by one who knows how far another was.
        self.by_hand(&format!("DEL {position} {retry}")).await;
        self.by_hand("XGROUP DESTROY jobs workers").await;
        let newcomer = ["workers", "$", "2", "b", "", "", "", "1000", "1000000"];
        self.step("join", &join_keys, &newcomer).await;
        let knows = [
            "workers", "$", "2", "c", "a", "@4", "from @3", "2", "1000000",
        ];
        self.step("join", &join_keys, &knows).await;
        self.step("join", &join_keys, &newcomer).await;
        let due = self.by_hand(&format!("ZMSCORE {retry} @2 @3 @4 @5")).await;
        self.note("due", &due);
    }

    /// What waits for a worker that can handle it.
    async fn waiting(&mut self) {
        for typed in [
            "XGROUP CREATE waits workers 0 MKSTREAM".to_owned(),
            "XADD waits @0 type test.job".to_owned(),
            "XADD waits @1 type test.job".to_owned(),
            "XADD waits @2 type test.job".to_owned(),
            format!("XREADGROUP GROUP workers {OTHER} STREAMS waits >"),
        ] {
            self.by_hand(&typed).await;
        }
        let g = |name: &str| format!("{{waits}}:workers:{name}");
        let (retry, failures, waiting) = (&g("retry")[..], &g("failures")[..], &g("waiting")[..]);
        let mut park = vec!["workers", OTHER, "@0", "@2", "", "", ""];
        for id in ["@0", "@1", "@2"] {
            let name = "8:test.job:0000000002:";
            park.extend([id, OTHER, "1", "600000", "1", "5", "-", "not known", name]);
        }
        let keys = ["waits", retry, failures, waiting];
        self.step("unheld", &["waits"], &["workers", OTHER, "@0"])
            .await;
        self.step("park", &keys, &park).await;
        let range = ["[8:test.job:", "(8:test.job::"];
        let known = ["workers", ME, "2", "100000", range[0], range[1], "2"];
        self.step("take_waiting", &keys, &known).await;
        self.by_hand(&format!("HDEL {failures} @2")).await;
        self.step("unlist", &[failures, waiting], &["0", "10"])
            .await;
        self.by_hand("XADD waits @3 type test.job").await;
        self.by_hand("XADD waits @4 type test.other").await;
        let ahead = ["workers", "@0", "@1", "10", "100000"];
        self.step("look_ahead", &["waits"], &ahead).await;
        let ahead = ["workers", "@2", "@3", "10", "100000"];
        self.step("look_ahead", &["waits"], &ahead).await;
        // Known up to the last id there can be, where the ids are at that edge.
        let ahead = ["workers", "@2", "@5", "10", "100000"];
        self.step("look_ahead", &["waits"], &ahead).await;
        // Set back since.
        let ahead = ["workers", "@3", "@4", "10", "100000"];
        self.step("look_ahead", &["waits"], &ahead).await;
        let left = self.by_hand(&format!("ZRANGE {waiting} 0 -1")).await;
        self.note("listed", &left);
        let pending = self.by_hand("XPENDING waits workers").await;
        self.note("pending", &pending);
    }

    async fn settle(&mut self, retry: &str, failures: &str, dead: &str, commits: &str) {
        let guards = "{jobs}:workers:guards";
        let ack = ["workers", "1", "0", "@0", ME, "2", "@2", ME, "2"];
        self.step("ack", &["jobs", retry, failures, guards], &ack)
            .await;
        let bury = [
            "workers",
            "0",
            "jobs",
            ME,
            "@1",
            "@1",
            ME,
            "@1",
            "2",
            "4000000000000",
            "5",
            "failed",
            "no",
            "2",
            "test.job",
            "0",
            "0",
            "",
            "0",
        ];
        self.step(
            "bury",
            &["jobs", retry, dead, failures, guards, "notes", "jobs"],
            &bury,
        )
        .await;
        let claim = ["workers", "@2", "60000", "d", "@3", "60000", "d"];
        self.step(
            "claim",
            &["jobs", "{jobs}:workers:seen:e", "{jobs}:workers:seen:e"],
            &claim,
        )
        .await;
        let commit = [
            "workers", ME, "1", "0", ME, "", "@3", "@3", "2", "@3", "1", "km", "0", "0", "60000",
            "d",
        ];
        let seen = "{jobs}:workers:seen:e";
        self.step(
            "commit",
            &["jobs", retry, failures, commits, guards, seen],
            &commit,
        )
        .await;
        let pending = self.by_hand("XPENDING jobs workers").await;
        self.note("pending", &pending);
    }

    /// Entries are cancelled: one that is held, one that is parked, one that is unread.
    async fn cancels(&mut self) {
        for place in 0..4 {
            self.by_hand(&format!("XADD cancels @{place} type t")).await;
        }
        self.by_hand("XGROUP CREATE cancels workers 0").await;
        self.by_hand(&format!(
            "XREADGROUP GROUP workers {ME} COUNT 2 STREAMS cancels >"
        ))
        .await;
        self.by_hand("XCLAIM cancels workers (parked) 0 @1 JUSTID")
            .await;
        let keys = [
            "cancels",
            "c:retry",
            "c:failures",
            "c:guards",
            "c:noted",
            "c:asked",
        ];
        for place in ["@0", "@1", "@2", "@3"] {
            let ask = ["workers", place, "alice", "60000", "100", "0"];
            self.step("cancel_entry", &keys, &ask).await;
        }
        let keys = [
            "cancels",
            "c:retry",
            "c:failures",
            "c:guards",
            "c:noted",
            "cancels",
        ];
        let settle = ["workers", ME, "@0", "1", "0", "0", "60000", "bob"];
        self.step("cancelled", &keys, &settle).await;
        let pending = self.by_hand("XPENDING cancels workers").await;
        self.note("pending", &pending);
    }

    /// Dead letters under such ids: looked through, replayed, purged, dropped by age and by number.
    async fn letters(&mut self) {
        let death = "dead.reason failed dead.error no dead.attempts 1 dead.handler t dead.stream jobs dead.group workers \
                     dead.entry 1-1 dead.consumer c dead.first_delivered then dead.at now dead.replays 0";
        for place in 0..6 {
            self.by_hand(&format!("XADD dead @{place} type t id e {death}"))
                .await;
        }
        let mut from = "-".to_owned();
        loop {
            let page = self
                .step("browse", &["dead"], &[&from, "+", "2", "100000", "", ""])
                .await;
            // A page that ends with the last one there can be says so; any other only knows on the next.
            let said = self.said.pop().unwrap();
            let (heads, next) = said.rsplit_once("]], ").unwrap_or((&said, ""));
            if heads.contains('p') {
                self.said.push(heads.to_owned());
            }
            let Value::Array(page) = page else {
                panic!("no list")
            };
            assert!(!next.contains("null"));
            match &page[1] {
                Value::BulkString(next) => from = String::from_utf8(next.clone()).unwrap(),
                _ => break,
            }
        }
        self.step(
            "purge",
            &["dead", "protocol", "notes", "groups", "runs", "out"],
            &["2", "100000", "@0", "1-1 now", "@1", "1-1 then"],
        )
        .await;
        self.step(
            "replay",
            &[
                "dead", "again", "protocol", "notes", "groups", "runs", "out",
            ],
            &["2", "me", "100000", "@1", "1-1 now", "@0", ""],
        )
        .await;
        // The copy's own id is by the clock.
        let said = self.said.pop().unwrap();
        self.said.push(said.split(',').skip(1).collect());
        let expire = |kind, value| [kind, value, "turn", ME, "0", "1", "1000", "1000"];
        self.step(
            "expire",
            &["dead", "kept", "notes", "groups", "runs", "out"],
            &expire("count", "2"),
        )
        .await;
        self.step(
            "expire",
            &["dead", "kept", "notes", "groups", "runs", "out"],
            &expire("age", "0"),
        )
        .await;
        let left = self.by_hand("XRANGE dead - +").await;
        self.note("left", &left);
    }

    /// Positions of projections and of those who read along.
    async fn views(&mut self) {
        for place in 0..6 {
            self.by_hand(&format!("XADD public @{place} type t id e"))
                .await;
        }
        for (after, known) in [
            ("@1", ""),
            ("@1", "2"),
            ("0-0", "0"),
            ("@4", "5"),
            ("@5", "6"),
        ] {
            self.step("read_along", &["public", "top"], &[after, known, "10"])
                .await;
        }
        let lease = |step| ["view", "me", "1000", step, "1"];
        self.step(
            "project_lease",
            &["public", "point", "top"],
            &lease("first"),
        )
        .await;
        let project = |from, to, count| ["view", "me", "1000", "1", from, "public", "1", to, count];
        let keys = ["public", "point", "bad", "redo", "top"];
        self.by_hand("HSET point read 0").await;
        self.step("project", &keys, &project("0-0", "@2", "3"))
            .await;
        self.step("project", &keys, &project("@1", "@3", "1")).await;
        self.step("project", &keys, &project("@2", "@4", "2")).await;
        let arrive = [&lease("arrive")[..], &["1", "@4", "@5", "6"]].concat();
        self.step("project_lease", &["public", "point", "top"], &arrive)
            .await;
        let groups = self.by_hand("XINFO GROUPS public").await;
        self.note("groups", &groups);
        let rebuild = [
            "public", "point", "building", "bad", "new-bad", "redo", "top",
        ];
        self.step(
            "project_rebuild",
            &rebuild,
            &["view", "me", "1000", "begin"],
        )
        .await;
        self.by_hand("HSET building position @4").await;
        self.step(
            "project_rebuild",
            &rebuild,
            &["view", "me", "1000", "switch", "2", "1"],
        )
        .await;
        self.by_hand("HSET building position @5").await;
        self.step(
            "project_rebuild",
            &rebuild,
            &["view", "me", "1000", "switch", "2", "1"],
        )
        .await;
    }

    /// Aggregates whose positions are such ids, a public stream that has come to one, and other streams that have.
    async fn aggregates(&mut self) {
        for (version, place) in [(1, 0), (2, 2), (3, 4)] {
            self.by_hand(&format!(
                "XADD {{a}}:1 {version}-0 position @{place} id v{version} type t"
            ))
            .await;
        }
        for after in ["0-0", "@0", "@1", "@3", "@4"] {
            self.step("first_events", &["{a}:1"], &[after]).await;
        }
        self.by_hand("COPY {a}:1 {a}:2").await;
        for (n, script) in ["append_events", "append_events", "publish_once", "add_due"]
            .into_iter()
            .enumerate()
        {
            let stream = format!("public-{n}");
            self.by_hand(&format!("XADD {stream} @2 type t")).await;
            match script {
                "append_events" => {
                    let first = ["4", ""][n];
                    let append = [first, "3", "1", "4", "id", "v4", "type", "t"];
                    let aggregate = format!("{{a}}:{}", n + 1);
                    let top = format!("top-{n}");
                    self.step(script, &[&stream[..], &top[..], &aggregate[..]], &append)
                        .await;
                }
                "publish_once" => {
                    for _ in 0..2 {
                        let once = ["60000", "ab12", "1", "type", "t"];
                        self.step(script, &[&stream[..], "mark"], &once).await;
                    }
                }
                _ => {
                    let keys = [&stream[..], "due", "events", "cron"];
                    self.step(
                        "schedule",
                        &keys[..3],
                        &["e", &"a".repeat(32), "1", "", "1", "type", "t"],
                    )
                    .await;
                    self.step(script, &keys, &["10", "10000", "60000", "600000"])
                        .await;
                    self.crons("cronned").await;
                }
            }
            let stands = self
                .by_hand(&format!("XREVRANGE {stream} + - COUNT 1"))
                .await;
            self.note(&stream, &stands);
        }
        self.commits_more().await;
        self.commits_batch().await;
        for place in [1, 3] {
            let version = self.ids.0[place].0.to_string();
            if self.ids.0[place].1 == 0 {
                self.by_hand(&format!("XADD snapped @{place} id v{version}"))
                    .await;
            }
        }
        for place in [1, 3, 1] {
            let version = self.ids.0[place].0.to_string();
            let keep = [&version[..], &format!("v{version}"), "1", "state"];
            self.step("keep_snapshot", &["snapped", "snapshot"], &keep)
                .await;
        }
        // A stream with such a version is no aggregate, and has no events to append to.
        self.by_hand("XADD {a}:9 1-0 position 1-0 id v1 type t")
            .await;
        let version = self.ids.0[5].0.max(1 << 54);
        self.by_hand(&format!(
            "XADD {{a}}:9 {version}-0 position 1-1 id v2 type t"
        ))
        .await;
        self.step(
            "append_events",
            &["public-9", "top-9", "{a}:9"],
            &["", "any", "1", "4", "id", "v3", "type", "t"],
        )
        .await;
        self.step("first_events", &["{a}:9"], &["1-0"]).await;
    }

    /// The commit of such an entry schedules an event, and appends one to an aggregate with such positions.
    async fn commits_more(&mut self) {
        self.by_hand("XADD more @1 type t").await;
        self.by_hand("XGROUP CREATE more workers 0").await;
        self.by_hand(&format!("XREADGROUP GROUP workers {ME} STREAMS more >"))
            .await;
        self.by_hand("COPY {a}:1 {a}:3").await;
        self.by_hand("XADD public-more @2 type t").await;
        let which = "a".repeat(32);
        let mut commit = vec![
            "workers", ME, "1", "0", ME, "", "@1", "@1", "2", "@1", "1", "", "0", "2",
        ];
        commit.extend(["SCHEDULE", "=", "", "e", &which, "1", "3", "0", "type", "t"]);
        commit.extend([
            "APPEND", "=", "", "3", "1", "", "5", "4", "id", "v4", "type", "t",
        ]);
        let keys = [
            "more",
            "more-retry",
            "more-failures",
            "more-commits",
            "more-guards",
            "more",
            "more-due",
            "more-events",
            "{a}:3",
            "public-more",
            "top-more",
        ];
        self.step("commit_more", &keys, &commit).await;
        for look in [
            "XPENDING more workers",
            "XREVRANGE public-more + - COUNT 1",
            "XREVRANGE {a}:3 + - COUNT 1",
            "GET top-more",
        ] {
            let stands = self.by_hand(look).await;
            self.note(look, &stands);
        }
    }

    /// A batch of two such entries, one of which is another's at first; then of both; and the same once more.
    async fn commits_batch(&mut self) {
        for place in [1, 2] {
            self.by_hand(&format!("XADD batch @{place} type t")).await;
        }
        self.by_hand("XGROUP CREATE batch workers 0").await;
        self.by_hand(&format!("XREADGROUP GROUP workers {ME} STREAMS batch >"))
            .await;
        let keys = [
            "batch",
            "batch-retry",
            "batch-failures",
            "batch-commits",
            "batch-guards",
            "batch-emitted",
            "batch-counted",
        ];
        for (number, count) in [("1", 2), ("2", 1), ("3", 1)] {
            let entries = format!("@1 1 0 0 0  0\n@2 {count} 0 0 0  0\n");
            let commit = [
                "workers", ME, number, "0", "0", "1", &entries, "2", "type", "t", "INCRBY", "",
                "1", "1",
            ];
            self.step("commit_batch", &keys, &commit).await;
        }
        for look in ["XPENDING batch workers", "GET batch-counted"] {
            let stands = self.by_hand(look).await;
            self.note(look, &stands);
        }
    }

    /// Where an entry stands, what there is to do, and lists that are gone through a page at a time.
    async fn looks(&mut self) {
        self.by_hand("XGROUP CREATE looked workers 0 MKSTREAM")
            .await;
        for place in 0..6 {
            self.by_hand(&format!(
                "XADD looked @{place} type t id e-{place} subject s"
            ))
            .await;
        }
        let read = format!("XREADGROUP GROUP workers {ME} COUNT 4 STREAMS looked >");
        self.by_hand(&read).await;
        self.by_hand("XCLAIM looked workers (parked) 0 @0 @1 @2 JUSTID")
            .await;
        self.by_hand("ZADD parked-till 9000000000000 @0 9000000000000 @1")
            .await;
        self.step("newest", &["looked"], &[]).await;
        for id in ["@0", "@3", "@5"] {
            let keys = ["looked", "parked-till", "failed", "guarded"];
            self.step("entry", &keys, &["workers", id]).await;
            self.without_idle();
        }
        for most in ["2", "3", "10"] {
            let page = ["workers", "(parked)", "@0", "+", most, "100000"];
            self.step("parked", &["looked"], &page).await;
        }
        for (low, high, newest_first, most) in [
            ("-", "+", "0", "10"),
            ("@1", "@4", "0", "3"),
            ("-", "+", "1", "3"),
            ("@2", "@5", "1", "10"),
        ] {
            let page = [low, high, newest_first, most, "100000"];
            self.step("search", &["looked"], &page).await;
        }
        let keys = [
            "looked",
            "trimmed",
            "parked-till",
            "letters",
            "again",
            "again-till",
            "later",
            "paused",
        ];
        self.step("gauges", &keys, &["workers", "1000", "1000000"])
            .await;
        self.without_idle();
        let order = ["workers", "@1", "behind"];
        self.step("order_pending", &["looked", "failed"], &order)
            .await;
        let rouse = ["workers", "behind", "@0", "@3", "@4", "@5"];
        self.step("order_rouse", &["looked", "failed", "parked-till"], &rouse)
            .await;
        self.held().await;
        // One is read to its end, or not.
        self.by_hand("XGROUP CREATE held-again workers @3").await;
        let keys = ["held-again", "held-none", "held", "held-again"];
        for read in [3, 4] {
            self.by_hand(&format!("XGROUP SETID held-again workers @{read}"))
                .await;
            self.step("settled", &keys, &["workers"]).await;
        }
        // Set back by a second; what it was parked till moves with it, and it goes on where it was left.
        for _ in 0..4 {
            let set = ["workers", "-1000", "60000", "2"];
            self.step("clock_set", &["looked", "parked-till", "set"], &set)
                .await;
        }
        let pending = self.by_hand("XPENDING looked workers").await;
        self.note("pending", &pending);
    }

    /// Two letters that hold their subjects, of which one is gone: it was replayed.
    async fn held(&mut self) {
        for letter in [0, 1] {
            self.by_hand(&format!("XADD held-dead @{letter} type t"))
                .await;
        }
        let held = ["HSET", "held", "@0", "1 @2 s", "@5", "0 @3 a"].map(|word| self.of(word));
        let _: i64 = redis::cmd(held[0].as_str())
            .arg(&held[1..])
            .query_async(self.redis)
            .await
            .unwrap();
        for copy in [3, 4] {
            self.by_hand(&format!("XADD held-again @{copy} type t subject s-{copy}"))
                .await;
        }
        let keys = ["held-dead", "held", "held-again"];
        self.step("order_held", &keys, &["held", "0"]).await;
        self.step("order_held", &keys, &["copies", "-"]).await;
        self.step("order_held", &keys, &["copies", "@4"]).await;
        self.step("order_held", &keys, &["done", "@5"]).await;
        let left = self.by_hand("HGETALL held").await;
        self.note("held", &left);
    }

    /// How long something has been idle is by the clock.
    fn without_idle(&mut self) {
        static IDLE: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"\[(sh2[^,]*|\(parked\)), \d+, \d+\]").unwrap());
        let said = self.said.pop().unwrap();
        self.said.push(IDLE.replace_all(&said, "[$1]").into_owned());
    }

    /// Letters that a run replays, that are noted of, and that are purged and brought back.
    async fn runs(&mut self) {
        let death = "dead.reason failed dead.error no dead.attempts 1 dead.handler t dead.stream jobs dead.group workers \
                     dead.entry 1-1 dead.consumer c dead.first_delivered then dead.at now dead.replays 0";
        for place in 0..6 {
            self.by_hand(&format!("XADD run-dead @{place} type t id e {death}"))
                .await;
        }
        for most in ["4", "10"] {
            self.step(
                "groups",
                &["run-dead", "run-groups"],
                &[most, "100000", "10"],
            )
            .await;
        }
        self.step("run_begin", &["runs", "protocol"], &["2", "{}", "", "100"])
            .await;
        let keys = [
            "run-dead",
            "run-again",
            "protocol",
            "run-notes",
            "run-groups",
            "runs",
            "run-out",
        ];
        let step = [
            "2", "me", "100000", "1", "driver", "60000", "10", "@2", "@0", "1-1 now", "@1",
            "1-1 now",
        ];
        self.step("run_step", &keys, &step).await;
        // The copies' own ids are by the clock.
        self.said.pop();
        self.said.push("run_step: some".to_owned());
        let noted = self.by_hand("HMGET runs 1:cursor 1:replayed looked").await;
        self.note("run", &noted);
        let look = ["run-dead", "run-again", "runs", "run-out"];
        self.step("run_look", &look, &["0", "10", "100000"]).await;
        self.by_hand("HSET runs looked @1").await;
        self.step("run_look", &look, &["0", "2", "100000"]).await;
        let looked = self.by_hand("HGET runs looked").await;
        self.note("looked", &looked);
        let of = ["@3", "1-1 now", "*", "who", "me"];
        self.step("note", &["run-dead", "run-notes", "run-kept"], &of)
            .await;
        let noted = self.by_hand("HKEYS run-notes").await;
        self.note("noted", &noted);
        let keys = [
            "run-dead",
            "protocol",
            "purged",
            "purges",
            "run-notes",
            "run-groups",
            "runs",
            "run-out",
            "run-held",
        ];
        let purge = [
            "2", "100000", "one", "me", "60000", "@3", "1-1 now", "@4", "1-1 then", "@5", "1-1 now",
        ];
        self.step("purge_kept", &keys, &purge).await;
        let undo = [
            "run-back",
            "protocol",
            "purged",
            "purges",
            "run-notes",
            "run-held",
        ];
        self.step("undo_purge", &undo, &["2", "10", "100000", "one"])
            .await;
        let left = self.by_hand("XRANGE run-dead - +").await;
        self.note("left", &left);
    }

    /// What waits for a stream of another slot.
    async fn outbox(&mut self) {
        for place in 0..6 {
            self.by_hand(&format!("XADD waits-out @{place} mark m{place} type t"))
                .await;
        }
        let keys = ["outbox", "turns", "waits-out"];
        for _ in 0..2 {
            let take = ["me", "there", "1000", "4", "100000"];
            let taken = self.step("outbox_take", &keys, &take).await;
            let Value::Array(taken) = taken else {
                panic!("no list")
            };
            // How long ago they were handed out is by the clock.
            self.said.pop();
            self.said.push("outbox_take: some".to_owned());
            self.note("taken", &Value::Array(taken[2..].to_vec()));
        }
        let done = [
            "me", "there", "0", "", "1", "@0", "m0", "@1", "another", "@5", "m5",
        ];
        self.step("outbox_done", &keys, &done).await;
        let left = self.by_hand("XRANGE waits-out - +").await;
        self.note("left", &left);
    }
}
