//! Changes to what is the application's, and pods that the API server would refuse.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Found;
use crate::fields::flat;

/// What injection may change of an application: probes go to the agent, Prometheus too, a sidecar's own container moves.
const MAY_CHANGE: [&str; 7] = [
    "metadata.annotations[prometheus",
    ".readinessProbe.",
    ".livenessProbe.",
    ".startupProbe.",
    ".lifecycle.",
    "metadata.annotations[inject.istio.io/",
    "metadata.annotations[cluster-autoscaler.kubernetes.io/",
];

/// What is broken in an injected pod.
pub(super) fn find(pod: &Value, injected: &Value) -> Found {
    let mut found = changed(pod, injected);
    found.extend(names(pod, injected));
    found.extend(ports(pod, injected));
    found.extend(volumes(injected));
    found.extend(labels(injected));
    found
}

/// What injecting an injected pod changes.
pub(super) fn twice(injected: &Value, again: &Value) -> Found {
    let (before, after) = (flat(injected), flat(again));
    let differ = |field: &&str| before.get(field) != after.get(field);
    let fields: BTreeSet<&str> =
        before.leaves().iter().chain(after.leaves()).map(|(f, _)| f.as_str()).filter(differ).collect();
    let message = |field: &str| ("not_idempotent", format!("injecting twice changes {field}"));
    match fields.first() {
        Some(first) => vec![message(first)],
        None => vec![message("the order of a list")],
    }
}

/// Containers of a pod, wherever they stand.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| pod["spec"][list].as_array()).flatten()
}

/// The containers that injection has added.
pub(super) fn added<'a>(pod: &'a Value, injected: &'a Value) -> impl Iterator<Item = &'a Value> {
    containers(injected).filter(|c| !containers(pod).any(|own| own["name"] == c["name"]))
}

fn changed(pod: &Value, injected: &Value) -> Found {
    let after = flat(injected);
    let mut found = Vec::new();
    for (field, value) in flat(pod).leaves() {
        if MAY_CHANGE.iter().any(|may| field.contains(may)) || after.get(field) == Some(value) {
            continue;
        }
        // An empty list or object that was filled is no loss.
        let empty =
            value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(|o| o.is_empty());
        if empty && after.leaves().iter().any(|(f, _)| f.starts_with(field.as_str())) {
            continue;
        }
        found.push(match after.get(field) {
            Some(_) => ("changes_the_pods_own", format!("{field} is the pod's own, and is changed")),
            None => ("takes_the_pods_own", format!("{field} is the pod's own, and is taken away")),
        });
    }
    found
}

fn names(pod: &Value, injected: &Value) -> Found {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for container in containers(injected) {
        let name = container["name"].as_str().unwrap_or_default();
        if !seen.insert(name) {
            found.push(("duplicate_container", format!("there are two containers of the name {name:?}")));
        }
    }
    for container in added(pod, injected) {
        let name = container["name"].as_str().unwrap_or_default();
        if !is_dns_label(name) {
            found.push(("bad_name", format!("the container's name {name:?} is no DNS label")));
        }
        if container["image"].as_str().unwrap_or_default().is_empty() {
            found.push(("no_image", format!("container {name:?} has no image")));
        }
        for (list, key) in [("env", "name"), ("volumeMounts", "mountPath"), ("ports", "name")] {
            let mut seen = BTreeSet::new();
            let items = container[list].as_array().into_iter().flatten();
            for item in items.filter_map(|item| item[key].as_str()).filter(|item| !seen.insert(*item)) {
                found.push(("duplicate_item", format!("container {name:?} has {list} {item:?} twice")));
            }
        }
    }
    found
}

/// Ports of the containers that were added, that another container declares too: one of them cannot listen.
fn ports(pod: &Value, injected: &Value) -> Found {
    let of = |container: &Value| -> Vec<(u64, String)> {
        let ports = container["ports"].as_array().into_iter().flatten();
        let declared = ports.filter_map(|port| {
            Some((port["containerPort"].as_u64()?, port["protocol"].as_str().unwrap_or("TCP").to_owned()))
        });
        declared.collect()
    };
    let mut found = Vec::new();
    for container in added(pod, injected) {
        for other in containers(injected).filter(|other| other["name"] != container["name"]) {
            for (port, protocol) in of(container).iter().filter(|port| of(other).contains(port)) {
                let message = format!(
                    "containers {} and {} both declare port {port}/{protocol}",
                    container["name"], other["name"]
                );
                found.push(("port_taken", message));
            }
        }
    }
    found
}

fn volumes(injected: &Value) -> Found {
    let mut found = Vec::new();
    let volumes = injected["spec"]["volumes"].as_array().into_iter().flatten();
    let mut names = BTreeSet::new();
    for volume in volumes {
        let name = volume["name"].as_str().unwrap_or_default();
        if !is_dns_label(name) {
            found.push(("bad_name", format!("the volume's name {name:?} is no DNS label")));
        }
        if !names.insert(name) {
            found.push(("duplicate_volume", format!("there are two volumes of the name {name:?}")));
        }
        let sources: Vec<&str> =
            volume.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        let sources: Vec<&str> = sources.into_iter().filter(|key| *key != "name").collect();
        if sources.len() > 1 {
            let sources = sources.join(" and ");
            found.push(("two_sources", format!("volume {name:?} has more than one source: {sources}")));
        }
    }
    for container in containers(injected) {
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let volume = mount["name"].as_str().unwrap_or_default();
            if !names.contains(volume) {
                let message = format!(
                    "container {} mounts the volume {volume:?}, which is not there",
                    container["name"]
                );
                found.push(("no_volume", message));
            }
        }
    }
    found
}

fn labels(injected: &Value) -> Found {
    let labels = injected["metadata"]["labels"].as_object().into_iter().flatten();
    let bad = labels.filter(|(_, value)| !value.as_str().is_some_and(is_label_value));
    bad.map(|(key, value)| ("bad_label", format!("the label {key} cannot have the value {value}"))).collect()
}

/// Lower-case letters, digits and dashes within; at most 63.
fn is_dns_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Empty, or letters, digits, and `-_.` within; at most 63.
fn is_label_value(value: &str) -> bool {
    let end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    value.len() <= 63
        && value.chars().all(inner)
        && end(value.chars().next())
        && end(value.chars().next_back())
}
