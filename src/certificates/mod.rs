//! Certificates: make them, read them, keep the served one up to date. Knows no cluster.
//!
//! TLS 1.2 and 1.3 only, with rustls on ring.

mod bundle;
mod facts;
mod files;
mod made;
mod peer;
mod request;
pub(crate) mod rotation;

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

pub use bundle::Bundle;
pub use facts::{Facts, facts, unix_now, written_date};
pub(crate) use files::announce;
pub use files::{Files, Problem};
pub use made::{Error, Made, make, name};
pub(crate) use peer::peer;
pub(crate) use request::{Request, key, request};

/// The certificate that is served; `None` where there is none yet.
pub type Served = Option<Arc<ServerConfig>>;

/// A chain, the leaf first, and the leaf's key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// The certificates in PEM text, of which there is at least one.
///
/// # Errors
/// There is none, or one is cut off.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err("no certificate in PEM form is in it".to_owned()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(no_pem(&error)),
    }
}

fn no_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "it is cut off: a -----BEGIN … line has no -----END … line after it; copy the file again".to_owned()
        }
        _ => "it is no PEM: what stands between its -----BEGIN … and -----END … lines cannot be read; copy the file again"
            .to_owned(),
    }
}

impl Identity {
    /// Reads PEM: certificates, the leaf first, and one private key (PKCS#8, PKCS#1 or SEC1).
    ///
    /// # Errors
    /// Which of the two holds nothing usable, and why.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, Unusable> {
        let chain = chain(certificates).map_err(Unusable::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
            Unusable::Key(match error {
                pem::Error::NoItemsFound => "no private key in PEM form is in it".to_owned(),
                other => no_pem(&other),
            })
        })?;
        Ok(Self { chain, key })
    }

    /// The chain in DER, the leaf first.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// What the leaf says.
    ///
    /// # Errors
    /// It is no X.509 certificate.
    pub fn facts(&self) -> Result<Facts, Unusable> {
        let leaf = self.chain.first().map(CertificateDer::as_ref).unwrap_or_default();
        facts(leaf).map_err(Unusable::Certificate)
    }

    /// The configuration that serves it, for HTTP/1.1 and HTTP/2.
    ///
    /// # Errors
    /// Key and certificate do not belong together, or are of a kind that ring does not know.
    pub fn server_config(self) -> Result<Arc<ServerConfig>, Unusable> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| Unusable::Key(e.to_string()))?
            .with_no_client_auth()
            .with_single_cert(self.chain, self.key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => Unusable::Mismatch,
                rustls::Error::InvalidCertificate(_) => Unusable::Certificate(error.to_string()),
                other => Unusable::Key(other.to_string()),
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// What is wrong with a certificate or its key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The certificate.
    #[error("{0}")]
    Certificate(String),
    /// The key.
    #[error("{0}")]
    Key(String),
    /// Each is sound, but the key is another one's.
    #[error("the private key is not the certificate's")]
    Mismatch,
}
