//! A request for a certificate by somebody else's CA (PKCS#10, RFC 2986).

use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use ring::digest;

use super::made::{Error, leaf};

/// What a signer is asked.
#[derive(Debug)]
pub(crate) struct Request {
    /// The request, PEM.
    pub pem: String,
    /// Ten hexadecimal digits, the same for the same key.
    pub id: String,
}

/// Makes a private key, ECDSA P-256: PKCS#8, PEM.
///
/// # Errors
/// There is no randomness.
pub(crate) fn key() -> Result<String, Error> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// Makes the request for a server's certificate with a key, for DNS names and addresses.
///
/// # Errors
/// A name that is none; a key that cannot be read.
pub(crate) fn request(names: &[String], key: &str) -> Result<Request, Error> {
    let key = KeyPair::from_pem(key)?;
    let params: CertificateParams = leaf(names)?;
    let digest = digest::digest(&digest::SHA256, key.der_bytes());
    let id = digest.as_ref().iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    Ok(Request { pem: params.serialize_request(&key)?.pem()?, id })
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::pki_types::CertificateSigningRequestDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::{FromDer, ParsedExtension};

    use super::*;

    #[test]
    fn a_request_is_for_its_names_and_is_known_by_its_key() {
        let (one, other) = (key().unwrap(), key().unwrap());
        let names = ["outrigger.outrigger-system.svc".to_owned()];
        let made = request(&names, &one).unwrap();
        let der = CertificateSigningRequestDer::from_pem_slice(made.pem.as_bytes()).unwrap();
        let (_, read) = X509CertificationRequest::from_der(&der).unwrap();
        let said: Vec<_> =
            read.requested_extensions().unwrap().map(|extension| format!("{extension:?}")).collect();
        assert!(said.iter().any(|said| said.contains("outrigger.outrigger-system.svc")), "{said:?}");
        let server = |extension: &ParsedExtension| matches!(extension, ParsedExtension::ExtendedKeyUsage(usage) if usage.server_auth && !usage.client_auth);
        assert!(read.requested_extensions().unwrap().any(server), "{said:?}");
        assert_eq!(made.id.len(), 10);
        assert_eq!(request(&names, &one).unwrap().id, made.id);
        assert_ne!(request(&names, &other).unwrap().id, made.id);
        assert!(matches!(request(&["no name".to_owned()], &one), Err(Error::Name(_))));
        assert!(request(&names, "nonsense").is_err());
    }
}
