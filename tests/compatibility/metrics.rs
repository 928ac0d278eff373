//! Metrics of Istio's injector, looked for among those of the webhook.

use outrigger::telemetry::Metrics;

use crate::{document, outcome};

/// The metric, and why it is not there.
const METRICS: [(&str, &str); 8] = [
    ("sidecar_injection_requests_total", ""),
    ("sidecar_injection_success_total", ""),
    ("sidecar_injection_failure_total", ""),
    ("sidecar_injection_skip_total", ""),
    ("sidecar_injection_time_seconds", ""),
    ("webhook_patch_attempts_total", "`outrigger_ca_bundle_writes_total` counts the writes that were needed"),
    ("webhook_patch_retries_total", "`outrigger_certificate_errors_total` counts the steps that failed"),
    ("webhook_patch_failures_total", "`outrigger_certificate_errors_total` counts the steps that failed"),
];

#[test]
fn the_page_on_metrics_says_which_are_there() {
    let text = Metrics::new().text().unwrap();
    let rows = METRICS.map(|(name, note)| {
        let there = text
            .lines()
            .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{', '_'])));
        // Whoever is sent to another metric finds it.
        for other in note.split('`').filter(|word| word.starts_with("outrigger_")) {
            assert!(text.contains(&format!("\n{other} ")), "{other} is not there");
        }
        vec![format!("`{name}`"), outcome(there, name, note), note.to_owned()]
    });
    let mut page = String::from(
        "# Metrics of the webhook\n\nThose of Istio's injector. [serve](../serve.md) has all of ours.\n\n",
    );
    page += &document::table(&["metric", "there", ""], &rows);
    document::holds("webhook-metrics.md", &page);
}
