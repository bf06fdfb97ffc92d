//! The pages in a real browser: every page narrow and wide, dark and light, by mouse and by keyboard, read without
//! JavaScript; and axe has nothing against any of them.

#[path = "browser/driver.rs"]
pub mod driver;
#[path = "browser/site.rs"]
pub mod site;

use std::time::Duration;

use driver::{Browser, LOOKS, Look};
use fantoccini::key::Key;
use site::{Site, publish};
use streamhand::{Envelope, Publisher};

use crate::support::{Server, eventually};

/// Every page, by its path; what is on it if all is well.
pub const PAGES: &[(&str, &str)] = &[
    ("/", "Now"),
    ("/flow", "Flow"),
    ("/flow?range=live", "Flow"),
    ("/types", "Types"),
    ("/workers", "Workers"),
    ("/dead", "2 in 2 groups"),
    ("/find?q=type:order.created", "found"),
    ("/scheduled", "order.reminded"),
    ("/crons", "nightly"),
    ("/projections", "No projection reads"),
    ("/aggregates", "knows no aggregates"),
    ("/limits", "by alice"),
    ("/redis", "What it keeps"),
    ("/audit", "tidying up"),
];

// What the pages read is tested on both servers over HTTP; what they look like does not depend on them.
on_one_server! {
    Valkey:
    async fn every_page_is_one_to_look_at(server: Server) {
        let site = Site::start(&server).await;
        site.fill().await;
        let browser = Browser::start().await;
        for (path, title) in &site.pages().await {
            for look in LOOKS {
                browser.look(look).await;
                browser.goto(&site.at(path)).await;
                browser.shows(title).await;
                let Look { width, dark, .. } = look;
                let name = format!("{}-{width}{}", name_of(path), if dark { "-dark" } else { "" });
                browser.picture(&name).await;
                let complaints = browser.complaints().await;
                assert!(complaints.is_empty(), "{path} {look:?}: {complaints:#?}");
                assert_eq!(browser.overflow().await, 0, "{path} {look:?} is wider than its window");
            }
        }
        browser.close().await;
    }

    Redis:
    async fn every_page_can_be_read_without_javascript(server: Server) {
        let site = Site::start(&server).await;
        site.fill().await;
        let browser = Browser::start().await;
        browser.look(Look { width: 1440, dark: false, script: false }).await;
        for (path, title) in &site.pages().await {
            browser.goto(&site.at(path)).await;
            browser.shows(title).await;
            let text = browser.text().await;
            assert!(text.contains("fulfilment"), "{path}: {text}");
            assert!(!text.contains("Live"), "{path} promises what it can't keep: {text}");
        }
        // A form works as well.
        browser.goto(&site.at("/")).await;
        act(&browser, "/streams/pause?stream=orders", "no script").await;
        browser.shows("orders is paused").await;
        browser.close().await;
    }

    Redis:
    async fn a_page_lives(server: Server) {
        let site = Site::start(&server).await;
        let browser = Browser::start().await;
        browser.look(LOOKS[0]).await;
        browser.goto(&site.at("/")).await;
        browser.shows("no worker has been here yet").await;
        // What somebody has opened and typed stays.
        browser.click("details.act > summary").await;
        browser.fill("details[open] input[name=reason]", "half a wo").await;
        let mut redis = server.connect().await;
        for _ in 0..7 {
            publish(&mut redis, "orders", "{}").await;
        }
        browser.shows("7 wait").await;
        let typed = browser.run("return document.querySelector('details[open] input[name=reason]').value").await;
        assert_eq!(typed, "half a wo");
        browser.close().await;
    }

    Redis:
    async fn the_focus_stays_with_what_it_is_on(server: Server) {
        let site = Site::start(&server).await;
        let publisher = Publisher::new(&site.settings.redis).expect("a publisher");
        let schedule = async |subject: &str, hours: u64| {
            let event = Envelope::new("order.reminded").with("subject", subject);
            let after = Duration::from_secs(3600 * hours);
            publisher.publish_envelope_after("orders", event, after).await.expect("to schedule").id
        };
        schedule("o-2", 2).await;
        let browser = Browser::start().await;
        browser.look(LOOKS[0]).await;
        browser.goto(&site.at("/scheduled")).await;
        browser.shows("o-2").await;
        browser.run("document.querySelector('td.acts summary').focus()").await;
        let of = "const row = document.activeElement.closest('tr'); return row === null ? 'nothing' : row.textContent";
        assert!(browser.run(of).await.as_str().is_some_and(|row| row.contains("o-2")));
        // One before it, one behind it, and then it is the last that is left: the next key is still about the same event.
        let before = schedule("o-1", 1).await;
        browser.shows("o-1").await;
        let behind = schedule("o-3", 3).await;
        browser.shows("o-3").await;
        let order = "return [...document.querySelectorAll('tbody tr')].map((row) => row.children[2].textContent).join()";
        assert_eq!(browser.run(order).await, "o-1,o-2,o-3");
        let row = browser.run(of).await;
        assert!(row.as_str().is_some_and(|row| row.contains("o-2")), "the focus is on {row}");
        for id in [before, behind] {
            assert!(publisher.cancel_scheduled("orders", &id).await.expect("to cancel"));
        }
        eventually(driver::SOON, "one to be left", async || browser.run(order).await == "o-2").await;
        let row = browser.run(of).await;
        assert!(row.as_str().is_some_and(|row| row.contains("o-2")), "the focus is on {row}");
        browser.close().await;
    }

    Valkey:
    async fn everything_can_be_done_by_keyboard(server: Server) {
        let site = Site::start(&server).await;
        site.fill().await;
        let browser = Browser::start().await;
        browser.look(LOOKS[0]).await;
        browser.goto(&site.at("/")).await;
        browser.press(&Key::Tab.to_string()).await;
        let focused = "return document.activeElement.textContent.trim()";
        assert_eq!(browser.run(focused).await, "Skip to the page");
        browser.press(&Key::Enter.to_string()).await;
        eventually(driver::SOON, "the focus on the page", async || {
            browser.run("return document.activeElement.id").await == "main"
        })
        .await;
        // From there to the first action, open it, say why, do it.
        let is_action = "return document.activeElement.matches('details.act > summary')";
        let mut steps = 0;
        while browser.run(is_action).await != true {
            browser.press(&Key::Tab.to_string()).await;
            let outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle").await;
            assert_ne!(outline, "none", "the focus can't be seen");
            steps += 1;
            assert!(steps < 40, "no action can be reached");
        }
        browser.press(&Key::Enter.to_string()).await;
        browser.press(&Key::Tab.to_string()).await;
        browser.press("by keyboard").await;
        browser.press(&Key::Enter.to_string()).await;
        browser.shows("is paused").await;
        let noted = site.audited().await;
        assert!(noted.iter().any(|note| note.contains("by keyboard")), "{noted:?}");
        browser.close().await;
    }
}

/// Opens the form of an action, says why, and sends it.
pub async fn act(browser: &Browser, action: &str, reason: &str) {
    let form = format!("form[action$='{action}']");
    browser
        .click(&format!("details.act:has({form}) > summary"))
        .await;
    browser
        .fill(&format!("{form} input[name=reason]"), reason)
        .await;
    browser.click(&format!("{form} button")).await;
}

fn name_of(path: &str) -> String {
    // Ids are other ones each time.
    let path = path.split("?stream=").next().unwrap_or(path);
    let name = path.trim_matches('/').replace(['/', '?', '=', '&'], "-");
    if name.is_empty() {
        "now".to_owned()
    } else {
        name
    }
}

#[test]
fn what_was_vendored_is_what_it_was() {
    let sums = include_str!("browser/checksums");
    for line in sums.lines() {
        let (sum, file) = line.split_once("  ").expect("a sum and a file");
        let bytes =
            std::fs::read(std::path::Path::new(crate::support::ROOT).join(file)).expect(file);
        assert_eq!(sha256(&bytes), sum, "{file}");
    }
    assert!(sums.lines().count() >= 3);
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
