//! Pools of shell scripts: what becomes of an event whatever its child does.

use std::collections::BTreeMap;

use super::*;
use crate::event::Envelope;
use crate::targets::process::CommandLine;

const PATIENCE: Duration = Duration::from_secs(20);

/// Says hello, and does with each event what `on_event` says; `$id` is its number, `$line` all of the request.
fn child(hello: &str, on_event: &str) -> String {
    format!(
        r#"
while read -r line <&3; do
  case $line in
    '{{"hello"'*) echo '{{"hello":{{"protocol":1{hello}}}}}' >&4 ;;
    '{{"ping"'*) id=${{line#*:}}; echo "{{\"pong\":$id" >&4 ;;
    '{{"drain"'*) exit 0 ;;
    '{{"id"'*) id=${{line#*:}}; id=${{id%%,*}}
      {on_event} ;;
    *) : ;;
  esac
done
"#
    )
}

const ANSWER: &str = r#"echo "{\"id\":$id,\"answer\":{\"pid\":$$}}" >&4"#;

fn settings(script: &str) -> PoolSettings {
    PoolSettings {
        target: "billing".to_owned(),
        command: CommandLine {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            directory: None,
            environment: BTreeMap::new(),
            pass: Vec::new(),
        },
        processes: 1,
        start_timeout: Duration::from_secs(10),
        recycling: Recycling::default(),
    }
}

fn pool(script: &str) -> Arc<Pool> {
    Arc::new(Pool::start(settings(script), &Handle::current()))
}

fn context() -> Context {
    Context::for_test_with(Envelope::new("order.created"), None)
}

fn event(text: &str) -> impl FnOnce(u64) -> Vec<u8> + use<> {
    let text = text.to_owned();
    move |id| format!("{{\"id\":{id},\"event\":{{\"data\":\"{text}\"}}}}").into_bytes()
}

async fn ask(pool: &Pool, text: &str) -> Ended {
    let ctx = context();
    let ended = tokio::time::timeout(PATIENCE, pool.handle(&ctx, event(text)));
    ended
        .await
        .unwrap_or_else(|_| panic!("nothing came of {text}: {:?}", pool.health()))
}

fn asking(pool: &Arc<Pool>, text: &str) -> tokio::task::JoinHandle<Ended> {
    let (pool, text) = (pool.clone(), text.to_owned());
    tokio::spawn(async move { ask(&pool, &text).await })
}

async fn until(pool: &Pool, what: impl Fn(&PoolHealth) -> bool) {
    let since = Instant::now();
    while !what(&pool.health()) {
        assert!(since.elapsed() < PATIENCE, "{:?}", pool.health());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn answer(ended: Ended) -> String {
    match ended {
        Ended::Answer(answer) => answer.get().to_owned(),
        other => panic!("{other:?}"),
    }
}

fn died(ended: Ended) -> String {
    match ended {
        Ended::Died(why) => why,
        other => panic!("{other:?}"),
    }
}

fn runs(pid: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::test_kill_process(pid).is_ok()
}

fn pid_of(answer: &str) -> i32 {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    i32::try_from(answer["pid"].as_i64().unwrap()).unwrap()
}

#[tokio::test]
async fn events_are_answered_by_children_that_live_on() {
    let pool = pool(&child("", ANSWER));
    let first = answer(ask(&pool, "a").await);
    for n in 0..50 {
        assert_eq!(
            answer(ask(&pool, &format!("{n} {}", "x".repeat(1000))).await),
            first
        );
    }
    let all: Vec<_> = (0..50).map(|n| asking(&pool, &n.to_string())).collect();
    for one in all {
        assert_eq!(answer(one.await.unwrap()), first);
    }
    let pid = pid_of(&first);
    assert!(runs(pid));
    let since = Instant::now();
    pool.stop().await;
    assert!(since.elapsed() < TERM_AFTER, "it is told to go, and goes");
    assert!(!runs(pid));
    assert!(matches!(ask(&pool, "late").await, Ended::NotBegun(_)));
}

const TERM_AFTER: Duration = Duration::from_millis(2_800);

#[tokio::test]
async fn a_death_is_an_attempt_of_what_was_in_hand_and_of_nothing_else() {
    let pool = pool(&child(
        "",
        &format!("case $line in *kill*) echo the end >&2; kill -9 $$ ;; *) {ANSWER} ;; esac"),
    ));
    let first = answer(ask(&pool, "a").await);
    let (dead, waited) = (asking(&pool, "kill"), asking(&pool, "b"));
    let why = died(dead.await.unwrap());
    assert!(
        why.contains("killed by signal 9 (SIGKILL)") && why.contains("the end"),
        "{why}"
    );
    assert_ne!(
        answer(waited.await.unwrap()),
        first,
        "the next child had it"
    );
}

#[tokio::test]
async fn what_was_answered_before_a_death_counts() {
    let script = child(
        ",\"at_once\":2",
        r#"case $line in
        *first*) one=$id ;;
        *) echo "{\"id\":$one,\"answer\":{\"late\":1}}" >&4; exit 7 ;; esac"#,
    );
    let pool = pool(&script);
    let first = asking(&pool, "first");
    until(&pool, |health| health.children == 1 && health.waiting == 0).await;
    let second = asking(&pool, "second");
    assert_eq!(answer(first.await.unwrap()), "{\"late\":1}");
    assert!(died(second.await.unwrap()).contains("exited with 7"));
}

#[tokio::test]
async fn what_breaks_the_protocol_costs_the_child_and_the_next_one_goes_on() {
    let script = child(
        "",
        &format!(
            r#"case $line in
        *half*) printf '{{"id":' >&4; exit 0 ;;
        *garbage*) echo hello >&4 ;;
        *wrong*) echo '{{"id":999,"answer":{{}}}}' >&4 ;;
        *twice*) {ANSWER}; {ANSWER}; sleep 60 ;;
        *endless*) yes | tr -d '\n' >&4 ;;
        *closed*) exec 4>&-; sleep 60 ;;
        *deaf*) exec 3<&-; sleep 60 ;;
        *) {ANSWER} ;; esac"#
        ),
    );
    let pool = pool(&script);
    for (what, says) in [
        ("half", "exited with 0, within a line"),
        ("garbage", "is no message"),
        ("wrong", "answered 999, which it does not have"),
        ("endless", "a line of more than"),
        ("closed", "closed its descriptor 4"),
    ] {
        let why = died(ask(&pool, what).await);
        assert!(why.contains(says), "{what}: {why}");
        answer(ask(&pool, "well").await);
    }
    let twice = pid_of(&answer(ask(&pool, "twice").await));
    // By the second answer it may have the next event in hand.
    let next = match ask(&pool, "well").await {
        Ended::Died(why) => {
            assert!(why.contains("which it does not have"), "{why}");
            ask(&pool, "well").await
        }
        ended => ended,
    };
    assert_ne!(pid_of(&answer(next)), twice);
    // Who does not read is not waited for: the next event is written to nobody.
    let deaf = asking(&pool, "deaf");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!deaf.is_finished());
    deaf.abort();
    answer(ask(&pool, "well").await);
}

#[tokio::test]
async fn who_prints_without_end_is_read_and_its_protocol_is_untouched() {
    let pool = pool(&child(
        "",
        &format!(
            r#"head -c 20000000 /dev/zero | tr '\0' x; yes | head -n 200000 >&2; sh -c 'echo {{}}'; {ANSWER}"#
        ),
    ));
    answer(ask(&pool, "a").await);
    answer(ask(&pool, "b").await);
}

#[tokio::test]
async fn a_child_that_does_not_read_holds_nobody_up() {
    let pool = pool(&child("", "sleep 60"));
    let ctx = context();
    let big = event(&"x".repeat(4 << 20));
    let mut handled = pin!(pool.handle(&ctx, big));
    let since = Instant::now();
    assert!(futures_util::poll!(handled.as_mut()).is_pending());
    until(&pool, |health| health.children == 1 && health.waiting == 0).await;
    assert!(since.elapsed() < PATIENCE);
    let waiting = context();
    let next = event("next");
    let mut next = pin!(pool.handle(&waiting, next));
    assert!(futures_util::poll!(next.as_mut()).is_pending());
    waiting.stops_for(Cancelled::TimedOut);
    let ended = tokio::time::timeout(PATIENCE, next).await.unwrap();
    assert!(
        matches!(&ended, Ended::NotBegun(why) if why.contains("no process of the target billing was free")),
        "{ended:?}"
    );
}

#[tokio::test]
async fn who_is_cancelled_may_say_so_and_who_ignores_it_is_killed() {
    let script = format!(
        r#"
        echo '{{"hello":{{"protocol":1,"at_once":3}}}}' >&4
        while read -r line <&3; do case $line in
          '{{"id"'*listens*) id=${{line#*:}}; one=${{id%%,*}} ;;
          '{{"cancel":'*timed_out*) id=${{line#*:}}; id=${{id%%,*}}
            [ "$id" = "$one" ] && echo "{{\"id\":$id,\"answer\":{{\"retry\":\"stopped\"}}}}" >&4 ;;
          '{{"cancel":'*) : ;;
          '{{"id"'*) id=${{line#*:}}; id=${{id%%,*}}; case $line in *ignores*|*innocent*) : ;; *) {ANSWER} ;; esac ;;
        esac; done"#
    );
    let pool = pool(&script);
    answer(ask(&pool, "well").await);
    let (listens, text) = (context(), event("listens"));
    let mut handled = pin!(pool.handle(&listens, text));
    assert!(futures_util::poll!(handled.as_mut()).is_pending());
    // A stop is not answered here; the end of its time is.
    listens.stops_for(Cancelled::Stopping);
    assert!(futures_util::poll!(handled.as_mut()).is_pending());
    listens.stops_for(Cancelled::TimedOut);
    let ended = tokio::time::timeout(PATIENCE, handled).await.unwrap();
    assert_eq!(answer(ended), "{\"retry\":\"stopped\"}");

    let innocent = asking(&pool, "innocent");
    tokio::task::yield_now().await;
    let (ignores, text) = (context(), event("ignores"));
    {
        let mut handled = pin!(pool.handle(&ignores, text));
        assert!(futures_util::poll!(handled.as_mut()).is_pending());
        ignores.stops_for(Cancelled::TimedOut);
        assert!(futures_util::poll!(handled.as_mut()).is_pending());
    }
    // Its grace is over: it was dropped.
    let ended = innocent.await.unwrap();
    assert!(matches!(ended, Ended::Spared(_)), "{ended:?}");
    answer(ask(&pool, "well").await);
}

#[tokio::test]
async fn children_are_recycled_by_count_between_two_events() {
    let mut settings = settings(&child("", ANSWER));
    settings.recycling.events = Some(3);
    let pool = Pool::start(settings, &Handle::current());
    let mut pids = Vec::new();
    for n in 0..9 {
        pids.push(pid_of(&answer(ask(&pool, &n.to_string()).await)));
    }
    assert!(
        pids.chunks(3)
            .all(|three| three.iter().all(|pid| *pid == three[0])),
        "{pids:?}"
    );
    pids.dedup();
    assert_eq!(pids.len(), 3);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn children_are_recycled_by_age_and_by_memory_when_they_are_idle() {
    for recycling in [
        Recycling {
            age: Some(Duration::from_millis(300)),
            ..Recycling::default()
        },
        Recycling {
            memory: Some(1),
            ..Recycling::default()
        },
    ] {
        let mut settings = settings(&child("", ANSWER));
        settings.recycling = recycling;
        let pool = Pool::start(settings, &Handle::current());
        let first = answer(ask(&pool, "a").await);
        let since = Instant::now();
        while answer(ask(&pool, "b").await) == first {
            assert!(since.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn what_cannot_be_started_is_the_wrong_target_and_is_tried_again() {
    let mut missing = settings("");
    missing.command.command = vec!["no-such-program".to_owned()];
    for (settings, says) in [
        (missing, "no-such-program: No such file"),
        (settings("exec no-such-program"), "exited with 127"),
        (
            settings("echo no module named x >&2; exit 1"),
            "exited with 1; stderr: no module named x",
        ),
        (
            settings("read -r line <&3; echo '{\"hello\":{\"protocol\":9}}' >&4; sleep 60"),
            "speaks version 9",
        ),
    ] {
        let pool = Pool::start(settings, &Handle::current());
        let ended = ask(&pool, "a").await;
        let Ended::WrongTarget(why) = ended else {
            panic!("{ended:?}")
        };
        assert!(
            why.starts_with("it can't be started: ") && why.contains(says),
            "{why}"
        );
        assert_eq!(pool.health().broken, Some(why));
        assert!(
            matches!(ask(&pool, "b").await, Ended::WrongTarget(_)),
            "at once from now on"
        );
        pool.stop().await;
    }
    // What was missing is there now.
    let scratch = tempfile::tempdir().unwrap();
    let script = scratch.path().join("child");
    let path = script.display().to_string();
    let mut settings = settings("");
    settings.command.command = vec!["sh".to_owned(), path];
    let pool = Pool::start(settings, &Handle::current());
    until(&pool, |health| health.broken.is_some()).await;
    std::fs::write(&script, child("", ANSWER)).unwrap();
    until(&pool, |health| {
        health.children == 1 && health.broken.is_none()
    })
    .await;
    answer(ask(&pool, "a").await);
}

#[tokio::test]
async fn who_says_no_hello_in_time_is_killed() {
    let mut settings = settings("sleep 60");
    settings.start_timeout = Duration::from_millis(100);
    let pool = Pool::start(settings, &Handle::current());
    let ended = ask(&pool, "a").await;
    assert!(
        matches!(&ended, Ended::WrongTarget(why) if why.contains("said no hello within 100ms")),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_stop_ends_whoever_does_not_listen_and_all_that_it_started() {
    let script = format!(
        "trap '' TERM; sleep 300 & started=$!\n{}",
        child(
            "",
            r#"echo "{\"id\":$id,\"answer\":{\"pid\":$started}}" >&4"#
        )
    )
    .replace("exit 0", ":");
    let pool = pool(&script);
    let started = pid_of(&answer(ask(&pool, "a").await));
    assert!(runs(started));
    let since = Instant::now();
    pool.stop().await;
    assert!(since.elapsed() < Duration::from_secs(15));
    let gone = Instant::now();
    while runs(started) {
        assert!(gone.elapsed() < PATIENCE, "what it has started still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn nothing_of_the_workers_environment_is_handed_on_but_what_is_named() {
    let mut settings = settings(&child(
        "",
        r#"echo "{\"id\":$id,\"answer\":\"$A|$STREAMHAND_TARGET|${CARGO_MANIFEST_DIR-none}|${CARGO_PKG_NAME-none}\"}" >&4"#,
    ));
    settings
        .command
        .environment
        .insert("A".to_owned(), "b c".to_owned());
    settings.command.pass.push("CARGO_PKG_NAME".to_owned());
    let pool = Pool::start(settings, &Handle::current());
    let said = answer(ask(&pool, "a").await);
    assert!(said.starts_with("\"b c|billing|none|"), "{said}");
}
