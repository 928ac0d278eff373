//! Access logs: one line for each request or TCP connection, in Envoy's default format or as JSON, on standard output.
//!
//! Workers fill buffers, and a thread of its own writes them: a reader that stops reading the log stops no traffic.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::destination::Direction;
use crate::telemetry::Flag;

/// A buffer that is this full goes to the writer.
const FULL: usize = 16 * 1024;
/// A buffer goes to the writer after this time, however empty.
const OLD: Duration = Duration::from_secs(1);
/// Buffers that wait for the writer; more are dropped, and counted.
const WAITING: usize = 256;

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Policy {
    /// Nothing.
    #[default]
    Off,
    /// What ended with a status of 400 or more, or with a flag.
    Errors,
    /// Everything.
    All,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// Envoy's default format, with Istio's fields.
    #[default]
    Text,
    /// The same fields as one JSON object.
    Json,
}

/// One request or connection. What is missing is empty.
pub(crate) struct Entry<'a> {
    pub(crate) direction: Direction,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) protocol: &'a str,
    pub(crate) code: u16,
    pub(crate) flag: Flag,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) duration: Duration,
    /// Milliseconds from the whole request to the upstream's answer.
    pub(crate) service_time: Option<u64>,
    pub(crate) forwarded_for: &'a [u8],
    pub(crate) user_agent: &'a [u8],
    pub(crate) request_id: &'a [u8],
    pub(crate) authority: &'a str,
    /// The name that a TLS client asks for (SNI).
    pub(crate) server_name: &'a str,
    pub(crate) upstream: SocketAddr,
    pub(crate) peer: SocketAddr,
}

/// Where workers send their buffers: standard output, written by a thread that the first buffer starts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output(Arc<OnceLock<Option<SyncSender<Vec<u8>>>>>);

impl Output {
    /// What is given is dropped.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Output {
        Output(Arc::new(OnceLock::from(None)))
    }

    /// Gives `buffer` to the writer, unless too many wait for it already.
    fn send(&self, buffer: Vec<u8>) {
        let sender = self.0.get_or_init(|| match start() {
            Ok(sender) => Some(sender),
            Err(error) => {
                tracing::error!(%error, "cannot start the access log");
                None
            }
        });
        if sender.as_ref().is_some_and(|sender| sender.try_send(buffer).is_err()) {
            tracing::warn!("nobody reads the access log; lines were dropped");
        }
    }
}

fn start() -> std::io::Result<SyncSender<Vec<u8>>> {
    let (sender, buffers): (_, Receiver<Vec<u8>>) = sync_channel(WAITING);
    std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
        let mut output = std::io::stdout();
        for buffer in buffers {
            // Nobody can be told that nobody reads the log.
            let _ = output.write_all(&buffer).and_then(|()| output.flush());
        }
    })?;
    Ok(sender)
}

/// One worker's log.
#[derive(Debug)]
pub(crate) struct AccessLog {
    wanted: Cell<(Policy, Format)>,
    buffer: RefCell<Vec<u8>>,
    output: Output,
}

impl AccessLog {
    /// A log that writes what is `wanted` to `output`.
    pub(crate) fn new(wanted: (Policy, Format), output: Output) -> AccessLog {
        AccessLog { wanted: Cell::new(wanted), buffer: RefCell::default(), output }
    }

    /// Changes what is written from now on.
    pub(crate) fn set(&self, wanted: (Policy, Format)) {
        self.wanted.set(wanted);
    }

    /// Logs `entry`, if it is to be logged. Must run on a local runtime.
    pub(crate) fn write(self: &Rc<Self>, entry: &Entry<'_>) {
        let (policy, format) = self.wanted.get();
        let failed = entry.code >= 400 || entry.flag != Flag::None;
        let wanted = match policy {
            Policy::Off => false,
            Policy::Errors => failed,
            Policy::All => true,
        };
        if !wanted {
            return;
        }
        let mut buffer = self.buffer.borrow_mut();
        let first = buffer.is_empty();
        entry.format(format, SystemTime::now(), &mut buffer);
        let full = buffer.len() >= FULL;
        drop(buffer);
        if full {
            self.flush();
        } else if first {
            let log = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(OLD).await;
                log.flush();
            });
        }
    }

    /// The lines that have not been given to the writer.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> String {
        String::from_utf8(self.buffer.borrow().clone()).unwrap()
    }

    fn flush(&self) {
        let buffer = self.buffer.take();
        if !buffer.is_empty() {
            self.output.send(buffer);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Entry<'_> {
    /// A connection from `peer` to `upstream` of which nothing is known yet, and that has no requests.
    pub(crate) fn bytes(direction: Direction, peer: SocketAddr, upstream: SocketAddr) -> Entry<'static> {
        Entry {
            direction,
            method: "",
            path: "",
            protocol: "",
            code: 0,
            flag: Flag::None,
            received: 0,
            sent: 0,
            duration: Duration::ZERO,
            service_time: None,
            forwarded_for: b"",
            user_agent: b"",
            request_id: b"",
            authority: "",
            server_name: "",
            upstream,
            peer,
        }
    }

    fn format(&self, format: Format, now: SystemTime, out: &mut Vec<u8>) {
        let ended = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = timestamp(ended.saturating_sub(self.duration));
        let cluster = match self.direction {
            Direction::Inbound => "InboundPassthroughCluster",
            Direction::Outbound => "PassthroughCluster",
        };
        let nowhere = matches!(self.flag, Flag::UpstreamFailed | Flag::Overflow | Flag::NoRoute);
        let upstream = if nowhere { String::new() } else { self.upstream.to_string() };
        let details = match (self.method, self.flag) {
            // Bytes have no response; that they went nowhere is said.
            ("", Flag::NoRoute) => self.flag.details(self.code),
            ("", _) if self.code == 0 => "",
            _ => self.flag.details(self.code),
        };
        let route = match (self.method, self.direction) {
            ("", _) => "",
            (_, Direction::Inbound) => "default",
            (_, Direction::Outbound) => "allow_any",
        };
        // Writing to memory does not fail.
        let _ = match format {
            Format::Text => writeln!(
                out,
                "[{start}] \"{} {} {}\" {} {} {} - \"-\" {} {} {} {} \"{}\" \"{}\" \"{}\" \"{}\" \"{}\" {cluster} - {} {} {} {}",
                dash(self.method),
                quoted(self.path.as_bytes()),
                dash(self.protocol),
                self.code,
                self.flag.name(),
                dash(details),
                self.received,
                self.sent,
                self.duration.as_millis(),
                dash(&self.service_time.map(|time| time.to_string()).unwrap_or_default()),
                quoted(self.forwarded_for),
                quoted(self.user_agent),
                quoted(self.request_id),
                quoted(self.authority.as_bytes()),
                dash(&upstream),
                self.upstream,
                self.peer,
                quoted(self.server_name.as_bytes()),
                dash(route),
            ),
            Format::Json => writeln!(
                out,
                "{}",
                serde_json::json!({
                    "start_time": start,
                    "method": value(self.method.as_bytes()),
                    "path": value(self.path.as_bytes()),
                    "protocol": value(self.protocol.as_bytes()),
                    "response_code": self.code,
                    "response_flags": self.flag.name(),
                    "response_code_details": value(details.as_bytes()),
                    "bytes_received": self.received,
                    "bytes_sent": self.sent,
                    "duration": self.duration.as_millis() as u64,
                    "upstream_service_time": self.service_time,
                    "x_forwarded_for": value(self.forwarded_for),
                    "user_agent": value(self.user_agent),
                    "request_id": value(self.request_id),
                    "authority": value(self.authority.as_bytes()),
                    "upstream_host": value(upstream.as_bytes()),
                    "upstream_cluster": cluster,
                    "downstream_local_address": self.upstream.to_string(),
                    "downstream_remote_address": self.peer.to_string(),
                    "requested_server_name": value(self.server_name.as_bytes()),
                    "route_name": value(route.as_bytes()),
                })
            ),
        };
    }
}

fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// What clients send stands between quotes; it must not end them.
fn quoted(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    String::from_utf8_lossy(bytes).replace('\\', "\\\\").replace('"', "\\\"")
}

fn value(bytes: &[u8]) -> Option<std::borrow::Cow<'_, str>> {
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes))
}

/// `2026-11-21T09:15:10.123Z`.
fn timestamp(since_epoch: Duration) -> String {
    let (days, second) = (since_epoch.as_secs() / 86_400, since_epoch.as_secs() % 86_400);
    // Days are counted from 1 March of year 0, so that leap days come last (proleptic Gregorian calendar).
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = since_epoch.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            direction: Direction::Inbound,
            method: "GET",
            path: "/a",
            protocol: "HTTP/1.1",
            code: 200,
            flag: Flag::None,
            received: 10,
            sent: 20,
            duration: Duration::from_millis(1500),
            service_time: Some(1200),
            forwarded_for: b"",
            user_agent: b"a \"b\"",
            request_id: b"id",
            authority: "shop",
            server_name: "",
            upstream: ([10, 0, 0, 1], 8080).into(),
            peer: ([10, 0, 0, 2], 4000).into(),
        }
    }

    fn line(entry: &Entry<'_>, format: Format) -> String {
        let mut out = Vec::new();
        entry.format(format, UNIX_EPOCH + Duration::from_millis(1_772_323_201_250), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_envoys_format() {
        // A quarter of a second into March, less one and a half.
        let expected = "[2026-02-28T23:59:59.750Z] \"GET /a HTTP/1.1\" 200 - via_upstream - \"-\" 10 20 1500 1200 \"-\" \
                        \"a \\\"b\\\"\" \"id\" \"shop\" \"10.0.0.1:8080\" InboundPassthroughCluster - 10.0.0.1:8080 \
                        10.0.0.2:4000 - default\n";
        assert_eq!(line(&entry(), Format::Text), expected);
    }

    #[test]
    fn tcp_lines_have_no_request() {
        let tcp = Entry {
            flag: Flag::UpstreamFailed,
            received: 10,
            sent: 20,
            duration: Duration::from_millis(1500),
            ..Entry::bytes(entry().direction, entry().peer, entry().upstream)
        };
        let text = line(&tcp, Format::Text);
        let tls = Entry { flag: Flag::None, server_name: "shop.example", ..tcp };
        assert!(line(&tls, Format::Text).ends_with(" 10.0.0.2:4000 shop.example -\n"));
        assert!(
            text.contains("] \"- - -\" 0 UF - - \"-\" 10 20 1500 - \"-\" \"-\" \"-\" \"-\" \"-\" Inbound"),
            "{text}"
        );
    }

    #[test]
    fn json_has_the_same_fields() {
        let value: serde_json::Value = serde_json::from_str(&line(&entry(), Format::Json)).unwrap();
        assert_eq!(value["user_agent"], "a \"b\"");
        assert_eq!(value["response_code"], 200);
        assert_eq!(value["upstream_service_time"], 1200);
        assert_eq!(value["x_forwarded_for"], serde_json::Value::Null);
        assert_eq!(value["downstream_remote_address"], "10.0.0.2:4000");
    }

    #[test]
    fn dates_are_gregorian() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_164_799, "2024-02-28T23:59:59.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), text);
        }
    }
}
