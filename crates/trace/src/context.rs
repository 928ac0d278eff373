//! Trace contexts in requests: read, decided upon, and passed on (W3C Trace Context; B3 propagation). Pure but for chance.

/// The fields that carry a trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// `traceparent`, W3C.
    Traceparent,
    /// `b3`, B3 in one field.
    B3,
    /// `x-b3-traceid`.
    TraceId,
    /// `x-b3-spanid`.
    SpanId,
    /// `x-b3-parentspanid`.
    ParentSpanId,
    /// `x-b3-sampled`.
    Sampled,
    /// `x-b3-flags`.
    Flags,
}

const HEADERS: [(&str, Header); 7] = [
    ("traceparent", Header::Traceparent),
    ("b3", Header::B3),
    ("x-b3-traceid", Header::TraceId),
    ("x-b3-spanid", Header::SpanId),
    ("x-b3-parentspanid", Header::ParentSpanId),
    ("x-b3-sampled", Header::Sampled),
    ("x-b3-flags", Header::Flags),
];

impl Header {
    /// The field of that name, if it carries a context.
    pub fn named(name: &str) -> Option<Header> {
        HEADERS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, header)| *header)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        HEADERS[self as usize].0
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Header> {
        HEADERS.iter().map(|(_, header)| *header)
    }
}

/// What a request brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct Incoming<'a>([Option<&'a [u8]>; HEADERS.len()]);

impl<'a> Incoming<'a> {
    /// Notes a field's value; of several the first counts.
    pub fn note(&mut self, header: Header, value: &'a [u8]) {
        self.0[header as usize].get_or_insert(value);
    }

    fn text(&self, header: Header) -> Option<&'a str> {
        std::str::from_utf8(self.0[header as usize]?).ok().map(str::trim)
    }

    fn any(&self) -> bool {
        self.0.iter().any(Option::is_some)
    }

    /// The trace that the request belongs to: its id, the span that sent the request, and whether it is sampled, where
    /// that is decided. Or that decision alone.
    fn parent(&self) -> (Option<(u128, u64)>, Option<bool>) {
        if let Some(parent) = self.text(Header::Traceparent).and_then(traceparent) {
            return parent;
        }
        if let Some(parent) = self.text(Header::B3).and_then(b3) {
            return parent;
        }
        let sampled = match (self.text(Header::Flags), self.text(Header::Sampled)) {
            (Some("1"), _) | (_, Some("1" | "true")) => Some(true),
            (_, Some("0" | "false")) => Some(false),
            _ => None,
        };
        let ids =
            self.text(Header::TraceId).and_then(trace_id).zip(self.text(Header::SpanId).and_then(span_id));
        (ids, sampled)
    }
}

type Parent = (Option<(u128, u64)>, Option<bool>);

/// `version-trace-parent-flags`; later versions may have more.
fn traceparent(text: &str) -> Option<Parent> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let fits = version.len() == 2 && version != "ff" && (version != "00" || parts.next().is_none());
    let flags = u8::from_str_radix(flags, 16).ok().filter(|_| flags.len() == 2 && hex(flags))?;
    let trace = trace_id(trace).filter(|_| trace.len() == 32)?;
    fits.then_some((Some((trace, span_id(span)?)), Some(flags & 1 == 1)))
}

/// `trace-span[-sampled[-parent]]`, or the decision alone.
fn b3(text: &str) -> Option<Parent> {
    let decision = |text: &str| match text {
        "1" | "d" => Some(true),
        "0" => Some(false),
        _ => None,
    };
    let mut parts = text.split('-');
    let first = parts.next()?;
    let Some(span) = parts.next() else { return decision(first).map(|sampled| (None, Some(sampled))) };
    Some((Some((trace_id(first)?, span_id(span)?)), parts.next().and_then(decision)))
}

fn hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn trace_id(text: &str) -> Option<u128> {
    let fits = matches!(text.len(), 16 | 32) && hex(text);
    u128::from_str_radix(text, 16).ok().filter(|id| fits && *id != 0)
}

fn span_id(text: &str) -> Option<u64> {
    let fits = text.len() == 16 && hex(text);
    u64::from_str_radix(text, 16).ok().filter(|id| fits && *id != 0)
}

/// One request's part of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace: u128,
    /// This span.
    pub id: u64,
    /// The span that sent the request, 0 if none.
    pub parent: u64,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl Span {
    /// The span of a request that brought `incoming`. Whoever began the trace decides whether it is sampled; a trace that
    /// begins here, or is undecided, is sampled at the given `ratio`, 0 to 1.
    pub fn begin(incoming: &Incoming<'_>, ratio: f64) -> Span {
        let (ids, sampled) = incoming.parent();
        let (trace, parent) = ids.unwrap_or_else(|| (fastrand::u128(1..), 0));
        let sampled = sampled.unwrap_or_else(|| fastrand::f64() < ratio);
        Span { trace, id: fastrand::u64(1..), parent, sampled }
    }

    /// What stands in `header` from here on, if it is not what came: whoever comes next has this span for its parent. A
    /// trace that nobody records passes untouched.
    pub fn header(&self, incoming: &Incoming<'_>, header: Header) -> Option<String> {
        let Span { trace, id, parent, sampled } = *self;
        let came = incoming.text(header).filter(|_| sampled)?;
        match header {
            Header::Traceparent => Some(self.traceparent()),
            // The decision alone names no span.
            Header::B3 if !came.contains('-') => None,
            Header::B3 => Some(format!("{trace:032x}-{id:016x}-1-{parent:016x}")),
            Header::SpanId => Some(format!("{id:016x}")),
            Header::ParentSpanId if parent != 0 => Some(format!("{parent:016x}")),
            Header::ParentSpanId | Header::TraceId | Header::Sampled | Header::Flags => None,
        }
    }

    /// The `traceparent` of a trace that begins here: those behind us have to know that it is decided.
    pub fn begins(&self, incoming: &Incoming<'_>) -> Option<String> {
        (!incoming.any()).then(|| self.traceparent())
    }

    fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x0af7651916cd43dd8448eb211c80319c;
    const PARENT: u64 = 0xb7ad6b7169203331;

    fn incoming<'a>(fields: &[(Header, &'a str)]) -> Incoming<'a> {
        let mut incoming = Incoming::default();
        for (header, value) in fields {
            incoming.note(*header, value.as_bytes());
        }
        incoming
    }

    #[test]
    fn headers_are_in_their_places() {
        for header in Header::all() {
            assert_eq!(Header::named(&header.name().to_uppercase()), Some(header));
        }
        assert_eq!(Header::named("tracestate"), None);
    }

    #[test]
    fn a_sampled_trace_goes_on_under_this_span() {
        let traceparent = format!("00-{TRACE:032x}-{PARENT:016x}-01");
        let b3 = format!("{TRACE:032x}-{PARENT:016x}-1");
        let (trace, parent) = (format!("{TRACE:032x}"), format!("{PARENT:016x}"));
        for came in [
            incoming(&[(Header::Traceparent, &traceparent)]),
            incoming(&[(Header::B3, &b3)]),
            incoming(&[(Header::TraceId, &trace), (Header::SpanId, &parent), (Header::Sampled, "1")]),
            incoming(&[(Header::TraceId, &trace), (Header::SpanId, &parent), (Header::Flags, "1")]),
        ] {
            let span = Span::begin(&came, 0.0);
            assert_eq!((span.trace, span.parent, span.sampled), (TRACE, PARENT, true), "{came:?}");
            let id = format!("{:016x}", span.id);
            for header in Header::all() {
                let next = span.header(&came, header);
                match header {
                    Header::Traceparent | Header::B3 | Header::SpanId if came.text(header).is_some() => {
                        assert!(next.unwrap().contains(&id), "{header:?}");
                    }
                    _ => assert_eq!(next, None, "{header:?}"),
                }
            }
        }
    }

    #[test]
    fn a_trace_that_is_not_sampled_passes_untouched() {
        let traceparent = format!("00-{TRACE:032x}-{PARENT:016x}-00");
        for came in [
            incoming(&[(Header::Traceparent, &traceparent)]),
            incoming(&[(Header::B3, "0")]),
            incoming(&[(Header::Sampled, "0")]),
        ] {
            let span = Span::begin(&came, 1.0);
            assert!(!span.sampled);
            assert!(Header::all().all(|header| span.header(&came, header).is_none()), "{came:?}");
        }
    }

    #[test]
    fn a_trace_begins_here_where_none_came_and_says_its_decision() {
        for (ratio, flags) in [(0.0, "-00"), (1.0, "-01")] {
            let span = Span::begin(&Incoming::default(), ratio);
            let next = span.begins(&Incoming::default()).unwrap();
            let again = incoming(&[(Header::Traceparent, &next)]);
            assert_eq!(again.parent(), (Some((span.trace, span.id)), Some(span.sampled)));
            assert!(next.ends_with(flags) && span.parent == 0, "{next}");
            assert!(Header::all().all(|header| span.header(&Incoming::default(), header).is_none()));
            assert_eq!(span.begins(&again), None);
        }
    }

    #[test]
    fn an_undecided_trace_is_decided_here() {
        let b3 = format!("{TRACE:032x}-{PARENT:016x}");
        let came = incoming(&[(Header::B3, &b3)]);
        assert!(!Span::begin(&came, 0.0).sampled);
        let span = Span::begin(&came, 1.0);
        assert!(span.sampled && span.trace == TRACE);
        assert!(span.header(&came, Header::B3).unwrap().contains("-1-"));
    }

    #[test]
    fn what_is_no_context_begins_a_new_trace() {
        for bad in [
            "",
            "00-0-0-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333+-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-+1",
        ] {
            assert_eq!(traceparent(bad), None, "{bad:?}");
            let span = Span::begin(&incoming(&[(Header::Traceparent, bad)]), 1.0);
            assert_eq!(span.parent, 0, "{bad:?}");
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert_eq!(traceparent(later), Some((Some((TRACE, PARENT)), Some(true))));
    }
}
