//! A certificate by a signer of the cluster. The test is who approves, and who signs: openssl does it.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cluster::{Namespace, kubectl, outrigger, try_kubectl, until};
use crate::install::{Installation, bundles};
use crate::stream::Stream;

const SIGNER: &str = "signer.test/webhooks";

fn openssl(folder: &Path, arguments: &str) {
    let output =
        Command::new("openssl").current_dir(folder).args(arguments.split(' ')).output().expect("it starts");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A CA in a folder.
struct Authority(tempfile::TempDir);

impl Authority {
    fn create() -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=signer -keyout ca.key \
                   -out ca.crt";
        openssl(folder.path(), new);
        Authority(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn certificate(&self) -> Vec<u8> {
        std::fs::read(self.file("ca.crt")).unwrap()
    }

    /// Approves a request, and signs what it asks for.
    fn sign(&self, request: &Value) {
        let name = request["metadata"]["name"].as_str().unwrap();
        kubectl(&["certificate", "approve", name]);
        let asked = STANDARD.decode(request["spec"]["request"].as_str().unwrap()).unwrap();
        std::fs::write(self.file("asked.csr"), asked).unwrap();
        let sign = "x509 -req -in asked.csr -CA ca.crt -CAkey ca.key -days 30 -copy_extensions copyall -out signed.crt";
        openssl(self.0.path(), sign);
        let signed = STANDARD.encode(std::fs::read(self.file("signed.crt")).unwrap());
        let status = json!({"status": {"certificate": signed}}).to_string();
        kubectl(&["patch", "csr", name, "--subresource=status", "--type=merge", "--patch", &status]);
    }
}

/// The one request of an installation that nobody has decided on.
fn pending(installation: &Installation) -> Value {
    until("a request that waits", || {
        let label = format!("--selector=app.kubernetes.io/name={}", installation.name);
        let list = try_kubectl(&["get", "csr", &label, "--output=json"], "")?.json();
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let of = format!("{}.{}.", installation.name, installation.namespace.name);
        let own =
            |request: &Value| request["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(&of));
        let mut waiting =
            all.into_iter().filter(|request| own(request) && request["status"]["conditions"].is_null());
        match (waiting.next(), waiting.next()) {
            (Some(request), None) => Ok(request),
            found => Err(format!("{found:?}")),
        }
    })
}

fn served(installation: &Installation) -> Result<String, String> {
    let secret = installation.get("secret", &format!("{}-certificate", installation.name))?;
    Ok(secret["data"]["tls.crt"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_signer_of_the_cluster_signs_the_certificate_and_the_next_one() {
    let authority = Authority::create();
    let namespace = Namespace::create("signed", json!({}));
    let from = format!("--from-file={}", authority.file("ca.crt").display());
    namespace.kubectl(&["create", "configmap", "outrigger-signed-ca", &from]);
    let options = ["--certificate-signer", SIGNER];
    let installation = Installation::applied(namespace, "signed", 2, json!({}), &options);

    let first = pending(&installation);
    let name = first["metadata"]["name"].as_str().unwrap();
    assert_eq!(first["spec"]["signerName"], SIGNER);
    assert_eq!(first["spec"]["usages"], json!(["digital signature", "server auth"]));
    let account = format!("system:serviceaccount:{}:{}", installation.namespace.name, installation.name);
    assert_eq!(first["spec"]["username"], account.as_str());
    until("an Event that says what to do", || {
        let events = installation.namespace.try_kubectl(&["get", "events", "--output=json"], "")?.json();
        let of = |event: &&Value| event["reason"] == "CertificateRequested";
        let event =
            events["items"].as_array().and_then(|items| items.iter().find(of)).ok_or("there is none")?;
        let message = event["message"].as_str().unwrap();
        assert!(message.contains(&format!("kubectl certificate approve {name}")), "{message}");
        Ok(())
    });
    authority.sign(&first);
    installation.works();
    let trusted = STANDARD.encode(authority.certificate());
    assert_eq!(bundles(&installation.name), [trusted.clone(), trusted.clone()]);

    // The next one waits for its approval, and the first is served meanwhile.
    let before = served(&installation).unwrap();
    let stream = Stream::start(installation.pods());
    let namespace = &installation.namespace.name;
    outrigger(&["certs", "rotate", "--revision", &installation.revision, "--namespace", namespace]);
    let next = pending(&installation);
    assert_ne!(next["metadata"]["name"], first["metadata"]["name"]);
    assert_ne!(next["spec"]["request"], first["spec"]["request"]);
    assert_eq!(served(&installation).unwrap(), before);
    authority.sign(&next);
    until("the next certificate", || match served(&installation)? {
        certificate if certificate != before => Ok(()),
        _ => Err("the first is served".to_owned()),
    });
    assert!(stream.finish() > 0);
    assert_eq!(bundles(&installation.name), [trusted.clone(), trusted]);
}
