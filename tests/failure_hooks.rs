//! Functions that are told of failures and dead letters, and functions that events pass before they are written.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use streamhand::{Envelope, Failure, Publisher, Registry, Settings};

use crate::support::{Server, Setup, dead, entries, eventually, settled};

const PATIENCE: Duration = Duration::from_secs(30);

type Told = Arc<Mutex<Vec<String>>>;

/// Handlers that fail as their event says, and hooks that note what they are told.
fn registry(told: &Told) -> Registry {
    let (failures, deaths) = (told.clone(), told.clone());
    Registry::new()
        .on_raw("test.job", |event, ctx| async move {
            match event.id().as_ref() {
                "twice" if ctx.attempt() < 3 => Err("not yet".into()),
                "never" => Err(Failure::permanent("it is wrong")),
                _ => Ok(()),
            }
        })
        .on_failure(move |failed| {
            let line = format!(
                "{} failed {}: {}, again: {}",
                failed.event.id(),
                failed.attempt,
                failed.error,
                failed.retry_in.is_some()
            );
            failures.lock().unwrap().push(line);
            async {}
        })
        .on_dead(move |buried| {
            assert_eq!((&buried.stream[..], &buried.group[..]), ("jobs", "workers"));
            let id =
                String::from_utf8_lossy(buried.fields.value("id").unwrap_or_default()).into_owned();
            let line = format!("{id} is dead, {} after {}", buried.reason, buried.attempts);
            deaths.lock().unwrap().push(line);
            async {}
        })
}

fn event(id: &str) -> Envelope {
    Envelope::new("test.job").with("id", id).with("data", "1")
}

on_both_servers! {
    async fn hooks_are_told_of_each_failure_and_each_dead_letter_once(server: Server) {
        let mut redis = server.connect().await;
        let told = Told::default();
        let setup = Setup::new(&server);
        let settings = Settings::from_toml_str(&setup.toml()).unwrap();
        let publisher = Publisher::new(&settings.redis).unwrap();
        let worker = setup.start_with(registry(&told));
        let events = ["fine", "twice", "never"].map(event);
        publisher.publish_envelopes("jobs", events).await.unwrap();
        publisher.publish_envelope("jobs", Envelope::new("test.job").with("id", "wrong").with("schemaversion", "1"))
            .await.unwrap();
        eventually(PATIENCE, "what fails to be told", async || told.lock().unwrap().len() >= 4).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        worker.stop().await;
        let mut lines = told.lock().unwrap().clone();
        lines.sort();
        assert_eq!(lines, [
            "never failed 1: it is wrong, again: false",
            "never is dead, permanent after 1",
            "twice failed 1: not yet, again: true",
            "twice failed 2: not yet, again: true",
        ]);
        assert_eq!(dead(&mut redis).await, 1);
    }

    async fn a_hook_that_panics_or_never_ends_holds_up_nothing(server: Server) {
        let mut redis = server.connect().await;
        let told = Told::default();
        let setup = Setup::new(&server);
        let settings = Settings::from_toml_str(&setup.toml()).unwrap();
        let publisher = Publisher::new(&settings.redis).unwrap();
        let noted = told.clone();
        let registry = registry(&Told::default())
            .on_dead(|_| -> std::future::Ready<()> { panic!("asked to panic") })
            .on_dead(move |buried| {
                noted.lock().unwrap().push(buried.entry.to_string());
                std::future::pending()
            });
        let worker = setup.start_with(registry);
        publisher.publish_envelopes("jobs", (0..2000).map(|_| event("never"))).await.unwrap();
        eventually(PATIENCE, "all letters", async || dead(&mut redis).await == 2000).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        eventually(PATIENCE, "the first to be told", async || told.lock().unwrap().len() == 1).await;
        assert_eq!(worker.stop().await.unsettled, 0);
        assert_eq!(told.lock().unwrap().len(), 1);
    }

    async fn every_event_passes_the_publishers_layers(server: Server) {
        let mut redis = server.connect().await;
        let setup = Setup::new(&server);
        let settings = Settings::from_toml_str(&setup.toml()).unwrap();
        let publisher = Publisher::new(&settings.redis).unwrap()
            .layer(|stream, event| event.with("tenant", stream))
            .layer(|_, event| {
                let seen = event.field("tenant").unwrap_or_default().to_owned();
                event.with("seen", seen)
            });
        publisher.publish_envelope("jobs", event("now")).await.unwrap();
        publisher.publish_envelope_once("jobs", event("once"), Duration::from_secs(60)).await.unwrap();
        publisher.publish_envelope_after("jobs", event("later"), Duration::from_millis(10)).await.unwrap();
        let worker = setup.start_with(registry(&Told::default()));
        eventually(PATIENCE, "all three", async || entries(&mut redis, "jobs").await.len() == 3).await;
        for entry in entries(&mut redis, "jobs").await {
            let value = |name: &str| entry.fields.iter().find(|(n, _)| &n[..] == name.as_bytes()).map(|(_, v)| v.to_vec());
            assert_eq!((value("tenant"), value("seen")), (Some(b"jobs".to_vec()), Some(b"jobs".to_vec())));
        }
        worker.stop().await;
    }
}
