//! Answers with what it was asked, as httpbin (<https://httpbin.org>) does: the same paths, the same JSON.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::Failed;
use crate::server::{self, Answer, Asked, Route, json_answer, pieces, refused, whole};

const PORT: u16 = 8000;

/// The longest that `/delay` waits.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// The most lines of `/stream`.
const MOST_LINES: u64 = 100;

/// Bytes of a piece of `/bytes`.
const PIECE: u64 = 16_384;

/// Serves until SIGTERM.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    server::run(arguments, PORT, answer)
}

/// What a path answers, and after what time.
#[derive(Debug)]
struct Reply {
    delay: Duration,
    answer: Answer,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Reply {
        Reply { delay: Duration::ZERO, answer }
    }
}

/// Makes the answer to a request from it and the parameter of its path.
type Handler = fn(&Asked, &str) -> Reply;

const fn at(
    path: &'static str,
    methods: &'static [Method],
    says: &'static str,
    handler: Handler,
) -> Route<Handler> {
    Route { path, methods, says, handler }
}

const GET: &[Method] = &[Method::GET];

/// Every path.
static ROUTES: [Route<Handler>; 17] = [
    at("/", GET, "this page", |_, _| index().into()),
    at("/headers", GET, "the request's headers", |asked, _| {
        json_answer(&json!({"headers": headers(&asked.headers)})).into()
    }),
    at("/ip", GET, "the address that the request came from", |asked, _| {
        json_answer(&json!({"origin": origin(asked)})).into()
    }),
    at("/user-agent", GET, "the client's name for itself", |asked, _| {
        json_answer(&json!({"user-agent": asked.headers.get("user-agent").map(text)})).into()
    }),
    at("/hostname", GET, "which pod answers", |_, _| hostname().into()),
    at("/get", GET, "the request", |asked, _| {
        json_answer(&only(described(asked), &["args", "headers", "origin", "url"])).into()
    }),
    at("/post", &[Method::POST], "the request, with its body as data, form and JSON", |asked, _| {
        with_body(asked).into()
    }),
    at("/put", &[Method::PUT], "the same", |asked, _| with_body(asked).into()),
    at("/patch", &[Method::PATCH], "the same", |asked, _| with_body(asked).into()),
    at("/delete", &[Method::DELETE], "the same", |asked, _| with_body(asked).into()),
    at("/anything", &[], "the request, whatever its method", |asked, _| {
        json_answer(&described(asked)).into()
    }),
    at("/anything/{path...}", &[], "the same", |asked, _| json_answer(&described(asked)).into()),
    at("/status/{code}", &[], "nothing, with this status", |_, code| status(code).into()),
    at("/delay/{seconds}", &[], "the request, after so many seconds, 10 at most", delay),
    at("/bytes/{count}", GET, "so many random bytes", |_, count| bytes(count).into()),
    at("/stream/{lines}", GET, "the request, once a line, 100 at most", |asked, lines| {
        stream(asked, lines).into()
    }),
    at("/response-headers", GET, "the arguments, and as headers", |asked, _| response_headers(asked).into()),
];

async fn answer(asked: Asked) -> Answer {
    let Reply { delay, answer } = match server::route(&ROUTES, &asked) {
        Ok((route, parameter)) => (route.handler)(&asked, parameter),
        Err(refusal) => return *refusal,
    };
    tokio::time::sleep(delay).await;
    answer
}

fn index() -> Answer {
    let rows: String = ROUTES
        .iter()
        .map(|route| {
            let methods: Vec<_> = route.methods.iter().map(Method::as_str).collect();
            let methods = if methods.is_empty() { "any".to_owned() } else { methods.join(", ") };
            format!(
                "<tr><td>{methods}</td><td><code>{}</code></td><td>{}</td></tr>\n",
                route.path, route.says
            )
        })
        .collect();
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>httpbin</title>\n\
         <style>body {{ font-family: sans-serif; margin: 2em }} td {{ padding: 0.2em 1em 0.2em 0 }}</style>\n\
         <h1>httpbin</h1>\n<p>Answers with what it was asked.</p>\n<table>\n{rows}</table>\n</html>\n"
    );
    whole("text/html; charset=utf-8", page)
}

/// All that is known of a request. Parts of a form (`multipart/form-data`) are not taken apart: they are in `data`.
fn described(asked: &Asked) -> Value {
    let is_form = asked
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|given| given.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    let data = match std::str::from_utf8(&asked.body) {
        _ if is_form => String::new(),
        Ok(text) => text.to_owned(),
        Err(_) => format!("data:application/octet-stream;base64,{}", BASE64_STANDARD.encode(&asked.body)),
    };
    json!({
        "args": pairs(asked.uri.query().unwrap_or_default().as_bytes()),
        "data": data,
        "files": {},
        "form": if is_form { pairs(&asked.body) } else { json!({}) },
        "headers": headers(&asked.headers),
        "json": serde_json::from_slice::<Value>(&asked.body).ok(),
        "method": asked.method.as_str(),
        "origin": origin(asked),
        "url": url(asked),
    })
}

/// These fields of an object.
fn only(value: Value, fields: &[&str]) -> Value {
    let Value::Object(all) = value else { return value };
    all.into_iter().filter(|(name, _)| fields.contains(&name.as_str())).collect::<Map<_, _>>().into()
}

fn with_body(asked: &Asked) -> Answer {
    let fields = ["args", "data", "files", "form", "headers", "json", "origin", "url"];
    json_answer(&only(described(asked), &fields))
}

/// The pairs of a query or a form. A name that comes again has the list of its values.
fn pairs(encoded: &[u8]) -> Value {
    let mut pairs = Map::new();
    for (name, value) in form_urlencoded::parse(encoded) {
        let value = Value::from(value);
        match pairs.get_mut(&*name) {
            None => {
                pairs.insert(name.into_owned(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    pairs.into()
}

/// The headers by name, as `X-Request-Id`; those of one name are joined by commas.
fn headers(headers: &HeaderMap) -> Value {
    let of = |name: &HeaderName| {
        let values: Vec<_> = headers.get_all(name).iter().map(text).collect();
        (title_case(name.as_str()), Value::from(values.join(",")))
    };
    headers.keys().map(of).collect::<Map<_, _>>().into()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// `x-request-id` as `X-Request-Id`.
fn title_case(name: &str) -> String {
    let mut start = true;
    let letter = |letter: char| {
        let upper = std::mem::replace(&mut start, letter == '-');
        if upper { letter.to_ascii_uppercase() } else { letter }
    };
    name.chars().map(letter).collect()
}

/// Where the request came from, as proxies before us say, or as the connection does.
fn origin(asked: &Asked) -> String {
    asked.headers.get("x-forwarded-for").map_or_else(|| asked.peer.to_string(), text)
}

/// What the client asked for.
fn url(asked: &Asked) -> String {
    let scheme = asked.headers.get("x-forwarded-proto").map_or_else(|| "http".to_owned(), text);
    let host = asked.headers.get(HOST).map(text).unwrap_or_default();
    format!("{scheme}://{host}{}", asked.uri.path_and_query().map_or("/", |path| path.as_str()))
}

fn hostname() -> Answer {
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(name) => json_answer(&json!({"hostname": name.trim_end()})),
        Err(error) => {
            refused(StatusCode::INTERNAL_SERVER_ERROR, &format!("/proc/sys/kernel/hostname: {error}"))
        }
    }
}

/// A number in a path.
fn number(what: &str, given: &str) -> Result<u64, Box<Answer>> {
    given.parse().map_err(|_| {
        Box::new(refused(
            StatusCode::BAD_REQUEST,
            &format!("{given:?} is no number of {what}: expected 0, 1, 2 …"),
        ))
    })
}

fn status(code: &str) -> Answer {
    // Those under 200 announce another answer.
    let code = code.parse().ok().filter(|code| (200..=599).contains(code));
    let Some(code) = code.and_then(|code| StatusCode::from_u16(code).ok()) else {
        return refused(StatusCode::BAD_REQUEST, "expected a status from 200 to 599");
    };
    let mut answer = whole("text/plain", "");
    *answer.status_mut() = code;
    answer
}

fn delay(asked: &Asked, seconds: &str) -> Reply {
    match seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(delay) => {
            let fields = ["args", "data", "files", "form", "headers", "origin", "url"];
            let answer = json_answer(&only(described(asked), &fields));
            Reply { delay: delay.min(LONGEST_DELAY), answer }
        }
        None => refused(StatusCode::BAD_REQUEST, &format!("{seconds:?} is no time: expected seconds")).into(),
    }
}

fn bytes(count: &str) -> Answer {
    let count = match number("bytes", count) {
        Ok(count) => count,
        Err(refusal) => return *refusal,
    };
    let mut left = count;
    let piece = move || {
        let size = left.min(PIECE);
        left -= size;
        let mut piece = vec![0; usize::try_from(size).ok()?];
        fastrand::fill(&mut piece);
        (size > 0).then(|| Bytes::from(piece))
    };
    pieces("application/octet-stream", Some(count), std::iter::from_fn(piece))
}

fn stream(asked: &Asked, lines: &str) -> Answer {
    let lines = match number("lines", lines) {
        Ok(lines) => lines.min(MOST_LINES),
        Err(refusal) => return *refusal,
    };
    let mut described = only(described(asked), &["args", "headers", "origin", "url"]);
    let line = move |id| {
        described["id"] = Value::from(id);
        Bytes::from(format!("{described}\n"))
    };
    pieces("application/json", None, (0..lines).map(line))
}

fn response_headers(asked: &Asked) -> Answer {
    let query = asked.uri.query().unwrap_or_default().as_bytes();
    let mut answer = json_answer(&pairs(query));
    for (name, value) in form_urlencoded::parse(query) {
        match (HeaderName::try_from(&*name), HeaderValue::try_from(&*value)) {
            (Ok(name), Ok(value)) if name == CONTENT_TYPE => {
                answer.headers_mut().insert(name, value);
            }
            // How long the body is, and where it ends, is the server's to say.
            (Ok(name), Ok(value))
                if !["content-length", "transfer-encoding", "connection"].contains(&name.as_str()) =>
            {
                answer.headers_mut().append(name, value);
            }
            _ => {
                return refused(
                    StatusCode::BAD_REQUEST,
                    &format!("{name}: {value} is no header that can be set"),
                );
            }
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    /// A request from 10.1.2.3.
    fn asked(
        method: &str,
        uri: &str,
        headers: &[(&'static str, &'static str)],
        body: &'static [u8],
    ) -> Asked {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Asked {
            method: method.parse().unwrap(),
            uri: uri.parse().unwrap(),
            headers: headers.collect(),
            body: Bytes::from_static(body),
            peer: [10, 1, 2, 3].into(),
        }
    }

    async fn body(answer: Answer) -> Bytes {
        answer.into_body().collect().await.unwrap().to_bytes()
    }

    /// The status and the JSON of the answer to a request.
    async fn json_of(asked: Asked) -> (u16, Value) {
        let answer = answer(asked).await;
        let status = answer.status().as_u16();
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        (status, serde_json::from_slice(&body(answer).await).unwrap())
    }

    async fn get(uri: &str) -> Answer {
        answer(asked("GET", uri, &[], b"")).await
    }

    #[tokio::test]
    async fn headers_have_their_usual_names() {
        let headers = [("host", "httpbin:8000"), ("x-request-id", "7"), ("b3", "0")];
        let (status, json) = json_of(asked("GET", "/headers", &headers, b"")).await;
        assert_eq!(status, 200);
        assert_eq!(json, json!({"headers": {"Host": "httpbin:8000", "X-Request-Id": "7", "B3": "0"}}));

        let mut twice = asked("GET", "/headers", &[("accept", "a"), ("accept", "b")], b"");
        twice.headers.insert("x-odd", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        let (_, json) = json_of(twice).await;
        assert_eq!(json, json!({"headers": {"Accept": "a,b", "X-Odd": "caf\u{fffd}"}}));
    }

    #[tokio::test]
    async fn the_origin_is_the_connections_or_what_a_proxy_says() {
        assert_eq!(json_of(asked("GET", "/ip", &[], b"")).await, (200, json!({"origin": "10.1.2.3"})));
        let forwarded = [("x-forwarded-for", "192.0.2.7, 10.9.9.9")];
        let (_, json) = json_of(asked("GET", "/ip", &forwarded, b"")).await;
        assert_eq!(json, json!({"origin": "192.0.2.7, 10.9.9.9"}));
    }

    #[tokio::test]
    async fn get_tells_arguments_and_url() {
        let headers = [("host", "httpbin:8000"), ("user-agent", "curl")];
        let uri = "/get?a=1&b=x+y%26&a=2&empty=";
        let (_, json) = json_of(asked("GET", uri, &headers, b"")).await;
        assert_eq!(
            json,
            json!({
                "args": {"a": ["1", "2"], "b": "x y&", "empty": ""},
                "headers": {"Host": "httpbin:8000", "User-Agent": "curl"},
                "origin": "10.1.2.3",
                "url": "http://httpbin:8000/get?a=1&b=x+y%26&a=2&empty=",
            })
        );
        let secure = [("host", "example.com"), ("x-forwarded-proto", "https")];
        let (_, json) = json_of(asked("GET", "/get", &secure, b"")).await;
        assert_eq!(json["url"], "https://example.com/get");
        let (_, json) = json_of(asked("GET", "/user-agent", &headers, b"")).await;
        assert_eq!(json, json!({"user-agent": "curl"}));
    }

    #[tokio::test]
    async fn a_body_is_a_form_or_json_or_data() {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let (_, json) = json_of(asked("POST", "/post?q=1", &form, b"a=b&c=%C3%A9")).await;
        assert_eq!(
            (&json["form"], &json["data"], &json["json"]),
            (&json!({"a": "b", "c": "é"}), &json!(""), &Value::Null)
        );
        assert_eq!((&json["args"], &json["files"]), (&json!({"q": "1"}), &json!({})));
        assert_eq!(json["url"], "http:///post?q=1");

        let typed = [("content-type", "application/json")];
        let (_, json) = json_of(asked("PUT", "/put", &typed, br#"{"a": [1]}"#)).await;
        assert_eq!((&json["json"], &json["data"]), (&json!({"a": [1]}), &json!(r#"{"a": [1]}"#)));
        assert_eq!(json["form"], json!({}));

        let (_, json) = json_of(asked("PATCH", "/patch", &[], b"\xff\x00")).await;
        assert_eq!(json["data"], "data:application/octet-stream;base64,/wA=");
        let (_, json) = json_of(asked("DELETE", "/delete", &[], b"")).await;
        assert_eq!(json["data"], "");
        assert!(json.get("method").is_none(), "{json}");
    }

    #[tokio::test]
    async fn anything_takes_every_method_and_every_path_below() {
        let (_, json) = json_of(asked("PROPFIND", "/anything/a/b", &[("host", "h")], b"text")).await;
        assert_eq!((&json["method"], &json["url"]), (&json!("PROPFIND"), &json!("http://h/anything/a/b")));
        assert_eq!(json["data"], "text");
        assert_eq!(json_of(asked("GET", "/anything", &[], b"")).await.1["method"], "GET");
    }

    #[tokio::test]
    async fn a_status_is_answered_if_it_can_be() {
        for code in [200, 204, 304, 404, 418, 503, 599] {
            let answer = get(&format!("/status/{code}")).await;
            assert_eq!(answer.status().as_u16(), code);
            assert!(body(answer).await.is_empty());
        }
        for code in ["100", "199", "600", "-1", "ok"] {
            let (status, json) = json_of(asked("GET", &format!("/status/{code}"), &[], b"")).await;
            assert_eq!((status, json), (400, json!({"error": "expected a status from 200 to 599"})));
        }
    }

    #[test]
    fn a_delay_has_a_limit() {
        let of = |seconds| delay(&asked("GET", "/delay/1", &[], b""), seconds);
        assert_eq!(of("0.25").delay, Duration::from_millis(250));
        assert_eq!(of("3600").delay, Duration::from_secs(10));
        for seconds in ["-1", "nan", "soon"] {
            let reply = of(seconds);
            assert_eq!((reply.delay, reply.answer.status().as_u16()), (Duration::ZERO, 400), "{seconds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_is_waited_for() {
        let before = tokio::time::Instant::now();
        let (status, json) = json_of(asked("POST", "/delay/7", &[("host", "h")], b"x")).await;
        assert_eq!(before.elapsed(), Duration::from_secs(7));
        assert_eq!((status, &json["url"], &json["data"]), (200, &json!("http://h/delay/7"), &json!("x")));
    }

    #[tokio::test]
    async fn bytes_are_as_many_as_asked_for() {
        for count in [0, 1, 16_384, 100_000] {
            let answer = get(&format!("/bytes/{count}")).await;
            assert_eq!(answer.headers()[CONTENT_TYPE], "application/octet-stream");
            assert_eq!(hyper::body::Body::size_hint(answer.body()).exact(), Some(count as u64));
            assert_eq!(body(answer).await.len(), count);
        }
        assert_ne!(body(get("/bytes/64").await).await, body(get("/bytes/64").await).await);
        assert_eq!(get("/bytes/many").await.status(), 400);
    }

    #[tokio::test]
    async fn a_stream_has_a_line_for_each_number() {
        let text = body(get("/stream/3?a=b").await).await;
        let lines: Vec<Value> =
            text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let ids: Vec<_> = lines.iter().map(|line| line["id"].as_u64().unwrap()).collect();
        assert_eq!(ids, [0, 1, 2]);
        assert_eq!(lines[2]["args"], json!({"a": "b"}));
        let text = body(get("/stream/1000").await).await;
        assert_eq!(text.iter().filter(|b| **b == b'\n').count(), 100);
    }

    #[tokio::test]
    async fn headers_are_answered_as_asked_for() {
        let answer = get("/response-headers?x-a=1&x-a=2&content-type=text/plain").await;
        let values: Vec<_> = answer.headers().get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!(answer.headers()[CONTENT_TYPE], "text/plain");
        let json: Value = serde_json::from_slice(&body(answer).await).unwrap();
        assert_eq!(json, json!({"x-a": ["1", "2"], "content-type": "text/plain"}));
        for query in ["a%20b=1", "x=%0A", "content-length=7"] {
            assert_eq!(get(&format!("/response-headers?{query}")).await.status(), 400, "{query}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_refused_with_what_is() {
        let (status, json) = json_of(asked("GET", "/header", &[], b"")).await;
        assert_eq!((status, &json["error"]), (404, &json!("there is nothing at /header")));
        assert!(json["paths"].as_array().unwrap().contains(&json!("/headers")), "{json}");

        let answer = answer(asked("GET", "/post", &[], b"")).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["allow"]),
            (405, &HeaderValue::from_static("POST"))
        );

        let page = get("/").await;
        assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        let page = String::from_utf8(body(page).await.to_vec()).unwrap();
        for route in &ROUTES {
            assert!(
                page.contains(&format!("<code>{}</code></td><td>{}</td>", route.path, route.says)),
                "{page}"
            );
        }
    }
}
