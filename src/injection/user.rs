//! The user and group that the sidecar runs as.

use outrigger_contract::{INIT_CONTAINER, PROXY_CONTAINER, PROXY_GID, PROXY_UID, VALIDATION_CONTAINER};
use serde_json::Value;

use super::proxy_config::ProxyConfig;
use crate::settings::OPENSHIFT;

const UID_RANGE: &str = "openshift.io/sa.scc.uid-range";
const GROUPS: &str = "openshift.io/sa.scc.supplemental-groups";

/// What a platform says of a namespace.
pub(super) const NAMESPACE_ANNOTATIONS: [&str; 2] = [UID_RANGE, GROUPS];

/// Ids of the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u64,
    pub(super) gid: u64,
}

impl User {
    /// The contract's, or on OpenShift the last ones of the namespace's ranges, which no application gets by default.
    pub(super) fn new(platform: &str, namespace: Option<&Value>) -> Self {
        let contract = Self { uid: PROXY_UID.into(), gid: PROXY_GID.into() };
        let Some(namespace) = namespace.filter(|_| platform == OPENSHIFT) else { return contract };
        let range = |key: &str| namespace["annotations"][key].as_str();
        let uid = range(UID_RANGE).and_then(end_of_range);
        let groups = range(GROUPS).or(range(UID_RANGE)).and_then(|groups| groups.split(',').next());
        let gid = groups.and_then(end_of_range);
        Self { uid: uid.unwrap_or(contract.uid), gid: gid.unwrap_or(contract.gid) }
    }
}

/// The last id of `START/SIZE` or `START-END`.
fn end_of_range(range: &str) -> Option<u64> {
    let number = |text: &str| text.trim().parse::<u32>().ok().map(u64::from);
    if let Some((start, size)) = range.split_once('/') {
        return (number(start)? + number(size)?).checked_sub(1);
    }
    let (start, end) = range.split_once('-')?;
    number(start).and(number(end))
}

/// OpenShift gives all containers of a pod one user, the user's own sidecar container too. With the application's
/// user the sidecar's traffic could not be told from the application's, so that it is forgotten.
pub(super) fn forget_platforms(pod: &mut Value) {
    let mut sidecar = None;
    let mut app = None;
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array().map(Vec::as_slice).unwrap_or_default() {
            let user = container["securityContext"]["runAsUser"].as_u64();
            match container["name"].as_str() {
                Some(PROXY_CONTAINER) => sidecar = user.or(sidecar),
                Some(INIT_CONTAINER | VALIDATION_CONTAINER) => {}
                _ => app = user.or(app),
            }
        }
    }
    if sidecar.unwrap_or_default() != app.unwrap_or_default() {
        return;
    }
    for list in ["containers", "initContainers"] {
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter(|c| c["name"] == PROXY_CONTAINER) {
            if let Some(context) = container.get_mut("securityContext").and_then(Value::as_object_mut) {
                context.shift_remove("runAsUser");
                context.shift_remove("runAsGroup");
            }
        }
    }
}

/// Where the pod's author gives the sidecar a user, the init container must let that user's traffic through.
/// `theirs` is the author's own sidecar container.
pub(super) fn adjust_init(pod: &mut Value, theirs: &Value, proxy_config: &ProxyConfig) {
    let context = &theirs["securityContext"];
    let (uid, gid) = (context["runAsUser"].as_u64(), context["runAsGroup"].as_u64());
    if uid.is_none() && gid.is_none() {
        return;
    }
    let tproxy = proxy_config.get("interceptionMode").is_some_and(|mode| mode == "TPROXY")
        || pod["metadata"]["annotations"]["sidecar.istio.io/interceptionMode"] == "TPROXY";
    // Transparent sockets need root.
    if tproxy && uid.is_some() {
        for list in ["containers", "initContainers"] {
            if let Some(sidecar) = container(pod, list, PROXY_CONTAINER) {
                sidecar["securityContext"]["runAsUser"] = 0.into();
                break;
            }
        }
    }
    let name = [INIT_CONTAINER, VALIDATION_CONTAINER]
        .into_iter()
        .find(|name| container(pod, "initContainers", name).is_some());
    let Some(init) = name.and_then(|name| container(pod, "initContainers", name)) else { return };
    if !tproxy && name == Some(VALIDATION_CONTAINER) {
        for (field, id) in [("runAsUser", uid), ("runAsGroup", gid)] {
            if let Some(id) = id {
                init["securityContext"][field] = id.into();
            }
        }
    }
    let Some(uid) = uid.filter(|uid| *uid != 0) else { return };
    if let Some(args) = init.get_mut("args").and_then(Value::as_array_mut)
        && let Some(at) = args.iter().position(|arg| arg == "-u")
        && let Some(value) = args.get_mut(at + 1)
    {
        *value = Value::from(uid.to_string());
    }
}

/// Refuses a pod whose application runs as the sidecar's user: its traffic would be taken for the sidecar's, and
/// escape capture.
pub(super) fn refuse_collision(pod: &Value) -> Result<(), String> {
    let spec = &pod["spec"];
    let of_pod = spec["securityContext"]["runAsUser"].as_u64();
    let containers =
        || ["containers", "initContainers"].into_iter().flat_map(|list| spec[list].as_array()).flatten();
    let user = |container: &Value| container["securityContext"]["runAsUser"].as_u64().or(of_pod);
    let Some(sidecar) = containers().find(|c| c["name"] == PROXY_CONTAINER).and_then(user) else {
        return Ok(());
    };
    let own = [PROXY_CONTAINER, INIT_CONTAINER, VALIDATION_CONTAINER];
    let is_app = |c: &&Value| !own.iter().any(|own| c["name"] == *own);
    match containers().filter(is_app).find(|c| user(c) == Some(sidecar)) {
        Some(app) if sidecar != 0 => Err(format!(
            "container {} runs as user {sidecar}, which is the sidecar's: its traffic would escape capture; give it \
             another securityContext.runAsUser, or the sidecar by a container {PROXY_CONTAINER} of the pod's own",
            app["name"]
        )),
        _ => Ok(()),
    }
}

fn container<'a>(pod: &'a mut Value, list: &str, name: &str) -> Option<&'a mut Value> {
    let containers = pod["spec"].get_mut(list)?.as_array_mut()?;
    containers.iter_mut().find(|container| container["name"] == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_namespaces_ranges_give_the_ids_on_openshift_only() {
        let namespace = |uids: &str, groups: Option<&str>| {
            let mut annotations = json!({UID_RANGE: uids});
            if let Some(groups) = groups {
                annotations[GROUPS] = json!(groups);
            }
            json!({"annotations": annotations})
        };
        let user = |platform, namespace: Value| User::new(platform, Some(&namespace));
        let contract = User { uid: 1337, gid: 1337 };
        assert_eq!(User::new(OPENSHIFT, None), contract);
        assert_eq!(user("", namespace("1000620000/10000", None)), contract);
        let last = User { uid: 1000629999, gid: 1000629999 };
        assert_eq!(user(OPENSHIFT, namespace("1000620000/10000", None)), last);
        let other = User { uid: 1000629999, gid: 209 };
        assert_eq!(user(OPENSHIFT, namespace("1000620000-1000629999", Some("200/10,5/5"))), other);
        assert_eq!(user(OPENSHIFT, namespace("no range", None)), contract);
    }
}
