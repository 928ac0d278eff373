//! The certificate by cert-manager, whose controllers run beside the node, as in a cluster that has them.

use serde_json::json;

use crate::certificate::{Kept, bundle, kept};
use crate::cluster::{Namespace, folder, kubectl, program, run_outrigger, try_kubectl, until};
use crate::install::Installation;
use crate::operate;
use crate::stream::Stream;

use super::replica::Process;

/// cert-manager's controllers, and cainjector.
fn start() -> Process {
    let resources = program("cert-manager").with_extension("yaml");
    kubectl(&["apply", "--server-side", "--force-conflicts", "--filename", resources.to_str().unwrap()]);
    for resource in ["certificates", "certificaterequests", "issuers", "clusterissuers"] {
        kubectl(&["wait", "--for=condition=Established", &format!("crd/{resource}.cert-manager.io")]);
    }
    let kubeconfig = folder().join("kubeconfig");
    Process::start(program("cert-manager").to_str().unwrap(), &[kubeconfig.to_str().unwrap()], &[])
}

/// Has a Certificate made anew, as `cmctl renew` does.
fn renew(installation: &Installation, certificate: &str) {
    until("a Certificate that is to be issued", || {
        let mut object = installation.get("certificate", certificate)?;
        let issuing = json!({
            "type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "a test asks for it",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": object["metadata"]["generation"],
        });
        object["status"]["conditions"].as_array_mut().ok_or("no conditions yet")?.push(issuing);
        // With the version that was read: what its controller writes meanwhile is not lost.
        let replace = ["replace", "--subresource=status", "--filename=-"];
        installation.namespace.try_kubectl(&replace, &object.to_string())
    });
}

/// Waits until another certificate than `before` is issued, and its CA is trusted.
fn issued(installation: &Installation, before: &Kept) -> Kept {
    until("another certificate", || {
        let kept = kept(installation)?;
        let other = !kept.certificate.is_empty() && kept.certificate != before.certificate;
        let trusted =
            kept.bundles.len() == 2 && kept.bundles.iter().all(|bundle| bundle.holds(&kept.trusted));
        if other && trusted { Ok(kept) } else { Err(format!("{kept:?}")) }
    })
}

/// Waits until each replica serves what the Secret holds.
fn served(installation: &Installation, replicas: &[String], reloads: u32) {
    for replica in replicas {
        // The kubelet brings a Secret's content within a minute or two, and at once to a pod that changes.
        let note = format!("test/reloads={reloads}");
        installation.namespace.kubectl(&["annotate", "--overwrite", "pod", replica, &note]);
        let path =
            format!("/api/v1/namespaces/{}/pods/{replica}:15014/proxy/metrics", installation.namespace.name);
        let wanted = format!("outrigger_certificate_reloads_total{{result=\"success\"}} {reloads}");
        until(&format!("{wanted} of {replica}"), || {
            let metrics = try_kubectl(&["get", "--raw", &path], "")?.stdout;
            let found = metrics.lines().find(|line| line.starts_with("outrigger_certificate_reloads_total"));
            if metrics.lines().any(|line| line == wanted) { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }
}

/// Who has written a `caBundle` of the registration.
fn writers(installation: &Installation) -> Vec<String> {
    let name =
        ["get", "mutatingwebhookconfiguration", &installation.name, "--show-managed-fields", "--output=json"];
    let registration = kubectl(&name).json();
    let managers = registration["metadata"]["managedFields"].as_array().unwrap().iter();
    let writers = managers.filter(|manager| manager["fieldsV1"].to_string().contains("f:caBundle"));
    writers.map(|manager| manager["manager"].as_str().unwrap().to_owned()).collect()
}

fn assert_checked(installation: &Installation) {
    let (status, report) = operate::check(installation);
    assert!(status.success() && operate::line(&report, "certificate")["state"] == "ok", "{report:#}");
}

#[test]
fn cert_manager_makes_and_renews_the_certificate_and_its_cainjector_is_the_one_writer_of_the_bundle() {
    let _cert_manager = start();
    let namespace = Namespace::create("cert-manager", json!({}));
    let options = ["--with", "cert-manager"];
    let installation = Installation::applied(namespace, "cert-manager", 2, json!({}), &options);
    installation.works();
    let secret = format!("{}-certificate", installation.name);
    let made = installation.get("secret", &secret).unwrap();
    assert_eq!(made["metadata"]["annotations"]["cert-manager.io/certificate-name"], installation.name);
    let first = kept(&installation).unwrap();
    assert!(
        first.bundles.len() == 2 && first.bundles.iter().all(|bundle| *bundle == first.trusted),
        "{first:?}"
    );
    assert_eq!(writers(&installation), ["cainjector"]);
    assert_checked(&installation);
    let which = ["--revision", &installation.revision, "--namespace", &installation.namespace.name];
    let (status, output) = run_outrigger(&[&["certs", "rotate"], &which[..]].concat());
    let renewal = format!("cmctl renew {} --namespace", installation.name);
    assert!(!status.success() && output.stderr.contains(&renewal), "{}", output.stderr);

    // Pods come in while it is renewed, lost, and made by a renewed CA.
    let stream = Stream::start(installation.pods());
    let replicas = installation.replicas();
    assert_eq!(replicas.len(), 2);
    renew(&installation, &installation.name);
    let second = issued(&installation, &first);
    served(&installation, &replicas, 1);
    installation.namespace.kubectl(&["delete", "secret", &secret]);
    let third = issued(&installation, &second);
    served(&installation, &replicas, 2);
    assert!(second.trusted == first.trusted && third.trusted == first.trusted);

    let name = format!("{}-ca", installation.name);
    renew(&installation, &name);
    until("a renewed CA", || {
        let authority = installation.get("secret", &name)?;
        let now = bundle(&authority["data"]["tls.crt"]);
        if now.len() == 1 && now != third.trusted { Ok(()) } else { Err("the CA of before".to_owned()) }
    });
    renew(&installation, &installation.name);
    let fourth = issued(&installation, &third);
    // The CA of before is kept, for replicas that do not serve the next certificate yet.
    assert!(
        fourth.trusted != third.trusted && fourth.bundles.iter().all(|bundle| bundle.holds(&third.trusted))
    );
    served(&installation, &replicas, 3);
    assert!(stream.finish() > 0);

    assert_eq!(writers(&installation), ["cainjector"]);
    assert_checked(&installation);
}
