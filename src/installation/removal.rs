//! What is taken away, and in which order.

use std::collections::BTreeSet;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::tag::TAG_LABEL;
use super::{Error, Names, Object, Options, Part, Repair, all, certificate_secret};

/// What is deleted of an installation, in order: the registration first, so that no pod is sent to a webhook that is
/// gone. All parts are in it, whichever were installed, and what the webhook makes itself. The namespace is not: it may
/// hold other installations, and what is the operator's own.
///
/// # Errors
/// As [`super::objects`].
pub fn removal(names: &Names) -> Result<Vec<Object>, Error> {
    let parts: BTreeSet<Part> = Part::value_variants().iter().copied().collect();
    let options = Options {
        revision: names.revision.clone(),
        namespace: names.namespace.clone(),
        certificate_signer: Some(String::new()),
        repair: Some(Repair::Restart),
        parts,
        ..Options::default()
    };
    // Even of options that exclude each other.
    let installed = all(&options)?;
    let installed = installed.iter().rev().filter(|object| object.kind() != "Namespace");
    let mut installed: Vec<_> = installed.map(|object| &object.value).collect();
    // The webhook serves for a while after its end has begun; the way to it stays for as long.
    installed.sort_by_key(|object| object["kind"] == "Service");
    let Names { name, namespace, .. } = names;
    let made = [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": certificate_secret(name), "namespace": namespace}}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": namespace}}),
    ];
    Ok(installed.into_iter().chain(&made).map(|value| Object::made(identity(value))).collect())
}

/// An object with nothing but what names it.
pub(super) fn identity(object: &Value) -> Value {
    let mut metadata = json!({"name": object["metadata"]["name"]});
    if let Some(namespace) = object["metadata"].get("namespace") {
        metadata["namespace"] = namespace.clone();
    }
    json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata})
}

/// The tags among registrations that point to an installation: pods of their namespaces would be refused without it.
pub fn tags_of(registrations: &[Value], names: &Names) -> Vec<String> {
    let points_here = |registration: &&Value| {
        let service = &registration["webhooks"][0]["clientConfig"]["service"];
        service["name"] == *names.name && service["namespace"] == *names.namespace
    };
    let tags = registrations.iter().filter(points_here);
    tags.filter_map(|registration| registration["metadata"]["labels"][TAG_LABEL].as_str().map(str::to_owned))
        .collect()
}
