//! A span for each sampled request. Without a collector there is nothing of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(crate) use outrigger_trace::{Counts, Settings, context};
use outrigger_trace::{Record, Service};
use tokio::task::JoinHandle;

use crate::destination::Direction;
use crate::identity::Identity;
use crate::telemetry::Flag;
use context::Span;

/// Where workers give their spans.
pub(crate) type Tracer = outrigger_trace::Tracer<Ended>;

/// A request that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) span: Span,
    pub(crate) direction: Direction,
    pub(crate) ended: SystemTime,
    pub(crate) duration: Duration,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) protocol: &'static str,
    pub(crate) code: u16,
    pub(crate) flag: Flag,
    pub(crate) request_id: String,
    pub(crate) peer: std::net::SocketAddr,
}

impl From<Ended> for Record {
    fn from(ended: Ended) -> Record {
        let path = ended.path.split('?').next().unwrap_or_default();
        let attributes = vec![
            ("http.request.method", ended.method.as_str().into()),
            ("url.path", path.into()),
            ("server.address", ended.host.into()),
            ("network.protocol.version", ended.protocol.trim_start_matches("HTTP/").into()),
            ("network.peer.address", ended.peer.ip().to_string().into()),
            ("guid:x-request-id", ended.request_id.into()),
            ("response_flags", ended.flag.name().into()),
            ("http.response.status_code", outrigger_trace::Value::Number(ended.code.into())),
        ];
        let failed = ended.code >= 500 || ended.code == 0 || ended.flag != Flag::None;
        Record {
            span: ended.span,
            name: ended.method,
            server: ended.direction == Direction::Inbound,
            ended: ended.ended,
            duration: ended.duration,
            attributes,
            failure: failed.then(String::new),
        }
    }
}

/// Starts exporting the spans of the pod `identity`. The task ends when all tracers are gone, and their spans are
/// exported. Must run on a local runtime.
pub(crate) fn start(
    settings: Settings,
    identity: &Identity,
    counts: Arc<Counts>,
) -> (Tracer, JoinHandle<()>) {
    let service = Service {
        program: ("outrigger-proxy", env!("CARGO_PKG_VERSION")),
        name: format!("{}.{}", identity.canonical_service, identity.namespace),
        attributes: vec![
            ("service.version", identity.canonical_revision.clone()),
            ("k8s.namespace.name", identity.namespace.clone()),
            ("k8s.cluster.name", identity.cluster.clone()),
        ],
    };
    let (tracer, exporting) = outrigger_trace::start(settings, service, counts);
    (tracer, tokio::task::spawn_local(exporting))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn ended(direction: Direction, code: u16, flag: Flag) -> Record {
        let ended = Ended {
            span: Span { trace: 0xabc, id: 0xdef, parent: 0x123, sampled: true },
            direction,
            ended: UNIX_EPOCH,
            duration: Duration::from_millis(500),
            method: "GET".to_owned(),
            path: "/a?secret=1".to_owned(),
            host: "shop".to_owned(),
            protocol: "HTTP/1.1",
            code,
            flag,
            request_id: "id".to_owned(),
            peer: ([10, 0, 0, 2], 4000).into(),
        };
        ended.into()
    }

    #[test]
    fn a_span_says_what_is_known_of_its_request_and_no_query() {
        let record = ended(Direction::Inbound, 200, Flag::None);
        assert_eq!((record.name.as_str(), record.server, record.failure), ("GET", true, None));
        let said =
            |key: &str| record.attributes.iter().find(|(known, _)| *known == key).map(|(_, value)| value);
        assert_eq!(said("url.path"), Some(&"/a".into()));
        assert_eq!(said("network.protocol.version"), Some(&"1.1".into()));
        assert_eq!(said("http.response.status_code"), Some(&outrigger_trace::Value::Number(200)));
        assert!(!ended(Direction::Outbound, 404, Flag::None).server);
        for (code, flag) in [(503, Flag::None), (0, Flag::None), (200, Flag::UpstreamReset)] {
            assert!(ended(Direction::Inbound, code, flag).failure.is_some(), "{code} {flag:?}");
        }
    }
}
