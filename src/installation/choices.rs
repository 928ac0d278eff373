//! What the options change about an object, besides its names.

use serde_json::{Value, json};

use super::{Error, Names, Options, Part, registration};
use crate::settings::Settings;

/// Where the images of the manifests come from: nowhere but `images/build`.
const NO_REGISTRY: &str = "localhost/";

/// Makes the choices in one object; each is made in the kinds that it is about.
pub(super) fn choose(object: &mut Value, options: &Options, names: &Names) -> Result<(), Error> {
    match object["kind"].as_str().unwrap_or_default() {
        "ConfigMap" => {
            if let Some(Value::String(text)) = object.pointer_mut("/data/config.yaml") {
                *text = settings(text, options, names)?;
            }
        }
        "Deployment" => {
            deployment(&mut object["spec"], options);
            if options.parts.contains(&Part::CertManager) {
                certificate_of_files(&mut object["spec"]["template"]["spec"], names);
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
fn settings(built_in: &str, options: &Options, names: &Names) -> Result<String, Error> {
    let place = if options.settings.is_some() { "--config" } else { "config.yaml" };
    let chosen = match (&options.settings, &options.registry) {
        (Some(given), _) => given.clone(),
        (None, Some(registry)) => built_in.replace(NO_REGISTRY, &prefix(registry)),
        (None, None) => built_in.to_owned(),
    };
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
    Ok(chosen)
}

fn deployment(spec: &mut Value, options: &Options) {
    if let Some(replicas) = options.replicas {
        spec["replicas"] = replicas.into();
    }
    if options.parts.contains(&Part::Hpa)
        && let Some(fields) = spec.as_object_mut()
    {
        // From now on it is the autoscaler's; applying the Deployment again would take it back.
        fields.shift_remove("replicas");
    }
    if let Some(registry) = &options.registry {
        for container in spec["template"]["spec"]["containers"].as_array_mut().into_iter().flatten() {
            if let Some(image) = container["image"].as_str() {
                container["image"] = image.replace(NO_REGISTRY, &prefix(registry)).into();
            }
        }
    }
}

/// The webhook takes its certificate from files, and keeps none itself.
fn certificate_of_files(pod: &mut Value, names: &Names) {
    let folder = "/etc/outrigger-certificate";
    let mut add = |pointer: &str, items: &[Value]| {
        if let Some(list) = pod.pointer_mut(pointer).and_then(Value::as_array_mut) {
            list.extend_from_slice(items);
        }
    };
    let [certificate, key] = ["tls.crt", "tls.key"].map(|file| json!(format!("{folder}/{file}")));
    add("/containers/0/args", &[json!("--cert"), certificate, json!("--key"), key]);
    add(
        "/containers/0/volumeMounts",
        &[json!({"name": "certificate", "mountPath": folder, "readOnly": true})],
    );
    let secret = json!({"secretName": format!("{}-certificate", names.name)});
    add("/volumes", &[json!({"name": "certificate", "secret": secret})]);
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
