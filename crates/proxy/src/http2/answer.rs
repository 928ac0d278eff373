//! What the client hears in the upstream's place, in the words of its request.

use std::borrow::Cow;
use std::cell::RefCell;
use std::time::SystemTime;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::record::Record;
use crate::reply;
use crate::telemetry::Flag;

/// Why a request goes nowhere.
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) flag: Flag,
    pub(super) text: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn new(code: u16, flag: Flag, text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code, flag, text: text.into() }
    }
}

/// Tells the client. gRPC has its status in fields of its own.
pub(super) fn refuse(record: &Record, client: &mut SendResponse<Bytes>, refusal: &Refusal) {
    let mut response = Response::new(());
    let mut body = Bytes::new();
    let headers = response.headers_mut();
    if record.is_grpc() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(reply::grpc_status(refusal.code)));
        if let Ok(message) = HeaderValue::try_from(reply::grpc_message(&refusal.text)) {
            headers.insert("grpc-message", message);
        }
    } else {
        body = Bytes::copy_from_slice(refusal.text.as_bytes());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.status_mut() =
            StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    }
    if refusal.flag == Flag::Overflow && record.upstream().captured.shared.debug_headers {
        response.headers_mut().insert(reply::OVERLOADED, HeaderValue::from_static("true"));
    }
    date(response.headers_mut());
    record.failed(refusal.flag);
    record.answered(response.status(), response.headers());
    let empty = body.is_empty() || record.is_head();
    // It fails only where the client has gone.
    if let Ok(mut to) = client.send_response(response, empty)
        && !empty
    {
        let _ = to.send_data(body, true);
    }
    record.finished();
}

thread_local! {
    /// A second and its name, most often the present one.
    static DATE: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// A response that goes on has a date, its sender's or ours (RFC 9110, section 6.6.1).
pub(super) fn date(headers: &mut HeaderMap) {
    headers.entry(header::DATE).or_insert_with(|| {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        DATE.with_borrow_mut(|(named, name)| {
            if *named != second
                && let Ok(value) = HeaderValue::try_from(httpdate::fmt_http_date(now))
            {
                (*named, *name) = (second, value);
            }
            name.clone()
        })
    });
}
