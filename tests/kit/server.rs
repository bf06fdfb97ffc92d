//! A worker on a real server in a test's time: what only a server shows.

use std::time::{Duration, Instant};

use redis::AsyncCommands;
use serde::{Deserialize, Serialize};
use streamhand::testing::{At, Builder};
use streamhand::{Context, Effect, Event, Failure, Registry, testing};

use super::jobs::{self, Does, Done, Job, job};
use super::kind::Kind;
use super::{on, runtime, said};

const HOUR: Duration = Duration::from_secs(3600);
const A_LITTLE: Duration = Duration::from_millis(20);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a handler does with the worker's Redis.
#[derive(Serialize, Deserialize)]
struct Asked {
    steps: Vec<String>,
}

impl Event for Asked {
    const TYPE: &'static str = "redis.asked";
}

async fn ask(asked: Asked, ctx: Context) -> Result<(), Failure> {
    for step in asked.steps {
        let mut redis = ctx.redis().await?;
        match &step[..] {
            "sleep" => tokio::time::sleep(HOUR).await,
            "count" => {
                let _: i64 = redis.incr("count", 1).await?;
            }
            "expire" => {
                let _: () = redis.set_ex("soon", "there", 3600).await?;
            }
            "later" => {
                let done = Done {
                    name: "later".into(),
                };
                let publisher = ctx.publisher()?;
                publisher.publish_after("asked", &done, HOUR).await?;
            }
            step => panic!("{step}"),
        }
    }
    Ok(())
}

async fn done(_: Done, ctx: Context) -> Result<(), Failure> {
    ctx.effect(Effect::incr_by("done", 1));
    Ok(())
}

fn asked<const N: usize>(steps: [&str; N]) -> Asked {
    let steps = steps.map(str::to_owned).to_vec();
    Asked { steps }
}

fn both(test: impl AsyncFn(Builder)) {
    for kind in [Kind::Redis, Kind::Valkey] {
        let registry = Registry::new().on(ask).on(done);
        let config = "[worker]\nstreams = [\"asked\"]\n[defaults]\ntimeout = \"1d\"";
        let builder = on(kind)(registry).config(config);
        runtime().block_on(test(builder));
    }
}

#[test]
fn a_handler_has_the_redis_of_the_test_and_its_time() {
    both(async |builder| {
        let mut w = builder.start().await;
        let steps = [
            "count", "sleep", "expire", "count", "later", "sleep", "count",
        ];
        let begun = w.now();
        w.publish("asked", &asked(steps)).await;
        w.run_until_idle().await;
        w.handled::<Asked>().once();
        // Tokio's timers have steps of a millisecond.
        let passed = w.now().duration_since(begun).unwrap();
        assert!(
            passed >= 2 * HOUR && passed < 2 * HOUR + A_LITTLE,
            "{passed:?}"
        );
        assert_eq!(w.state("count").await.number(), Some(3));
        // Its hour was over while the handler slept once more.
        assert!(w.state("soon").await.is_missing());
        w.advance(A_LITTLE).await;
        w.handled::<Done>().once();
        assert_eq!(w.state("done").await.number(), Some(1));
    });
}

#[test]
fn what_expires_does_so_in_the_tests_time() {
    both(async |builder| {
        let mut w = builder.start().await;
        w.publish("asked", &asked(["expire"])).await;
        w.advance(HOUR - Duration::from_secs(60)).await;
        assert_eq!(w.state("soon").await.text().as_deref(), Some("there"));
        w.advance(Duration::from_secs(60)).await;
        assert!(w.state("soon").await.is_missing());
    });
}

/// Whether it takes less than so long once out of several times: the machine may be loaded.
fn takes_less(than: Duration, measured: impl Fn() -> Duration) -> bool {
    let mut took = std::iter::repeat_with(measured)
        .take(20)
        .inspect(|took| println!("{took:?}"));
    took.any(|took| took < than)
}

#[test]
fn a_month_of_retries_takes_less_than_a_second() {
    let config = "[worker]\nstreams = [\"jobs\"]\n[retry]\nmax_attempts = 100\n\
        backoff = { initial = \"1s\", factor = 2.0, max = \"1d\", jitter = 0.2 }";
    let month = || {
        runtime().block_on(async {
            let mut w = on(Kind::Redis)(jobs::registry())
                .config(config)
                .start()
                .await;
            w.kill(At::BeforeRetry);
            w.publish("jobs", &job("a", [Does::Fail(99)])).await;
            let since = Instant::now();
            w.advance(MONTH).await;
            let took = since.elapsed();
            assert!(w.attempts::<Job>().get() > 40);
            took
        })
    };
    assert!(takes_less(Duration::from_secs(1), month));
}

#[test]
fn a_server_is_there_in_a_tenth_of_a_second() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let start = || {
            runtime().block_on(async {
                let builder = on(kind)(jobs::registry()).streams(["jobs"]);
                let since = Instant::now();
                builder.start().await;
                since.elapsed()
            })
        };
        assert!(takes_less(Duration::from_millis(100), start), "{kind:?}");
    }
}

#[test]
fn a_program_that_is_no_server_is_said() {
    let of = |program: &str| {
        said(|| {
            runtime().block_on(async {
                let builder = testing::on_redis(jobs::registry()).streams(["jobs"]);
                builder.server(program).start().await;
            });
        })
    };
    let none = of("/nowhere/redis-server");
    assert!(none.contains("can't start /nowhere/redis-server"), "{none}");
    let other = of("true");
    assert!(other.contains("is it a server?"), "{other}");
}

#[test]
fn what_can_t_be_published_is_said_in_the_same_words() {
    let of = |builder: Builder| {
        said(|| {
            runtime().block_on(async {
                let mut w = builder.streams(["jobs"]).start().await;
                w.publish_once("jobs", "e-1", &job("a", []), HOUR).await;
                w.publish_once("jobs", "e-1", &job("b", []), HOUR).await;
            });
        })
    };
    let said = [
        of(testing::worker(jobs::registry())),
        of(on(Kind::Redis)(jobs::registry())),
        of(on(Kind::Valkey)(jobs::registry())),
    ];
    for said in said {
        let begin = "an event job.asked with the id \"e-1\" was published before, as entry ";
        assert!(said.starts_with(begin), "{said}");
        assert!(
            said.contains("with other data: what is another event needs another id"),
            "{said}"
        );
    }
}

#[test]
fn in_memory_a_handler_is_told_where_there_is_a_redis() {
    runtime().block_on(async {
        let registry = Registry::new().on(ask);
        let mut w = testing::worker(registry).streams(["asked"]).start().await;
        w.publish("asked", &asked(["count"])).await;
        w.advance(HOUR).await;
        let letter = w.dead_letters().only();
        letter.error_contains("testing::on_redis");
    });
}
