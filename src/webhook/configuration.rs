//! The MutatingWebhookConfiguration that makes an API server call us.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_contract::{INJECT_KEY, NAMESPACE_LABEL};

use crate::settings::{EXEMPT_NAMESPACES, Settings};

/// The configuration, as YAML, for a webhook at `url` whose certificate `ca` (PEM) has signed.
///
/// Two webhooks: namespaces that ask for injection, and pods that ask for it elsewhere. Pods that refuse it,
/// and namespaces that are never injected, do not reach us, so that they start even when we are down.
pub fn configuration(url: &str, ca: &str, settings: &Settings) -> String {
    let exempt = EXEMPT_NAMESPACES.iter().copied().chain([settings.installation_namespace.as_str()]);
    let exempt = exempt.collect::<Vec<_>>().join(", ");
    let common = format!(
        "  admissionReviewVersions: [v1, v1beta1]
  clientConfig:
    url: {url}
    caBundle: {}
  rules:
  - {{operations: [CREATE], apiGroups: [\"\"], apiVersions: [v1], resources: [pods], scope: Namespaced}}
  failurePolicy: Fail
  reinvocationPolicy: IfNeeded
  sideEffects: None
  timeoutSeconds: 10
",
        STANDARD.encode(ca)
    );
    format!(
        "apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata:
  name: outrigger
webhooks:
- name: namespace.injector.outrigger.dev
{common}  namespaceSelector:
    matchExpressions:
    - {{key: {NAMESPACE_LABEL}, operator: In, values: [enabled]}}
    - {{key: kubernetes.io/metadata.name, operator: NotIn, values: [{exempt}]}}
  objectSelector:
    matchExpressions:
    - {{key: {INJECT_KEY}, operator: NotIn, values: [\"false\"]}}
- name: pod.injector.outrigger.dev
{common}  namespaceSelector:
    matchExpressions:
    - {{key: {NAMESPACE_LABEL}, operator: NotIn, values: [enabled, disabled]}}
    - {{key: kubernetes.io/metadata.name, operator: NotIn, values: [{exempt}]}}
  objectSelector:
    matchExpressions:
    - {{key: {INJECT_KEY}, operator: In, values: [\"true\"]}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn it_names_url_and_bundle_in_both_webhooks() {
        let text = configuration("https://127.0.0.1:8443/inject", "PEM\n", &Settings::default());
        let (value, _) = yaml::parse_with_positions(&text).unwrap();
        for webhook in value["webhooks"].as_array().unwrap() {
            assert_eq!(webhook["clientConfig"]["url"], "https://127.0.0.1:8443/inject");
            assert_eq!(webhook["clientConfig"]["caBundle"], "UEVNCg==");
            assert_eq!(webhook["namespaceSelector"]["matchExpressions"][1]["values"][0], "kube-system");
        }
        assert_eq!(value["webhooks"].as_array().unwrap().len(), 2);
    }
}
