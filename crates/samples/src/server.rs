//! What the servers share: a listener, a request as a value, answers, and the end at SIGTERM.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Failed;

/// Bytes of a request's body; a longer one is refused with 413.
const LONGEST_BODY: usize = 10_000_000;

/// What is sent back.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A request, whole.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The address that the connection came from.
    pub(crate) peer: IpAddr,
}

/// One thread is enough for all of it.
pub(crate) fn runtime() -> Result<Runtime, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| (1, format!("no runtime: {error}")))
}

/// The signals that end a program.
#[derive(Debug)]
pub(crate) struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    /// From now on, SIGTERM and SIGINT end nothing by themselves.
    pub(crate) fn new() -> Result<Ends, Failed> {
        let of = |kind| signal(kind).map_err(|error| (1, format!("signals cannot be waited for: {error}")));
        Ok(Ends { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until SIGTERM, which ends what is being answered, too. The only argument may say where to listen:
/// `[ADDRESS:]PORT`.
pub(crate) fn run<A, F>(arguments: &[String], port: u16, answer: A) -> Result<(), Failed>
where
    A: Fn(Asked) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let addresses = addresses(arguments, port).map_err(|reason| (2, reason))?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let mut ends = Ends::new()?;
        let bound = TcpListener::bind(&addresses[..]).await;
        let (listener, address) =
            bound.and_then(|listener| listener.local_addr().map(|address| (listener, address))).map_err(
                |error| (1, format!("port {}: {error}", addresses.first().map_or(port, SocketAddr::port))),
            )?;
        log(&format!("listens on {address}"));
        tokio::select! {
            () = ends.wait() => Ok(()),
            () = serve(listener, answer) => Ok(()),
        }
    });
    // Where names are looked up, a thread may wait for an answer that nobody needs any more.
    runtime.shutdown_background();
    ended
}

/// Where to listen, the first that the machine has.
fn addresses(arguments: &[String], port: u16) -> Result<Vec<SocketAddr>, String> {
    // The first takes IPv4, too; a kernel without IPv6 has only the second.
    let everywhere = |port| {
        vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))]
    };
    match arguments {
        [] => Ok(everywhere(port)),
        [word] => match (word.parse(), word.parse()) {
            (Ok(port), _) => Ok(everywhere(port)),
            (_, Ok(address)) => Ok(vec![address]),
            _ => Err(format!(
                "{word:?} is no place to listen: expected [ADDRESS:]PORT, such as 127.0.0.1:{port}"
            )),
        },
        [_, second, ..] => Err(format!("one place to listen at most; {second:?} is a second")),
    }
}

/// Answers whoever connects, for ever.
pub(crate) async fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Asked) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(connection(stream, peer.ip().to_canonical(), answer.clone()));
            }
            // Of file descriptors there may be more soon.
            Err(error) => {
                log(&format!("no connection was accepted: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection<A, F>(stream: TcpStream, peer: IpAddr, answer: A)
where
    A: Fn(Asked) -> F,
    F: Future<Output = Answer>,
{
    let service = hyper::service::service_fn(|request: http::Request<Incoming>| async {
        let (head, body) = request.into_parts();
        let line = format!("{peer} \"{} {} {:?}\"", head.method, head.uri, head.version);
        // A kubelet asks every second.
        let probe =
            head.headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"kube-probe/"));
        let answer = match Limited::new(body, LONGEST_BODY).collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                answer(Asked { method: head.method, uri: head.uri, headers: head.headers, body, peer }).await
            }
            Err(error) if error.is::<LengthLimitError>() => {
                let reason = format!("the body has more than {LONGEST_BODY} bytes");
                refused(StatusCode::PAYLOAD_TOO_LARGE, &reason)
            }
            Err(error) => refused(StatusCode::BAD_REQUEST, &format!("the body: {error}")),
        };
        if !probe {
            log(&format!("{line} {}", answer.status().as_u16()));
        }
        Ok::<_, Infallible>(answer)
    });
    // A client that goes away, or that speaks something else, is its own affair. One that rests keeps its connection: a
    // proxy's pool would else meet its end with a request on the way.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A line of the container's log.
fn log(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What stands in a path for the parameter of a pattern: `7` in `/status/7` for `/status/{code}`. It is one segment, or all
/// that is left for `{path...}`. A pattern without a parameter stands for itself.
fn parameter<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let parts = pattern.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    let Some((before, (name, behind))) = parts else { return (pattern == path).then_some("") };
    let found = path.strip_prefix(before)?.strip_suffix(behind)?;
    (!found.is_empty() && (name.ends_with("...") || !found.contains('/'))).then_some(found)
}

/// A path of a server.
#[derive(Debug)]
pub(crate) struct Route<H> {
    /// The path, with one parameter at most: `/status/{code}`.
    pub(crate) path: &'static str,
    /// The methods that it takes; none stands for all. HEAD is GET without the body.
    pub(crate) methods: &'static [Method],
    /// What it answers.
    pub(crate) says: &'static str,
    /// How.
    pub(crate) handler: H,
}

impl<H> Route<H> {
    /// Whether it takes this method.
    fn takes(&self, method: &Method) -> bool {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.methods.is_empty() || self.methods.contains(method)
    }
}

/// The route for a request, and its parameter.
///
/// # Errors
/// 404 with all routes, or 405 with the methods that the path takes.
pub(crate) fn route<'r, 'a, H>(
    routes: &'r [Route<H>],
    asked: &'a Asked,
) -> Result<(&'r Route<H>, &'a str), Box<Answer>> {
    let path = asked.uri.path();
    let mut methods = Vec::new();
    for route in routes {
        let Some(parameter) = parameter(route.path, path) else { continue };
        if route.takes(&asked.method) {
            return Ok((route, parameter));
        }
        methods.extend(route.methods.iter().map(Method::as_str));
    }
    let mut answer;
    if methods.is_empty() {
        let paths: Vec<_> = routes.iter().map(|route| route.path).collect();
        answer = json_answer(&json!({"error": format!("there is nothing at {path}"), "paths": paths}));
        *answer.status_mut() = StatusCode::NOT_FOUND;
    } else {
        let methods = methods.join(", ");
        let reason = format!("{path} takes {methods}, not {}", asked.method);
        answer = refused(StatusCode::METHOD_NOT_ALLOWED, &reason);
        if let Ok(methods) = HeaderValue::from_str(&methods) {
            answer.headers_mut().insert(ALLOW, methods);
        }
    }
    Err(Box::new(answer))
}

/// An answer of a body of this type.
pub(crate) fn whole(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    answer(content_type, Full::new(body.into()))
}

/// A value, indented.
pub(crate) fn json_answer(value: &Value) -> Answer {
    whole("application/json", format!("{value:#}\n"))
}

/// An answer that says what is wrong.
pub(crate) fn refused(status: StatusCode, reason: &str) -> Answer {
    let mut answer = json_answer(&json!({"error": reason}));
    *answer.status_mut() = status;
    answer
}

/// An answer that is made piece by piece, as the client reads.
pub(crate) fn pieces(
    content_type: &'static str,
    length: Option<u64>,
    pieces: impl Iterator<Item = Bytes> + Send + Unpin + 'static,
) -> Answer {
    answer(content_type, Pieces { length, pieces })
}

fn answer<B>(content_type: &'static str, body: B) -> Answer
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let mut answer = Response::new(body.boxed_unsync());
    *answer.version_mut() = Version::HTTP_11;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A body of pieces; with their length, if it is known.
#[derive(Debug)]
struct Pieces<I> {
    length: Option<u64>,
    pieces: I,
}

impl<I: Iterator<Item = Bytes> + Unpin> Body for Pieces<I> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_a_segment_or_the_rest() {
        assert_eq!(parameter("/ip", "/ip"), Some(""));
        assert_eq!(parameter("/ip", "/ip/"), None);
        assert_eq!(parameter("/status/{code}", "/status/7"), Some("7"));
        for path in ["/status/", "/status", "/status/7/8", "/stat/7"] {
            assert_eq!(parameter("/status/{code}", path), None, "{path}");
        }
        assert_eq!(parameter("/anything/{path...}", "/anything/a/b"), Some("a/b"));
        assert_eq!(parameter("/products/{id}/reviews", "/products/0/reviews"), Some("0"));
        for path in ["/products/0", "/products//reviews", "/products/reviews", "/products/0/1/reviews"] {
            assert_eq!(parameter("/products/{id}/reviews", path), None, "{path}");
        }
    }

    #[test]
    fn where_to_listen_is_a_port_or_an_address_with_one() {
        let of =
            |words: &[&str]| addresses(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>(), 80);
        let texts = |words: &[&str]| of(words).unwrap().iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&[]), ["[::]:80", "0.0.0.0:80"]);
        assert_eq!(texts(&["8080"]), ["[::]:8080", "0.0.0.0:8080"]);
        assert_eq!(texts(&["127.0.0.1:0"]), ["127.0.0.1:0"]);
        assert_eq!(texts(&["[::1]:9"]), ["[::1]:9"]);
        let wrong = "\"localhost\" is no place to listen: expected [ADDRESS:]PORT, such as 127.0.0.1:80";
        assert_eq!(of(&["localhost"]), Err(wrong.to_owned()));
        assert_eq!(of(&["1", "2"]), Err("one place to listen at most; \"2\" is a second".to_owned()));
    }
}
