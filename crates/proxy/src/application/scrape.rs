//! Merged metrics on 15020: the agent's, the proxy's and the application's, so that Prometheus scrapes a pod once.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use serde::Deserialize;

use super::client::{self, Answer, Wire};
use crate::ports::Ports;
use crate::telemetry::{Counter, Text};
use crate::upstream::{self, Source};

/// Longest exposition of one application that is merged.
const LIMIT: usize = 10 << 20;
/// Bound of a scrape whose scraper does not say how long it waits.
const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where the application exposes its metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Application {
    targets: Vec<(u16, String)>,
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    scrape: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    port: String,
    #[serde(default)]
    targets: Vec<GivenTarget>,
}

#[derive(Deserialize)]
struct GivenTarget {
    #[serde(default)]
    path: String,
    #[serde(default)]
    port: String,
}

impl Application {
    /// Reads the JSON that the injector leaves in `ISTIO_PROMETHEUS_ANNOTATIONS`: what the pod's annotations
    /// `prometheus.io/*` said. Path defaults to `/metrics`, port to 80.
    ///
    /// # Errors
    ///
    /// A port that is no port or one of the sidecar's own: scraping it would be scraping ourselves.
    pub(crate) fn parse(text: &str, ports: &Ports) -> Result<Application, String> {
        let given: Given = serde_json::from_str(text)
            .map_err(|_| r#"expected a JSON object, such as {"scrape":"true","port":"9090"}"#.to_owned())?;
        if given.scrape == "false" {
            return Ok(Application::default());
        }
        let targets = match given.targets.is_empty() {
            true => vec![(given.port, given.path)],
            false => given.targets.into_iter().map(|target| (target.port, target.path)).collect(),
        };
        let read = |(port, path): (String, String)| {
            let number = if port.is_empty() { Ok(80) } else { port.parse::<u16>() };
            let number = match number {
                Ok(number) if number != 0 && !ports.own(number) => number,
                Ok(number) => {
                    return Err(format!(
                        "port {number} is the sidecar's own or none; expected the application's"
                    ));
                }
                Err(_) => return Err(format!("port {port:?}: expected 1 to 65535")),
            };
            let path = if path.is_empty() { "/metrics".to_owned() } else { path };
            Ok((number, if path.starts_with('/') { path } else { format!("/{path}") }))
        };
        Ok(Application { targets: targets.into_iter().map(read).collect::<Result<_, _>>()? })
    }
}

/// What the agent counts about scrapes.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    scrapes: Counter,
    application_failures: Counter,
}

/// The merged exposition and its content type. The application comes last, because OpenMetrics ends with `# EOF`.
pub(crate) async fn merged(
    application: &Application,
    counts: &Counts,
    proxy: &str,
    asked: &HeaderMap,
) -> (String, String) {
    counts.scrapes.add(1);
    let mut answers = Vec::new();
    let accept = accept(asked);
    let patience = asked
        .get("x-prometheus-scrape-timeout-seconds")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|patience| !patience.is_zero())
        .unwrap_or(PATIENCE);
    let tasks: Vec<_> = application
        .targets
        .iter()
        .map(|(port, path)| {
            let request = request(*port, path, &accept, asked);
            tokio::task::spawn_local(tokio::time::timeout(patience, scrape(*port, request)))
        })
        .collect();
    for (task, (port, path)) in tasks.into_iter().zip(&application.targets) {
        let error = match task.await {
            Ok(Ok(Ok(answer))) => {
                answers.push(answer);
                continue;
            }
            Ok(Ok(Err(error))) => error,
            Ok(Err(_)) => format!("no answer in {patience:?}"),
            Err(error) => error.to_string(),
        };
        counts.application_failures.add(1);
        tracing::debug!(port, path, error, "cannot scrape the application");
    }
    let mut text = Text(String::new());
    text.family("istio_agent_scrapes_total", "counter", "Scrapes of merged metrics.");
    text.line("istio_agent_scrapes_total", "", counts.scrapes.get());
    let name = "istio_agent_scrape_failures_total";
    text.family(name, "counter", "Scrapes of which a part was missing.");
    text.line(name, "type=\"application\"", counts.application_failures.get());
    text.0.push_str(proxy);
    let kind = join(&mut text.0, &answers);
    (text.0, kind)
}

/// Appends the applications' expositions and returns the content type of the whole.
fn join(text: &mut String, answers: &[Answer]) -> String {
    let open: Vec<Option<&str>> = answers.iter().map(open_metrics).collect();
    let all_open = open.first().copied().flatten().filter(|_| open.iter().all(Option::is_some));
    for answer in answers {
        let body = String::from_utf8_lossy(&answer.body);
        let body = body.trim_end().strip_suffix("# EOF").unwrap_or(&body).trim_end();
        text.push_str(body);
        text.push('\n');
    }
    match all_open {
        Some(version) => {
            text.push_str("# EOF\n");
            format!("application/openmetrics-text; version={version}; charset=utf-8")
        }
        None => TEXT.to_owned(),
    }
}

/// The version of OpenMetrics that an answer is in, if it is.
fn open_metrics(answer: &Answer) -> Option<&'static str> {
    let kind = answer.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let open = kind.trim_start().starts_with("application/openmetrics-text");
    open.then(|| if kind.contains("version=1.0.0") { "1.0.0" } else { "0.0.1" })
}

fn request(port: u16, path: &str, accept: &str, asked: &HeaderMap) -> Result<Request<Bytes>, String> {
    let mut request = Request::builder()
        .uri(path)
        .header(header::HOST, format!("localhost:{port}"))
        .header(header::ACCEPT, accept)
        .header(header::CONNECTION, "close");
    for name in ["user-agent", "x-prometheus-scrape-timeout-seconds"] {
        if let Some(value) = asked.get(name) {
            request = request.header(name, value);
        }
    }
    request.body(Bytes::new()).map_err(|error| format!("path {path:?}: {error}"))
}

async fn scrape(port: u16, request: Result<Request<Bytes>, String>) -> Result<Answer, String> {
    let request = request?;
    let mut last = String::new();
    for address in
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))]
    {
        match upstream::connect(Source::Any, address, PATIENCE).await {
            Ok(stream) => {
                let answer = client::ask(stream, Wire::Http1, request, LIMIT).await?;
                return match (answer.status, answer.cut) {
                    (StatusCode::OK, false) => Ok(answer),
                    (StatusCode::OK, true) => Err(format!("more than {LIMIT} bytes")),
                    (status, _) => Err(format!("HTTP status {status}")),
                };
            }
            Err(error) => last = format!("cannot connect to {address}: {error}"),
        }
    }
    Err(last)
}

/// What the application may answer with: of what the scraper accepts only the formats that can be concatenated, so
/// never protobuf. Order is kept.
fn accept(asked: &HeaderMap) -> String {
    let given: Vec<&str> =
        asked.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let given = given.join(",");
    let mut kept: Vec<String> = Vec::new();
    for item in given.split(',').map(str::trim) {
        let mut parts = item.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        // A protobuf delimiter or an escaping scheme is no business of the text formats.
        let version = parts.find(|part| part.starts_with("version="));
        let format = match kind.as_str() {
            "text/plain" => match version {
                Some(version) => format!("text/plain;{version}"),
                None => "text/plain".to_owned(),
            },
            "application/openmetrics-text" => match version {
                Some(version) => format!("application/openmetrics-text;{version}"),
                None => "application/openmetrics-text".to_owned(),
            },
            "application/*" => "application/openmetrics-text;version=0.0.1".to_owned(),
            "*/*" | "*" | "text/*" => "text/plain;version=0.0.4".to_owned(),
            _ => continue,
        };
        if !kept.contains(&format) {
            kept.push(format);
        }
    }
    if kept.is_empty() {
        kept.push("text/plain;version=0.0.4".to_owned());
    }
    let weighted = kept.iter().enumerate().map(|(index, format)| {
        let weight = 9_usize.saturating_sub(index).max(1);
        format!("{format};q=0.{weight}")
    });
    weighted.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn exposition(kind: &'static str, body: &'static str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let body = Bytes::from_static(body.as_bytes());
        Answer { status: StatusCode::OK, headers, body, trailers: HeaderMap::new(), cut: false }
    }

    const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    #[test]
    fn annotations_are_read_as_the_injector_writes_them() {
        let parse = |text: &str| Application::parse(text, &Ports::default());
        let targets = |text: &str| parse(text).unwrap().targets;
        assert_eq!(targets(r#"{"scrape":"true","path":"m","port":"8080"}"#), [(8080, "/m".to_owned())]);
        assert_eq!(targets("{}"), [(80, "/metrics".to_owned())]);
        assert_eq!(targets(r#"{"scrape":"false"}"#), []);
        let several = r#"{"targets":[{"port":"1","path":"/a"},{"port":"2"}]}"#;
        assert_eq!(targets(several), [(1, "/a".to_owned()), (2, "/metrics".to_owned())]);
        for bad in ["15020", "15090", "0", "http", "70000"] {
            let error = parse(&format!(r#"{{"port":"{bad}"}}"#)).unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
    }

    #[test]
    fn one_end_marker_at_the_very_end() {
        let mut text = "proxy 1\n".to_owned();
        let kind = join(&mut text, &[exposition(OPEN, "a 1\n# EOF\n"), exposition(OPEN, "b 2\n# EOF")]);
        assert_eq!(text, "proxy 1\na 1\nb 2\n# EOF\n");
        assert_eq!(kind, OPEN);
    }

    #[test]
    fn mixed_formats_are_text() {
        let mut text = String::new();
        let kind = join(&mut text, &[exposition(OPEN, "a 1\n# EOF\n"), exposition("text/plain", "b 2\n")]);
        assert_eq!(text, "a 1\nb 2\n");
        assert_eq!(kind, TEXT);
        assert_eq!(join(&mut String::new(), &[]), TEXT);
    }

    #[test]
    fn protobuf_is_never_asked_for() {
        let ask = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(value));
            accept(&headers)
        };
        assert_eq!(
            ask(
                "application/vnd.google.protobuf;proto=x;q=0.8,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"
            ),
            "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.8"
        );
        assert_eq!(ask("application/vnd.google.protobuf"), "text/plain;version=0.0.4;q=0.9");
        assert_eq!(accept(&HeaderMap::new()), "text/plain;version=0.0.4;q=0.9");
    }
}
