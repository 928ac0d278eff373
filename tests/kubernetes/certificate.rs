//! The certificate that an installation keeps: renewed, lost, damaged and led by another replica while pods come in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use outrigger::certificates::{Bundle, make, unix_now};
use serde_json::{Value, json};

use crate::cluster::{dry_run, kubectl, outrigger, until};
use crate::install::Installation;
use crate::pods;
use crate::stream::Stream;

/// What an installation keeps, and what its registration trusts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kept {
    pub certificate: String,
    pub next: String,
    pub trusted: Bundle,
    pub bundles: Vec<Bundle>,
}

/// The certificates of a field of a Secret or of a registration.
pub(crate) fn bundle(base64: &Value) -> Bundle {
    Bundle::from_pem(&STANDARD.decode(base64.as_str().unwrap_or_default()).unwrap())
}

pub(crate) fn kept(installation: &Installation) -> Result<Kept, String> {
    let secret = installation.get("secret", &format!("{}-certificate", installation.name))?;
    let registration = installation.get("mutatingwebhookconfiguration", &installation.name)?;
    let text = |key: &str| secret["data"][key].as_str().unwrap_or_default().to_owned();
    let webhooks = registration["webhooks"].as_array().unwrap();
    Ok(Kept {
        certificate: text("tls.crt"),
        next: text("next.crt"),
        trusted: bundle(&secret["data"]["ca.crt"]),
        bundles: webhooks.iter().map(|webhook| bundle(&webhook["clientConfig"]["caBundle"])).collect(),
    })
}

/// Waits until another certificate than `before` is served alone, and its CA is the only one that is trusted.
pub(crate) fn renewed(installation: &Installation, before: &Kept) -> Kept {
    until("the next certificate", || {
        let kept = kept(installation)?;
        let alone = kept.trusted.len() == 1 && kept.bundles.iter().all(|bundle| *bundle == kept.trusted);
        let other = !kept.certificate.is_empty() && kept.certificate != before.certificate;
        let done = alone && other && kept.next.is_empty() && !kept.trusted.holds(&before.trusted);
        if done { Ok(kept) } else { Err(format!("{kept:?}")) }
    })
}

#[test]
fn pods_come_in_while_the_certificate_is_renewed_lost_and_damaged_and_its_keeper_leaves() {
    let installation = Installation::new("keeping", 2, json!({}));
    let (secret, namespace) = (format!("{}-certificate", installation.name), &installation.namespace);
    let stream = Stream::start(installation.pods());

    let mut known = kept(&installation).unwrap();
    assert_eq!((known.trusted.len(), known.bundles.len()), (1, 2));
    outrigger(&["certs", "rotate", "--revision", &installation.revision, "--namespace", &namespace.name]);
    known = renewed(&installation, &known);

    namespace.kubectl(&["delete", "secret", &secret]);
    known = renewed(&installation, &known);

    let damage = json!({"data": {"tls.key": STANDARD.encode("nonsense")}}).to_string();
    namespace.kubectl(&["patch", "secret", &secret, "--patch", &damage]);
    known = renewed(&installation, &known);

    // The replica that leads goes in the middle of its work; the other one ends it.
    namespace.kubectl(&["annotate", "secret", &secret, "outrigger.dev/rotate=now"]);
    until("a next certificate", || {
        if kept(&installation)?.next.is_empty() { Err("there is none".to_owned()) } else { Ok(()) }
    });
    let leader = || -> Result<String, String> {
        let lease = installation.get("lease", &installation.name)?;
        Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    };
    let first = leader().unwrap();
    namespace.kubectl(&["delete", "pod", &first, "--wait=false"]);
    let known = renewed(&installation, &known);
    until("another leader", || match leader()? {
        holder if !holder.is_empty() && holder != first => Ok(()),
        holder => Err(holder),
    });
    assert!(stream.finish() > 0);

    // What another hand has written into caBundle is mended, and nothing else of the registration is touched.
    let registration = || installation.get("mutatingwebhookconfiguration", &installation.name).unwrap();
    let before = registration();
    let bundle = STANDARD.encode(make(&["nobody.svc".to_owned()], 1, unix_now()).unwrap().ca);
    let other = json!([
        {"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle},
        {"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"},
    ]);
    let name = format!("mutatingwebhookconfiguration/{}", installation.name);
    kubectl(&["patch", &name, "--type=json", "--patch", &other.to_string()]);
    until("the mended bundle", || {
        let bundles = kept(&installation)?.bundles;
        if bundles == known.bundles { Ok(()) } else { Err(format!("{bundles:?}")) }
    });
    let mut after = registration();
    for field in ["resourceVersion", "generation"] {
        after["metadata"][field] = before["metadata"][field].clone();
    }
    let touched = outrigger::patch::diff(&before, &after);
    assert!(touched.is_empty(), "{touched:?}");
}

#[test]
fn settings_that_are_refused_are_told_on_their_configmap() {
    let installation = Installation::new("broken", 1, json!({}));
    let namespace = &installation.namespace;
    let broken = json!({"data": {"config.yaml": "policy: perhaps\n"}}).to_string();
    namespace.kubectl(&["patch", "configmap", &installation.name, "--patch", &broken]);
    let message = until("an Event", || {
        let about = format!("involvedObject.kind=ConfigMap,involvedObject.name={}", installation.name);
        let list =
            namespace.try_kubectl(&["get", "events", "--field-selector", &about, "--output=json"], "")?;
        let list = list.json();
        let event =
            list["items"].as_array().and_then(|items| items.first().cloned()).ok_or("there is none")?;
        assert_eq!(
            (event["type"].as_str(), event["reason"].as_str()),
            (Some("Warning"), Some("SettingsRefused"))
        );
        Ok(event["message"].as_str().unwrap_or_default().to_owned())
    });
    assert!(message.contains("policy") && message.contains("perhaps"), "{message}");
    let describe = namespace.kubectl(&["describe", "configmap", &installation.name]).stdout;
    assert!(describe.contains("SettingsRefused"), "{describe}");
    let answer = installation.pods().create_object(&pods::stored("still"));
    assert!(pods::injected(&answer.json()), "{}", answer.stderr);
}

#[test]
fn the_users_of_a_namespaces_range_are_known_to_the_webhook() {
    let installation = Installation::new("ranges", 1, json!({"platform": "openshift"}));
    let namespace = installation.pods();
    let annotate =
        ["annotate", "namespace", &namespace.name, "openshift.io/sa.scc.uid-range=1000650000/10000"];
    kubectl(&annotate);
    until("the last user of the range", || {
        let pod = dry_run(&namespace.name, &pods::stored("ranged"))?.json();
        let user = &pod["spec"]["initContainers"][1]["securityContext"]["runAsUser"];
        if *user == 1_000_659_999 { Ok(()) } else { Err(user.to_string()) }
    });
}
