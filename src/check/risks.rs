//! What works in one cluster and is refused in another: Pod Security, quotas, Jobs.

use serde_json::Value;

use super::Found;
use super::breaks::{added, containers};

/// Capabilities that the level `baseline` lets a container add.
const BASELINE: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// What to think of before an injected pod meets another cluster.
pub(super) fn find(pod: &Value, injected: &Value) -> Found {
    let mut found = Vec::new();
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if injected["spec"][field] == true && pod["spec"][field] != true {
            found.push(("pod_security", format!("spec.{field} is set, which the level baseline refuses")));
        }
    }
    for volume in injected["spec"]["volumes"].as_array().into_iter().flatten() {
        if !volume["hostPath"].is_null() && !own_volumes(pod).any(|own| own["name"] == volume["name"]) {
            let message =
                format!("volume {} is a hostPath, which the level baseline refuses", volume["name"]);
            found.push(("pod_security", message));
        }
    }
    for container in added(pod, injected) {
        found.extend(security(injected, container).map(|message| ("pod_security", message)));
        found.extend(resources(container).map(|message| ("no_resources", message)));
        if let Some(image) = container["image"].as_str().filter(|image| is_floating(image)) {
            let message = format!("the image {image:?} has no tag or digest that says which it is");
            found.push(("floating_image", message));
        }
    }
    found.extend(never_done(pod, injected).map(|message| ("job_never_ends", message)));
    found
}

fn own_volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["volumes"].as_array().into_iter().flatten()
}

/// The first level of Pod Security that an added container does not have, and why.
fn security(injected: &Value, container: &Value) -> Option<String> {
    let (name, own, of_pod) =
        (&container["name"], &container["securityContext"], &injected["spec"]["securityContext"]);
    if own["privileged"] == true {
        return Some(format!("container {name} is privileged, which the level baseline refuses"));
    }
    let capabilities = own["capabilities"]["add"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(capability) = capabilities.clone().find(|capability| !BASELINE.contains(capability)) {
        return Some(format!(
            "container {name} adds the capability {capability}, which the level baseline refuses"
        ));
    }
    let either = |field: &str| if own[field].is_null() { of_pod[field].clone() } else { own[field].clone() };
    let drops_all =
        own["capabilities"]["drop"].as_array().is_some_and(|dropped| dropped.iter().any(|c| c == "ALL"));
    let lacks = if either("runAsNonRoot") != true {
        "runAsNonRoot: true"
    } else if own["allowPrivilegeEscalation"] != false {
        "allowPrivilegeEscalation: false"
    } else if !drops_all {
        "capabilities.drop: [ALL]"
    } else if either("seccompProfile")["type"].is_null() {
        "seccompProfile.type: RuntimeDefault"
    } else {
        return None;
    };
    Some(format!("container {name} has no {lacks}, which the level restricted asks for"))
}

fn resources(container: &Value) -> Option<String> {
    let lacks = ["requests", "limits"].into_iter().flat_map(|kind| {
        let missing = move |resource: &&str| container["resources"][kind][*resource].is_null();
        ["cpu", "memory"].into_iter().filter(missing).map(move |resource| format!("{kind}.{resource}"))
    });
    let lacks: Vec<String> = lacks.collect();
    let message = || {
        let lacks = lacks.join(", ");
        format!(
            "container {} has no {lacks}, which a namespace with a ResourceQuota asks for",
            container["name"]
        )
    };
    (!lacks.is_empty()).then(message)
}

/// An image whose reference has no digest, and no tag or `latest`.
fn is_floating(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or_default();
    !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// Beside a Job's containers, one that does not end keeps the pod from being done. A native sidecar does not.
fn never_done(pod: &Value, injected: &Value) -> Option<String> {
    let owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let of_job = owners.into_iter().any(|owner| owner["kind"] == "Job");
    let beside = injected["spec"]["containers"].as_array().into_iter().flatten();
    let new = beside.into_iter().find(|c| !containers(pod).any(|own| own["name"] == c["name"]))?;
    let message = "is no native sidecar: a Job's pod is not done before it ends";
    of_job.then(|| format!("container {} {message}", new["name"]))
}
