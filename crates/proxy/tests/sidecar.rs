//! The sidecar as a process on loopback, without capture and without root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use support::{PORTS, Sidecar, ask, command, eventually, get, metric, patient, read_byte, refusing};

#[test]
fn it_is_ready_counts_and_leaves_on_sigterm() {
    let mut command = command();
    command.env("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true").env("MINIMUM_DRAIN_DURATION", "0s");
    let mut sidecar = Sidecar::start(command);
    assert_eq!(get(sidecar.at("readiness"), "/healthz/ready"), (200, String::new()));
    assert_eq!(get(sidecar.at("readiness"), "/").0, 404);
    let (code, text) = get(sidecar.at("metrics"), "/stats/prometheus");
    assert_eq!(code, 200);
    assert_eq!(metric(&text, "istio_tcp_connections_opened_total", &[]), 0.0);
    assert_eq!(metric(&text, "istio_build", &["component=\"proxy\""]), 1.0);
    sidecar.terminate();
    assert!(sidecar.ended().success());
}

#[test]
fn a_direct_connection_to_a_capture_port_is_closed_and_counted() {
    let sidecar = Sidecar::start(command());
    for (name, reporter) in [("outbound", "source"), ("inbound", "destination")] {
        let mut stream = patient(TcpStream::connect(sidecar.at(name)).unwrap());
        assert_eq!(read_byte(&mut stream).unwrap(), 0, "{name} closes without a word");
        let text = get(sidecar.at("metrics"), "/stats/prometheus").1;
        let reporter = format!("reporter=\"{reporter}\"");
        let refused = metric(&text, "outrigger_connections_refused_total", &[&reporter, "reason=\"direct\""]);
        assert_eq!(refused, 1.0, "{text}");
        assert_eq!(metric(&text, "istio_tcp_connections_opened_total", &[]), 0.0);
    }
}

#[test]
fn what_goes_nowhere_is_logged_as_such() {
    let mut command = command();
    command.env("OUTRIGGER_ACCESS_LOG", "errors");
    let mut sidecar = Sidecar::start(command);
    let mut log = BufReader::new(sidecar.child.stdout.take().unwrap());
    for name in ["outbound", "inbound"] {
        let mut stream = patient(TcpStream::connect(sidecar.at(name)).unwrap());
        let (own, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert_eq!(read_byte(&mut stream).unwrap(), 0);
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        assert!(line.contains("] \"- - -\" 0 NR filter_chain_not_found - \"-\" 0 0 0 - "), "{line}");
        assert!(line.ends_with(&format!(" {peer} {own} - -\n")), "{line}");
    }
}

#[test]
fn quitquitquit_ends_it_at_once_and_is_answered() {
    let mut sidecar = Sidecar::start(command());
    let agent = sidecar.at("agent");
    assert_eq!(ask(TcpStream::connect(agent).unwrap(), "GET", "/quitquitquit").0, 405);
    let answer = ask(TcpStream::connect(agent).unwrap(), "POST", "/quitquitquit");
    assert_eq!(answer, (200, "OK".to_owned()));
    assert!(sidecar.ended().success());
}

#[test]
fn a_drained_sidecar_stays_ready_and_leaves_at_once_on_sigterm() {
    let mut sidecar = Sidecar::start(command());
    let agent = sidecar.at("agent");
    assert_eq!(ask(TcpStream::connect(agent).unwrap(), "POST", "/drain"), (200, "OK".to_owned()));
    assert_eq!(get(sidecar.at("readiness"), "/healthz/ready").0, 200);
    sidecar.terminate();
    assert!(sidecar.ended().success());
}

#[test]
fn sigterm_ends_readiness_before_it_ends_the_sidecar() {
    let mut command = command();
    command.env("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true").env("MINIMUM_DRAIN_DURATION", "1h");
    let sidecar = Sidecar::start(command);
    sidecar.terminate();
    eventually("readiness ends", || (get(sidecar.at("readiness"), "/healthz/ready").0 == 503).then_some(()));
}

#[test]
fn wait_succeeds_when_ready_and_fails_in_time() {
    let sidecar = Sidecar::start(command());
    let wait = |port: u16, seconds: &str| {
        let url = format!("--url=http://127.0.0.1:{port}/healthz/ready");
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"));
        command.args(["wait", &url, "--timeoutSeconds", seconds, "--periodMillis=50"]).output().unwrap()
    };
    assert!(wait(sidecar.port("readiness"), "60").status.success());
    let (_nobody, port) = refusing();
    let failed = wait(port, "1");
    assert_eq!(failed.status.code(), Some(1));
    let message = String::from_utf8(failed.stderr).unwrap();
    assert!(message.contains("not ready in 1 s") && message.contains(&port.to_string()), "{message}");
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for variable in PORTS {
        let output = command().env(variable, &port).stdout(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{variable}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            message.contains(&format!("cannot listen on 127.0.0.1:{port}: Address already in use")),
            "{message}"
        );
        let remedy = "; another container of the pod listens there: give one of them another port\n";
        assert!(message.ends_with(remedy), "{message}");
    }
}

#[test]
fn bad_settings_are_told_all_at_once() {
    let output = command().env("ENVOY_STATUS_PORT", "x").env("MINIMUM_DRAIN_DURATION", "y").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("ENVOY_STATUS_PORT=\"x\"") && message.contains("MINIMUM_DRAIN_DURATION=\"y\""),
        "{message}"
    );
}

#[test]
fn flags_of_other_ages_are_tolerated_and_other_roles_are_not() {
    let mut aged = command();
    aged.args([
        "--domain",
        "a.svc.cluster.local",
        "--proxyLogLevel=warning",
        "--log_output_level=default:info",
    ]);
    aged.args(["--discoveryAddress", "istio-pilot:15007", "--someday-flag", "--profiling"]);
    Sidecar::start(aged);
    let output =
        Command::new(env!("CARGO_BIN_EXE_outrigger-proxy")).args(["proxy", "router"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn admin_answers_on_loopback() {
    let mut sidecar = Sidecar::start(command());
    let admin = sidecar.at("admin");
    assert_eq!(get(admin, "/ready"), (200, "LIVE\n".to_owned()));
    let (_, text) = get(admin, "/server_info");
    let info: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(info["state"], "READY");
    assert!(info["resident_bytes"].as_u64().unwrap() > 100_000);
    let (_, text) = get(admin, "/config_dump");
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["drain"]["termination_seconds"], 5.0);
    assert_eq!(get(admin, "/logging").1, "info\n");
    let set =
        |level: &str| ask(TcpStream::connect(admin).unwrap(), "POST", &format!("/logging?level={level}"));
    assert_eq!(set("debug").0, 200);
    assert_eq!(get(admin, "/logging").1, "debug\n");
    assert_eq!(set("loud").0, 400);
    assert_eq!(get(admin, "/quitquitquit").0, 405);
    assert_eq!(get(admin, "/nothing").0, 404);
    assert_eq!(ask(TcpStream::connect(admin).unwrap(), "POST", "/quitquitquit").0, 200);
    assert!(sidecar.ended().success());
}

#[test]
fn a_bad_access_log_policy_is_told() {
    let mut command = command();
    command.env("OUTRIGGER_ACCESS_LOG", "sometimes");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("OUTRIGGER_ACCESS_LOG=\"sometimes\": expected off, errors or all"), "{message}");
}
