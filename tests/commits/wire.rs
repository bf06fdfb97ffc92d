//! Crashes before the step, in it and behind it, and answers and requests that get lost.

use streamhand::Registry;

use super::*;
use crate::support::{Proxy, WorkerProcess, run_worker, scripts};

/// The step, if it does more than most.
fn step() -> crate::support::Exchange {
    scripts::call("commit_more")
}

#[test]
#[ignore = "run by other tests"]
fn more_committing_worker_process() {
    run_worker(Registry::new().on(all));
}

on_both_servers! {
    async fn a_step_whose_answer_or_request_is_lost_is_repeated_and_done_once(server: Server) {
        let mut redis = server.connect().await;
        scripts::load(&mut redis).await;
        schedule_old(&publisher(&server.url()), &["a", "b", "c"]).await;
        let proxy = Proxy::start(server.port()).await;
        let worker = Setup::at(proxy.url()).start_with(Registry::new().on(all));
        publish(&mut redis, &["a"]).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let caught = proxy.cut_after(step());
        publish(&mut redis, &["b"]).await;
        caught.within(PATIENCE).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        let caught = proxy.cut_before(step());
        publish(&mut redis, &["c", "d"]).await;
        caught.within(PATIENCE).await;
        settled(&mut redis, "jobs", PATIENCE).await;
        assert_eq!(worker.stop().await.unsettled, 0);
        assert_once(&server, &["a", "b", "c", "d"]).await;
    }

    /// It is killed before the step, with the request on its way, and behind the step before it hears of it.
    async fn a_worker_that_dies_around_the_step_leaves_it_done_once(server: Server) {
        for (at, id) in ["before", "in", "behind"].iter().zip(["a", "b", "c"]) {
            let mut redis = server.connect().await;
            let _: () = redis.flushall().await.unwrap();
            scripts::load(&mut redis).await;
            schedule_old(&publisher(&server.url()), &[id]).await;
            let proxy = Proxy::start(server.port()).await;
            let setup = |url: String| Setup::at(url).worker("lease = \"1s\"");
            let process = WorkerProcess::builder().test("commits::wire::more_committing_worker_process");
            let mut process = process.config(&setup(proxy.url()).toml()).start();
            match *at {
                "behind" => {
                    let caught = proxy.cut_after(step());
                    publish(&mut redis, &[id]).await;
                    caught.within(PATIENCE).await;
                    process.kill();
                }
                at => {
                    let held = proxy.hold_request(step());
                    publish(&mut redis, &[id]).await;
                    let request = held.within(PATIENCE).await;
                    process.freeze();
                    if at == "in" {
                        request.now();
                        eventually(PATIENCE, "the step", async || entries(&mut redis, "done").await.len() == 1).await;
                    }
                    process.kill();
                }
            }
            let other = setup(server.url()).start_with(Registry::new().on(all));
            settled(&mut redis, "jobs", PATIENCE).await;
            other.stop().await;
            assert_once(&server, &[id]).await;
        }
    }
}
