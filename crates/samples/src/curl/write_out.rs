//! `--write-out`: text with variables about a transfer (`man curl`).

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

/// What is known of a transfer when it has ended.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) url: String,
    pub(super) method: String,
    pub(super) status: Option<StatusCode>,
    pub(super) headers: HeaderMap,
    pub(super) remote: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    /// Bytes of the body.
    pub(super) received: u64,
    /// From the start until the server's address was known, there was a connection, the head of the answer was there, and
    /// all had ended.
    pub(super) resolved: Duration,
    pub(super) connected: Duration,
    pub(super) answered: Duration,
    pub(super) ended: Duration,
    /// How the transfer ended.
    pub(super) exit: u8,
    pub(super) error: String,
}

impl Record {
    /// Whether it failed in a way that may pass, by curl's list.
    pub(super) fn is_transient(&self) -> bool {
        let status = self.status.map(|status| status.as_u16());
        self.exit == 28 || matches!(status, Some(408 | 429 | 500 | 502 | 503 | 504))
    }
}

type Variable = (&'static str, fn(&Record) -> String);

/// Every variable, but for `header{Name}`.
const VARIABLES: [Variable; 17] = [
    ("http_code", status),
    ("response_code", status),
    ("content_type", |record| header(record, "content-type")),
    ("size_download", |record| record.received.to_string()),
    ("time_namelookup", |record| seconds(record.resolved)),
    ("time_connect", |record| seconds(record.connected)),
    ("time_starttransfer", |record| seconds(record.answered)),
    ("time_total", |record| seconds(record.ended)),
    ("remote_ip", |record| address(record.remote)),
    ("remote_port", |record| port(record.remote)),
    ("local_ip", |record| address(record.local)),
    ("local_port", |record| port(record.local)),
    ("method", |record| record.method.clone()),
    ("url", |record| record.url.clone()),
    ("url_effective", |record| record.url.clone()),
    ("exitcode", |record| record.exit.to_string()),
    ("errormsg", |record| record.error.clone()),
];

pub(super) fn names() -> Vec<&'static str> {
    VARIABLES.iter().map(|(name, _)| *name).collect()
}

/// The three digits of the answer; without one, zeros.
fn status(record: &Record) -> String {
    record.status.map_or_else(|| "000".to_owned(), |status| status.as_str().to_owned())
}

fn header(record: &Record, name: &str) -> String {
    record
        .headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default()
}

fn seconds(time: Duration) -> String {
    format!("{:.6}", time.as_secs_f64())
}

fn address(of: Option<SocketAddr>) -> String {
    of.map(|address| address.ip().to_string()).unwrap_or_default()
}

fn port(of: Option<SocketAddr>) -> String {
    of.map_or_else(|| "0".to_owned(), |address| address.port().to_string())
}

/// The text of a format, and the variables in it that nobody knows.
pub(super) fn text(format: &str, record: &Record) -> (String, Vec<String>) {
    let mut text = String::new();
    let mut unknown = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find(['%', '\\']) {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let variable = rest.strip_prefix("%{").and_then(|inner| inner.split_once('}'));
        // Its closing brace is the first of its name, hence no part of what is behind.
        let named = rest.strip_prefix("%header{").and_then(|inner| inner.split_once('}'));
        let short = [("%%", "%"), ("\\n", "\n"), ("\\r", "\r"), ("\\t", "\t"), ("\\\\", "\\")];
        let short = short.iter().find_map(|(word, stands)| Some((*stands, rest.strip_prefix(word)?)));
        if let Some((name, behind)) = variable {
            match VARIABLES.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => text.push_str(&value(record)),
                None => unknown.push(name.to_owned()),
            }
            rest = behind;
        } else if let Some((name, behind)) = named {
            text.push_str(&header(record, name));
            rest = behind;
        } else if let Some((stands, behind)) = short {
            text.push_str(stands);
            rest = behind;
        } else {
            text.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    text.push_str(rest);
    (text, unknown)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn written(format: &str, record: &Record) -> String {
        let (text, unknown) = text(format, record);
        assert_eq!(unknown, [""; 0]);
        text
    }

    #[test]
    fn variables_stand_for_what_is_known() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/html"));
        headers.insert("x-a", HeaderValue::from_static("1"));
        let record = Record {
            url: "http://a/".to_owned(),
            method: "GET".to_owned(),
            status: Some(StatusCode::NOT_FOUND),
            headers,
            remote: Some("192.0.2.1:80".parse().unwrap()),
            local: Some("[::1]:9".parse().unwrap()),
            received: 17,
            resolved: Duration::from_micros(1),
            connected: Duration::from_millis(2),
            answered: Duration::from_millis(30),
            ended: Duration::from_secs(4),
            exit: 22,
            error: "no".to_owned(),
        };
        assert_eq!(written("%{http_code} %{response_code}\\n", &record), "404 404\n");
        assert_eq!(written("%{content_type}|%header{X-A}|%header{none}|", &record), "text/html|1||");
        let times = "%{time_namelookup} %{time_connect} %{time_starttransfer} %{time_total}";
        assert_eq!(written(times, &record), "0.000001 0.002000 0.030000 4.000000");
        let ends = "%{remote_ip}:%{remote_port} %{local_ip}:%{local_port} %{method} %{url} %{url_effective}";
        assert_eq!(written(ends, &record), "192.0.2.1:80 ::1:9 GET http://a/ http://a/");
        assert_eq!(written("%{size_download} %{exitcode} %{errormsg}", &record), "17 22 no");
    }

    #[test]
    fn without_an_answer_there_are_zeros() {
        let nothing = Record::default();
        let format = "%{http_code} %{time_total} %{remote_ip} %{remote_port} %{size_download}";
        assert_eq!(written(format, &nothing), "000 0.000000  0 0");
    }

    #[test]
    fn all_else_is_text() {
        let nothing = Record::default();
        assert_eq!(
            written("100%% \\t|\\r|\\\\n|\\x|%|%x|%{http_code|é\\", &nothing),
            "100% \t|\r|\\n|\\x|%|%x|%{http_code|é\\"
        );
        assert_eq!(
            text("a%{none}b%{nor}", &nothing),
            ("ab".to_owned(), vec!["none".to_owned(), "nor".to_owned()])
        );
    }
}
