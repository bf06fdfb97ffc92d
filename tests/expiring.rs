//! Events with a deadline and attempts of their own.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use streamhand::dead_letters::{DeadLetter, DeadLetters, Reason};
use streamhand::{Envelope, Publisher, Registry, Settings};

use crate::support::{Cli, Server, Setup, dead, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);

/// Starts of handlers: the event's id, the attempt, and how many there are at most.
type Starts = Arc<Mutex<Vec<(String, u32, u32)>>>;

/// A handler that fails, but for replayed events.
fn registry(starts: &Starts) -> Registry {
    let starts = starts.clone();
    Registry::new().on_raw("test.job", move |event, ctx| {
        let id = event.id().into_owned();
        let start = (id, ctx.attempt(), ctx.max_attempts());
        starts.lock().unwrap().push(start);
        let is_replayed = event.field("replay.entry").is_some();
        async move {
            match is_replayed {
                true => Ok(()),
                false => Err("it fails".into()),
            }
        }
    })
}

fn event(id: &str) -> Envelope {
    Envelope::new("test.job").with("id", id).with("data", "1")
}

async fn letters(settings: &Settings) -> Vec<DeadLetter> {
    let dead = DeadLetters::new(settings).unwrap();
    let all = dead.select(Default::default()).await.unwrap();
    let mut letters = all.letters();
    let mut found = Vec::new();
    while let Some(letter) = letters.next().await.unwrap() {
        found.push(letter);
    }
    found
}

on_both_servers! {
    async fn no_handler_starts_after_an_events_deadline(server: Server) {
        let mut redis = server.connect().await;
        let starts = Starts::default();
        let setup = Setup::new(&server).retry("max_attempts = 1000");
        let settings = Settings::from_toml_str(&setup.toml()).unwrap();
        let publisher = Publisher::new(&settings.redis).unwrap();
        let past = SystemTime::now() - Duration::from_secs(1);
        publisher.publish_envelope("jobs", event("late").with_expires(past)).await.unwrap();
        let soon = SystemTime::now() + Duration::from_millis(1500);
        publisher.publish_envelope("jobs", event("soon").with_expires(soon)).await.unwrap();
        let worker = setup.start_with(registry(&starts));
        eventually(PATIENCE, "both letters", async || dead(&mut redis).await == 2).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert!(SystemTime::now() >= soon);
        let letters = letters(&settings).await;
        for letter in &letters {
            assert_eq!(letter.reason.known(), Some(Reason::Expired), "{letter:?}");
            assert!(letter.error.starts_with("it was to be started before 20"), "{letter:?}");
        }
        let ran = starts.lock().unwrap().clone();
        assert!(ran.iter().all(|(id, ..)| id == "soon"), "{ran:?}");
        // What failed before counts; what could not start does not.
        assert_eq!(letters[0].attempts, 0);
        assert_eq!(letters[1].attempts as usize, ran.len());
        worker.stop().await;
    }

    async fn an_event_has_its_own_attempts_within_its_handlers(server: Server) {
        let mut redis = server.connect().await;
        let starts = Starts::default();
        let setup = Setup::new(&server).retry("max_attempts = 3");
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]");
        let publish = async |id: &str, more: &[&str]| {
            let args = ["publish", "jobs", "test.job", "1", "--id", id];
            cli.run(&[&args[..], more].concat()).await
        };
        publish("one", &["--max-attempts", "1"]).await.ok();
        publish("two", &["--max-attempts", "2", "--expires", "1h"]).await.ok();
        publish("many", &["--max-attempts", "99"]).await.ok();
        let refused = publish("none", &["--max-attempts", "0"]).await.failed(2);
        assert!(refused.contains("--max-attempts"), "{refused}");
        let refused = publish("none", &["--expires", "2020-01-31T12:00:00Z"]).await.failed(2);
        assert!(refused.contains("has passed"), "{refused}");
        let worker = setup.start_with(registry(&starts));
        eventually(PATIENCE, "all letters", async || dead(&mut redis).await == 3).await;
        let starts = starts.lock().unwrap().clone();
        let of = |id: &str| -> Vec<(u32, u32)> {
            let starts = starts.iter().filter(|(of, ..)| of == id);
            starts.map(|(_, attempt, most)| (*attempt, *most)).collect()
        };
        assert_eq!(of("one"), [(1, 1)]);
        assert_eq!(of("two"), [(1, 2), (2, 2)]);
        assert_eq!(of("many"), [(1, 3), (2, 3), (3, 3)]);
        worker.stop().await;
    }

    async fn a_replay_without_the_deadline_runs_and_with_it_expires_again(server: Server) {
        let mut redis = server.connect().await;
        let starts = Starts::default();
        let setup = Setup::new(&server);
        let cli = Cli::new(&server, "[worker]\ngroup = \"workers\"\nstreams = [\"jobs\"]");
        let settings = Settings::from_toml_str(&setup.toml()).unwrap();
        let publisher = Publisher::new(&settings.redis).unwrap();
        let past = SystemTime::now() - Duration::from_secs(1);
        publisher.publish_envelope("jobs", event("late").with_expires(past)).await.unwrap();
        let worker = setup.start_with(registry(&starts));
        eventually(PATIENCE, "the letter", async || dead(&mut redis).await == 1).await;
        let ran = cli.run(&["dlq", "replay", "--reason", "expired"]).await;
        assert!(ran.code == 0 && ran.err.contains("1 dead letter had expired"), "{ran:?}");
        eventually(PATIENCE, "another", async || {
            let letters = letters(&settings).await;
            letters.len() == 1 && letters[0].replays == 1
        }).await;
        assert!(starts.lock().unwrap().is_empty());
        let id = letters(&settings).await[0].id.to_string();
        cli.run(&["dlq", "edit", &id, "--set", "expires=", "--replay", "--yes", "--unchecked"]).await.ok();
        eventually(PATIENCE, "it to run", async || starts.lock().unwrap().len() == 1).await;
        eventually(PATIENCE, "no letter", async || dead(&mut redis).await == 0).await;
        worker.stop().await;
    }
}
