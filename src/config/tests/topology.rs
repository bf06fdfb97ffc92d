//! Where the servers are: what goes together, and which source wins.

use super::*;
use crate::config::{RedisMode, SentinelSettings};

fn said(text: &str) -> String {
    Settings::from_toml_str(text)
        .expect_err("what can't work")
        .to_string()
}

fn from(text: &str, variables: &[(&str, &str)]) -> Settings {
    let (_guard, file) = file(text);
    let sources = Sources {
        file: Some(file),
        environment: pairs(variables),
        ..Sources::default()
    };
    Settings::load(sources).expect("a right configuration")
}

const SENTINEL: &str = "[redis.sentinel]\nmaster = \"mymaster\"\nnodes = [\"a\", \"b:26380\"]\n";

#[test]
fn what_does_not_go_together_is_refused_with_what_would() {
    insta::assert_snapshot!(said("[redis]\nmode = \"clustr\"\n"), @r#"line 2, column 8: redis.mode: expected "auto" or "single" or "sentinel" or "cluster", found "clustr"; did you mean "cluster"?"#);
    insta::assert_snapshot!(said("[redis]\nmode = \"sentinel\"\n"), @r#"
    2 problems in the configuration:
      line 2, column 8: redis.sentinel.master: is not set; write the name after `sentinel monitor` in the sentinels' configuration
      line 2, column 8: redis.sentinel.nodes: is empty; list all sentinels, as in ["sentinel-1:26379"]
    "#);
    insta::assert_snapshot!(said("[redis]\nmode = \"single\"\nnodes = [\"a\"]\n"), @r#"line 3, column 9: redis.nodes: is for redis.mode = "cluster"; leave it out, or set the mode; one server is named by redis.url"#);
    insta::assert_snapshot!(said("[redis]\nmode = \"cluster\"\nurl = \"redis://a/1\"\n"), @"line 3, column 7: redis.url: names a database, and a cluster has none but 0");
    insta::assert_snapshot!(said("[redis]\nnodes = [\"redis://a\", \"b:0\", \"c\", \"c:6379\", \":7\"]\n"), @r#"
    4 problems in the configuration:
      line 2, column 10: redis.nodes[0]: is a URL; write host:port, the scheme and the login of redis.url hold for all
      line 2, column 23: redis.nodes[1]: "b:0" has no port that is one; write b:6379
      line 2, column 35: redis.nodes[3]: "c:6379" is in the list twice
      line 2, column 45: redis.nodes[4]: ":7" has no host; write host:port
    "#);
    let more =
        format!("{SENTINEL}username = \"u\"\ntls_ca = \"/ca.pem\"\ntls_key = \"/key.pem\"\n");
    let said = said(&more);
    for part in [
        "redis.sentinel.username: names a user without a password",
        "redis.sentinel.tls_ca: is for TLS, which the sentinels do not speak",
        "redis.sentinel.tls_key: is for TLS, which the sentinels do not speak",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn an_address_of_a_stronger_source_means_that_server() {
    let settings = from(SENTINEL, &[]).redis;
    assert_eq!(
        settings.sentinel,
        SentinelSettings::new("mymaster", ["a", "b:26380"])
    );
    let settings = from(SENTINEL, &[("STREAMHAND_REDIS", "redis://there")]).redis;
    assert_eq!(
        (settings.sentinel, settings.url.expose()),
        (SentinelSettings::default(), "redis://there")
    );
    // Who says both there means both.
    let both = [
        ("STREAMHAND_REDIS", "redis://there"),
        ("STREAMHAND_REDIS__MODE", "cluster"),
        ("STREAMHAND_REDIS__NODES", "a,b:7000"),
    ];
    let settings = from("", &both).redis;
    assert_eq!(
        (settings.mode, settings.nodes),
        (
            RedisMode::Cluster,
            vec!["a".to_owned(), "b:7000".to_owned()]
        )
    );
}

#[test]
fn what_sentinels_are_told_is_hidden_and_can_be_read_back() {
    let text = format!("{SENTINEL}password = \"hunter2\"\ntls = true\n");
    let settings = Settings::from_toml_str(&text).expect("a right configuration");
    let shown = settings.to_toml();
    assert!(
        !shown.contains("hunter2") && !format!("{settings:?}").contains("hunter2"),
        "{shown}"
    );
    let again = Settings::from_toml_str(&shown)
        .expect("what was shown")
        .redis
        .sentinel;
    assert_eq!(again.nodes, settings.redis.sentinel.nodes);
    assert_eq!(
        (again.master, again.tls),
        (settings.redis.sentinel.master, Some(true))
    );
}
