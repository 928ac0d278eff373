//! The CAs that a client trusts: what `caBundle` of a webhook's registration holds.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;

use super::facts;

/// Certificates of CAs, each once, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle(Vec<CertificateDer<'static>>);

impl Bundle {
    /// The certificates in PEM text; what is none is left out.
    pub fn from_pem(pem: &[u8]) -> Self {
        CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).fold(Self::default(), Self::with)
    }

    /// As PEM.
    pub(crate) fn pem(&self) -> String {
        let mut text = String::new();
        for certificate in &self.0 {
            text += "-----BEGIN CERTIFICATE-----\n";
            let base64 = STANDARD.encode(certificate);
            for (at, character) in base64.char_indices() {
                if at > 0 && at % 64 == 0 {
                    text.push('\n');
                }
                text.push(character);
            }
            text += "\n-----END CERTIFICATE-----\n";
        }
        text
    }

    fn with(mut self, certificate: CertificateDer<'static>) -> Self {
        if !self.0.contains(&certificate) {
            self.0.push(certificate);
        }
        self
    }

    /// These, and then those of `other`.
    #[must_use]
    pub(crate) fn and(&self, other: &Self) -> Self {
        other.0.iter().cloned().fold(self.clone(), Self::with)
    }

    /// Those for which `test` holds.
    #[must_use]
    pub(crate) fn only(&self, test: impl Fn(&Self) -> bool) -> Self {
        let alone = |certificate: &CertificateDer<'static>| Self(vec![certificate.clone()]);
        Self(self.0.iter().filter(|certificate| test(&alone(certificate))).cloned().collect())
    }

    /// Those that have not expired at `now`, in Unix seconds. One that is not valid yet stays.
    #[must_use]
    pub(crate) fn unexpired(&self, now: i64) -> Self {
        let good =
            |certificate: &&CertificateDer| facts(certificate).is_ok_and(|facts| facts.not_after > now);
        Self(self.0.iter().filter(good).cloned().collect())
    }

    /// Whether all of `other` are among these.
    pub fn holds(&self, other: &Self) -> bool {
        other.0.iter().all(|certificate| self.0.contains(certificate))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a client that trusts these takes `chain` (DER, the leaf first) for a server called `name`, at `now` in
    /// Unix seconds: what an API server asks before it sends a pod.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn verify(&self, chain: &[CertificateDer], name: &str, now: i64) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        let (_, unusable) = roots.add_parsable_certificates(self.0.iter().cloned());
        if roots.is_empty() {
            return Err(format!("no CA to trust: {} in the bundle, {unusable} of them unusable", self.len()));
        }
        let [leaf, intermediates @ ..] = chain else { return Err("there is no certificate".to_owned()) };
        let name = ServerName::try_from(name).map_err(|_| format!("{name:?} is no name of a server"))?;
        let leaf = ParsedCertificate::try_from(leaf).map_err(|e| e.to_string())?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or_default()));
        let algorithms = ring::default_provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, algorithms)
            .and_then(|()| verify_server_name(&leaf, &name))
            .map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{make, unix_now};
    use super::*;

    const NAME: &str = "outrigger.outrigger-system.svc";

    fn made() -> (Bundle, Vec<CertificateDer<'static>>) {
        let made = make(&[NAME.to_owned()], 1, unix_now()).unwrap();
        let chain = CertificateDer::pem_slice_iter(made.certificate.as_bytes()).map(Result::unwrap).collect();
        (Bundle::from_pem(made.ca.as_bytes()), chain)
    }

    #[test]
    fn pem_comes_back_and_each_certificate_is_there_once() {
        let (one, other) = (made().0, made().0);
        let both = one.and(&other).and(&one);
        assert_eq!(both.len(), 2);
        let text = format!("some words\n{}\n-----BEGIN CERTIFICATE-----\nAAA", both.pem());
        assert_eq!(Bundle::from_pem(text.as_bytes()), both);
        assert!(both.holds(&one) && both.holds(&other) && !one.holds(&other));
        assert!(Bundle::from_pem(b"").is_empty());
    }

    #[test]
    fn a_chain_is_taken_by_its_own_ca_for_its_name_in_its_time() {
        let ((bundle, chain), (other, _)) = (made(), made());
        let now = unix_now();
        assert_eq!(other.and(&bundle).verify(&chain, NAME, now), Ok(()));
        assert!(other.verify(&chain, NAME, now).is_err());
        assert!(Bundle::default().verify(&chain, NAME, now).is_err());
        assert!(bundle.verify(&chain, "elsewhere.svc", now).is_err());
        assert!(bundle.verify(&chain, NAME, now + 2 * 86_400).is_err());
        assert!(bundle.verify(&[], NAME, now).is_err());
        assert_eq!((bundle.unexpired(now).len(), bundle.unexpired(now + 2 * 86_400).len()), (1, 0));
    }
}
