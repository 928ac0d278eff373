//! What is said of a command line or settings that make no sense: whole, as it stands in the log of a container. Nothing of
//! it comes so far as to listen.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

fn said(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_command_line_that_makes_no_sense_is_told_what_to_type() {
    for (arguments, message) in [
        (
            &["bogus"][..],
            "there is no command \"bogus\"; have proxy, wait, request, istio-iptables and version",
        ),
        (&["proxy", "router"], "only the role `sidecar` is there; a gateway needs a control plane"),
        (
            &["proxy", "--log_output_level", "loud"],
            "--log_output_level=\"loud\": expected none, error, warn, info or debug",
        ),
        (&["wait", "--bogus"], "there is no flag --bogus here"),
        (&["wait", "--timeoutSeconds", "soon"], "--timeoutSeconds=\"soon\": expected a whole number"),
        (&["wait", "--url", "https://a"], "--url=\"https://a\": expected http://host:port/path"),
        (&["request", "GET"], "expected METHOD PATH [BODY], such as request GET /config_dump"),
        (&["request", "GET", "/", "--debug-port", "0"], "--debug-port=0: expected a port, 1 to 65535"),
    ] {
        let want = format!("outrigger-proxy: {message}\nTry `outrigger-proxy help`.\n");
        assert_eq!(said(arguments, &[]), (Some(2), String::new(), want), "{arguments:?}");
    }
}

#[test]
fn settings_that_make_no_sense_are_told_all_at_once() {
    let wrong = |variables: &[(&str, &str)], messages: &str| {
        let want =
            format!("outrigger-proxy: settings are wrong:\n  {messages}\nTry `outrigger-proxy help`.\n");
        assert_eq!(said(&["proxy"], variables), (Some(2), String::new(), want), "{variables:?}");
    };
    wrong(
        &[("OUTRIGGER_BIND", "here"), ("OUTRIGGER_MAX_STREAMS", "0")],
        "OUTRIGGER_BIND=\"here\": expected IP addresses separated by commas\n  OUTRIGGER_MAX_STREAMS=\"0\": expected a number, \
         1 to 1000000",
    );
    wrong(
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector")],
        "OTEL_EXPORTER_OTLP_ENDPOINT=\"collector\": expected http://host:port or https://host:port of a collector that takes \
         OTLP over HTTP",
    );
    wrong(
        &[("ISTIO_PROMETHEUS_ANNOTATIONS", "9090")],
        "ISTIO_PROMETHEUS_ANNOTATIONS: expected a JSON object, such as {\"scrape\":\"true\",\"port\":\"9090\"}",
    );
    wrong(
        &[("OUTRIGGER_CONFIG", "/no/such/file")],
        "OUTRIGGER_CONFIG=/no/such/file: cannot be read: No such file or directory (os error 2)",
    );
}

#[test]
fn help_is_shown_where_it_is_asked_for() {
    let (_, help, _) = said(&["help"], &[]);
    assert!(help.contains("\nExamples:\n") && help.contains("docs/sidecar.md"), "{help}");
    for arguments in
        [&[][..], &["--help"], &["proxy", "--help"], &["proxy", "sidecar", "-h"], &["wait", "--help"]]
    {
        assert_eq!(said(arguments, &[]), (Some(0), help.clone(), String::new()), "{arguments:?}");
    }
}
