//! The checks, one function each.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger_contract::{NAMESPACE_LABEL, STATUS_ANNOTATION};
use serde_json::Value;

use super::State::{Failed, Unknown, Warning};
use super::{Facts, Found, bad, leads_to, ok};
use crate::certificates::{Bundle, Identity, written_date};
use crate::injection::{Injector, of_namespace};
use crate::installation::{
    DEFAULT_REVISION, Names, certificate_secret, settings as installed_settings, settings_place, tags_of,
    verify,
};
use crate::settings::{INSTALLATION_NAMESPACE, KubernetesVersion, NATIVE_SIDECARS_SINCE};
use crate::sidecars::{self, Want, Workload};

/// A check's name, and what it looks at; `Err` where that could not be seen.
type Check = (&'static str, fn(&Facts) -> Result<Found, String>);

/// Of any cluster.
pub(super) const CLUSTER: &[Check] = &[
    ("version", version),
    ("kubelets", kubelets),
    ("kernels", kernels),
    ("permissions", permissions),
    ("other-injectors", other_injectors),
    ("pod-security", pod_security),
    ("installation", installation),
];
/// Of an installation.
pub(super) const INSTALLATION: &[Check] = &[
    ("replicas", replicas),
    ("registration", registration),
    ("certificate", certificate),
    ("settings", settings),
    ("injection", injection),
    ("missing-sidecars", missing),
    ("old-sidecars", old),
];

/// The oldest API server whose registrations have `matchConditions` without a feature gate.
const OLDEST: KubernetesVersion = KubernetesVersion { major: 1, minor: 28 };
/// The oldest Linux with NAT in nftables' inet family, which capture by netlink needs; iptables does with less.
const OLDEST_KERNEL: (u32, u32) = (5, 2);
/// A certificate that lasts no longer than so many days ought to have been followed by the next one.
const SOON_DAYS: i64 = 20;
/// Names that a line gives.
const NAMED: usize = 3;

/// `a, b, c and 4 more`.
fn listed(names: &[String]) -> String {
    match names.len().checked_sub(NAMED) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..NAMED].join(", ")),
    }
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn version(facts: &Facts) -> Result<Found, String> {
    let version = facts.version.as_ref().map_err(Clone::clone)?;
    let text = version["gitVersion"].as_str().unwrap_or_default();
    let parsed = parsed(text).ok_or_else(|| format!("the API server calls its version {text:?}"))?;
    Ok(if parsed < OLDEST {
        let message = format!("the API server is {text}");
        bad(Failed, message, format!("upgrade it to {OLDEST} or newer: the registration has matchConditions"))
    } else {
        ok(format!("the API server is {text}"))
    })
}

/// `v1.34.2+k3s1` as 1.34.
pub(super) fn parsed(version: &str) -> Option<KubernetesVersion> {
    let mut parts = version.strip_prefix('v').unwrap_or(version).split(['.', '-', '+']);
    format!("{}.{}", parts.next()?, parts.next()?).parse().ok()
}

fn kubelets(facts: &Facts) -> Result<Found, String> {
    let nodes = facts.nodes.as_ref().map_err(Clone::clone)?;
    let Some(oldest) = super::oldest_kubelet(nodes) else {
        return Ok(bad(
            Failed,
            "there is no node whose kubelet says its version",
            "look at kubectl get nodes",
        ));
    };
    let told =
        facts.settings.as_ref().ok().and_then(Option::as_ref).and_then(|map| installed_settings(map).ok());
    if let Some(told) = told.map(|settings| settings.kubernetes_version).filter(|told| *told > oldest) {
        let message =
            format!("the oldest kubelet is {oldest}, and the settings say kubernetesVersion {told}");
        let remedy = format!("set kubernetesVersion: \"{oldest}\" in the ConfigMap {}", facts.names.name);
        return Ok(bad(Failed, message, remedy));
    }
    let native = if oldest < NATIVE_SIDECARS_SINCE { "no native sidecars" } else { "native sidecars" };
    Ok(ok(format!("the oldest kubelet of all nodes is {oldest}: {native}")))
}

fn kernels(facts: &Facts) -> Result<Found, String> {
    let nodes = facts.nodes.as_ref().map_err(Clone::clone)?;
    let old: Vec<String> = nodes
        .iter()
        .filter_map(|node| {
            let kernel = node["status"]["nodeInfo"]["kernelVersion"].as_str()?;
            let mut numbers = kernel.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
            let version = (numbers.next()?, numbers.next()?);
            (version < OLDEST_KERNEL).then(|| format!("{} ({kernel})", name(node)))
        })
        .collect();
    Ok(if old.is_empty() {
        ok("the kernels of all nodes can capture by nftables")
    } else {
        let message = format!("kernels without NAT in nftables' inet family: {}", listed(&old));
        let remedy = "give these nodes Linux 5.2 or newer, or an image of outrigger-init with iptables on it";
        bad(Warning, message, remedy)
    })
}

fn permissions(facts: &Facts) -> Result<Found, String> {
    let permissions = facts.permissions.as_ref().map_err(Clone::clone)?;
    let missing: Vec<String> =
        permissions.iter().filter(|(_, may)| !may).map(|(what, _)| what.clone()).collect();
    Ok(if missing.is_empty() {
        ok("you may install, upgrade and uninstall")
    } else {
        let message = format!("you may not: {}", missing.join(", "));
        bad(Warning, message, "install as somebody with the role cluster-admin")
    })
}

fn other_injectors(facts: &Facts) -> Result<Found, String> {
    let registrations = facts.registrations.as_ref().map_err(Clone::clone)?;
    let injects = |registration: &&Value| {
        let name = name(registration);
        let known =
            ["istio-sidecar-injector", "istio-revision-tag", "linkerd-proxy-injector", "kuma", "consul"];
        known.iter().any(|known| name.starts_with(known))
            || (!is_outrigger(registration) && registration.to_string().contains(NAMESPACE_LABEL))
    };
    let found: Vec<String> = registrations.iter().filter(injects).map(name).collect();
    Ok(if found.is_empty() {
        ok("no other injector of sidecars is registered")
    } else {
        let message = format!("other injectors are registered: {}", listed(&found));
        let remedy = "a namespace must belong to one of them: give those of Outrigger another label, by \
                      `outrigger install --revision NAME`, or take the other injector away";
        bad(Warning, message, remedy)
    })
}

fn is_outrigger(registration: &Value) -> bool {
    let (key, value) = crate::installation::PART_OF_LABEL;
    registration["metadata"]["labels"][key] == value
}

/// A command about this installation: `outrigger repair --revision canary`.
fn command(verb: &str, names: &Names) -> String {
    let mut command = format!("outrigger {verb}");
    for (flag, value, default) in
        [("--revision", &names.revision, DEFAULT_REVISION), ("-n", &names.namespace, INSTALLATION_NAMESPACE)]
    {
        if value != default {
            command += &format!(" {flag} {value}");
        }
    }
    command
}

fn apply_again(names: &Names) -> String {
    format!("apply the installation again: {}", command("install --apply", names))
}

/// The namespaces that ask for injection by this installation.
fn enabled(facts: &Facts) -> Result<Vec<&Value>, String> {
    let namespaces = facts.namespaces.as_ref().map_err(Clone::clone)?;
    let registrations = facts.registrations.as_ref().map_err(Clone::clone)?;
    let tags = tags_of(registrations, &facts.names);
    Ok(namespaces.iter().filter(|namespace| super::asks(namespace, &facts.names, &tags)).collect())
}

fn pod_security(facts: &Facts) -> Result<Found, String> {
    let settings =
        facts.settings.as_ref().ok().and_then(Option::as_ref).and_then(|map| installed_settings(map).ok());
    if settings.is_some_and(|settings| settings.captures_by_cni()) {
        return Ok(ok("capture is the CNI plugin's: no pod needs NET_ADMIN"));
    }
    let strict = |namespace: &&&Value| {
        let level = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
        *level == "baseline" || *level == "restricted"
    };
    let enabled = enabled(facts)?;
    let found: Vec<String> = enabled.iter().filter(strict).map(|namespace| name(namespace)).collect();
    Ok(if found.is_empty() {
        ok("Pod Security refuses outrigger-init in no namespace that asks for injection")
    } else {
        let message =
            format!("Pod Security forbids NET_ADMIN, which outrigger-init needs, in {}", listed(&found));
        let remedy = "set pod-security.kubernetes.io/enforce=privileged there, or capture by the CNI plugin";
        bad(Warning, message, remedy)
    })
}

fn installation(facts: &Facts) -> Result<Found, String> {
    let names = &facts.names;
    Ok(match facts.deployment.as_ref().map_err(Clone::clone)? {
        Some(deployment) => {
            let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
            let image = image.as_str().unwrap_or("(no image)");
            ok(format!("{} in namespace {}, {image}", names.name, names.namespace))
        }
        None => bad(
            Warning,
            format!("there is no Deployment {}/{}", names.namespace, names.name),
            format!("install it: {}", command("install --apply", names)),
        ),
    })
}

fn replicas(facts: &Facts) -> Result<Found, String> {
    let deployment = facts.deployment.as_ref().map_err(Clone::clone)?;
    let count = |field: &Value| field.as_u64().unwrap_or_default();
    let deployment = deployment.as_ref().unwrap_or(&Value::Null);
    let wanted = count(&deployment["spec"]["replicas"]);
    let status = &deployment["status"];
    let (ready, updated) = (count(&status["readyReplicas"]), count(&status["updatedReplicas"]));
    let remedy = format!(
        "kubectl -n {ns} describe pods -l app.kubernetes.io/name={name}; kubectl -n {ns} logs deployment/{name}",
        ns = facts.names.namespace,
        name = facts.names.name
    );
    let message = format!("{ready} of {wanted} replicas are ready");
    Ok(match ready {
        0 => bad(Failed, format!("{message}: pods that ask for injection are refused"), remedy),
        _ if ready < wanted => bad(Warning, message, remedy),
        _ if updated < wanted => {
            bad(Warning, format!("{message}, {updated} of them of the newest template"), remedy)
        }
        1 => bad(Warning, message, "install with three: pods are refused while the only one restarts"),
        _ => ok(message),
    })
}

fn registration(facts: &Facts) -> Result<Found, String> {
    let registrations = facts.registrations.as_ref().map_err(Clone::clone)?;
    let found: Vec<String> = registrations.iter().filter(|r| leads_to(r, &facts.names)).map(name).collect();
    Ok(if found.is_empty() {
        let message =
            format!("no registration leads to the Service {}: no pod is injected", facts.names.name);
        bad(Failed, message, apply_again(&facts.names))
    } else {
        ok(format!("registered as {}", found.join(", ")))
    })
}

fn decoded(base64: &Value) -> Vec<u8> {
    STANDARD.decode(base64.as_str().unwrap_or_default()).unwrap_or_default()
}

fn certificate(facts: &Facts) -> Result<Found, String> {
    let (names, now) = (&facts.names, facts.now);
    let remedy = command("certs rotate", names);
    let Some(secret) = facts.secret.as_ref().map_err(Clone::clone)? else {
        let message = format!("there is no Secret {}", certificate_secret(&names.name));
        let remedy = "it is made by the replica that leads; look at the log of the one whose outrigger_leader is 1. \
                      Where files give the certificate, look at what writes them";
        return Ok(bad(Warning, message, remedy));
    };
    let (chain, key) = (decoded(&secret["data"]["tls.crt"]), decoded(&secret["data"]["tls.key"]));
    let has = |key: &str| secret["data"][key].as_str().is_some_and(|text| !text.is_empty());
    let waits = has("next.key") && !has("next.crt");
    let approve = format!(
        "kubectl get certificatesigningrequests -l app.kubernetes.io/name={}; kubectl certificate approve NAME",
        names.name
    );
    let identity = match Identity::from_pem(&chain, &key) {
        Ok(identity) => identity,
        Err(_) if waits => {
            let message = "there is no certificate yet: a CertificateSigningRequest waits for its signer";
            return Ok(bad(Failed, message, approve));
        }
        Err(problem) => return Ok(bad(Failed, format!("the Secret's certificate: {problem}"), remedy)),
    };
    let until = identity.facts().map(|facts| facts.not_after).unwrap_or_default();
    let service = format!("{}.{}.svc", names.name, names.namespace);
    for registration in facts.registrations.as_ref().map_err(Clone::clone)? {
        for webhook in registration["webhooks"].as_array().into_iter().flatten() {
            let (client, webhook) = (&webhook["clientConfig"], &webhook["name"]);
            if client["service"]["name"] != names.name.as_str()
                || client["service"]["namespace"] != names.namespace.as_str()
            {
                continue;
            }
            let bundle = Bundle::from_pem(&decoded(&client["caBundle"]));
            if let Err(why) = bundle.verify(identity.chain(), &service, now) {
                let webhook = webhook.as_str().unwrap_or_default();
                let message =
                    format!("API servers refuse the certificate, by the caBundle of {webhook}: {why}");
                return Ok(bad(Failed, message, remedy));
            }
        }
    }
    let message = format!("trusted by every caBundle, good until {}", written_date(until));
    if waits {
        let message = format!("{message}; a CertificateSigningRequest for the next one waits for its signer");
        return Ok(bad(Warning, message, approve));
    }
    Ok(if until - now < SOON_DAYS * 86_400 { bad(Warning, message, remedy) } else { ok(message) })
}

/// The hash in the metric `outrigger_settings_info{hash="…"}`.
fn hash(metrics: &str) -> Option<&str> {
    let line = metrics.lines().find_map(|line| line.strip_prefix("outrigger_settings_info{hash=\""))?;
    line.split('"').next()
}

fn settings(facts: &Facts) -> Result<Found, String> {
    let name = &facts.names.name;
    let map = facts.settings.as_ref().map_err(Clone::clone)?;
    let Some(map) = map else {
        let message = format!("there is no ConfigMap {name}");
        return Ok(bad(Failed, message, apply_again(&facts.names)));
    };
    let usable = installed_settings(map).and_then(|settings| match Injector::new(settings) {
        Err(unusable) if !unusable.is_about_packs() => Err(unusable.within(&settings_place(map))),
        // A pack by folder is where the replicas are: they say whether they take it.
        _ => Ok(()),
    });
    if let Err(problem) = usable {
        let message =
            format!("the ConfigMap's settings are refused, and the last good ones are in force: {problem}");
        return Ok(bad(Failed, message, format!("mend the ConfigMap {name}")));
    }
    let replicas = facts.replicas.as_ref().map_err(Clone::clone)?;
    let mut hashes: Vec<&str> = Vec::new();
    for (replica, metrics) in replicas {
        let metrics = metrics.as_ref().map_err(|why| format!("the metrics of {replica}: {why}"))?;
        if metrics.lines().any(|line| line == "outrigger_settings_last_reload_successful 0") {
            let message =
                format!("{replica} refuses the ConfigMap's settings, and the last good ones are in force");
            let remedy = format!("kubectl -n {} describe configmap {name} says why", facts.names.namespace);
            return Ok(bad(Failed, message, remedy));
        }
        hashes.extend(hash(metrics));
    }
    hashes.sort_unstable();
    hashes.dedup();
    Ok(match hashes.as_slice() {
        [] => bad(Unknown, "no replica says which settings it has", "look at the replicas' logs"),
        [_] => ok(format!("good, and alike on {} replicas", replicas.len())),
        _ => bad(
            Warning,
            "the replicas have different settings",
            "a kubelet brings a changed ConfigMap within some 90 s; after that, look at the replicas' logs",
        ),
    })
}

/// What to do where a pod is not injected.
const NOT_INJECTED: &str = "the lines above say why the API server cannot call the webhook, or outrigger explain; just after an installation it \
     takes seconds: outrigger check --wait 60";

fn injection(facts: &Facts) -> Result<Found, String> {
    if facts.samples.is_empty() {
        let label = match facts.names.revision.as_str() {
            crate::installation::DEFAULT_REVISION => "istio-injection=enabled".to_owned(),
            revision => format!("istio.io/rev={revision}"),
        };
        let remedy = format!("kubectl label namespace NAME {label}");
        let nobody = "no namespace asks for injection";
        return Ok(match &facts.trial {
            None => {
                bad(Warning, format!("{nobody}, and the settings inject no pod that does so itself"), remedy)
            }
            Some((namespace, Ok(pod))) => match verify(pod, &facts.names.revision) {
                Ok(()) => {
                    let message = "a pod that does so itself, sent by dry run to namespace";
                    bad(Warning, format!("{nobody}; {message} {namespace}, came back injected"), remedy)
                }
                Err(why) => bad(Failed, format!("{namespace}: {why}"), NOT_INJECTED),
            },
            Some((namespace, Err(why))) => bad(Failed, format!("{namespace}: {why}"), NOT_INJECTED),
        });
    }
    let mut wrong = Vec::new();
    for (namespace, sample) in &facts.samples {
        match sample {
            Ok(pod) if pod["metadata"]["annotations"][STATUS_ANNOTATION].is_string() => {}
            Ok(_) => wrong.push(format!("{namespace}: the pod came back without a sidecar")),
            Err(why) => wrong.push(format!("{namespace}: {why}")),
        }
    }
    Ok(if wrong.is_empty() {
        ok("a pod sent by dry run to each namespace that asks for injection came back injected".to_owned())
    } else {
        let message = format!("pods are not injected in {}", listed(&wrong));
        bad(Failed, message, NOT_INJECTED)
    })
}

fn missing(facts: &Facts) -> Result<Found, String> {
    sidecars(facts, Want::Missing, "have no sidecar, though they would get one")
}

fn old(facts: &Facts) -> Result<Found, String> {
    sidecars(facts, Want::Old, "have another sidecar than they would get")
}

/// The workloads with pods that have no sidecar, or an old one.
fn wanting(facts: &Facts) -> Result<Vec<Workload>, String> {
    let pods = facts.pods.as_ref().map_err(Clone::clone)?;
    let namespaces = facts.namespaces.as_ref().map_err(Clone::clone)?;
    let map = facts.settings.as_ref().map_err(Clone::clone)?;
    let map = map.as_ref().ok_or("the settings are not known")?;
    let injector = Injector::new(installed_settings(map)?).map_err(|e| e.within(&settings_place(map)))?;
    let known: Vec<_> = namespaces.iter().map(|n| (name(n), of_namespace(&n["metadata"]))).collect();
    let metadata = |namespace: &str| known.iter().find(|(name, _)| name == namespace).map(|(_, facts)| facts);
    Ok(sidecars::wanting(pods, &injector, metadata))
}

fn sidecars(facts: &Facts, want: Want, what: &str) -> Result<Found, String> {
    let pods = facts.pods.as_ref().map_err(Clone::clone)?;
    let found: Vec<_> = wanting(facts)?.into_iter().filter(|workload| workload.want == want).collect();
    if found.is_empty() {
        return Ok(ok(format!("none of {} pods", pods.len())));
    }
    let count: usize = found.iter().map(|workload| workload.pods.len()).sum();
    let titles: Vec<String> = found.iter().map(Workload::title).collect();
    let message = format!("{count} of {} pods {what}: {}", pods.len(), listed(&titles));
    Ok(bad(
        Warning,
        message,
        format!("{} says which, and restarts them with --restart", command("repair", &facts.names)),
    ))
}
