//! What the options change about an object, besides its names.

use axum::http::Uri;
use serde_json::{Value, json};

use super::{Error, Names, Options, Part, Repair, certificate_secret, registration, settings};
use crate::settings::{KubernetesVersion, Settings};

/// Where the images of the manifests come from: nowhere but `images/build`.
const NO_REGISTRY: &str = "localhost/";

/// Refuses what cannot be chosen.
pub(super) fn check(options: &Options) -> Result<(), Error> {
    if let Some(url) = &options.trace_collector {
        check_collector(url)?;
    }
    let Some(signer) = &options.certificate_signer else { return Ok(()) };
    check_signer(signer)?;
    if options.parts.contains(&Part::CertManager) {
        return Err(Error::Option(format!(
            "--certificate-signer {signer}: --with cert-manager makes the certificate, too; choose one of them"
        )));
    }
    Ok(())
}

/// Refuses what is no name of a signer that can sign for a webhook.
///
/// # Errors
/// [`Error::Value`].
pub fn check_signer(signer: &str) -> Result<(), Error> {
    let refuse = |why: &str| {
        Err(Error::Value { option: "--certificate-signer", value: signer.to_owned(), why: why.to_owned() })
    };
    let domain = signer.split_once('/').filter(|(domain, path)| {
        domain.contains('.')
            && !path.is_empty()
            && !path.contains('/')
            && !signer.contains(char::is_whitespace)
    });
    if domain.is_none() {
        return refuse("is no signerName; it has the form DOMAIN/NAME, such as example.com/serving");
    }
    if signer.starts_with("kubernetes.io/") {
        return refuse(
            "Kubernetes' own signers sign nothing that a webhook can serve; name a signer of the cluster's own",
        );
    }
    Ok(())
}

/// Refuses what is no URL of a collector.
///
/// # Errors
/// [`Error::Value`].
pub fn check_collector(url: &str) -> Result<(), Error> {
    collector(url).map(|_| ())
}

/// The collector's scheme and port.
fn collector(url: &str) -> Result<(&'static str, u16), Error> {
    let uri = url.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    let read = uri.as_ref().and_then(|uri| match uri.scheme_str()? {
        "http" => Some(("http", uri.port_u16().unwrap_or(80))),
        "https" => Some(("https", uri.port_u16().unwrap_or(443))),
        _ => None,
    });
    read.ok_or_else(|| Error::Value {
        option: "--trace-collector",
        value: url.to_owned(),
        why: "is no URL of a collector; it has the form http://HOST:PORT or https://HOST:PORT, such as \
              http://collector.observability:4318"
            .to_owned(),
    })
}

/// Makes the choices in one object; each is made in the kinds that it is about.
pub(super) fn choose(object: &mut Value, options: &Options, names: &Names) -> Result<(), Error> {
    match object["kind"].as_str().unwrap_or_default() {
        "ConfigMap" => {
            if let Some(text) = settings::text(object) {
                *text = chosen(text, options, names)?;
            }
        }
        "Deployment" => {
            let own = object["metadata"]["name"] == *names.name;
            let spec = &mut object["spec"];
            images(&mut spec["template"]["spec"], options);
            if own {
                webhook(spec, options, names)?;
            } else {
                repair(&mut spec["template"]["spec"], options);
            }
        }
        "DaemonSet" => images(&mut object["spec"]["template"]["spec"], options),
        "NetworkPolicy" => {
            if let Some(url) = &options.trace_collector
                && let Some(egress) = object["spec"]["egress"].as_array_mut()
            {
                egress.push(json!({"ports": [{"port": collector(url)?.1, "protocol": "TCP"}]}));
            }
        }
        "HorizontalPodAutoscaler" => replicas_of(&mut object["spec"], options),
        "MutatingWebhookConfiguration" => {
            registration::of_revision(object, &names.revision);
            if options.parts.contains(&Part::CertManager) {
                // Whose CA cert-manager is to write.
                let Names { name, namespace, .. } = names;
                object["metadata"]["annotations"] =
                    json!({"cert-manager.io/inject-ca-from": format!("{namespace}/{name}")});
            }
        }
        _ => {}
    }
    Ok(())
}

/// The settings of the installation, checked.
fn chosen(built_in: &str, options: &Options, names: &Names) -> Result<String, Error> {
    let place = if options.settings.is_some() { "--config" } else { "the settings of the manifests" };
    let chosen = options.settings.clone().unwrap_or_else(|| {
        let registry = options.registry.as_ref().map_or(NO_REGISTRY.to_owned(), |registry| prefix(registry));
        let text = built_in.replace(NO_REGISTRY, &registry);
        let newest = Settings::default().kubernetes_version;
        let text = match options.oldest_kubelet.filter(|oldest| *oldest < newest) {
            Some(oldest) => {
                let version = |version: KubernetesVersion| format!("kubernetesVersion: \"{version}\"");
                text.replace(&version(newest), &version(oldest))
            }
            None => text,
        };
        // `values` stand last.
        text + if options.cni { "  pilot: {cni: {enabled: true}}\n" } else { "" }
    });
    let read = Settings::parse(&chosen, place).map_err(|e| Error::Option(e.to_string()))?;
    for (field, found, wanted, option) in [
        ("revision", &read.revision, &names.revision, "--revision"),
        ("installationNamespace", &read.installation_namespace, &names.namespace, "--namespace"),
    ] {
        if found != wanted {
            return Err(Error::Option(format!(
                "{place}: {field} is {found}, and {option} is {wanted}; write `{field}: {wanted}` into the settings, or \
                 give {option} {found}"
            )));
        }
    }
    if let Some(oldest) = options.oldest_kubelet.filter(|oldest| *oldest < read.kubernetes_version) {
        return Err(Error::Option(format!(
            "{place}: kubernetesVersion is {}, and the oldest kubelet of the cluster is {oldest}, which may not know native \
             sidecars; write `kubernetesVersion: \"{oldest}\"` into the settings",
            read.kubernetes_version
        )));
    }
    if options.cni && !read.captures_by_cni() {
        return Err(Error::Option(format!(
            "{place}: does not capture by the CNI plugin, which --cni installs; write `pilot: {{cni: {{enabled: true}}}}` \
             under `values`"
        )));
    }
    Ok(chosen)
}

/// Takes the images from where they are.
fn images(pod: &mut Value, options: &Options) {
    let Some(registry) = &options.registry else { return };
    for container in pod["containers"].as_array_mut().into_iter().flatten() {
        if let Some(image) = container["image"].as_str() {
            container["image"] = image.replace(NO_REGISTRY, &prefix(registry)).into();
        }
    }
}

fn webhook(spec: &mut Value, options: &Options, names: &Names) -> Result<(), Error> {
    if let Some(replicas) = options.replicas {
        spec["replicas"] = replicas.into();
    }
    if options.parts.contains(&Part::Hpa)
        && let Some(fields) = spec.as_object_mut()
    {
        // From now on it is the autoscaler's; applying the Deployment again would take it back.
        fields.shift_remove("replicas");
    }
    let pod = &mut spec["template"]["spec"];
    if options.parts.contains(&Part::CertManager) {
        let secret = json!({"secretName": certificate_secret(&names.name)});
        let folder = "/etc/outrigger-certificate";
        let [certificate, key] = ["tls.crt", "tls.key"].map(|file| format!("{folder}/{file}"));
        mount(pod, "certificate", ("secret", secret), &["--cert", &certificate, "--key", &key]);
    }
    if let Some(signer) = &options.certificate_signer {
        let map = json!({"name": format!("{}-ca", names.name)});
        let arguments =
            ["--certificate-signer", signer, "--certificate-authority", "/etc/outrigger-ca/ca.crt"];
        mount(pod, "ca", ("configMap", map), &arguments);
    }
    if let Some(url) = &options.trace_collector {
        let mut environment = vec![json!({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": url})];
        if collector(url)?.0 == "https" {
            mount(pod, "trace-ca", ("configMap", json!({"name": format!("{}-trace-ca", names.name)})), &[]);
            environment.push(
                json!({"name": "OTEL_EXPORTER_OTLP_CERTIFICATE", "value": "/etc/outrigger-trace-ca/ca.crt"}),
            );
        }
        pod["containers"][0]["env"] = environment.into();
    }
    Ok(())
}

/// Tells the repair controller its revision, and whether it restarts.
fn repair(pod: &mut Value, options: &Options) {
    let Some(arguments) = pod["containers"][0]["args"].as_array_mut() else { return };
    let revision = arguments.iter().position(|argument| argument == "--revision").map(|flag| flag + 1);
    if let Some(revision) = revision.and_then(|place| arguments.get_mut(place)) {
        *revision = options.revision.as_str().into();
    }
    if options.repair == Some(Repair::Restart) {
        arguments.push("--restart".into());
    }
}

/// Gives the webhook's container the folder `/etc/outrigger-NAME` with what `source` holds, and arguments about it.
fn mount(pod: &mut Value, name: &str, source: (&str, Value), arguments: &[&str]) {
    let mut add = |pointer: &str, items: &[Value]| {
        if let Some(list) = pod.pointer_mut(pointer).and_then(Value::as_array_mut) {
            list.extend_from_slice(items);
        }
    };
    let arguments: Vec<Value> = arguments.iter().map(|argument| json!(argument)).collect();
    add("/containers/0/args", &arguments);
    let folder = format!("/etc/outrigger-{name}");
    add("/containers/0/volumeMounts", &[json!({"name": name, "mountPath": folder, "readOnly": true})]);
    add("/volumes", &[json!({"name": name, (source.0): source.1})]);
}

fn replicas_of(spec: &mut Value, options: &Options) {
    if let Some(fewest) = options.replicas {
        let most = spec["maxReplicas"].as_u64().unwrap_or_default().max(fewest.into());
        spec["minReplicas"] = fewest.into();
        spec["maxReplicas"] = json!(most);
    }
}

fn prefix(registry: &str) -> String {
    format!("{}/", registry.trim_end_matches('/'))
}
