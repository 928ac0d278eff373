//! The wall clock may jump: no time-out depends on it, and logs say what it says. Needs root, ip, nft and libfaketime, whose
//! wall clock is moved by a file while the monotonic clock is the kernel's.
#![cfg(feature = "netns-tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use support::namespace::{PEER_V4, Pod};
use support::{PLAIN, head, patient};

/// The sidecar's wall clock, as a file that the library reads whenever it is asked for the time.
struct Clock(PathBuf);

impl Clock {
    fn new() -> Clock {
        let clock = Clock(std::env::temp_dir().join(format!("outrigger-clock-{}", std::process::id())));
        clock.set("+0d");
        clock
    }

    /// Sets the distance from the true time.
    fn set(&self, distance: &str) {
        // Whole or not at all.
        let next = self.0.with_extension("next");
        std::fs::write(&next, distance).unwrap();
        std::fs::rename(&next, &self.0).unwrap();
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Where the package libfaketime puts its library for programs with threads.
fn library() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let paths = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    let path = paths.into_iter().find(|path| path.exists());
    path.expect("libfaketime is missing: apt-get install faketime").to_str().unwrap().to_owned()
}

#[test]
fn a_clock_that_jumps_ends_nothing_and_postpones_nothing() {
    const OK: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    // No upstream connection waits for the next request, however long that takes.
    const LAST: &[u8] = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    let (pod, clock, library) = (Pod::new(), Clock::new(), library());
    let mut sidecar = pod.sidecar(&[
        ("LD_PRELOAD", &library),
        ("FAKETIME_TIMESTAMP_FILE", clock.0.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("OUTRIGGER_ACCESS_LOG", "all"),
        ("OUTRIGGER_ACCESS_LOG_FORMAT", "json"),
        ("OUTRIGGER_HEAD_TIMEOUT", "3s"),
        ("OUTRIGGER_IDLE_TIMEOUT", "1h"),
        ("OUTRIGGER_REQUEST_TIMEOUT", "1h"),
        ("OUTRIGGER_OUTBOUND_PROTOCOLS", "80=http"),
        PLAIN,
    ]);
    let mut log = BufReader::new(sidecar.child.stdout.take().unwrap());
    let mut logged = || {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let year: i32 = line["start_time"].as_str().unwrap()[..4].parse().unwrap();
        (year, line)
    };
    let listener = pod.peer.listen(PEER_V4, 80);
    let mut client = patient(pod.inside.connect((PEER_V4, 80).into()).unwrap());
    client.write_all(GET).unwrap();
    // A request as the server gets it.
    let asked = || {
        let mut server = patient(listener.accept().unwrap().0);
        head(&mut server).unwrap();
        server
    };
    asked().write_all(LAST).unwrap();
    assert_eq!(head(&mut client).unwrap(), OK);
    let (year, _) = logged();

    // A request is under way, and a kept connection is idle, while ten years go by, and come back, and five more.
    let mut kept = patient(pod.inside.connect((PEER_V4, 80).into()).unwrap());
    for (distance, years) in [("+3653d", 10), ("-1826d", -5)] {
        client.write_all(GET).unwrap();
        let mut server = asked();
        clock.set(distance);
        server.write_all(LAST).unwrap();
        assert_eq!(head(&mut client).unwrap(), OK);
        let (now, line) = logged();
        assert!((now - year - years).abs() <= 1, "{line}");
        assert!(line["duration"].as_u64().unwrap() < 60_000, "{line}");
        assert_eq!(line["response_flags"], "-");
    }
    // What was idle all the time goes on.
    kept.write_all(GET).unwrap();
    asked().write_all(LAST).unwrap();
    assert_eq!(head(&mut kept).unwrap(), OK);
    logged();

    // A head that does not come to its end is late after three seconds, though the clock goes back a day meanwhile.
    kept.write_all(&GET[..20]).unwrap();
    clock.set("-1827d");
    let refused = head(&mut kept).unwrap();
    assert!(refused.starts_with("HTTP/1.1 408 "), "{refused}");
    let (now, line) = logged();
    assert!((now - year + 5).abs() <= 1, "{line}");
    assert_eq!(line["response_code"], 408);
}
