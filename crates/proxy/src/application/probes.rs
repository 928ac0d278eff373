//! The application's probes, asked for by the kubelet at `/app-health/<container>/<probe>` and carried out here: the
//! kubelet is outside of the mesh, the application may be reachable only from within.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use serde::Deserialize;

use super::client::{self, Answer, Wire};
use crate::upstream::{self, Source};

/// Longest body that is passed on to the kubelet, as the kubelet reads no more.
const BODY_LIMIT: usize = 10 * 1024;
const MOST_REDIRECTS: usize = 10;
/// Bound of a probe that has no time-out of its own (lifecycle hooks); the kubelet gives up before.
const NO_TIMEOUT: Duration = Duration::from_secs(3600);

/// The probes by path, and where the application is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Probes {
    by_path: BTreeMap<String, Probe>,
    target: Target,
}

/// Where the application is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Target {
    /// On the pod's address, from the inbound source address.
    Pod(IpAddr),
    /// On loopback (`REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION=true`).
    #[default]
    Localhost,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Probe {
    kind: Kind,
    timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Http { path: PathAndQuery, port: u16, tls: bool },
    Tcp { port: u16 },
    Grpc { port: u16, service: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    grpc: Option<Grpc>,
    #[serde(default)]
    timeout_seconds: u64,
}

#[derive(Deserialize)]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: u16,
    #[serde(default)]
    scheme: String,
}

#[derive(Deserialize)]
struct TcpSocket {
    port: u16,
}

#[derive(Deserialize)]
struct Grpc {
    port: u16,
    service: Option<String>,
}

impl Probes {
    /// Reads the JSON that the injector leaves in `ISTIO_KUBE_APP_PROBERS`: probes by path.
    ///
    /// # Errors
    ///
    /// Each path that is not `/app-health/<container>/<probe>` or `/app-lifecycle/<container>/<hook>`, and each entry
    /// that is not exactly one probe with a port.
    pub(crate) fn parse(text: &str, target: Target) -> Result<Probes, Vec<String>> {
        let entries: BTreeMap<String, serde_json::Value> = serde_json::from_str(text)
            .map_err(|error| vec![format!("expected a JSON object of probes by path: {error}")])?;
        let mut probes = Probes { by_path: BTreeMap::new(), target };
        let mut errors = Vec::new();
        for (path, value) in entries {
            match Probe::parse(&path, value) {
                Ok(probe) => {
                    probes.by_path.insert(path, probe);
                }
                Err(error) => errors.push(format!("{path}: {error}")),
            }
        }
        if errors.is_empty() { Ok(probes) } else { Err(errors) }
    }

    /// The paths that are answered.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.by_path.keys().map(String::as_str)
    }

    /// Whether `path` is one that the kubelet was given for a probe.
    pub(crate) fn answers_to(path: &str) -> bool {
        path.starts_with("/app-health/") || path.starts_with("/app-lifecycle/")
    }

    /// Carries out the probe at `path` with the headers that the kubelet sent. `own_port` is the port that the kubelet
    /// asked; in the host header, the application's port takes its place.
    pub(crate) async fn run(&self, path: &str, headers: &HeaderMap, own_port: u16) -> (StatusCode, Bytes) {
        let Some(probe) = self.by_path.get(path) else {
            return (StatusCode::BAD_REQUEST, Bytes::from(format!("no probe is configured at {path}\n")));
        };
        let asked = async {
            match &probe.kind {
                Kind::Http { path, port, tls } => {
                    let headers = application_headers(headers, own_port, *port);
                    self.http(path.clone(), *port, *tls, headers).await
                }
                Kind::Tcp { port } => self.connect(*port).await.map(|_| (StatusCode::OK, Bytes::new())),
                Kind::Grpc { port, service } => self.grpc(*port, service, headers).await,
            }
        };
        let answer = match tokio::time::timeout(probe.timeout, asked).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => error,
            Err(_) => format!("no answer in {} s", probe.timeout.as_secs()),
        };
        tracing::debug!(path, error = answer, "probe failed");
        (StatusCode::INTERNAL_SERVER_ERROR, Bytes::from(format!("probe failed: {answer}\n")))
    }

    async fn connect(&self, port: u16) -> Result<tokio::net::TcpStream, String> {
        let addresses = match self.target {
            Target::Pod(address) => vec![(Source::Inbound, address)],
            Target::Localhost => vec![
                (Source::Any, IpAddr::V4(Ipv4Addr::LOCALHOST)),
                (Source::Any, IpAddr::V6(Ipv6Addr::LOCALHOST)),
            ],
        };
        let mut last = String::new();
        for (source, address) in addresses {
            let address = SocketAddr::new(address, port);
            match upstream::connect(source, address, NO_TIMEOUT).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = format!("cannot connect to {address}: {error}"),
            }
        }
        Err(last)
    }

    fn host(&self) -> String {
        match self.target {
            Target::Pod(IpAddr::V6(address)) => format!("[{address}]"),
            Target::Pod(address) => address.to_string(),
            Target::Localhost => "localhost".to_owned(),
        }
    }

    async fn http(
        &self,
        path: PathAndQuery,
        port: u16,
        tls: bool,
        headers: HeaderMap,
    ) -> Result<(StatusCode, Bytes), String> {
        let (mut path, mut port, mut tls) = (path, port, tls);
        for _ in 0..=MOST_REDIRECTS {
            let mut request = Request::new(Bytes::new());
            *request.method_mut() = Method::GET;
            *request.uri_mut() = Uri::from(path.clone());
            *request.headers_mut() = headers.clone();
            let wire = if tls { Wire::Tls } else { Wire::Http1 };
            let answer = client::ask(self.connect(port).await?, wire, request, BODY_LIMIT).await?;
            if !answer.status.is_redirection() {
                return Ok((answer.status, answer.body));
            }
            match self.redirect(&answer, &path, port, tls) {
                Some(next) => (path, port, tls) = next,
                // Where else it leads is not the application's health.
                None => return Ok((StatusCode::OK, answer.body)),
            }
        }
        Err(format!("more than {MOST_REDIRECTS} redirects"))
    }

    /// Where a redirect leads, if it is to the same host.
    fn redirect(
        &self,
        answer: &Answer,
        from: &PathAndQuery,
        port: u16,
        tls: bool,
    ) -> Option<(PathAndQuery, u16, bool)> {
        let location = answer.headers.get(header::LOCATION)?.to_str().ok()?;
        if !location.contains("://") && !location.starts_with("//") {
            let path = if location.starts_with('/') {
                location.to_owned()
            } else {
                let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{folder}/{location}")
            };
            return Some((path.parse().ok()?, port, tls));
        }
        let scheme = if tls { "https" } else { "http" };
        let absolute =
            if location.starts_with("//") { format!("{scheme}:{location}") } else { location.to_owned() };
        let uri: Uri = absolute.parse().ok()?;
        if uri.host() != Some(&self.host()) {
            return None;
        }
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Some((path, uri.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls))
    }

    /// `grpc.health.v1.Health/Check`.
    async fn grpc(
        &self,
        port: u16,
        service: &str,
        headers: &HeaderMap,
    ) -> Result<(StatusCode, Bytes), String> {
        let authority = format!("{}:{port}", self.host());
        let uri = format!("http://{authority}/grpc.health.v1.Health/Check");
        let mut request = Request::new(health_check(service));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.parse().map_err(|error| format!("{uri}: {error}"))?;
        let fields = request.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
        if let Some(agent) = headers.get(header::USER_AGENT) {
            fields.insert(header::USER_AGENT, agent.clone());
        }
        let answer = client::ask(self.connect(port).await?, Wire::Http2, request, BODY_LIMIT).await?;
        let status = answer.trailers.get("grpc-status").or_else(|| answer.headers.get("grpc-status"));
        match (status.map(HeaderValue::as_bytes), health_status(&answer.body)) {
            (Some(b"0"), Some(1)) => Ok((StatusCode::OK, Bytes::new())),
            (Some(b"0"), state) => Err(format!("health status {}, not SERVING (1)", state.unwrap_or(0))),
            (code, _) => Err(format!("grpc-status {}", code.map_or("none".into(), String::from_utf8_lossy))),
        }
    }
}

impl Probe {
    fn parse(path: &str, value: serde_json::Value) -> Result<Probe, String> {
        let parts: Vec<&str> = path.split('/').collect();
        let known = match parts.as_slice() {
            ["", "app-health", container, probe] => {
                !container.is_empty() && ["livez", "readyz", "startupz"].contains(probe)
            }
            ["", "app-lifecycle", container, hook] => {
                !container.is_empty() && ["prestopz", "poststartz"].contains(hook)
            }
            _ => false,
        };
        if !known {
            return Err("expected /app-health/<container>/livez, readyz or startupz, \
                        or /app-lifecycle/<container>/prestopz or poststartz"
                .to_owned());
        }
        let given: Given = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let kind = match (given.http_get, given.tcp_socket, given.grpc) {
            (Some(http), None, None) => {
                let slash = if http.path.starts_with('/') { "" } else { "/" };
                let path = format!("{slash}{}", http.path);
                let path = path
                    .parse()
                    .or_else(|_| encoded(&path).parse())
                    .map_err(|error| format!("httpGet.path {:?}: {error}", http.path))?;
                Kind::Http { path, port: http.port, tls: http.scheme.eq_ignore_ascii_case("https") }
            }
            (None, Some(tcp), None) => Kind::Tcp { port: tcp.port },
            (None, None, Some(grpc)) => {
                Kind::Grpc { port: grpc.port, service: grpc.service.unwrap_or_default() }
            }
            _ => return Err("expected exactly one of httpGet, tcpSocket and grpc".to_owned()),
        };
        let timeout = match given.timeout_seconds {
            0 => NO_TIMEOUT,
            seconds => Duration::from_secs(seconds),
        };
        Ok(Probe { kind, timeout })
    }
}

/// A path that cannot stand in a request as it is: a kubelet, too, encodes what cannot.
fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'!'..=b'~' if !b"\"<>\\^`{|}".contains(&byte) => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The kubelet's headers as the application should see them.
fn application_headers(headers: &HeaderMap, own_port: u16, port: u16) -> HeaderMap {
    let mut headers = headers.clone();
    for hop in
        [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::UPGRADE, header::TE]
    {
        headers.remove(hop);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let host =
        headers.get(header::HOST).and_then(|host| host.to_str().ok()).and_then(|host| host.parse().ok());
    if let Some(host) = host.filter(|host: &Authority| host.port_u16() == Some(own_port))
        && let Ok(host) = HeaderValue::try_from(format!("{}:{port}", host.host()))
    {
        headers.insert(header::HOST, host);
    }
    headers
}

/// A gRPC message with `HealthCheckRequest{service}`: field 1, a string.
fn health_check(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.extend_from_slice(&[0]);
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.freeze()
}

/// The `status` of a gRPC message with `HealthCheckResponse`: field 1, an enumeration.
fn health_status(framed: &[u8]) -> Option<u8> {
    match framed.get(5..)? {
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_injectors_json_is_read() {
        let text = r#"{"/app-health/web/livez":{"httpGet":{"path":"x?y=1","port":8080,"scheme":"HTTPS",
            "httpHeaders":[{"name":"a","value":"b"}]},"timeoutSeconds":1},
            "/app-health/web/readyz":{"tcpSocket":{"port":9000},"timeoutSeconds":2},
            "/app-health/web/startupz":{"grpc":{"port":50051,"service":null},"timeoutSeconds":1},
            "/app-lifecycle/web/prestopz":{"httpGet":{"port":8080}}}"#;
        let probes = Probes::parse(text, Target::Localhost).unwrap();
        let kind = |path: &str| probes.by_path[path].kind.clone();
        let path = PathAndQuery::from_static("/x?y=1");
        assert_eq!(kind("/app-health/web/livez"), Kind::Http { path, port: 8080, tls: true });
        assert_eq!(kind("/app-health/web/readyz"), Kind::Tcp { port: 9000 });
        assert_eq!(kind("/app-health/web/startupz"), Kind::Grpc { port: 50051, service: String::new() });
        assert_eq!(probes.by_path["/app-lifecycle/web/prestopz"].timeout, NO_TIMEOUT);
    }

    #[test]
    fn a_path_that_needs_encoding_is_encoded() {
        let text = r#"{"/app-health/web/livez":{"httpGet":{"path":"/a b\u00e9<","port":8080}}}"#;
        let probes = Probes::parse(text, Target::Localhost).unwrap();
        let path = PathAndQuery::from_static("/a%20b%C3%A9%3C");
        assert_eq!(probes.by_path["/app-health/web/livez"].kind, Kind::Http { path, port: 8080, tls: false });
    }

    #[test]
    fn every_bad_entry_is_told_with_its_path() {
        let text = r#"{"/app-health/web/health":{"tcpSocket":{"port":1}},
            "/app-health/web/livez":{"httpGet":{"port":"http"}},
            "/app-health/web/readyz":{"tcpSocket":{"port":1},"grpc":{"port":2}}}"#;
        let errors = Probes::parse(text, Target::Localhost).unwrap_err();
        assert_eq!(errors.len(), 3, "{errors:#?}");
        assert!(errors[0].starts_with("/app-health/web/health: expected /app-health/"), "{}", errors[0]);
        assert!(errors[2].contains("exactly one"), "{}", errors[2]);
        assert!(Probes::parse("[]", Target::Localhost).is_err());
    }

    #[test]
    fn the_host_header_names_the_applications_port() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("10.0.0.1:15020"));
        headers.insert("x-custom", HeaderValue::from_static("1"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        let sent = application_headers(&headers, 15020, 8080);
        assert_eq!(sent[header::HOST], "10.0.0.1:8080");
        assert_eq!(sent["x-custom"], "1");
        assert_eq!(sent[header::CONNECTION], "close");
        headers.insert(header::HOST, HeaderValue::from_static("shop.example"));
        assert_eq!(application_headers(&headers, 15020, 8080)[header::HOST], "shop.example");
    }

    #[test]
    fn health_messages_are_protobuf() {
        assert_eq!(&health_check("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&health_check("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(health_check(&"s".repeat(200))[5..8], [0x0a, 0xc8, 0x01]);
        assert_eq!(health_status(&[0, 0, 0, 0, 2, 0x08, 1]), Some(1));
        assert_eq!(health_status(&[0, 0, 0, 0, 0]), None);
    }
}
