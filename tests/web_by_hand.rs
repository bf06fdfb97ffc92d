//! Every action of the pages, by mouse and by keyboard alone, in a real browser; what is on pages that only some programs
//! have something for, their aggregates and projections; and workers that are told by hand.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use fantoccini::key::Key;
use serde_json::json;
use streamhand::Envelope;
use streamhand::eventstore::{EventStore, Expected, RedisEventStore};

use crate::aggregates::ledger::{self, Account};
use crate::browser::driver::{Browser, LOOKS, SOON};
use crate::browser::site::Site;
use crate::eventstore::orders::{Added, OrderEvent};
use crate::projections::views;
use crate::support::letters::{DEAD, bury_many};
use crate::support::{ROOT, Server, Setup, entries, eventually, jobs};

const PATIENCE: Duration = Duration::from_secs(30);
/// What a box is given that is to be ticked.
const TICK: &str = "tick";
/// What tests of this file do apart from all others.
const APART: [&str; 4] = [
    "/projections/resume",
    "/workers/drain",
    "/workers/quiet",
    "/workers/resume",
];

/// What somebody has at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hand {
    Mouse,
    Keyboard,
}

/// Somebody before the pages.
struct Operator {
    site: Site,
    browser: Browser,
    hand: Hand,
    /// The actions they have done.
    done: Mutex<BTreeSet<String>>,
}

impl Operator {
    async fn at(site: Site, hand: Hand) -> Operator {
        let browser = Browser::start().await;
        browser.look(LOOKS[0]).await;
        Operator {
            site,
            browser,
            hand,
            done: Mutex::default(),
        }
    }

    async fn goto(&self, path: &str) {
        self.browser.goto(&self.site.at(path)).await;
    }

    /// Opens the form of an action, fills it in, says why, and sends it; then the page says so.
    async fn act(&self, action: &str, fields: &[(&str, &str)], says: &str) {
        let reason = format!("{:?} at {action}", self.hand);
        match self.hand {
            Hand::Mouse => self.by_mouse(action, fields, &reason).await,
            Hand::Keyboard => self.by_keyboard(action, fields, &reason).await,
        }
        self.browser.shows(says).await;
        let noted = self.site.audited().await;
        assert!(
            noted.iter().any(|note| note.ends_with(&reason)),
            "{action}: {noted:#?}"
        );
        let path = action.split('?').next().unwrap_or(action);
        self.done.lock().unwrap().insert(path.to_owned());
    }

    async fn by_mouse(&self, action: &str, fields: &[(&str, &str)], reason: &str) {
        let form = format!("form[action$='{action}']");
        self.browser
            .click(&format!("details.act:has({form}) > summary"))
            .await;
        let form = format!("details[open] {form}");
        for (name, text) in fields {
            let field = format!("{form} [name={name}]");
            if *text == TICK {
                self.browser.click(&field).await;
                continue;
            }
            // What is there already is marked, and goes with the first key.
            let select = format!("document.querySelector(\"{field}\").select()");
            self.browser.run(&select).await;
            let key = if text.is_empty() {
                &Key::Delete.to_string()
            } else {
                *text
            };
            self.browser.fill(&field, key).await;
        }
        let why = format!("{form} input[name=reason]");
        self.browser.fill(&why, reason).await;
        self.browser.click(&format!("{form} button")).await;
    }

    /// A page that is brought up to date in between takes the focus along: then one begins again, as one would.
    async fn by_keyboard(&self, action: &str, fields: &[(&str, &str)], reason: &str) {
        for _ in 0..5 {
            if self.tries_by_keyboard(action, fields, reason).await {
                return;
            }
        }
        panic!("nothing asks why at {action}");
    }

    async fn tries_by_keyboard(&self, action: &str, fields: &[(&str, &str)], reason: &str) -> bool {
        let summary = format!("details.act:has(form[action$='{action}']) > summary");
        eventually(SOON, format!("{summary} on the page"), async || {
            let there = format!("return document.querySelector(\"{summary}\") !== null");
            self.browser.run(&there).await == true
        })
        .await;
        let is_here = format!("return document.activeElement.matches(\"{summary}\")");
        // As if by the link that skips the menu.
        self.browser
            .run("document.getElementById('main').focus()")
            .await;
        let mut steps = 0;
        while self.browser.run(&is_here).await != true {
            self.browser.press(&Key::Tab.to_string()).await;
            steps += 1;
            assert!(steps < 150, "{action} can't be reached");
        }
        self.browser.press(&Key::Enter.to_string()).await;
        let field = format!(
            "const here = document.activeElement; \
             return here.form && here.form.action.endsWith('{action}') ? here.name : ''"
        );
        for _ in 0..20 {
            self.browser.press(&Key::Tab.to_string()).await;
            let name = self.browser.run(&field).await;
            if name == "reason" {
                self.browser.press(reason).await;
                self.browser.press(&Key::Enter.to_string()).await;
                return true;
            }
            // Whoever comes to a field by this key finds marked what is in it.
            match fields.iter().find(|(of, _)| name == *of) {
                Some((_, TICK)) => self.browser.press(" ").await,
                Some((_, "")) => self.browser.press(&Key::Delete.to_string()).await,
                Some((_, text)) => self.browser.press(text).await,
                None => {}
            }
        }
        false
    }
}

/// The actions there are, as their files say.
fn all_actions() -> BTreeSet<String> {
    let folder = format!("{ROOT}/src/web/pages");
    let mut found = BTreeSet::new();
    for file in std::fs::read_dir(folder).expect("the pages") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("a page");
        for rest in text.split("Route::action(").skip(1) {
            let path = rest.split('"').nth(1).expect("a path");
            found.insert(path.to_owned());
        }
    }
    found
}

async fn everything(server: Server, hand: Hand) {
    let mut redis = server.connect().await;
    let site = Site::start_with(&server, "role = \"admin\"\n").await;
    site.fill().await;
    let by = Operator::at(site, hand).await;

    by.goto("/").await;
    by.act("/streams/pause?stream=orders", &[], "orders is paused")
        .await;
    by.act("/streams/resume?stream=orders", &[], "orders goes on")
        .await;
    by.goto("/scheduled").await;
    by.act(
        "/scheduled/cancel?stream=orders",
        &[],
        "will not be published",
    )
    .await;
    by.goto("/crons").await;
    let fields = [("for", "1h")];
    by.act("/crons/pause?stream=orders", &fields, "nightly is paused")
        .await;
    by.act("/crons/resume?stream=orders", &[], "nightly goes on")
        .await;
    by.act("/crons/trigger?stream=orders", &[], "is published")
        .await;
    by.goto("/limits").await;
    let fields = [("handler", "order.created"), ("lasts", "2h")];
    by.act(
        "/limits/pause?stream=orders",
        &fields,
        "order.created is paused, until 2",
    )
    .await;
    by.act("/limits/resume?stream=orders", &[], "order.created goes on")
        .await;

    let letter = entries(&mut redis, DEAD).await[0].id.to_string();
    by.goto(&format!("/dead/letter?stream=orders&id={letter}"))
        .await;
    by.act("/dead/hold?stream=orders", &[], "it is held").await;
    by.act("/dead/release?stream=orders", &[], "it is held no longer")
        .await;
    by.act(
        "/dead/note?stream=orders",
        &[("text", "look at the stock")],
        "look at the stock",
    )
    .await;
    by.act(
        "/dead/assign?stream=orders",
        &[("to", "bob")],
        "Assigned to bob",
    )
    .await;
    let fields = [("changes", "data.amount=0"), ("unchecked", TICK)];
    by.act("/dead/edit?stream=orders", &fields, "it is edited")
        .await;

    by.goto("/dead").await;
    by.browser.click("ul.cards li:nth-of-type(1) a").await;
    by.browser.shows("Letters, the oldest first").await;
    // Nobody handles what comes first, so that it can be stopped.
    by.act(
        "/dead/replay?stream=orders",
        &[("canary", "1"), ("then", "")],
        "r-1 replays 1 dead letter",
    )
    .await;
    by.act("/dead/stop?stream=orders", &[], "r-1 is stopped")
        .await;
    by.act("/dead/resume?stream=orders", &[], "r-1 goes on")
        .await;
    by.browser
        .click("section[aria-labelledby=alike] li:nth-of-type(1) a")
        .await;
    by.browser.shows("Letters, the oldest first").await;
    by.act("/dead/purge?stream=orders", &[], "1 dead letter is purged")
        .await;
    by.act("/dead/undo?stream=orders", &[], "1 dead letter is back")
        .await;

    let mut done = by.done.lock().unwrap().clone();
    done.extend(APART.map(str::to_owned));
    assert_eq!(done, all_actions());
    by.browser.close().await;
}

// What the pages read and do is tested on both servers over HTTP; what a browser makes of it does not depend on them.
on_one_server! {
    Redis:
    async fn every_action_by_mouse(server: Server) {
        everything(server, Hand::Mouse).await;
    }

    Valkey:
    async fn every_action_by_keyboard(server: Server) {
        everything(server, Hand::Keyboard).await;
    }

    Redis:
    async fn workers_are_told_by_mouse_and_by_keyboard(server: Server) {
        let setup = Setup::new(&server).worker("group = \"fulfilment\"").worker("streams = [\"orders\", \"payments\"]");
        let worker = setup.start();
        let site = Site::start_with(&server, "role = \"operate\"\n").await;
        let mut by = Operator::at(site, Hand::Keyboard).await;
        by.goto("/workers").await;
        by.browser.shows("alive").await;
        by.act("/workers/quiet", &[], "is to take up nothing new for an hour").await;
        by.browser.shows("quiet").await;
        by.browser.picture("workers-quiet").await;
        // It takes up nothing, and then it does.
        let mut redis = server.connect().await;
        let is_quiet = async || {
            let fleet = by.site.admin().fleet().await.unwrap();
            matches!(fleet.workers[0].state, streamhand::admin::WorkerState::Quiet)
        };
        eventually(PATIENCE, "the worker to be quiet", is_quiet).await;
        jobs::publish(&mut redis, "orders", &jobs::many("late", 1, &jobs::Action::Succeed)).await;
        by.hand = Hand::Mouse;
        by.act("/workers/resume", &[], "goes on as configured").await;
        eventually(PATIENCE, "the job to be done", async || !jobs::ended(&mut redis).await.is_empty()).await;
        by.browser.shows("alive").await;
        by.act("/workers/quiet", &[], "is to take up nothing new for an hour").await;
        by.hand = Hand::Keyboard;
        by.act("/workers/resume", &[], "goes on as configured").await;
        by.act("/workers/drain", &[], "is to stop once what it runs has ended").await;
        worker.ended().await.expect("a clean end");
        by.browser.shows("gone").await;
        by.browser.close().await;
    }

    Valkey:
    async fn an_aggregates_history_is_gone_through_version_by_version(server: Server) {
        let settings = streamhand::Settings::from_toml_str(&format!("[redis]\nurl = \"{}\"", server.url())).unwrap();
        let store = RedisEventStore::of_kind::<Account>(&settings.redis).unwrap();
        let event = |event_type: &str, data| Envelope::new(event_type).json(&data).unwrap();
        let events = vec![
            event("account.opened", json!({ "name": "Ada" })),
            event("account.deposited", json!({ "cents": 500 })),
            event("account.deposited", json!({ "cents": 25 })),
        ];
        store.append(&"account:a-1".parse().unwrap(), events, Expected::NoStream).await.unwrap();
        let site = Site::start_knowing(&server, "role = \"operate\"\n", &ledger::registry()).await;
        let browser = Browser::start().await;
        browser.look(LOOKS[0]).await;
        browser.goto(&site.at("/aggregates")).await;
        browser.fill("#id", "account:a-1").await;
        browser.press(&Key::Enter.to_string()).await;
        browser.shows("account:a-1 at version 3 of 3").await;
        browser.shows("525").await;
        let address = site.at("/aggregates?id=account:a-1");
        for look in LOOKS {
            browser.look(look).await;
            browser.goto(&address).await;
            browser.shows("Its events").await;
            browser.picture(&format!("aggregate-{}{}", look.width, if look.dark { "-dark" } else { "" })).await;
            let complaints = browser.complaints().await;
            assert!(complaints.is_empty() && browser.overflow().await == 0, "{look:?}: {complaints:#?}");
        }
        browser.look(LOOKS[0]).await;
        // By its earlier state, and forth again by the list.
        browser.click("section[aria-labelledby=state] a.button").await;
        browser.shows("account:a-1 at version 2 of 3").await;
        browser.shows("500").await;
        browser.click("section[aria-labelledby=history] li:nth-of-type(2) a").await;
        browser.shows("account:a-1 at version 1 of 3").await;
        browser.close().await;
    }

    Redis:
    async fn a_projection_that_has_stopped_goes_on_by_keyboard(server: Server) {
        let store = views::store(&server, 1);
        let bad: OrderEvent = Added { cents: views::FAILS_FOR_GOOD }.into();
        views::happens(&store, "o-1", [bad]).await;
        let stop = "[projections.\"orders-by-status\"]\non_bad_event = \"stop\"";
        let worker = views::setup(&server).retry("max_attempts = 1").more(stop).start_with(views::registry());
        let site = Site::start_with(&server, "role = \"operate\"\n").await;
        let by = Operator::at(site, Hand::Keyboard).await;
        by.goto("/projections").await;
        by.browser.shows("It has stopped at").await;
        for look in LOOKS {
            by.browser.look(look).await;
            by.browser.picture(&format!("projection-{}{}", look.width, if look.dark { "-dark" } else { "" })).await;
            let complaints = by.browser.complaints().await;
            assert!(complaints.is_empty() && by.browser.overflow().await == 0, "{look:?}: {complaints:#?}");
        }
        by.browser.look(LOOKS[0]).await;
        by.act("/projections/resume?stream=orders", &[], "orders-by-status goes on at").await;
        by.browser.close().await;
        worker.stop().await;
    }

    /// The letters that were chosen, without a mouse.
    Valkey:
    async fn letters_are_chosen_by_keyboard(server: Server) {
        let mut redis = server.connect().await;
        let site = Site::start_with(&server, "role = \"operate\"\n").await;
        bury_many(&mut redis, 3).await;
        let browser = Browser::start().await;
        browser.look(LOOKS[2]).await;
        browser.goto(&site.at("/dead")).await;
        let tab_to = async |what: &str| {
            let is_here = format!("return document.activeElement.matches(\"{what}\")");
            let mut steps = 0;
            while browser.run(&is_here).await != true {
                browser.press(&Key::Tab.to_string()).await;
                steps += 1;
                assert!(steps < 150, "{what} can't be reached");
            }
        };
        browser.shows("3 in 1 groups").await;
        tab_to("ul.cards a").await;
        browser.press(&Key::Enter.to_string()).await;
        browser.shows("Letters, the oldest first").await;
        tab_to("tbody input[name=id]").await;
        browser.press(" ").await;
        tab_to("div.find input[name=reason]").await;
        browser.press("just this one").await;
        browser.press(&Key::Enter.to_string()).await;
        browser.shows("1 dead letter is with its handler again").await;
        assert_eq!(entries(&mut redis, DEAD).await.len(), 2);
        browser.close().await;
    }
}
