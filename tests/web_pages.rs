//! What can be seen and done on the pages of dead letters, entries, searches, schedules and limits: in a real browser, by
//! mouse, with the audit to show for it; and what that costs Redis.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use streamhand::dead_letters::Filter;
use streamhand::{Envelope, Publisher};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::browser::driver::{Browser, LOOKS};
use crate::browser::site::{Site, may_only_read};
use crate::support::letters::{AGAIN, DEAD, bury, bury_many, fields};
use crate::support::{Clock, Kind, Requests, Server, add, entries, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a page says as JSON.
async fn json_of(site: &Site, path: &str) -> Value {
    let (status, body) = get(site, path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

/// A page's status and body.
async fn get(site: &Site, path: &str) -> (u16, String) {
    let host = site.address.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).await.expect("a connection");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: application/json\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("to ask");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("a status");
    let body = match head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked")
    {
        true => unchunked(body),
        false => body.to_owned(),
    };
    (status, body)
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).expect("a size");
        if size == 0 {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

on_both_servers! {
    async fn dead_letters_are_replayed_purged_and_brought_back_by_hand(server: Server) {
        let mut redis = server.connect().await;
        let site = Site::start_with(&server, "role = \"admin\"\n").await;
        bury_many(&mut redis, 12).await;
        let other = fields(&[("type", "order.paid"), ("data", "{}")]);
        bury(&mut redis, "orders", &other, "permanent", "card 4711 was refused").await;
        let browser = Browser::start().await;
        browser.look(LOOKS[0]).await;
        browser.goto(&site.at("/dead")).await;
        browser.shows("13 in 2 groups").await;
        browser.picture("dead-groups").await;
        browser.click("ul.cards a").await;
        browser.shows("12 of orders").await;
        browser.picture("dead-group").await;
        // Two of them.
        for place in [1, 2] {
            browser.click(&format!("tbody tr:nth-of-type({place}) input[name=id]")).await;
        }
        browser.fill("div.find input[name=reason]", "two to try").await;
        browser.click("div.find button").await;
        browser.shows("2 dead letters are with their handler again").await;
        assert_eq!(entries(&mut redis, AGAIN).await.len(), 2);

        // One, whole: noted, held, and so not purged.
        let first = entries(&mut redis, DEAD).await[0].id.to_string();
        browser.goto(&site.at(&format!("/dead/letter?stream=orders&id={first}"))).await;
        browser.shows("no stock").await;
        browser.picture("dead-letter").await;
        act(&browser, "/dead/hold?stream=orders", "evidence").await;
        browser.shows("it is held").await;
        open(&browser, "/dead/note?stream=orders").await;
        browser.fill("form[action$='/dead/note?stream=orders'] input[name=text]", "look at the stock first").await;
        send(&browser, "/dead/note?stream=orders", "for bob").await;
        browser.shows("look at the stock first").await;

        // All of the group, and back.
        let group = json_of(&site, "/dead").await["groups"][0].clone();
        assert_eq!((&group["count"], &group["reason"]), (&json!(10), &json!("failed")));
        let page = format!("/dead/group?stream=orders&fingerprint={}", group["fingerprint"].as_str().unwrap());
        browser.goto(&site.at(&page)).await;
        act(&browser, "/dead/purge?stream=orders", "out of date").await;
        browser.shows("9 dead letters are purged; 1 is held").await;
        assert_eq!(entries(&mut redis, DEAD).await.len(), 2);
        act(&browser, "/dead/undo?stream=orders", "they were not").await;
        browser.shows("9 dead letters are back").await;
        assert_eq!(entries(&mut redis, DEAD).await.len(), 11);

        // As a run that is known to everybody.
        browser.goto(&site.at(&page)).await;
        act(&browser, "/dead/replay?stream=orders", "after the fix").await;
        browser.shows("r-1 replays 10 dead letters").await;
        eventually(PATIENCE, "the run's canary to be replayed", async || {
            json_of(&site, "/dead").await["runs"][0]["replayed"] == 10
        })
        .await;
        let noted = site.audited().await;
        for expected in ["two to try", "evidence", "for bob", "out of date", "they were not", "after the fix"] {
            assert!(noted.iter().any(|note| note.ends_with(expected)), "{expected}: {noted:#?}");
        }
        assert!(noted.iter().any(|note| note.contains("--canary 10 --then 50/s --stop-at 5%")), "{noted:#?}");
        browser.goto(&site.at("/audit")).await;
        browser.shows("after the fix").await;
        browser.close().await;
    }

    async fn an_event_is_found_followed_paused_and_cancelled_by_hand(server: Server) {
        let mut redis = server.connect().await;
        let site = Site::start_with(&server, "redact = [\"data.card\"]\n").await;
        let secret = r#"{"order_id":"o-77","card":"hunter2"}"#;
        let event = fields(&[("type", "order.created"), ("id", "e-77"), ("subject", "o-77"), ("data", secret)]);
        bury(&mut redis, "orders", &event, "failed", "no stock").await;
        let publisher = Publisher::new(&site.settings.redis).unwrap();
        let cause = Envelope::new("order.shipped").with("id", "e-78").with("causationid", "e-77");
        publisher.publish_envelope("payments", cause).await.unwrap();
        let later = Envelope::new("order.reminded").with("id", "e-79").with("subject", "o-79");
        publisher.publish_envelope_after("orders", later, Duration::from_secs(3600)).await.unwrap();
        let browser = Browser::start().await;
        browser.look(LOOKS[0]).await;
        browser.goto(&site.at("/find")).await;
        browser.fill("#q", "data.order_id:o-77").await;
        browser.click("form.find button").await;
        browser.shows("2 found").await;
        browser.shows("the only entry of orders").await;
        browser.picture("find").await;
        browser.click("tbody th a:not([href*='/dead/'])").await;
        browser.shows("Its life").await;
        browser.shows("buried").await;
        browser.shows("order.shipped").await;
        browser.picture("entry").await;
        assert!(!browser.text().await.contains("hunter2"));
        // What is hidden can't be found by what it is.
        let hidden = json_of(&site, "/find?q=data.card:hunter2").await;
        assert_eq!((&hidden["hits"], &hidden["cursor"]), (&json!([]), &Value::Null));
        let (status, body) = get(&site, "/find?q=id:").await;
        assert!(status == 400 && body.contains("has no value"), "{status} {body}");
        let life = json_of(&site, &format!("/entry?stream=orders&id={}", entries(&mut redis, "orders").await[0].id)).await;
        assert_eq!(life["event"]["data"], json!({ "order_id": "o-77", "card": "***" }));
        assert_eq!(life["relations"]["caused"][0]["event"]["id"], "e-78");
        let exported = get(&site, "/dead/export?stream=orders").await.1;
        assert!(exported.contains("o-77") && !exported.contains("hunter2"), "{exported}");

        browser.goto(&site.at("/scheduled")).await;
        browser.shows("order.reminded").await;
        act(&browser, "/scheduled/cancel?stream=orders", "no longer wanted").await;
        browser.shows("e-79 will not be published").await;
        browser.shows("Nothing waits for its time").await;

        browser.goto(&site.at("/limits")).await;
        let form = "/limits/pause?stream=orders";
        open(&browser, form).await;
        browser.fill(&format!("form[action$='{form}'] input[name=handler]"), "order.created").await;
        send(&browser, form, "deploy 417").await;
        browser.shows("order.created is paused, until 2").await;
        browser.shows("Another end").await;
        browser.picture("limits").await;
        let pause = &site.admin().stream_status("orders").await.unwrap().paused[0];
        assert_eq!((pause.handler.as_deref(), pause.reason.as_deref()), (Some("order.created"), Some("deploy 417")));
        assert!(pause.until.is_some());
        act(&browser, "/limits/resume?stream=orders", "done").await;
        browser.shows("order.created goes on").await;

        browser.goto(&site.at("/redis")).await;
        browser.shows("When memory is full").await;
        browser.picture("redis").await;
        browser.close().await;
    }

    /// Neither shown nor found by it: a search that tells whether something is in it would tell all of it, bit by bit.
    async fn what_an_event_holds_is_for_who_may_operate_its_stream(server: Server) {
        let mut redis = server.connect().await;
        let id: String = redis::cmd("XADD").arg("orders").arg("*").arg("type").arg("order.created")
            .arg("data").arg("{\"card\":\"4711\"}").query_async(&mut redis).await.unwrap();
        bury_many(&mut redis, 1).await;
        let letter = &entries(&mut redis, DEAD).await[0].id;
        let pages = [
            format!("/entry?stream=orders&id={id}"),
            format!("/dead/letter?stream=orders&id={letter}"),
            "/find?q=type:order.created&in=stream".to_owned(),
        ];
        for (role, is_shown) in [("view", false), ("operate", true)] {
            let site = Site::start_with(&server, &format!("role = \"{role}\"\n")).await;
            for path in &pages {
                let said = json_of(&site, path).await.to_string();
                let hidden = said.contains("whoever may operate this stream is shown it");
                assert_eq!(hidden, !is_shown, "{role} {path}: {said}");
                assert!(is_shown || !said.contains("4711"), "{role} {path}: {said}");
            }
            let found = json_of(&site, "/find?q=data.card:4711&in=stream").await;
            assert_eq!(found["hits"].as_array().map(Vec::len), Some(usize::from(is_shown)), "{role}: {found}");
        }
    }

    /// The clock of the machine that the pages run on is three days behind.
    async fn what_was_added_of_late_is_so_by_the_servers_clock(kind: Kind) {
        let clock = Clock::new();
        clock.ahead(Duration::from_secs(3 * 24 * 3600));
        let server = Server::builder(kind).clock(&clock).start().await;
        let mut redis = server.connect().await;
        let site = Site::start_with(&server, "").await;
        add(&mut redis, "orders", &fields(&[("type", "order.created"), ("id", "e-old")])).await;
        clock.ahead(Duration::from_secs(4 * 24 * 3600));
        add(&mut redis, "orders", &fields(&[("type", "order.created"), ("id", "e-new")])).await;
        for (since, expected) in [("1h", 1), ("2d", 2), ("", 2)] {
            let found = json_of(&site, &format!("/find?q=type:order.created&in=stream&since={since}")).await;
            assert_eq!(found["hits"].as_array().map(Vec::len), Some(expected), "since {since:?}: {found}");
        }
    }

    /// However much there is.
    async fn a_page_asks_redis_for_little(server: Server) {
        let mut redis = server.connect().await;
        let site = Site::start(&server).await;
        let () = redis::cmd("EVAL").arg("for n = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], 1700000000000 + n .. '-0', \
            'type', 'order.created', 'data', '{\"n\":' .. n .. '}') end").arg(1).arg("orders").arg(200_000)
            .query_async(&mut redis).await.unwrap();
        bury_many(&mut redis, 50).await;
        let letter = entries(&mut redis, DEAD).await[0].fields.clone();
        let mut pipe = redis::pipe();
        for n in 0..20_000 {
            let add = pipe.cmd("XADD").arg(DEAD).arg("*");
            letter.iter().for_each(|(name, value)| { add.arg(&name[..]).arg(&value[..]); });
            if n % 1000 == 999 {
                pipe.query_async::<Vec<String>>(&mut redis).await.unwrap();
                pipe = redis::pipe();
            }
        }
        let dead = site.admin().dead_letters().unwrap();
        let group = dead.groups(Filter::new()).await.unwrap().groups[0].clone();
        assert_eq!(group.count, 20_050);
        let id = dead.select(Filter::new().limit(1)).await.unwrap().letters().next().await.unwrap().unwrap().id;
        let mut requests = Requests::of(&server).await;
        for (path, most) in [
            ("/dead".to_owned(), 40),
            (format!("/dead/group?stream=orders&fingerprint={}", group.fingerprint), 30),
            (format!("/dead/letter?stream=orders&id={id}"), 10),
            // At most 50,000 entries at 500 a request, and a few smaller steps: see admin/steps.rs.
            ("/find?q=data.n:nothing&in=stream".to_owned(), 130),
            // It looks around for a time.
            ("/entry?stream=orders&id=1700000100000-0".to_owned(), 200),
            ("/scheduled".to_owned(), 40),
            ("/limits".to_owned(), 40),
            ("/redis".to_owned(), 10),
            ("/audit".to_owned(), 10),
        ] {
            json_of(&site, &path).await;
            let mut times = Vec::new();
            requests.new_ones().await;
            for _ in 0..5 {
                let since = Instant::now();
                json_of(&site, &path).await;
                times.push(since.elapsed());
            }
            let asked = requests.new_ones().await;
            let each = asked.len() / 5;
            assert!(each <= most, "{path}: {each} requests, the last {:#?}", &asked[asked.len().saturating_sub(most)..]);
            times.sort();
            println!("{path}: {each} requests, {:?}", times[2]);
        }
        let page = json_of(&site, "/find?q=data.n:nothing&in=stream").await;
        assert!(page["cursor"].is_string(), "it has looked through all of it: {}", page["covered"]);
    }

    /// A page does not wait until all of them are.
    async fn many_dead_letters_are_counted_behind_the_page(server: Server) {
        let mut redis = server.connect().await;
        let site = Site::start(&server).await;
        bury_many(&mut redis, 1).await;
        let copy = "local e = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][2] \
            for n = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', unpack(e)) end";
        let () = redis::cmd("EVAL").arg(copy).arg(1).arg(DEAD).arg(60_000).query_async(&mut redis).await.unwrap();
        let mut times = Vec::new();
        for _ in 0..3 {
            let since = Instant::now();
            let page = json_of(&site, "/dead").await;
            times.push(since.elapsed());
            assert!(page["is_counting"] == true && page["groups"] == json!([]), "{page}");
        }
        // Counting takes half a second and more, and each page waits a twentieth of one.
        times.sort();
        assert!(times[0] < Duration::from_millis(240), "{times:?}");
        eventually(PATIENCE, "all to be counted", async || {
            let page = json_of(&site, "/dead").await;
            page["is_counting"] == false && page["total"] == 60_001 && page["groups"][0]["count"] == 60_001
        })
        .await;
        // Who may not write can't have them counted in Redis: they are gone through, behind the page as well.
        let reader = may_only_read(&mut redis).await;
        let site = Site::start_with(&server, reader).await;
        assert_eq!(json_of(&site, "/dead").await["is_counting"], true);
        eventually(PATIENCE, "all to be gone through", async || {
            let page = json_of(&site, "/dead").await;
            if page["groups"][0]["count"] == 60_001 { Ok(()) } else { Err(page) }
        })
        .await;
    }
}

async fn open(browser: &Browser, action: &str) {
    browser
        .click(&format!(
            "details.act:has(form[action$='{action}']) > summary"
        ))
        .await;
}

async fn send(browser: &Browser, action: &str, reason: &str) {
    let form = format!("details[open] form[action$='{action}']");
    browser
        .fill(&format!("{form} input[name=reason]"), reason)
        .await;
    browser.click(&format!("{form} button")).await;
}

/// Opens the form of an action, says why, and sends it.
async fn act(browser: &Browser, action: &str, reason: &str) {
    open(browser, action).await;
    send(browser, action, reason).await;
}
