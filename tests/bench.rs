//! The bench measures on keys of its own and takes them along.

use std::process::Command;

use crate::support::Server;

on_both_servers! {
    async fn it_measures_both_ways_and_leaves_nothing_behind(server: Server) {
        let mut redis = server.connect().await;
        let output = Command::new(env!("CARGO_BIN_EXE_streamhand"))
            .args(["--redis", &server.url(), "bench", "--events", "5000", "--runs", "1", "--json"])
            .env("STREAMHAND_LOG", "warn")
            .output()
            .expect("the program");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
        for figure in ["throughput_ratio", "redis_cpu_ratio", "client_cpu_ratio", "redis_busy"] {
            assert!(report[figure].as_f64().is_some_and(|value| value > 0.0), "{figure} in {report}");
        }
        let keys: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
        assert_eq!(keys, 0);
    }
}
