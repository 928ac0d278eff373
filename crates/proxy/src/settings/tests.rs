//! Settings from the environment, the file and the command line.

use std::collections::HashMap;

use super::*;

fn read(pairs: &[(&str, &str)], flags: &Overrides) -> Result<Settings, Vec<String>> {
    let map: HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    Settings::read(&|name| map.get(name).cloned(), &File::default(), flags)
}

#[test]
fn the_defaults_are_the_contract() {
    let settings = read(&[], &Overrides::default()).unwrap();
    assert_eq!(settings.ports, Ports::default());
    assert_eq!(settings.drain.termination, Duration::from_secs(5));
    assert!(!settings.drain.exit_on_zero && settings.debug_headers);
    assert!(settings.workers >= 1);
}

#[test]
fn environment_and_flags_move_ports() {
    let env = [
        ("ENVOY_STATUS_PORT", "25021"),
        ("ENVOY_PROMETHEUS_PORT", "25090"),
        (
            "PROXY_CONFIG",
            r#"{"statusPort": 25020, "terminationDrainDuration": "1m30s", "concurrency": 3,
             "proxyHeaders": {"envoyDebugHeaders": {"disabled": true}}}"#,
        ),
    ];
    let flags = Overrides { admin_port: Some("25000".into()), ..Overrides::default() };
    let settings = read(&env, &flags).unwrap();
    assert_eq!(settings.ports.readiness, 25021);
    assert_eq!(settings.ports.metrics, 25090);
    assert_eq!(settings.ports.agent, 25020);
    assert_eq!(settings.ports.admin, 25000);
    assert_eq!(settings.workers, 3);
    assert!(!settings.debug_headers);
    assert_eq!(settings.drain.termination, Duration::from_secs(90));
}

#[test]
fn all_errors_come_at_once_and_name_variable_and_value() {
    let env = [
        ("ENVOY_STATUS_PORT", "http"),
        ("MINIMUM_DRAIN_DURATION", "5 parsecs"),
        ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "maybe"),
        (
            "PROXY_CONFIG",
            r#"{"statusPort": 70000, "proxyHeaders": {"envoyDebugHeaders": {"disabled": "no"}}}"#,
        ),
        ("OUTRIGGER_BIND", "localhost"),
    ];
    let errors = read(&env, &Overrides::default()).unwrap_err();
    assert_eq!(errors.len(), 6, "{errors:#?}");
    for part in
        ["ENVOY_STATUS_PORT=\"http\"", "5 parsecs", "maybe", "70000", "envoyDebugHeaders", "localhost"]
    {
        assert!(errors.iter().any(|error| error.contains(part)), "{part} in {errors:#?}");
    }
}

#[test]
fn two_listeners_cannot_share_a_port() {
    let errors = read(&[("ENVOY_STATUS_PORT", "15090")], &Overrides::default()).unwrap_err();
    assert_eq!(errors, ["port 15090 is given to both readiness and metrics: give each its own"]);
}

#[test]
fn the_environment_stands_above_the_file_and_both_above_the_defaults() {
    let file = File::parse("idleTimeout: 2h\nheadTimeout: 5s\naccessLog: off\nopaquePorts: []\n").unwrap();
    let env = |name: &str| (name == "OUTRIGGER_IDLE_TIMEOUT").then(|| "3h".to_owned());
    let live = Settings::read(&env, &file, &Overrides::default()).unwrap().live;
    assert_eq!(live.limits.idle, Duration::from_secs(3 * 3600));
    assert_eq!(live.limits.head, Duration::from_secs(5));
    assert_eq!(live.limits.connect, Duration::from_secs(10));
    assert_eq!(live.access_log.0, Policy::Off);
}

#[test]
fn mistakes_of_file_and_environment_come_together_and_by_the_names_that_were_used() {
    let file = File::parse("idleTimeout: 0\nmaxHeaders: 5000\ninboundProtocols: {8080: spdy}\n").unwrap();
    let env = |name: &str| match name {
        "OUTRIGGER_ACCESS_LOG" => Some("some".to_owned()),
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("collector:4317".to_owned()),
        _ => None,
    };
    let errors = Settings::read(&env, &file, &Overrides::default()).unwrap_err();
    assert_eq!(errors.len(), 5, "{errors:#?}");
    for part in [
        "idleTimeout=\"0\": expected a duration above 0",
        "maxHeaders=\"5000\": expected a number, 1 to 1000",
        "inboundProtocols=\"8080=spdy\": expected port=protocol",
        "OUTRIGGER_ACCESS_LOG=\"some\": expected off, errors or all",
        "OTEL_EXPORTER_OTLP_ENDPOINT=\"collector:4317",
    ] {
        assert!(errors.iter().any(|error| error.starts_with(part)), "{part} in {errors:#?}");
    }
}

#[test]
fn every_field_is_read() {
    let asked = std::cell::RefCell::new(Vec::new());
    let env = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        None
    };
    Settings::read(&env, &File::default(), &Overrides::default()).unwrap();
    for (field, _) in file::FIELDS {
        let variable = file::variable(field);
        assert!(asked.borrow().contains(&variable), "{variable}");
    }
}

/// Whatever a file says: settings, or errors that each name a field or a line.
#[test]
fn changed_files_are_read_or_refused() {
    let corpus: [&[u8]; 4] = [
        b"idleTimeout: 2h\nheadTimeout: 5s\naccessLog: off\nopaquePorts: []\n",
        b"maxConnections: 100\nmaxHeaders: 50\nopaquePorts: [3306, 5432]\n",
        b"inboundProtocols: {8080: http, \"9090\": grpc}\noutboundProtocols:\n  6379: redis\n",
        b"# nothing\n",
    ];
    let words: [&[u8]; 8] = [b": ", b"- ", b"\n", b"{}", b"&a ", b"*a", b"---\n", b"99999999999999999999"];
    crate::fuzz::each(&corpus, &words, crate::properties::settings);
}
