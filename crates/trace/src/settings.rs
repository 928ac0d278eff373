//! OpenTelemetry's own variables (OpenTelemetry specification, "SDK environment variables" and "OTLP exporter").

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Uri;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Where spans go, and which.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The collector's URL for traces, `http` or `https`.
    pub endpoint: Uri,
    /// TLS with the collector, and whom its certificate must lead to; none with `http`.
    pub tls: Option<Arc<ClientConfig>>,
    /// More header fields of each export.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Attributes of whoever makes the spans.
    pub attributes: BTreeMap<String, String>,
    /// `OTEL_SERVICE_NAME`.
    pub service: Option<String>,
    /// Of the traces that begin here, how many are sampled, 0 to 1.
    pub ratio: f64,
}

impl Settings {
    /// Reads the variables of `env`; `None` without a collector.
    ///
    /// # Errors
    ///
    /// Every bad value, with its variable and remedy.
    pub fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Settings>, Vec<String>> {
        let given =
            |name: &str| env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let (name, url) = match (given(traces), given("OTEL_EXPORTER_OTLP_ENDPOINT")) {
            (Some(url), _) => (traces, url),
            (None, Some(base)) => {
                ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{}/v1/traces", base.trim_end_matches('/')))
            }
            (None, None) => return Ok(None),
        };
        let mut errors = Vec::new();
        let known = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        let endpoint = url.parse().ok().filter(known);
        let endpoint = endpoint.unwrap_or_else(|| {
            let value = given(name).unwrap_or_default();
            errors.push(format!(
                "{name}={value:?}: expected http://host:port or https://host:port of a collector that takes OTLP over \
                 HTTP"
            ));
            Uri::default()
        });
        let secure = endpoint.scheme_str() == Some("https");
        let tls = secure.then(|| tls(&given)).transpose().unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        if let Some(protocol) =
            given("OTEL_EXPORTER_OTLP_PROTOCOL").filter(|protocol| protocol != "http/json")
        {
            errors.push(format!("OTEL_EXPORTER_OTLP_PROTOCOL={protocol:?}: expected http/json, or nothing"));
        }
        let ratio = ratio(&given, &mut errors);
        let mut pairs = |name: &str| {
            pairs(&given(name).unwrap_or_default()).unwrap_or_else(|pair| {
                errors.push(format!("{name}: {pair:?}: expected key=value pairs separated by commas"));
                Vec::new()
            })
        };
        let headers = pairs("OTEL_EXPORTER_OTLP_HEADERS");
        let attributes = pairs("OTEL_RESOURCE_ATTRIBUTES").into_iter().collect();
        let mut header = |(name, value): (String, String)| {
            let header = name.parse().ok().zip(value.parse().ok());
            if header.is_none() {
                errors.push(format!(
                    "OTEL_EXPORTER_OTLP_HEADERS: {name:?}: expected a header field and its value"
                ));
            }
            header
        };
        let headers = headers.into_iter().filter_map(&mut header).collect();
        let service = given("OTEL_SERVICE_NAME");
        if errors.is_empty() {
            Ok(Some(Settings { endpoint, tls, headers, attributes, service, ratio }))
        } else {
            Err(errors)
        }
    }
}

/// TLS that trusts the certificates of the file that the variables name. The images have none of their own.
fn tls(given: &dyn Fn(&str) -> Option<String>) -> Result<Arc<ClientConfig>, String> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
    let Some((name, path)) = names.into_iter().find_map(|name| Some((name, given(name)?))) else {
        return Err(format!(
            "{}: https wants a file of the certificates, as PEM, that the collector's must lead to",
            names[1]
        ));
    };
    let read = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read
        .map_err(|error| format!("{name}={path:?}: cannot be read: {error}; expected certificates as PEM"))?;
    if certificates.is_empty() {
        return Err(format!("{name}={path:?}: there is no certificate in this file; expected PEM"));
    }
    let cannot = |error: rustls::Error| format!("{name}={path:?}: cannot be used: {error}");
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(cannot)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(cannot)?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn ratio(given: &dyn Fn(&str) -> Option<String>, errors: &mut Vec<String>) -> f64 {
    let sampler = given("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_traceidratio".to_owned());
    match sampler.as_str() {
        "parentbased_always_on" => 1.0,
        "parentbased_always_off" => 0.0,
        "parentbased_traceidratio" => {
            let argument = given("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".to_owned());
            argument.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).unwrap_or_else(|| {
                errors.push(format!("OTEL_TRACES_SAMPLER_ARG={argument:?}: expected a ratio, 0 to 1"));
                0.0
            })
        }
        _ => {
            errors.push(format!(
                "OTEL_TRACES_SAMPLER={sampler:?}: expected parentbased_always_on, parentbased_always_off or \
                 parentbased_traceidratio"
            ));
            0.0
        }
    }
}

/// `key=value,key=value`, values percent-encoded as in W3C Baggage. The pair that is none is the error.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let read = |pair: &str| {
        let (key, value) = pair.split_once('=').filter(|(key, _)| !key.trim().is_empty()).ok_or(pair)?;
        Ok((key.trim().to_owned(), decoded(value.trim())))
    };
    pairs.map(read).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let code =
            after.get(..2).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match code {
            Some(code) if *byte == b'%' => {
                bytes.push(code);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(env: &[(&str, &str)]) -> Result<Option<Settings>, Vec<String>> {
        Settings::read(&|name| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_a_collector_there_is_nothing() {
        let settings = read(&[("OTEL_TRACES_SAMPLER_ARG", "0.5"), ("OTEL_SERVICE_NAME", "shop")]);
        assert!(settings.unwrap().is_none());
    }

    #[test]
    fn variables_are_opentelemetrys() {
        let settings = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=shop, motto=a%2Cb%3D"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x"),
        ]);
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.endpoint, "http://collector:4318/v1/traces");
        assert_eq!(settings.ratio, 0.25);
        assert_eq!(settings.attributes["motto"], "a,b=");
        assert_eq!(settings.headers[0].1, "Bearer x");
        let traces = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector/own")];
        assert_eq!(read(&traces).unwrap().unwrap().endpoint, "http://collector/own");
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let errors = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c"),
        ]);
        let errors = errors.unwrap_err();
        // https without roots is one of them.
        assert_eq!(errors.len(), 5, "{errors:#?}");
        let https = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector");
        for path in ["/dev/null", "/nowhere"] {
            let errors = read(&[https, ("OTEL_EXPORTER_OTLP_CERTIFICATE", path)]).unwrap_err();
            assert!(errors.len() == 1 && errors[0].contains(path), "{errors:#?}");
        }
        assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector")]).is_err());
        assert!(
            read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_TRACES_SAMPLER", "xray")]).is_err()
        );
    }
}
