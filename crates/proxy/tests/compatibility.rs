//! Metrics of Istio's sidecar, looked for in what ours serves. `docs/compatibility/sidecar-metrics.md` is what was found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../tests/compatibility/document.rs"]
mod document;
mod support;

use support::{Sidecar, command, get};

/// The metric with its type, and why it is not there.
/// <https://istio.io/latest/docs/reference/config/metrics/>
const METRICS: [(&str, &str, &str); 14] = [
    ("istio_requests_total", "counter", ""),
    ("istio_request_duration_milliseconds", "histogram", ""),
    ("istio_request_bytes", "histogram", ""),
    ("istio_response_bytes", "histogram", ""),
    ("istio_request_messages_total", "counter", ""),
    ("istio_response_messages_total", "counter", ""),
    ("istio_tcp_connections_opened_total", "counter", ""),
    ("istio_tcp_connections_closed_total", "counter", ""),
    ("istio_tcp_sent_bytes_total", "counter", ""),
    ("istio_tcp_received_bytes_total", "counter", ""),
    ("istio_build", "gauge", ""),
    ("istio_agent_process_virtual_memory_bytes", "gauge", "there is no agent beside the proxy"),
    ("istio_agent_num_outgoing_requests", "counter", "there is no control plane to ask"),
    (
        "envoy_cluster_upstream_cx_active",
        "gauge",
        "of Envoy; connections of ours are `istio_tcp_*` and the admin's `/connections`",
    ),
];

#[test]
fn the_page_on_the_sidecars_metrics_says_which_are_there() {
    let sidecar = Sidecar::start(command());
    let (code, text) = get(sidecar.at("metrics"), "/stats/prometheus");
    assert_eq!(code, 200);
    let row = |&(name, kind, note): &(&str, &str, &str)| {
        let there = text.lines().any(|line| line == format!("# TYPE {name} {kind}"));
        assert!(
            there == note.is_empty(),
            "{name}: {}",
            if there { "it is there" } else { "say why it is not there" }
        );
        vec![
            format!("`{name}`"),
            kind.to_owned(),
            if there { "yes" } else { "no" }.to_owned(),
            note.to_owned(),
        ]
    };
    let rows: Vec<_> = METRICS.iter().map(row).collect();
    let mut page = String::from(
        "# Metrics of the sidecar\n\nThose of Istio's, looked for in what a sidecar serves. [sidecar](../sidecar.md) has all of ours, and the labels.\n\n",
    );
    page += &document::table(&["metric", "type", "there", ""], &rows);
    document::holds("sidecar-metrics.md", &page);
}
