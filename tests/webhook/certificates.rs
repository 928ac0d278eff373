//! Certificates: refused at start, taken up while requests are made, kept when the new one is bad.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use outrigger::certificates::{make, unix_now};

use crate::client::{Client, eventually, pod, review, trusting};
use crate::server::{ANYWHERE, Folder, Server, refused, write_certificate};

#[test]
fn what_cannot_be_served_is_refused_at_start() {
    let folder = Folder::new();
    write_certificate(&folder);
    let other = make(&["127.0.0.1".to_owned()], 1, unix_now()).unwrap();
    let expired = make(&["127.0.0.1".to_owned()], 0, unix_now()).unwrap();
    folder.write("other.key", &other.key);
    folder.write("expired.crt", &expired.certificate);
    folder.write("expired.key", &expired.key);
    folder.write("empty", "");
    folder.write("cut.crt", &other.certificate[..200]);
    folder.write("noise.crt", "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n");
    for (certificate, key, message) in [
        ("missing.crt", "tls.key", "cannot read the certificate {}/missing.crt: No such file or directory"),
        ("tls.crt", "missing.key", "cannot read the private key {}/missing.key: No such file or directory"),
        ("empty", "tls.key", "the certificate {}/empty: no certificate in PEM form is in it"),
        ("cut.crt", "tls.key", "the certificate {}/cut.crt: "),
        ("noise.crt", "tls.key", "the certificate {}/noise.crt: no X.509 certificate"),
        ("tls.crt", "empty", "the private key {}/empty: no private key in PEM form is in it"),
        (
            "tls.crt",
            "other.key",
            "the private key {}/other.key does not belong to the certificate {}/tls.crt",
        ),
        ("expired.crt", "expired.key", "the certificate {}/expired.crt expired on 20"),
    ] {
        let files = ["--cert", &folder.path(certificate), "--key", &folder.path(key)];
        let (code, said) = refused(&[&ANYWHERE[..], &files].concat());
        let message = message.replace("{}/", &folder.path(""));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&message), "{said} does not say {message}");
    }
    let (code, said) = refused(&["--cert", &folder.path("tls.crt")]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--key"), "{said}");
}

/// Requests on kept and on new connections go on while `change` happens; none fails.
fn while_asked(server: &Server, tls_after: &str, change: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    let address = server.address;
    let both = [server.tls.clone(), trusting(tls_after)];
    std::thread::scope(|threads| {
        let asking = threads.spawn(|| {
            let mut kept = Client::connect(address, &both[0]);
            while !stop.load(Ordering::Relaxed) {
                assert!(kept.post("/inject", &review(&pod("kept"))).injected(&pod("kept")).is_some());
                // A client that trusts old and new, as caBundle does in a rotation.
                let mut new = Client::try_connect(address, &both[0])
                    .or_else(|_| Client::try_connect(address, &both[1]))
                    .unwrap();
                assert!(new.post("/inject", &review(&pod("new"))).injected(&pod("new")).is_some());
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        let at_least = |more: usize| {
            let enough = asked.load(Ordering::Relaxed) + more;
            eventually("requests", || asked.load(Ordering::Relaxed) >= enough || asking.is_finished());
        };
        at_least(3);
        change();
        at_least(3);
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_renewed_certificate_is_taken_up_under_requests() {
    let server = Server::start("");
    let before = server.metric("outrigger_certificate_expiry_timestamp_seconds");
    let renewed = make(&["127.0.0.1".to_owned()], 30, unix_now()).unwrap();
    while_asked(&server, &renewed.ca, || {
        server.folder.write("tls.crt", &renewed.certificate);
        server.folder.write("tls.key", &renewed.key);
        server.metric_becomes("outrigger_certificate_reloads_total{result=\"success\"}", 1.0);
    });
    let after = server.metric("outrigger_certificate_expiry_timestamp_seconds");
    assert!(after > before + 28.0 * 86_400.0, "{before} {after}");
    assert!(Client::try_connect(server.address, &server.tls).is_err(), "the old CA's certificate is gone");
    Client::connect(server.address, &trusting(&renewed.ca));
}

#[test]
fn a_bad_certificate_is_reported_and_the_old_one_stays() {
    let server = Server::start("");
    server.folder.write("tls.crt", "no certificate at all");
    let line = server.log("changed certificate refused; the last good one stays", |_| true);
    assert!(line["problem"].as_str().unwrap().contains("tls.crt: no certificate in PEM form"), "{line}");
    server.metric_becomes("outrigger_certificate_reloads_total{result=\"failure\"}", 1.0);
    assert!(server.ask(&review(&pod("cart"))).injected(&pod("cart")).is_some());
    // Mended, it is taken up.
    let renewed = make(&["127.0.0.1".to_owned()], 30, unix_now()).unwrap();
    server.folder.write("tls.key", &renewed.key);
    server.folder.write("tls.crt", &renewed.certificate);
    server.metric_becomes("outrigger_certificate_reloads_total{result=\"success\"}", 1.0);
    Client::connect(server.address, &trusting(&renewed.ca));
}

#[test]
fn swaps_of_a_mounted_secret_are_seen_each_time() {
    let server = Server::start("");
    let folder = &server.folder;
    let in_turn = |n: usize| {
        let made = make(&["127.0.0.1".to_owned()], 30, unix_now()).unwrap();
        folder.mount(n, &[("tls.crt", &made.certificate), ("tls.key", &made.key)]);
        made
    };
    let mut made = in_turn(0);
    for n in 1..4 {
        server.metric_becomes("outrigger_certificate_reloads_total{result=\"success\"}", n as f64);
        Client::connect(server.address, &trusting(&made.ca));
        made = in_turn(n);
    }
    assert_eq!(server.metric("outrigger_certificate_reloads_total{result=\"failure\"}"), 0.0);
}

fn certs(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger")).arg("certs").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn certs_makes_a_pair_that_serves_and_shows_it() {
    let server = Server::start("");
    let folder = &server.folder;
    let out = folder.path("made");
    let (code, stdout, _) = certs(&["--dns", "webhook.shop.svc", "--dns", "127.0.0.1", "--out", &out]);
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    let key = folder.path("made/tls.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    for file in ["tls.crt", "tls.key"] {
        std::fs::copy(folder.path(&format!("made/{file}")), folder.path(file)).unwrap();
    }
    server.metric_becomes("outrigger_certificate_reloads_total{result=\"success\"}", 1.0);
    let ca = std::fs::read_to_string(folder.path("made/ca.crt")).unwrap();
    Client::connect(server.address, &trusting(&ca));

    let (code, json, _) = certs(&["--inspect", &folder.path("tls.crt"), "--json"]);
    assert_eq!(code, Some(0));
    let shown: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(shown[0]["names"], serde_json::json!(["webhook.shop.svc", "127.0.0.1"]));
    assert_eq!(shown[0]["issuer"], "CN=Outrigger CA");
    assert_eq!(shown[0]["ca"], false);
    let days = (shown[0]["notAfter"].as_i64().unwrap() - shown[0]["notBefore"].as_i64().unwrap()) / 86_400;
    assert_eq!(days, 365);
    let (_, text, _) = certs(&["--inspect", &folder.path("made/ca.crt")]);
    assert!(text.contains("CN=Outrigger CA (a CA)") && text.contains("365 days left"), "{text}");

    // What is there stays.
    let (code, _, said) = certs(&["--dns", "other", "--out", &out]);
    assert_eq!(code, Some(1));
    assert!(said.contains("made/ca.crt is there already and stays"), "{said}");
    assert_eq!(std::fs::read_to_string(folder.path("made/ca.crt")).unwrap(), ca);
    assert_eq!(certs(&[]).0, Some(2));
    let (code, _, said) = certs(&["--dns", "a b", "--out", &folder.path("none")]);
    assert_eq!(code, Some(2));
    assert!(said.contains("\"a b\" is no DNS name"), "{said}");
    let (code, _, said) = certs(&["--inspect", &key]);
    assert_eq!(code, Some(1));
    assert!(said.contains("tls.key: no certificate in PEM form"), "{said}");
}
