//! The MutatingWebhookConfiguration that makes an API server call us.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_contract::{INJECT_KEY, NAMESPACE_LABEL, REVISION_LABEL};

use crate::settings::{EXEMPT_NAMESPACES, Settings};

/// The configuration, as YAML, for a webhook at `url` whose certificate `ca` (PEM) has signed. The rules are
/// those of `manifests/3-registration.yaml`: pods that refuse injection, and namespaces that are never
/// injected, do not reach us, so that they start even when we are down.
pub fn configuration(url: &str, ca: &str, settings: &Settings) -> String {
    let exempt = EXEMPT_NAMESPACES.iter().copied().chain([settings.installation_namespace.as_str()]);
    let exempt = exempt.collect::<Vec<_>>().join(", ");
    let bundle = STANDARD.encode(ca);
    let webhook = |name, namespaces, pods| {
        format!(
            "- name: {name}.sidecar-injector.outrigger.dev
  clientConfig:
    url: {url}
    caBundle: {bundle}
  rules:
  - {{operations: [CREATE], apiGroups: [\"\"], apiVersions: [v1], resources: [pods], scope: Namespaced}}
  namespaceSelector:
    matchExpressions:{namespaces}
    - {{key: kubernetes.io/metadata.name, operator: NotIn, values: [{exempt}]}}
  objectSelector:
    matchExpressions:{pods}
  admissionReviewVersions: [v1, v1beta1]
  failurePolicy: Fail
  matchPolicy: Equivalent
  reinvocationPolicy: IfNeeded
  sideEffects: None
  timeoutSeconds: 5
"
        )
    };
    let expressions = |list: &[(&str, &str)]| {
        list.iter().fold(String::new(), |text, (key, test)| text + &format!("\n    - {{key: {key}, {test}}}"))
    };
    let absent = "operator: DoesNotExist";
    let namespace = webhook(
        "namespace",
        expressions(&[(NAMESPACE_LABEL, "operator: In, values: [enabled]")]),
        expressions(&[(INJECT_KEY, "operator: NotIn, values: [\"false\"]")]),
    );
    let object = webhook(
        "object",
        expressions(&[(NAMESPACE_LABEL, absent), (REVISION_LABEL, absent)]),
        expressions(&[(INJECT_KEY, "operator: In, values: [\"true\"]"), (REVISION_LABEL, absent)]),
    );
    format!(
        "apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata:
  name: outrigger
webhooks:
{namespace}{object}"
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
            let namespaces = webhook["namespaceSelector"]["matchExpressions"].as_array().unwrap();
            assert_eq!(namespaces.last().unwrap()["values"][4], "outrigger-system");
        }
        assert_eq!(value["webhooks"][0]["objectSelector"]["matchExpressions"][0]["values"][0], "false");
        assert_eq!(value["webhooks"][1]["objectSelector"]["matchExpressions"][0]["values"][0], "true");
    }
}
