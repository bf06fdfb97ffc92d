//! What a test is told that fails.

use std::time::Duration;

use streamhand::dead_letters::Reason;
use streamhand::testing;

use super::jobs::{Does, Done, Job, job, registry};
use super::{runtime, said};

#[test]
fn a_failing_assertion_says_what_was_and_what_happened() {
    runtime().block_on(async {
        let mut worker = testing::worker(registry())
            .config(
                "[worker]\nstreams = [\"jobs\"]\n[retry]\nmax_attempts = 2\n\
                 backoff = { initial = \"1s\", factor = 1.0, max = \"1s\", jitter = 0.0 }",
            )
            .seed(7)
            .start()
            .await;
        worker.publish("jobs", &job("a", [Does::Fail(9)])).await;
        worker.advance(Duration::from_secs(5)).await;
        let handled = said(|| worker.handled::<Job>().once());
        insta::assert_snapshot!(handled, @r#"
        job.asked was handled never, not once
        what happened (seed 7):
                +0s  jobs#1 job.asked: published
                +0s  jobs#1 job.asked: attempt 1 of 2 begins
                +0s  jobs#1 job.asked: fails, and is tried again in 1s: it failed
                +1s  jobs#1 job.asked: attempt 2 of 2 begins
                +1s  jobs#1 job.asked: goes to the dead letters: it failed as failed
        "#);
        let letters = said(|| worker.dead_letters().none());
        assert!(
            letters
                .starts_with("there is one dead letter, not 0\n  job.asked, failed: it failed\n"),
            "{letters}"
        );
        let reason = said(|| drop(worker.dead_letters().only().reason(Reason::Crashed)));
        assert!(
            reason.starts_with("the dead letter was buried as failed, not as crashed\n"),
            "{reason}"
        );
        let emitted = said(|| drop(worker.emitted::<Done>().only()));
        assert!(
            emitted.starts_with("job.done was emitted never, not once\n"),
            "{emitted}"
        );
    });
}

#[test]
fn what_a_kit_can_t_do_is_refused_with_the_reason() {
    let of = |config: &'static str| {
        said(|| {
            runtime().block_on(async {
                testing::worker(registry()).config(config).start().await;
            });
        })
    };
    let wrong = of("[worker]\nstream = 1");
    assert!(wrong.contains("configuration is wrong"), "{wrong}");
    let none = of("");
    assert!(none.contains("worker.streams is not set"), "{none}");
    let ordered = of("[worker]\nstreams = [\"jobs\"]\n[streams.jobs]\norder = \"subject\"");
    assert!(ordered.contains("keeps no order by subject"), "{ordered}");
    let threads = said(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            testing::worker(registry()).streams(["jobs"]).start().await;
        });
    });
    assert!(threads.contains("#[tokio::test]"), "{threads}");
}
