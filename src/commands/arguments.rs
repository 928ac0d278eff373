//! What flags' values must be, said to whoever typed them: exit status 2, before anything is done.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use outrigger::installation::{DEFAULT_REVISION, Error, Names, Tag, check_collector, check_signer};
use outrigger::settings::INSTALLATION_NAMESPACE;

/// A whole number within `range`.
pub(crate) fn number<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            format!("expected a whole number from {least} to {most}")
        })
    }
}

/// Replicas of the webhook: as many as a Deployment may have, but never none.
pub(crate) fn replicas(text: &str) -> Result<u32, String> {
    number(1..=i32::MAX as u64)(text).map_err(|expected| {
        format!("{expected}; with none, every pod that asks for injection would be refused")
    })
}

/// The most seconds that anything is waited for: a year.
pub(crate) const YEAR: u64 = 365 * 86_400;

/// Where to listen.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected ADDRESS:PORT, such as 127.0.0.1:8443 or [::]:8443".to_owned())
}

/// Where images come from.
pub(crate) fn registry(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains("://") || text.contains(char::is_whitespace) {
        return Err("expected HOST/PATH without a scheme, such as registry.example/mesh".to_owned());
    }
    Ok(text.to_owned())
}

/// The namespace of an installation.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    accepted(text, Names::new(DEFAULT_REVISION, text))
}

/// The revision of an installation.
pub(crate) fn revision(text: &str) -> Result<String, String> {
    accepted(text, Names::new(text, INSTALLATION_NAMESPACE))
}

/// A tag.
pub(crate) fn tag(text: &str) -> Result<String, String> {
    let names = Names::new(DEFAULT_REVISION, INSTALLATION_NAMESPACE);
    accepted(text, names.and_then(|names| Tag::new(text, names)))
}

/// The signer of a certificate.
pub(crate) fn signer(text: &str) -> Result<String, String> {
    accepted(text, check_signer(text))
}

/// Where spans go.
pub(crate) fn collector(text: &str) -> Result<String, String> {
    accepted(text, check_collector(text))
}

/// `text` where it was found good; otherwise why not, without the flag and its value, which the command line's reader names
/// itself.
fn accepted<T>(text: &str, found: Result<T, Error>) -> Result<String, String> {
    found.map(|_| text.to_owned()).map_err(|error| match error {
        Error::Value { why, .. } => why,
        error => error.to_string(),
    })
}
