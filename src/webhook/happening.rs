//! What an admission is to whoever looks at the pod's owner: an Event's worth.

use serde::Deserialize;

use super::review::Request;
use crate::notice::{Notice, Reference};

/// What came of a pod, in the words of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    Injected,
    /// Not injected although it was asked for.
    Skipped,
    /// Not injected because of an error.
    Failed,
}

impl Happening {
    fn reason(self) -> &'static str {
        match self {
            Self::Injected => "SidecarInjected",
            Self::Skipped => "SidecarNotInjected",
            Self::Failed => "SidecarInjectionFailed",
        }
    }

    /// The notice of it; `None` where nothing will be stored, or where the object cannot be named.
    pub(super) fn notice(self, request: &Request, message: String) -> Option<Notice> {
        if request.dry_run.unwrap_or_default() {
            return None;
        }
        let about = owner(request)?;
        Some(Notice { about, warning: self != Self::Injected, reason: self.reason(), message })
    }
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Metadata {
    name: String,
    owner_references: Vec<Owner>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    api_version: String,
    kind: String,
    name: String,
    uid: String,
    #[serde(default)]
    controller: bool,
}

/// The pod's controller, or the pod itself.
fn owner(request: &Request) -> Option<Reference> {
    let namespace = request.namespace.as_deref().unwrap_or_default().to_owned();
    let Object { metadata } = serde_json::from_str(request.object().ok()?).ok()?;
    let Some(owner) = metadata.owner_references.into_iter().find(|owner| owner.controller) else {
        let (api_version, kind) = ("v1".to_owned(), "Pod".to_owned());
        let reference = Reference { api_version, kind, namespace, name: metadata.name, uid: String::new() };
        return Some(reference).filter(|reference| !reference.name.is_empty());
    };
    let Owner { api_version, kind, name, uid, .. } = owner;
    Some(Reference { api_version, kind, namespace, name, uid })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::review::Review;
    use super::*;

    fn noticed(metadata: &Value, dry_run: bool) -> Option<Notice> {
        let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata});
        let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
            "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
            "namespace": "shop", "dryRun": dry_run, "object": object,
        }});
        let text = review.to_string();
        let review = Review::parse(text.as_bytes()).unwrap();
        Happening::Skipped.notice(&review.request, "why".to_owned())
    }

    #[test]
    fn the_controller_is_told_or_else_the_pod() {
        let reference = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "x"});
        let mut controller = reference.clone();
        controller["controller"] = json!(true);
        let found =
            noticed(&json!({"generateName": "web-1-", "ownerReferences": [reference, controller]}), false);
        let Notice { about, warning, reason, message } = found.unwrap();
        assert_eq!((warning, reason, message.as_str()), (true, "SidecarNotInjected", "why"));
        let told = json!(about);
        assert_eq!(
            told,
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "namespace": "shop", "name": "web-1", "uid": "x"})
        );
        let alone = noticed(&json!({"name": "bare"}), false).unwrap().about;
        assert_eq!((alone.kind.as_str(), alone.name.as_str()), ("Pod", "bare"));
        assert_eq!(noticed(&json!({"generateName": "bare-"}), false), None);
        assert_eq!(noticed(&json!({"name": "bare"}), true), None);
    }
}
