//! Certificates and keys: what is refused before anything connects, and which source wins.

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::{ErrorKind, Publisher};

/// Files by their names in a directory of their own: two pairs of a certificate and its key, and what is none.
fn files() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &[u8]| {
        std::fs::write(directory.path().join(name), text).expect("a file");
    };
    for name in ["a", "b"] {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["host".to_owned()]).expect("a name");
        let cert = params.self_signed(&key).expect("a certificate");
        write(&format!("{name}.pem"), cert.pem().as_bytes());
        write(&format!("{name}.der"), cert.der());
        write(&format!("{name}.key"), key.serialize_pem().as_bytes());
    }
    write("text.pem", b"hunter2\n");
    write(
        "cut.pem",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    );
    write("open.key", b"-----BEGIN PRIVATE KEY-----\nhunter2\n");
    write(
        "secret.key",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    directory
}

/// `ca=a.pem key=` becomes `tls_ca = "…/a.pem"` and `tls_key = ""`.
fn redis(directory: &tempfile::TempDir, url: &str, given: &str) -> String {
    let path = |name: &str| match name {
        "" => String::new(),
        name => directory.path().join(name).display().to_string(),
    };
    let lines = given.split_whitespace().map(|setting| {
        let (key, name) = setting.split_once('=').expect("a setting");
        format!("tls_{key} = {:?}\n", path(name))
    });
    format!("[redis]\nurl = \"{url}\"\n{}", lines.collect::<String>())
}

#[test]
fn certificates_and_keys_that_cannot_be_used_say_why() {
    let directory = files();
    let refusals = [
        "ca=missing.pem cert=missing.pem key=missing.key",
        "ca=text.pem",
        "ca=a.der",
        "ca=a.key",
        "ca=cut.pem",
        "cert=text.pem key=text.pem",
        "cert=a.pem",
        "key=a.key",
        "cert=a.pem key=b.key",
        "cert=a.pem key=secret.key",
        "cert=a.pem key=open.key",
        "cert=a.key key=a.pem",
        "ca= cert= key=a.key",
    ]
    .map(|given| {
        let said = refusal(&redis(&directory, "rediss://host", given));
        let said = said.replace(&directory.path().display().to_string(), "/etc");
        format!("{given}\n{said}")
    })
    .join("\n");
    assert!(!refusals.contains("hunter2"), "{refusals}");
    insta::assert_snapshot!(refusals, @r#"
    ca=missing.pem cert=missing.pem key=missing.key
    3 problems in the configuration:
      line 3, column 10: redis.tls_ca: cannot read /etc/missing.pem: No such file or directory (os error 2)
      line 4, column 12: redis.tls_cert: cannot read /etc/missing.pem: No such file or directory (os error 2)
      line 5, column 11: redis.tls_key: cannot read /etc/missing.key: No such file or directory (os error 2)
    ca=text.pem
    line 3, column 10: redis.tls_ca: /etc/text.pem holds no certificate in PEM form, which begins with -----BEGIN CERTIFICATE-----
    ca=a.der
    line 3, column 10: redis.tls_ca: /etc/a.der holds no certificate in PEM form, which begins with -----BEGIN CERTIFICATE-----
    ca=a.key
    line 3, column 10: redis.tls_ca: /etc/a.key holds no certificate in PEM form, which begins with -----BEGIN CERTIFICATE-----
    ca=cut.pem
    line 3, column 10: redis.tls_ca: /etc/cut.pem holds a certificate that is damaged
    cert=text.pem key=text.pem
    2 problems in the configuration:
      line 3, column 12: redis.tls_cert: /etc/text.pem holds no certificate in PEM form, which begins with -----BEGIN CERTIFICATE-----
      line 4, column 11: redis.tls_key: /etc/text.pem holds no private key in PEM form, which begins with -----BEGIN PRIVATE KEY-----
    cert=a.pem
    line 3, column 12: redis.tls_cert: is a certificate without its key; set redis.tls_key too
    key=a.key
    line 3, column 11: redis.tls_key: is a key without its certificate; set redis.tls_cert too
    cert=a.pem key=b.key
    line 4, column 11: redis.tls_key: /etc/b.key is not the key of the certificate in redis.tls_cert
    cert=a.pem key=secret.key
    line 4, column 11: redis.tls_key: /etc/secret.key is encrypted, and nobody is there to be asked for its password; write it without one (openssl pkey -in FILE -out FILE)
    cert=a.pem key=open.key
    line 4, column 11: redis.tls_key: /etc/open.key is no PEM file, or a damaged one
    cert=a.key key=a.pem
    2 problems in the configuration:
      line 3, column 12: redis.tls_cert: /etc/a.key holds no certificate in PEM form, which begins with -----BEGIN CERTIFICATE-----
      line 4, column 11: redis.tls_key: /etc/a.pem holds no private key in PEM form, which begins with -----BEGIN PRIVATE KEY-----
    ca= cert= key=a.key
    2 problems in the configuration:
      line 3, column 10: redis.tls_ca: is empty; leave it out where there is none
      line 4, column 12: redis.tls_cert: is empty; leave it out where there is none
    "#);
}

#[test]
fn what_is_for_tls_needs_a_url_for_tls_of_no_stronger_source() {
    let directory = files();
    let plain = redis(&directory, "redis://host", "ca=a.pem cert=a.pem key=a.key");
    insta::assert_snapshot!(refusal(&plain), @r#"
    3 problems in the configuration:
      line 3, column 10: redis.tls_ca: is for TLS, which redis.url does not ask for; write "rediss://host:6379"
      line 4, column 12: redis.tls_cert: is for TLS, which redis.url does not ask for; write "rediss://host:6379"
      line 5, column 11: redis.tls_key: is for TLS, which redis.url does not ask for; write "rediss://host:6379"
    "#);

    let (_guard, path) = file(&redis(&directory, "rediss://host", "ca=a.pem"));
    let load = |environment: &[(&str, &str)]| {
        let sources = Sources {
            file: Some(path.clone()),
            environment: pairs(environment),
            ..Sources::default()
        };
        Settings::load(sources)
    };
    assert!(load(&[]).expect("valid sources").redis.tls_ca.is_some());
    let elsewhere = [("STREAMHAND_REDIS", "redis://127.0.0.1")];
    assert_eq!(load(&elsewhere).expect("valid sources").redis.tls_ca, None);
    let ca = directory.path().join("a.pem").display().to_string();
    let both = [elsewhere[0], ("STREAMHAND_REDIS__TLS_CA", &ca)];
    insta::assert_snapshot!(load(&both).expect_err("no TLS there"), @r#"STREAMHAND_REDIS__TLS_CA: redis.tls_ca: is for TLS, which redis.url does not ask for; write "rediss://host:6379""#);
}

#[test]
fn certificates_are_shown_by_their_files() {
    let directory = files();
    let text = redis(&directory, "rediss://host", "ca=b.pem cert=a.pem key=a.key");
    let settings = Settings::from_toml_str(&text).expect("a valid file");
    let shown = settings.to_toml();
    assert!(
        shown.contains("a.key\"") && !shown.contains("BEGIN"),
        "{shown}"
    );
    assert_eq!(Settings::from_toml_str(&shown), Ok(settings));
}

#[test]
fn a_program_that_connects_hears_of_a_certificate_that_is_not_there() {
    let redis = RedisSettings {
        url: RedisUrl::parse("rediss://host").expect("a URL"),
        tls_ca: Some(PathBuf::from("/nowhere/ca.pem")),
        ..RedisSettings::default()
    };
    let error = Publisher::new(&redis).expect_err("no such file");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    insta::assert_snapshot!(error, @"redis.tls_ca: cannot read /nowhere/ca.pem: No such file or directory (os error 2)");
}
