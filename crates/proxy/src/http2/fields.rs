//! What a request's head is made to say before it goes on.

use http::{HeaderMap, HeaderValue, Uri, header, request};

use crate::request_id;
use crate::trace::context::{self, Incoming, Span};

/// The fields that a request gets if it has none.
pub(super) fn forwarded(headers: &mut HeaderMap) {
    if !headers.contains_key("x-request-id")
        && let Ok(mut id) = HeaderValue::try_from(request_id::new())
    {
        // Not to be kept for the next request, which has another: the upstream's table would hold nothing else.
        id.set_sensitive(true);
        headers.insert("x-request-id", id);
    }
    headers.entry("x-forwarded-proto").or_insert(HeaderValue::from_static("http"));
}

/// The request's part of a trace, for which it goes on as its child.
pub(super) fn traced(headers: &mut HeaderMap, ratio: f64) -> Span {
    let came = headers.clone();
    let mut incoming = Incoming::default();
    for header in context::Header::all() {
        if let Some(value) = came.get(header.name()) {
            incoming.note(header, value.as_bytes());
        }
    }
    let span = Span::begin(&incoming, ratio);
    let changed = context::Header::all().filter_map(|header| Some((header, span.header(&incoming, header)?)));
    let begins = span.begins(&incoming).map(|value| (context::Header::Traceparent, value));
    for (header, value) in changed.chain(begins) {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(header.name(), value);
        }
    }
    span
}

/// A request without `:authority` has it in its host field; one with both must not disagree (RFC 9113, section 8.3.1).
pub(super) fn address(request: &mut request::Parts) -> Result<(), &'static str> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let (host, more) = (hosts.next(), hosts.next().is_some());
    let bad = "host is not host:port, is given twice, or differs from :authority";
    match (request.uri.authority(), host) {
        _ if more => Err(bad),
        (Some(_), None) => Ok(()),
        (Some(authority), Some(host)) if host.as_bytes() == authority.as_str().as_bytes() => Ok(()),
        (None, Some(host)) => {
            let mut parts = request.uri.clone().into_parts();
            parts.authority = Some(host.as_bytes().try_into().map_err(|_| bad)?);
            parts.scheme = parts.scheme.or(Some(http::uri::Scheme::HTTP));
            request.uri = Uri::from_parts(parts).map_err(|_| bad)?;
            Ok(())
        }
        _ => Err(bad),
    }
}
