//! The MutatingWebhookConfiguration: which pods the API server sends, and whereto. One text for all uses, that of
//! `manifests/3-registration.yaml`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_contract::REVISION_LABEL;
use serde_json::{Value, json};

use super::{DEFAULT_REVISION, Error, Names, parts};
use crate::yaml;

/// What the names of the webhooks begin with that ask for `istio.io/rev`. The others ask for `istio-injection`, which is
/// the default revision's alone.
const BY_REVISION: &str = "rev.";

/// The registration as the manifests have it.
///
/// # Errors
/// [`Error::Manifest`], which a test rules out.
pub(super) fn original() -> Result<Value, Error> {
    yaml::parse(parts::REGISTRATION).map_err(|e| Error::Manifest(e.to_string()))
}

/// The registration of a webhook at `url`, whose certificate `ca` (PEM) has signed; the pods of `namespace` are not sent.
///
/// # Errors
/// [`Error::Value`]: the namespace is no name for Kubernetes.
pub fn at_url(url: &str, ca: &str, namespace: &str) -> Result<Value, Error> {
    let mut registration = original()?;
    Names::new(DEFAULT_REVISION, namespace)?.rename(&mut registration);
    let bundle = STANDARD.encode(ca);
    for webhook in webhooks(&mut registration) {
        webhook["clientConfig"] = json!({"url": url, "caBundle": bundle});
    }
    Ok(registration)
}

/// Makes it that of a revision.
pub(super) fn of_revision(registration: &mut Value, revision: &str) {
    if revision == DEFAULT_REVISION {
        return;
    }
    if let Some(webhooks) = registration["webhooks"].as_array_mut() {
        webhooks.retain(|webhook| webhook["name"].as_str().is_some_and(|name| name.starts_with(BY_REVISION)));
    }
    for webhook in webhooks(registration) {
        for selector in ["namespaceSelector", "objectSelector"] {
            for expression in webhook[selector]["matchExpressions"].as_array_mut().into_iter().flatten() {
                if expression["key"] == REVISION_LABEL && expression["operator"] == "In" {
                    expression["values"] = json!([revision]);
                }
            }
        }
    }
}

/// The webhooks that it holds.
pub(super) fn webhooks(registration: &mut Value) -> impl Iterator<Item = &mut Value> {
    registration["webhooks"].as_array_mut().into_iter().flatten()
}
