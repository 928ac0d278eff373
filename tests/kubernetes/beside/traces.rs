//! The trace of an API server that traces itself goes on in the webhook's span.

use serde_json::Value;

use crate::cluster::{program, until};
use crate::pods;

use super::api_server::start;
use super::replica::{Process, lines};
use super::{Beside, How};

/// Not the port of another test's API server.
const PORT: u16 = 6446;
const SERVER: &str = "https://127.0.0.1:6446";
/// All is sampled, and what the API server says of itself is for nobody.
const TRACING: &str = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: TracingConfiguration\n\
                       endpoint: 127.0.0.1:1\nsamplingRatePerMillion: 1000000\n";

#[test]
fn the_trace_that_an_api_server_began_goes_on_in_the_webhooks_span() {
    let collector = Process::start(program("apps").to_str().unwrap(), &["collect"], &[]);
    let tracing = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tracing.path(), TRACING).unwrap();
    let _api_server = start(PORT, &[&format!("--tracing-config-file={}", tracing.path().display())]);
    let beside = Beside::new("continued");
    // No trace begins at the webhook: a span that there is belongs to one that came.
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
    ];
    let _replica = beside.serving("only", &How { environment: &environment, ..How::default() });
    let namespace = beside.pods();

    let server = format!("--server={SERVER}");
    let create = ["create", "--filename=-", "--dry-run=server", "--output=json", &server];
    let span = until("a span", || {
        let pod = namespace.try_kubectl(&create, &pods::stored("continued").to_string())?.json();
        let log = collector.log();
        let mut spans = lines(&log).flat_map(|export| {
            let spans = export["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned();
            spans.unwrap_or_default()
        });
        spans.next().ok_or_else(|| format!("none, and injected: {}", pods::injected(&pod)))
    });
    let id = |field: &str| span[field].as_str().map(str::len);
    assert_eq!((id("traceId"), id("spanId"), id("parentSpanId")), (Some(32), Some(16), Some(16)), "{span:#}");
    let named = |pair: &&Value| pair["key"] == "admission.name";
    let name = span["attributes"].as_array().unwrap().iter().find(named).unwrap();
    assert_eq!(name["value"]["stringValue"], "continued");
}
