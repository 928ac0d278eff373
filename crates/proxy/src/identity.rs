//! Who this pod is, as far as its environment and its labels say.

use std::collections::BTreeMap;

/// This pod's names, for the labels of metrics. What is not known is the field's word for it, `unknown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The Deployment or the like that owns the pod: `ISTIO_META_WORKLOAD_NAME`.
    pub workload: String,
    /// `POD_NAMESPACE`.
    pub namespace: String,
    /// Label `service.istio.io/canonical-name`, else `app.kubernetes.io/name`, else `app`, else the workload.
    pub canonical_service: String,
    /// Label `service.istio.io/canonical-revision`, else `app.kubernetes.io/version`, else `version`, else `latest`.
    pub canonical_revision: String,
    /// Label `app`.
    pub app: String,
    /// Label `version`.
    pub version: String,
    /// `ISTIO_META_CLUSTER_ID`.
    pub cluster: String,
}

const UNKNOWN: &str = "unknown";

impl Identity {
    /// Reads the environment `env` and the pod's `labels`.
    pub(crate) fn read(env: &dyn Fn(&str) -> Option<String>, labels: &BTreeMap<String, String>) -> Identity {
        let variable = |name: &str| env(name).filter(|value| !value.is_empty());
        let label = |names: &[&str]| names.iter().find_map(|name| labels.get(*name)).cloned();
        let or_unknown = |value: Option<String>| value.unwrap_or_else(|| UNKNOWN.to_owned());
        let workload = or_unknown(variable("ISTIO_META_WORKLOAD_NAME"));
        Identity {
            namespace: or_unknown(variable("POD_NAMESPACE")),
            canonical_service: label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
                .unwrap_or_else(|| workload.clone()),
            canonical_revision: label(&[
                "service.istio.io/canonical-revision",
                "app.kubernetes.io/version",
                "version",
            ])
            .unwrap_or_else(|| "latest".to_owned()),
            app: or_unknown(label(&["app"])),
            version: or_unknown(label(&["version"])),
            cluster: or_unknown(variable("ISTIO_META_CLUSTER_ID")),
            workload,
        }
    }

    /// The other side of a connection, of whom nothing is known.
    pub(crate) fn unknown() -> Identity {
        Identity::read(&|_| None, &BTreeMap::new())
    }
}

/// Reads labels as the downward API writes them to a file: `key="value"`, one a line, the value quoted as in Go.
pub(crate) fn parse_labels(text: &str) -> BTreeMap<String, String> {
    // A label's value holds nothing that JSON would quote otherwise than Go.
    let pairs = text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        Some((key.to_owned(), serde_json::from_str(value).ok()?))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_as_the_downward_api_writes_them() {
        let labels = parse_labels("app=\"cart\"\nversion=\"v2\"\nempty=\"\"\nno line\n");
        assert_eq!(labels.len(), 3);
        assert_eq!(labels["app"], "cart");
        let identity = Identity::read(
            &|name| (name == "ISTIO_META_WORKLOAD_NAME").then(|| "cart-v2".to_owned()),
            &labels,
        );
        assert_eq!(identity.workload, "cart-v2");
        assert_eq!(identity.canonical_service, "cart");
        assert_eq!(identity.canonical_revision, "v2");
        assert_eq!(identity.namespace, "unknown");
    }
}
