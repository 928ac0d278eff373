//! A certificate by a signer of the cluster: asked for by a CertificateSigningRequest, which somebody approves.
//!
//! The signers that Kubernetes brings sign nothing that a webhook could serve: `kubernetes.io/kubelet-serving` is for nodes,
//! and `kubernetes.io/legacy-unknown` is not to be had in `certificates.k8s.io/v1`. So this is for a signer of the
//! cluster's own. The key is made here and goes into the Secret before the request is made: whoever leads then asks for,
//! and takes up, the same certificate.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Installation;
use super::keeper::{Problem, decoded};
use crate::certificates::rotation::{Kept, LIFE_DAYS};
use crate::certificates::{Bundle, Identity, Made, Request, key, request};
use crate::notice::{Notice, Notices};

/// Requests, which have no namespace.
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// Who signs the certificate, and who is told that it waits.
#[derive(Debug, Clone)]
pub struct Signer {
    /// Its `signerName`: `example.com/serving`.
    pub name: String,
    /// The file (PEM) of its CA certificates, one of which goes into `caBundle`. It is read at each use.
    pub authority: PathBuf,
    /// Where to tell of a request that waits for its approval.
    pub notices: Notices,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// Nobody has said anything.
    Waiting,
    /// It is approved, and not signed yet.
    Approved,
    /// Denied, or failed: why.
    Refused(String),
    /// The chain, PEM.
    Issued(String),
}

impl Signer {
    /// Goes one step towards a pair for `kept`, at `now`: what is to be kept, `None` while there is nothing but to wait.
    pub(super) async fn sign(
        &self,
        installation: &Installation,
        kept: Kept,
        now: i64,
    ) -> Result<Option<Kept>, Problem> {
        let Some(key) = kept.requested.clone() else {
            return Ok(Some(Kept { requested: Some(key()?), ..kept }));
        };
        let names = installation.names();
        let Ok(request) = request(&names, &key) else {
            tracing::warn!("the key of the request in the Secret cannot be read; another one is made");
            return Ok(Some(Kept { requested: None, ..kept }));
        };
        let name = format!("{}.{}.{}", installation.name, installation.cluster.namespace, request.id);
        let found = match installation.cluster.get(&format!("{REQUESTS}/{name}")).await {
            Err(error) if error.is(404) => {
                let object = self.object(installation, &name, &request);
                self.told(installation, &name);
                installation.cluster.create(REQUESTS, &object).await?
            }
            found => found?,
        };
        match answer(&found) {
            Answer::Waiting | Answer::Approved => Ok(None),
            Answer::Refused(why) => Err(Problem::Other(format!(
                "CertificateSigningRequest {name} was refused: {why}; Kubernetes removes it within an hour, and it is asked \
                 again; outrigger certs rotate asks with another key at once"
            ))),
            Answer::Issued(certificate) => {
                let ca = self.verified(&certificate, &key, &names, now).map_err(|why| {
                    let signer = &self.name;
                    Problem::Other(format!(
                        "what {signer} has signed as CertificateSigningRequest {name}: {why}"
                    ))
                })?;
                Ok(Some(kept.with_next(Made { ca: ca.pem(), certificate, key })))
            }
        }
    }

    fn told(&self, installation: &Installation, name: &str) {
        let signer = &self.name;
        let message = format!(
            "CertificateSigningRequest {name} waits for its approval and for the signer {signer}: kubectl certificate \
             approve {name}"
        );
        tracing::warn!(request = name, signer, "{message}");
        let about = installation.settings();
        let notice = Notice { about, warning: true, reason: "CertificateRequested", message };
        self.notices.tell(|| Some(notice));
    }

    fn object(&self, installation: &Installation, name: &str, request: &Request) -> Value {
        json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name, "labels": installation.labels()},
            "spec": {
                "request": STANDARD.encode(&request.pem),
                "signerName": self.name,
                "usages": ["digital signature", "server auth"],
                "expirationSeconds": LIFE_DAYS * 86_400,
            },
        })
    }

    /// The CAs of the file by which an API server takes what was signed.
    fn verified(&self, certificate: &str, key: &str, names: &[String], now: i64) -> Result<Bundle, String> {
        let identity =
            Identity::from_pem(certificate.as_bytes(), key.as_bytes()).map_err(|e| e.to_string())?;
        let file = self.authority.display();
        let text = std::fs::read(&self.authority)
            .map_err(|e| format!("cannot read the signer's CA certificates {file}: {e}"))?;
        let all = Bundle::from_pem(&text);
        if all.is_empty() {
            return Err(format!(
                "{file} has no certificate in PEM form; put the signer's CA certificate into it"
            ));
        }
        for name in names {
            all.verify(identity.chain(), name, now).map_err(|why| {
                format!("it is not good for {name} by the CA certificates in {file}: {why}")
            })?;
        }
        let verifies = |ca: &Bundle| names.iter().all(|name| ca.verify(identity.chain(), name, now).is_ok());
        let own = all.only(verifies);
        identity.server_config().map_err(|e| e.to_string())?;
        Ok(own)
    }
}

/// What became of a CertificateSigningRequest.
fn answer(object: &Value) -> Answer {
    let status = &object["status"];
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refused =
        conditions.iter().find(|condition| condition["type"] == "Denied" || condition["type"] == "Failed");
    if let Some(refused) = refused {
        let text = |field: &str| refused[field].as_str().unwrap_or_default();
        let why = [text("type"), text("reason"), text("message")];
        let why: Vec<_> = why.into_iter().filter(|text| !text.is_empty()).collect();
        return Answer::Refused(why.join(", "));
    }
    let certificate = String::from_utf8(decoded(&status["certificate"])).unwrap_or_default();
    if !certificate.is_empty() {
        return Answer::Issued(certificate);
    }
    let approved = conditions.iter().any(|condition| condition["type"] == "Approved");
    if approved { Answer::Approved } else { Answer::Waiting }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::{make, unix_now};

    #[test]
    fn a_request_is_answered_by_its_conditions_and_its_certificate() {
        let condition = |kind: &str| json!({"type": kind, "reason": "Because", "message": "so"});
        let of = |status: Value| answer(&json!({"status": status}));
        assert_eq!(of(json!({})), Answer::Waiting);
        assert_eq!(of(json!({"conditions": [condition("Approved")]})), Answer::Approved);
        let certificate = STANDARD.encode("PEM");
        let issued = of(json!({"conditions": [condition("Approved")], "certificate": certificate}));
        assert_eq!(issued, Answer::Issued("PEM".to_owned()));
        for kind in ["Denied", "Failed"] {
            let refused = of(json!({"conditions": [condition(kind)]}));
            assert_eq!(refused, Answer::Refused(format!("{kind}, Because, so")));
        }
    }

    #[test]
    fn what_is_signed_must_be_good_by_the_signers_ca() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let signer = Signer {
            name: "example.com/serving".to_owned(),
            authority: file.path().to_owned(),
            notices: Notices::default(),
        };
        let (names, now) = (["a.b.svc".to_owned()], unix_now());
        let (made, other) = (make(&names, 1, now).unwrap(), make(&names, 1, now).unwrap());
        let verified = |names: &[String], ca: &str, key: &str| {
            std::fs::write(file.path(), ca).unwrap();
            signer.verified(&made.certificate, key, names, now)
        };
        // Of several CAs it is the one that has signed.
        let several = other.ca.clone() + &made.ca;
        assert_eq!(verified(&names, &several, &made.key), Ok(Bundle::from_pem(made.ca.as_bytes())));
        let refused = |names: &[String], ca: &str, key: &str| verified(names, ca, key).unwrap_err();
        assert!(
            refused(&names, &other.ca, &made.key)
                .contains("is not good for a.b.svc by the CA certificates in ")
        );
        assert!(refused(&["c.d.svc".to_owned()], &made.ca, &made.key).contains("is not good for c.d.svc"));
        assert!(refused(&names, "", &made.key).contains("put the signer's CA certificate into it"));
        assert!(refused(&names, &made.ca, &other.key).contains("the private key is not the certificate's"));
    }
}
