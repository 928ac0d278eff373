//! A page about a book, made by four services that call one another, as in Istio's Bookinfo: the same paths, ports and JSON.
//!
//! ```text
//! productpage ──> details
//!             └─> reviews v1, v2, v3 ──> ratings     (v1 calls nobody)
//! ```

pub(crate) mod details;
mod page;
pub(crate) mod productpage;
pub(crate) mod ratings;
pub(crate) mod reviews;

use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use crate::Failed;
use crate::client::{self, Unconnected};
use crate::server::{self, Answer, Asked, Route, json_answer, refused};

const PORT: u16 = 9080;

const GET: &[Method] = &[Method::GET];

/// What one part passes on to the next: which request it is, which trace it is part of, and who asks. Proxies see
/// connections, and only the application knows which request led to which.
const PASSED_ON: [&str; 16] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "sw8",
    "end-user",
];

/// Where another part is.
#[derive(Debug, Clone)]
struct Service {
    name: &'static str,
    host: String,
    port: u16,
}

impl Service {
    /// As Istio's own: `DETAILS_HOSTNAME` and `DETAILS_SERVICE_PORT` are the host and port of `details`, by default its
    /// name and 9080. The second is a variable that a kubelet sets, too.
    fn read(name: &'static str, env: &dyn Fn(&str) -> Option<String>) -> Result<Service, Failed> {
        let upper = name.to_ascii_uppercase();
        let host = env(&format!("{upper}_HOSTNAME")).unwrap_or_else(|| name.to_owned());
        let port = match env(&format!("{upper}_SERVICE_PORT")) {
            None => PORT,
            Some(port) => port.parse().map_err(|_| {
                (2, format!("{upper}_SERVICE_PORT={port:?} is no port: expected a number up to 65535"))
            })?,
        };
        Ok(Service { name, host, port })
    }

    /// Asks for a path, with what is passed on, and gives the status and the JSON of the answer.
    ///
    /// # Errors
    /// Why there is none, when there is none within `patience`.
    async fn ask(
        &self,
        path: &str,
        headers: HeaderMap,
        patience: Duration,
    ) -> Result<(StatusCode, Value), String> {
        let answer = tokio::time::timeout(patience, self.ask_patiently(path, headers)).await;
        answer.unwrap_or_else(|_| Err(format!("no answer within {patience:?}")))
    }

    async fn ask_patiently(&self, path: &str, mut headers: HeaderMap) -> Result<(StatusCode, Value), String> {
        let Service { host, port, .. } = self;
        let connected = client::connect(host, *port).await.map_err(|error| match error {
            Unconnected::Resolve => format!("no address of {host} is known"),
            Unconnected::Connect(error) => format!("{host}:{port}: {error}"),
        })?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = path.parse().map_err(|error| format!("{path}: {error}"))?;
        headers.insert(
            HOST,
            HeaderValue::try_from(format!("{host}:{port}")).map_err(|error| error.to_string())?,
        );
        *request.headers_mut() = headers;
        let answer = client::exchange(connected.stream, request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        let body =
            serde_json::from_slice(&body).map_err(|error| format!("{status}, and no JSON: {error}"))?;
        Ok((status, body))
    }

    /// What [`Service::ask`] gives, if it is a success.
    async fn ask_for(&self, path: &str, headers: HeaderMap, patience: Duration) -> Result<Value, String> {
        match self.ask(path, headers, patience).await? {
            (status, body) if status.is_success() => Ok(body),
            (status, body) => Err(match body["error"].as_str() {
                Some(error) => format!("{status}: {error}"),
                None => status.to_string(),
            }),
        }
    }
}

/// The headers of a request that the next part gets, too.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let is_passed = |name: &str| PASSED_ON.contains(&name);
    let passed = headers.iter().filter(|(name, _)| is_passed(name.as_str()));
    let mut all = HeaderMap::new();
    for (name, value) in passed {
        all.append(name, value.clone());
    }
    all
}

/// The number of a book.
fn product(id: &str) -> Result<u64, Box<Answer>> {
    let wrong = || refused(StatusCode::BAD_REQUEST, &format!("{id:?} is no product: expected a number"));
    id.parse().map_err(|_| Box::new(wrong()))
}

/// Answers by the parameter of a path alone.
type ById = fn(&str) -> Answer;

/// The answer of the path that is asked for.
fn by_id(routes: &[Route<ById>], asked: &Asked) -> Answer {
    match server::route(routes, asked) {
        Ok((route, id)) => (route.handler)(id),
        Err(refusal) => *refusal,
    }
}

/// What a kubelet asks.
const fn health<H>(handler: H) -> Route<H> {
    Route { path: "/health", methods: GET, says: "whether it is there", handler }
}

fn healthy(name: &str) -> Answer {
    json_answer(&json!({"status": format!("{name} is healthy")}))
}

/// The environment.
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::server::serve;

    /// A GET with these headers.
    pub(super) fn asked(path: &str, headers: &[(&'static str, &'static str)]) -> Asked {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        Asked {
            method: Method::GET,
            uri: path.parse().unwrap(),
            headers: headers.collect(),
            body: Bytes::new(),
            peer: [127, 0, 0, 1].into(),
        }
    }

    /// The status and the JSON of an answer.
    pub(super) async fn json_of(answer: Answer) -> (u16, Value) {
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    fn service(name: &'static str, address: SocketAddr) -> Service {
        Service { name, host: address.ip().to_string(), port: address.port() }
    }

    /// A service that answers by `answer`.
    pub(super) async fn served<A, F>(name: &'static str, answer: A) -> Service
    where
        A: Fn(Asked) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, answer));
        service(name, address)
    }

    /// A service that nobody serves, for as long as the socket is kept.
    pub(super) fn away(name: &'static str) -> (Service, TcpSocket) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        (service(name, socket.local_addr().unwrap()), socket)
    }

    #[test]
    fn a_service_is_where_the_environment_says_or_at_its_name() {
        let none = |_: &str| None;
        let by_name = Service::read("ratings", &none).unwrap();
        assert_eq!((by_name.host.as_str(), by_name.port), ("ratings", 9080));
        let env = |name: &str| match name {
            "RATINGS_HOSTNAME" => Some("ratings.books".to_owned()),
            "RATINGS_SERVICE_PORT" => Some("80".to_owned()),
            _ => None,
        };
        let told = Service::read("ratings", &env).unwrap();
        assert_eq!((told.host.as_str(), told.port), ("ratings.books", 80));
        let wrong = Service::read("ratings", &|_| Some("tcp://10.0.0.1:9080".to_owned())).unwrap_err();
        assert_eq!(
            wrong,
            (
                2,
                "RATINGS_SERVICE_PORT=\"tcp://10.0.0.1:9080\" is no port: expected a number up to 65535"
                    .to_owned()
            )
        );
    }

    #[test]
    fn the_trace_is_passed_on_and_nothing_else() {
        let sent = asked(
            "/",
            &[
                ("host", "productpage:9080"),
                ("x-request-id", "7"),
                ("traceparent", "00-1-2-01"),
                ("tracestate", "a=b"),
                ("tracestate", "c=d"),
                ("x-b3-traceid", "1"),
                ("content-length", "0"),
                ("end-user", "jason"),
            ],
        );
        let mut passed: Vec<_> = passed_on(&sent.headers)
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap().to_owned()))
            .collect();
        passed.sort();
        let expected = [
            ("end-user", "jason"),
            ("traceparent", "00-1-2-01"),
            ("tracestate", "a=b"),
            ("tracestate", "c=d"),
            ("x-b3-traceid", "1"),
            ("x-request-id", "7"),
        ];
        assert_eq!(passed, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[tokio::test]
    async fn what_fails_has_its_reason() {
        let (service, _socket) = away("details");
        let patience = Duration::from_secs(60);
        let error = service.ask_for("/details/0", HeaderMap::new(), patience).await.unwrap_err();
        assert!(error.starts_with(&format!("127.0.0.1:{}: ", service.port)), "{error}");
        assert!(error.contains("refused"), "{error}");

        let text = served("details", |_| async { crate::server::whole("text/plain", "hello") }).await;
        let error = text.ask_for("/", HeaderMap::new(), patience).await.unwrap_err();
        assert!(error.starts_with("200 OK, and no JSON: "), "{error}");

        let broken = served("details", |_| async { refused(StatusCode::BAD_GATEWAY, "out") }).await;
        let error = broken.ask_for("/", HeaderMap::new(), patience).await.unwrap_err();
        assert_eq!(error, "502 Bad Gateway: out");

        let slow = served("details", |_| async { std::future::pending().await }).await;
        let error = slow.ask_for("/", HeaderMap::new(), Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error, "no answer within 20ms");
    }
}
