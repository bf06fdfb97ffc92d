//! What can happen to events, scenario by scenario: each is run wherever the kit can run.

use std::time::Duration;

use streamhand::dead_letters::Reason;
use streamhand::testing::At;
use streamhand::{Effect, Envelope};

use super::Scenario;
use super::jobs::{Does, Done, Job, Unknown, job};

const JOBS: &str = "jobs";

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

macro_rules! scenarios {
    ($($(#[config = $config:expr])? $name:ident($w:ident) $body:block)*) => {
        pub fn all() -> Vec<Scenario> {
            vec![$(Scenario {
                name: stringify!($name),
                config: scenarios!(@config $($config)?),
                run: |$w| Box::pin(async move $body),
            },)*]
        }
    };
    (@config) => { "" };
    (@config $config:expr) => { $config };
}

/// A retry each second, without jitter.
const EVERY_SECOND: &str = r#"
[worker]
streams = ["jobs"]
[retry]
max_attempts = 3
backoff = { initial = "1s", factor = 1.0, max = "1s", jitter = 0.0 }
"#;

const BREAKER: &str = r#"
[worker]
streams = ["jobs"]
[handlers."job.asked"]
max_attempts = 20
backoff = { initial = "1s", factor = 1.0, max = "1s", jitter = 0.0 }
circuit_breaker = { failures = 2, open_for = "1m", probes = 1 }
"#;

const SERVICE: &str = r#"
[worker]
streams = ["jobs"]
[breakers.service]
failures = 1
open_for = "10m"
[retry]
backoff = { initial = "1s", factor = 1.0, max = "1s", jitter = 0.0 }
"#;

const ONCE: &str = r#"
[worker]
streams = ["jobs"]
[retry]
max_attempts = 3
backoff = { initial = "1s", factor = 1.0, max = "1s", jitter = 0.0 }
[handlers."job.asked"]
deduplicate = "1h"
"#;

const RATE: &str = r#"
[worker]
streams = ["jobs"]
[handlers."job.asked"]
rate = "1/m"
"#;

const TWO_STREAMS: &str = r#"
[worker]
streams = ["jobs", "done"]
"#;

const TOPIC: &str = r#"
[worker]
streams = ["jobs"]
[streams.jobs]
partitions = 4
"#;

const BURY_ON_CRASH: &str = r#"
[worker]
streams = ["jobs"]
[retry]
max_attempts = 2
on_crash = "bury"
"#;

scenarios! {
    an_event_is_handled_once(w) {
        w.publish(JOBS, &job("a", [])).await;
        w.run_until_idle().await;
        w.handled::<Job>().once();
        w.attempts::<Job>().once();
        w.dead_letters().none();
        w.parked().never();
    }

    events_are_handled_in_their_order(w) {
        for name in ["a", "b", "c"] {
            w.publish(JOBS, &job(name, [Does::Emit])).await;
        }
        w.run_until_idle().await;
        let names: Vec<String> = w.emitted::<Done>().all().into_iter().map(|done| done.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[config = EVERY_SECOND]
    a_failure_waits_for_its_next_attempt(w) {
        w.publish(JOBS, &job("a", [Does::Fail(1)])).await;
        w.run_until_idle().await;
        w.parked().once();
        w.handled::<Job>().never();
        w.advance(Duration::from_millis(999)).await;
        w.attempts::<Job>().once();
        w.advance(Duration::from_millis(1)).await;
        w.attempts::<Job>().times(2);
        w.handled::<Job>().once();
        w.parked().never();
    }

    #[config = EVERY_SECOND]
    attempts_that_are_used_up_end_in_the_dead_letters(w) {
        w.publish(JOBS, &job("a", [Does::Fail(9)])).await;
        w.advance(s(60)).await;
        w.attempts::<Job>().times(3);
        let letter = w.dead_letters().only().reason(Reason::Failed).attempts(3);
        let letter = letter.error_contains("it failed").replays(0);
        assert_eq!(letter.event::<Job>().name, "a");
    }

    #[config = EVERY_SECOND]
    an_event_is_not_started_after_its_deadline(w) {
        let deadline = w.now() + s(10);
        let event = |name| Envelope::new("job.asked").json(&job(name, [Does::Fail(9)])).unwrap();
        let event = |name| event(name).with("schemaversion", "2").with_expires(deadline);
        w.publish_envelope(JOBS, event("a").with_max_attempts(2)).await;
        w.advance(s(5)).await;
        let letter = w.dead_letters().only().reason(Reason::Failed).attempts(2);
        assert_eq!(letter.event::<Job>().name, "a");
        w.pause(JOBS).await;
        w.publish_envelope(JOBS, event("b")).await;
        w.advance(s(6)).await;
        w.resume(JOBS).await;
        w.advance(s(5)).await;
        w.attempts::<Job>().times(2);
        let letters = w.dead_letters();
        let last = letters.all().last().unwrap();
        assert_eq!((last.head.reason.known(), last.head.attempts), (Some(Reason::Expired), 0));
    }

    a_permanent_failure_is_buried_at_once(w) {
        w.publish(JOBS, &job("a", [Does::Never])).await;
        w.run_until_idle().await;
        w.dead_letters().only().reason(Reason::Permanent).error_contains("nobody may").attempts(1);
    }

    #[config = EVERY_SECOND]
    a_panic_is_a_failure(w) {
        w.publish(JOBS, &job("a", [Does::Panic(1)])).await;
        w.advance(s(2)).await;
        w.attempts::<Job>().times(2);
        w.handled::<Job>().once();
    }

    #[config = EVERY_SECOND]
    a_handler_says_when_it_is_tried_again(w) {
        w.publish(JOBS, &job("a", [Does::RetryAfter(1, 3600)])).await;
        w.advance(s(3599)).await;
        w.attempts::<Job>().once();
        w.advance(s(1)).await;
        w.handled::<Job>().once();
    }

    #[config = EVERY_SECOND]
    what_comes_later_uses_up_no_attempt(w) {
        w.publish(JOBS, &job("a", [Does::Later(8, 30), Does::Fail(2)])).await;
        w.advance(s(3600)).await;
        w.attempts::<Job>().times(11);
        w.handled::<Job>().once();
        w.dead_letters().none();
    }

    what_is_emitted_leaves_with_the_acknowledgement(w) {
        w.publish(JOBS, &job("a", [Does::Emit, Does::Count(3)])).await;
        w.run_until_idle().await;
        assert_eq!(w.emitted::<Done>().to("done").only().name, "a");
        assert_eq!(w.state("count").await.number(), Some(3));
        assert_eq!(w.effects(), [Effect::incr_by("count", 3)]);
    }

    #[config = EVERY_SECOND]
    what_a_failed_attempt_emits_never_leaves(w) {
        w.publish(JOBS, &job("a", [Does::Emit, Does::Count(1), Does::Fail(2)])).await;
        w.advance(s(5)).await;
        w.emitted::<Done>().times(1);
        assert_eq!(w.state("count").await.number(), Some(1));
    }

    #[config = EVERY_SECOND]
    a_handler_decides_anew_where_its_guard_refuses(w) {
        w.given(Effect::set("stock", "1")).await;
        w.publish(JOBS, &job("a", [Does::Take])).await;
        w.publish(JOBS, &job("b", [Does::Take])).await;
        w.run_until_idle().await;
        assert_eq!(w.state("stock").await.number(), Some(0));
        assert!(w.state("sold out").await.has("b"));
        assert!(!w.state("sold out").await.has("a"));
        w.handled::<Job>().times(2);
    }

    a_failure_after_the_commit_changes_nothing(w) {
        w.publish(JOBS, &job("a", [Does::CommitAndFail])).await;
        w.run_until_idle().await;
        w.handled::<Job>().once();
        w.parked().never();
        assert_eq!(w.state("committed").await.number(), Some(1));
    }

    #[config = EVERY_SECOND]
    an_effect_on_a_key_of_another_kind_fails(w) {
        w.given(Effect::sadd("count", "member")).await;
        w.publish(JOBS, &job("a", [Does::Count(1)])).await;
        w.advance(s(10)).await;
        w.dead_letters().only().reason(Reason::Failed).error_contains("holds a set");
    }

    what_is_emitted_is_read_by_who_reads_its_stream(w) {
        w.publish(JOBS, &job("a", [Does::Emit])).await;
        w.run_until_idle().await;
        w.handled::<Done>().never();
        w.emitted::<Done>().times(1);
    }

    #[config = TWO_STREAMS]
    a_worker_of_two_streams_handles_what_it_emits(w) {
        w.publish(JOBS, &job("a", [Does::Emit])).await;
        w.run_until_idle().await;
        w.handled::<Job>().once();
        w.handled::<Done>().once();
    }

    a_worker_that_dies_before_it_acknowledges_handles_the_event_again(w) {
        w.kill(At::BeforeAck);
        w.publish(JOBS, &job("a", [])).await;
        w.run_until_idle().await;
        w.handled::<Job>().never();
        w.advance(s(29)).await;
        w.attempts::<Job>().once();
        w.advance(s(1)).await;
        w.attempts::<Job>().times(2);
        w.handled::<Job>().once();
    }

    what_was_emitted_leaves_once_though_the_worker_died_before(w) {
        w.kill(At::BeforeAck);
        w.publish(JOBS, &job("a", [Does::Emit, Does::Count(1)])).await;
        w.advance(s(60)).await;
        w.attempts::<Job>().times(2);
        w.emitted::<Done>().times(1);
        assert_eq!(w.state("count").await.number(), Some(1));
    }

    a_worker_that_dies_after_it_acknowledged_leaves_nothing_to_do(w) {
        w.kill(At::AfterAck);
        w.publish(JOBS, &job("a", [Does::Emit])).await;
        w.advance(s(60)).await;
        w.attempts::<Job>().once();
        w.handled::<Job>().once();
        w.emitted::<Done>().times(1);
    }

    a_worker_that_dies_with_entries_delivered_uses_up_an_attempt_of_each(w) {
        w.kill(At::Delivered);
        w.publish(JOBS, &job("a", [])).await;
        w.publish(JOBS, &job("b", [])).await;
        w.advance(s(30)).await;
        w.handled::<Job>().times(2);
        w.attempts::<Job>().times(2);
    }

    #[config = EVERY_SECOND]
    what_kills_its_worker_each_time_is_buried_as_crashed(w) {
        for _ in 0..4 {
            w.kill(At::BeforeAck);
        }
        w.publish(JOBS, &job("a", [])).await;
        w.advance(s(600)).await;
        w.dead_letters().only().reason(Reason::Crashed).error_contains("its worker died");
        w.handled::<Job>().never();
    }

    #[config = BURY_ON_CRASH]
    what_must_not_run_again_is_buried_after_its_attempts(w) {
        w.kill(At::BeforeAck);
        w.kill(At::BeforeAck);
        w.publish(JOBS, &job("a", [])).await;
        w.advance(s(300)).await;
        w.attempts::<Job>().times(2);
        w.dead_letters().only().reason(Reason::Crashed).error_contains("on_crash");
    }

    #[config = EVERY_SECOND]
    a_worker_that_dies_before_it_parks_uses_up_that_attempt(w) {
        w.kill(At::BeforeRetry);
        w.publish(JOBS, &job("a", [Does::Fail(2)])).await;
        w.advance(s(60)).await;
        w.attempts::<Job>().times(3);
        w.handled::<Job>().once();
    }

    an_acknowledgement_whose_answer_is_lost_is_repeated(w) {
        w.lose_answer();
        w.publish(JOBS, &job("a", [])).await;
        w.run_until_idle().await;
        w.handled::<Job>().once();
        w.attempts::<Job>().once();
    }

    a_commit_whose_answer_is_lost_is_done_once(w) {
        w.lose_answer();
        w.publish(JOBS, &job("a", [Does::Emit, Does::Count(1)])).await;
        w.run_until_idle().await;
        w.emitted::<Done>().times(1);
        assert_eq!(w.state("count").await.number(), Some(1));
    }

    #[config = EVERY_SECOND]
    a_parking_whose_answer_is_lost_counts_once(w) {
        w.lose_answer();
        w.publish(JOBS, &job("a", [Does::Fail(2)])).await;
        w.advance(s(10)).await;
        w.attempts::<Job>().times(3);
        w.handled::<Job>().once();
    }

    a_burial_whose_answer_is_lost_leaves_one_letter(w) {
        w.lose_answer();
        w.publish(JOBS, &job("a", [Does::Never])).await;
        w.advance(s(10)).await;
        w.dead_letters().times(1);
    }

    nothing_happens_while_redis_is_away(w) {
        w.redis_away(s(30));
        w.publish(JOBS, &job("a", [])).await;
        w.run_until_idle().await;
        w.attempts::<Job>().never();
        w.advance(s(29)).await;
        w.attempts::<Job>().never();
        w.advance(s(1)).await;
        w.handled::<Job>().once();
    }

    a_dead_letter_is_replayed(w) {
        w.publish(JOBS, &job("a", [Does::Never])).await;
        w.run_until_idle().await;
        assert_eq!(w.replay().await, 1);
        w.dead_letters().none();
        w.run_until_idle().await;
        w.attempts::<Job>().times(2);
        w.dead_letters().only().replays(1).reason(Reason::Permanent);
        assert_eq!(w.replay().await, 1);
        w.run_until_idle().await;
        w.dead_letters().only().replays(2);
    }

    #[config = EVERY_SECOND]
    a_replayed_event_has_all_its_attempts_again(w) {
        w.publish(JOBS, &job("a", [Does::Fail(9)])).await;
        w.advance(s(10)).await;
        w.dead_letters().only().attempts(3);
        w.replay().await;
        w.advance(s(10)).await;
        w.attempts::<Job>().times(6);
        w.dead_letters().only().attempts(3).replays(1);
    }

    a_replayed_event_that_succeeds_is_handled(w) {
        w.publish(JOBS, &job("a", [Does::NeverTimes(1)])).await;
        w.run_until_idle().await;
        w.dead_letters().only().reason(Reason::Permanent);
        w.replay().await;
        w.run_until_idle().await;
        w.handled::<Job>().once();
        w.dead_letters().none();
    }

    nothing_of_a_paused_stream_runs(w) {
        w.pause(JOBS).await;
        w.publish(JOBS, &job("a", [])).await;
        w.advance(s(60)).await;
        w.attempts::<Job>().never();
        w.resume(JOBS).await;
        w.run_until_idle().await;
        w.handled::<Job>().once();
    }

    nothing_that_is_replayed_runs_while_its_stream_is_paused(w) {
        w.publish(JOBS, &job("a", [Does::NeverTimes(1)])).await;
        w.run_until_idle().await;
        w.pause(JOBS).await;
        w.replay().await;
        w.advance(s(60)).await;
        w.attempts::<Job>().once();
        w.resume(JOBS).await;
        w.run_until_idle().await;
        w.handled::<Job>().once();
    }

    a_paused_handler_lets_others_run(w) {
        w.pause_handler::<Job>(JOBS).await;
        w.publish(JOBS, &job("a", [])).await;
        w.publish(JOBS, &Done { name: "b".into() }).await;
        w.advance(s(60)).await;
        w.attempts::<Job>().never();
        w.handled::<Done>().once();
        w.resume_handler::<Job>(JOBS).await;
        w.advance(s(1)).await;
        w.handled::<Job>().once();
    }

    an_event_is_published_later(w) {
        w.publish_after(JOBS, &job("a", []), s(3600)).await;
        let at = w.now() + s(7200);
        w.publish_at(JOBS, &job("b", []), at).await;
        w.advance(s(3599)).await;
        w.handled::<Job>().never();
        w.advance(s(1)).await;
        w.handled::<Job>().once();
        w.advance(s(3600)).await;
        w.handled::<Job>().times(2);
    }

    a_scheduled_event_is_cancelled(w) {
        let id = w.publish_after(JOBS, &job("a", []), s(3600)).await;
        assert!(w.cancel_scheduled(JOBS, &id).await);
        assert!(!w.cancel_scheduled(JOBS, &id).await);
        w.advance(s(7200)).await;
        w.handled::<Job>().never();
    }

    an_event_is_published_once(w) {
        let first = w.publish_once(JOBS, "e-1", &job("a", []), s(3600)).await;
        let second = w.publish_once(JOBS, "e-1", &job("a", []), s(3600)).await;
        assert_eq!(first, second);
        w.run_until_idle().await;
        w.handled::<Job>().once();
        w.advance(s(3601)).await;
        w.publish_once(JOBS, "e-1", &job("a", []), s(3600)).await;
        w.run_until_idle().await;
        w.handled::<Job>().times(2);
    }

    #[config = ONCE]
    a_copy_of_what_was_handled_does_not_run(w) {
        let event = Envelope::new("job.asked").json(&job("a", [Does::Count(1)])).unwrap();
        let event = event.with("id", "e-1").with("schemaversion", "2");
        w.publish_envelope(JOBS, event.clone()).await;
        w.publish_envelope(JOBS, event.clone()).await;
        w.advance(s(60)).await;
        w.attempts::<Job>().once();
        assert_eq!(w.state("count").await.number(), Some(1));
        w.advance(s(3600)).await;
        w.publish_envelope(JOBS, event).await;
        w.run_until_idle().await;
        w.attempts::<Job>().times(2);
    }

    #[config = ONCE]
    a_copy_waits_while_the_other_one_is_tried_again(w) {
        let event = Envelope::new("job.asked").json(&job("a", [Does::Fail(1)])).unwrap();
        let event = event.with("id", "e-1").with("schemaversion", "2");
        w.publish_envelope(JOBS, event.clone()).await;
        w.publish_envelope(JOBS, event).await;
        w.run_until_idle().await;
        w.attempts::<Job>().once();
        w.parked().times(2);
        w.advance(s(60)).await;
        w.attempts::<Job>().times(2);
        w.handled::<Job>().once();
        w.parked().never();
    }

    #[config = BREAKER]
    a_breaker_holds_events_back_and_they_lose_no_attempt(w) {
        w.publish(JOBS, &job("a", [Does::Fail(1)])).await;
        w.publish(JOBS, &job("b", [Does::Fail(1)])).await;
        w.run_until_idle().await;
        w.attempts::<Job>().times(2);
        w.publish(JOBS, &job("c", [])).await;
        w.advance(s(59)).await;
        w.attempts::<Job>().times(2);
        w.advance(s(10)).await;
        w.handled::<Job>().times(3);
    }

    #[config = SERVICE]
    an_open_breaker_of_a_service_brings_events_back_later(w) {
        w.publish(JOBS, &job("a", [Does::CallAway])).await;
        w.run_until_idle().await;
        w.attempts::<Job>().once();
        w.publish(JOBS, &job("b", [Does::CallAway])).await;
        w.advance(s(60)).await;
        w.dead_letters().none();
        w.parked().times(2);
    }

    #[config = RATE]
    a_rate_lets_one_event_through_each_minute(w) {
        for name in ["a", "b", "c"] {
            w.publish(JOBS, &job(name, [])).await;
        }
        w.run_until_idle().await;
        w.handled::<Job>().once();
        w.advance(s(61)).await;
        w.handled::<Job>().times(2);
        w.advance(s(61)).await;
        w.handled::<Job>().times(3);
    }

    what_nobody_handles_waits_and_is_buried(w) {
        w.publish(JOBS, &Unknown).await;
        w.advance(s(599)).await;
        w.dead_letters().none();
        w.parked().once();
        w.advance(s(2)).await;
        w.dead_letters().only().reason(Reason::Unhandled);
    }

    a_type_that_is_ignored_is_acknowledged(w) {
        w.publish_envelope(JOBS, Envelope::new("job.ignored")).await;
        w.run_until_idle().await;
        w.parked().never();
        w.dead_letters().none();
    }

    what_can_t_be_decoded_is_buried(w) {
        let event = Envelope::new("job.asked").with("schemaversion", "2").with("data", "{}");
        w.publish_envelope(JOBS, event).await;
        w.run_until_idle().await;
        w.dead_letters().only().reason(Reason::Undecodable);
        w.attempts::<Job>().once();
    }

    an_older_version_is_brought_up_to_date(w) {
        let event = Envelope::new("job.asked").json("old").unwrap();
        w.publish_envelope(JOBS, event).await;
        w.run_until_idle().await;
        assert_eq!(w.emitted::<Done>().only().name, "old");
    }

    a_newer_version_waits_for_a_worker_that_knows_it(w) {
        let event = Envelope::new("job.asked").json(&job("a", [])).unwrap();
        w.publish_envelope(JOBS, event.with("schemaversion", "3")).await;
        w.advance(s(60)).await;
        w.attempts::<Job>().never();
        w.parked().once();
    }

    #[config = TOPIC]
    events_of_a_topic_go_to_their_partitions(w) {
        for name in ["a", "b", "c", "d", "e"] {
            let event = Envelope::new("job.asked").json(&job(name, [Does::Emit])).unwrap();
            w.publish_envelope(JOBS, event.with("schemaversion", "2").with("subject", name)).await;
        }
        w.run_until_idle().await;
        w.handled::<Job>().times(5);
        w.emitted::<Done>().times(5);
    }
}
