//! How requests and connections end.

/// How a request or connection ended, by the names that Envoy's users know as response flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flag {
    /// `-`: both sides finished.
    None,
    /// `UF`: the upstream connection failed.
    UpstreamFailed,
    /// `UC`: the upstream broke the connection.
    UpstreamReset,
    /// `DC`: the downstream broke the connection.
    DownstreamReset,
    /// `SI`: nothing was said for too long.
    Idle,
    /// `DPE`: the downstream does not keep to its protocol.
    DownstreamProtocol,
    /// `UPE`: the upstream does not keep to its protocol.
    UpstreamProtocol,
    /// `UR`: the upstream reset the stream, and kept the connection.
    UpstreamStreamReset,
    /// `UT`: the upstream did not answer in time.
    UpstreamTimeout,
    /// `UO`: this sidecar has no descriptor, port or memory for an upstream connection.
    Overflow,
    /// `NR`: there is nowhere to go; carrying the connection would be a loop.
    NoRoute,
}

impl Flag {
    pub(super) const ALL: [Flag; 11] = [
        Flag::None,
        Flag::UpstreamFailed,
        Flag::UpstreamReset,
        Flag::DownstreamReset,
        Flag::Idle,
        Flag::DownstreamProtocol,
        Flag::UpstreamProtocol,
        Flag::UpstreamStreamReset,
        Flag::UpstreamTimeout,
        Flag::Overflow,
        Flag::NoRoute,
    ];

    /// The short name that stands in metrics and access logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flag::None => "-",
            Flag::UpstreamFailed => "UF",
            Flag::UpstreamReset => "UC",
            Flag::DownstreamReset => "DC",
            Flag::Idle => "SI",
            Flag::DownstreamProtocol => "DPE",
            Flag::UpstreamProtocol => "UPE",
            Flag::UpstreamStreamReset => "UR",
            Flag::UpstreamTimeout => "UT",
            Flag::Overflow => "UO",
            Flag::NoRoute => "NR",
        }
    }

    /// Envoy's response code details for a request that ended so with status `code`.
    pub(crate) fn details(self, code: u16) -> &'static str {
        // 503 is our own; any other status was the upstream's, so that its response had begun.
        let begun = code != 503;
        match self {
            Flag::None => "via_upstream",
            Flag::UpstreamFailed => "upstream_reset_before_response_started{remote_connection_failure}",
            Flag::Overflow => "upstream_reset_before_response_started{overflow}",
            Flag::UpstreamReset if begun => "upstream_reset_after_response_started{connection_termination}",
            Flag::UpstreamReset => "upstream_reset_before_response_started{connection_termination}",
            Flag::UpstreamStreamReset if begun => "upstream_reset_after_response_started{remote_reset}",
            Flag::UpstreamStreamReset => "upstream_reset_before_response_started{remote_reset}",
            Flag::UpstreamProtocol => "upstream_reset_before_response_started{protocol_error}",
            Flag::UpstreamTimeout => "response_timeout",
            Flag::DownstreamReset => "downstream_remote_disconnect",
            Flag::Idle => "stream_idle_timeout",
            Flag::DownstreamProtocol => "codec_error",
            Flag::NoRoute => "filter_chain_not_found",
        }
    }
}

/// A bound that can be met. Its name is the setting's; what memory there is, the container's limit says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Connections wait for their place.
    Connections,
    /// Idle upstream connections are closed.
    IdleUpstreams,
    /// The time to open an upstream connection is over.
    Connect,
    /// Nothing moved for too long.
    Idle,
    /// A request's head took too long.
    Head,
    /// A response took too long.
    Request,
    /// A head is too long.
    HeadBytes,
    /// A head has too many fields.
    Headers,
    /// A client has as many streams open as it may.
    Streams,
    /// A request's body is too long to be kept.
    ReplayBytes,
    /// Three quarters of the container's memory limit are in use.
    Memory,
}

impl Limit {
    pub(super) const ALL: [Limit; 11] = [
        Limit::Connections,
        Limit::IdleUpstreams,
        Limit::Connect,
        Limit::Idle,
        Limit::Head,
        Limit::Request,
        Limit::HeadBytes,
        Limit::Headers,
        Limit::Streams,
        Limit::ReplayBytes,
        Limit::Memory,
    ];

    /// The value of the metric label `limit`: the setting's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Limit::Connections => "maxConnections",
            Limit::IdleUpstreams => "maxIdleUpstreams",
            Limit::Connect => "connectTimeout",
            Limit::Idle => "idleTimeout",
            Limit::Head => "headTimeout",
            Limit::Request => "requestTimeout",
            Limit::HeadBytes => "maxHeadBytes",
            Limit::Headers => "maxHeaders",
            Limit::Streams => "maxStreams",
            Limit::ReplayBytes => "maxReplayBytes",
            Limit::Memory => "memory",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::file::FIELDS;

    #[test]
    fn indexes_are_places_and_limits_are_settings() {
        for (index, flag) in Flag::ALL.iter().enumerate() {
            assert_eq!(*flag as usize, index);
        }
        for (index, limit) in Limit::ALL.iter().enumerate() {
            assert_eq!(*limit as usize, index);
            let setting = FIELDS.iter().any(|(field, _)| *field == limit.name());
            assert!(setting || *limit == Limit::Memory, "{}", limit.name());
        }
    }
}
