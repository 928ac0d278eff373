//! Labels of namespaces: the API server reads them, as the registration in `manifests/` asks it to.

use crate::{document, outcome};

/// The label, and why the registration does not ask for it.
const LABELS: [(&str, &str); 5] = [
    ("istio-injection", ""),
    ("istio.io/rev", ""),
    ("kubernetes.io/metadata.name", ""),
    ("istio.io/dataplane-mode", "of ambient mode, which has no sidecar"),
    ("topology.istio.io/network", "values and request paths give the network; a pod's own label comes first"),
];

#[test]
fn the_page_on_namespaces_says_which_labels_are_read() {
    let registration = include_str!("../../manifests/3-registration.yaml");
    let asked: Vec<_> = registration.lines().filter_map(|line| line.trim().strip_prefix("- key: ")).collect();
    let rows = LABELS.map(|(label, note)| {
        let read = asked.contains(&label);
        vec![format!("`{label}`"), outcome(read, label, note), note.to_owned()]
    });
    let mut page = String::from(
        "# Labels of namespaces\n\nThose that the webhook's registration names, for the API server to decide which pods are sent.\n\n",
    );
    page += &document::table(&["label of a namespace", "read", ""], &rows);
    document::holds("namespaces.md", &page);
}
