//! Replicas whose clocks are years apart. Certificates go by the API server's clock, the Lease by durations.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger::certificates::{facts, unix_now};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::{Beside, How};
use crate::certificate::{Kept, kept, renewed};
use crate::cluster::until;
use crate::stream::Stream;

const DAY: i64 = 86_400;

/// Where the package libfaketime puts its library for programs with threads.
fn library() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut paths = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    let path = paths.find(|path| path.exists()).expect("libfaketime is missing: apt-get install faketime");
    path.to_str().unwrap().to_owned()
}

/// The leaf is valid since a while ago, and for about 90 days, by the true time.
fn assert_valid(kept: &Kept) {
    let pem = STANDARD.decode(&kept.certificate).unwrap();
    let leaf = CertificateDer::from_pem_slice(&pem).unwrap();
    let (facts, now) = (facts(&leaf).unwrap(), unix_now());
    let (age, left) = (now - facts.not_before, facts.not_after - now);
    assert!((4 * 60..DAY).contains(&age) && (89 * DAY..=90 * DAY).contains(&left), "{facts:?} at {now}");
}

#[test]
fn a_leader_whose_clock_is_wrong_makes_certificates_that_are_right() {
    let (beside, library) = (Beside::new("clocks"), library());
    let clock = |distance| {
        [("LD_PRELOAD", library.as_str()), ("FAKETIME", distance), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]
    };
    // Further than a certificate lasts, and to before the cluster was made.
    let ahead = beside.start("ahead", &How { environment: &clock("+1000d"), ..How::default() });
    ahead.said("leading");
    let behind = beside.serving("behind", &How { environment: &clock("-1000d"), ..How::default() });
    beside.endpoint(&ahead, true);
    ahead.said("serving certificate");
    let stream = Stream::start(beside.pods());
    let (mut known, generation) = (kept(&beside.installation).unwrap(), beside.generation());
    assert_valid(&known);

    beside.rotate();
    known = renewed(&beside.installation, &known);
    assert_valid(&known);
    assert_eq!((ahead.count("have the next certificate"), beside.generation()), (2, generation + 2));

    // Its last sign of life is 2000 days in the future of the one that takes over.
    beside.endpoint(&ahead, false);
    let log = ahead.process.kill();
    assert!(log.contains(&year_of(1000)), "the clock was not ahead: {log}");
    until("another leader", || {
        let lease = beside.lease()?;
        if lease["holderIdentity"] == "behind" { Ok(()) } else { Err(lease.to_string()) }
    });
    beside.rotate();
    known = renewed(&beside.installation, &known);
    assert_valid(&known);
    assert_eq!((behind.count("have the next certificate"), beside.generation()), (1, generation + 4));
    assert!(behind.process.log().contains(&year_of(-1000)), "the clock was not behind");
    assert!(stream.finish() > 0);
}

/// The year that a replica with this clock writes into its log.
fn year_of(days: i64) -> String {
    let date = outrigger::certificates::written_date(unix_now() + days * DAY);
    format!("\"timestamp\":\"{}", &date[..4])
}
