//! A CA and one leaf, made here. The CA's key is thrown away: it can sign nothing else.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use tokio_rustls::rustls::pki_types::ServerName;

/// Clocks of others may be slow.
const SLACK: u64 = 5 * 60;

/// A CA and one leaf that it has signed, all as PEM.
#[derive(Debug)]
pub struct Made {
    /// The CA's certificate.
    pub ca: String,
    /// The leaf.
    pub certificate: String,
    /// The leaf's private key, PKCS#8.
    pub key: String,
}

/// Why no certificate can be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name is none.
    #[error("{0:?} is no DNS name and no IP address; write one such as outrigger.outrigger-system.svc")]
    Name(String),
    /// Anything else.
    #[error("cannot make a certificate: {0}")]
    Made(#[from] rcgen::Error),
}

/// Makes a CA and a leaf for DNS names and addresses, on ECDSA P-256, valid for `days` from `now`, in Unix seconds.
///
/// # Errors
/// A name that is no DNS name (a leading `*.` is taken) and no address.
pub fn make(names: &[String], days: u32, now: i64) -> Result<Made, Error> {
    let mut leaf = lasting(leaf(names)?, days, now);
    leaf.use_authority_key_identifier_extension = true;
    let ca_key = KeyPair::generate()?;
    let mut ca = lasting(CertificateParams::default(), days, now);
    ca.distinguished_name = called("Outrigger CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &issuer)?;
    Ok(Made { ca: ca_certificate.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A server's certificate, but for its time and who signs it.
pub(super) fn leaf(names: &[String]) -> Result<CertificateParams, Error> {
    names.iter().try_for_each(|text| name(text).map(drop))?;
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name = called("outrigger");
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(leaf)
}

/// A name that a certificate can be for: a DNS name, also with `*.` before it, or an IP address.
///
/// # Errors
/// [`Error::Name`].
pub fn name(text: &str) -> Result<String, Error> {
    ServerName::try_from(text.strip_prefix("*.").unwrap_or(text))
        .map_err(|_| Error::Name(text.to_owned()))?;
    Ok(text.to_owned())
}

fn called(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn lasting(mut params: CertificateParams, days: u32, now: i64) -> CertificateParams {
    let now = u64::try_from(now).unwrap_or_default();
    let begin = date_time_ymd(1970, 1, 1);
    params.not_before = begin + Duration::from_secs(now.saturating_sub(SLACK));
    params.not_after = begin + Duration::from_secs(now + u64::from(days) * 86_400);
    params
}
