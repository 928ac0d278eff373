//! The fields of Istio's ProxyConfig, in the order in which Istio prints them.
//!
//! Source: <https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#ProxyConfig>

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Type {
    Text,
    Bool,
    Double,
    Int32,
    UInt32,
    /// A number that may be absent, so that 0 is a value of its own.
    OptionalInt32,
    /// The same with 64 bits; JSON has it as text.
    OptionalInt64,
    /// A boolean that may be absent.
    OptionalBool,
    Duration,
    /// One of some names; the first is the default one.
    Enum(&'static [&'static str]),
    Texts,
    TextMap,
    Message(Fields),
    /// An object whose fields do not matter here.
    Any,
}

/// A field: its name in JSON, what it holds.
pub(super) type Fields = &'static [(&'static str, Type)];

use Type::*;

/// The proxy's name in telemetry: the one or the other.
pub(super) const CLUSTER_NAME: [&str; 2] = ["serviceCluster", "tracingServiceName"];

/// Sub-fields of `proxyHeaders` that a lower layer keeps where a higher one does not name them.
pub(super) const KEPT_HEADERS: [&str; 5] =
    ["forwardedClientCert", "requestId", "attemptCount", "server", "envoyDebugHeaders"];

const TLS: Fields = &[
    ("mode", Enum(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"])),
    ("clientCertificate", Text),
    ("privateKey", Text),
    ("caCertificates", Text),
    ("credentialName", Text),
    ("subjectAltNames", Texts),
    ("sni", Text),
    ("insecureSkipVerify", OptionalBool),
    ("caCrl", Text),
];

const TRACING: Fields = &[
    ("zipkin", Message(&[("address", Text)])),
    ("lightstep", Message(&[("address", Text), ("accessToken", Text)])),
    ("datadog", Message(&[("address", Text)])),
    (
        "stackdriver",
        Message(&[
            ("debug", Bool),
            ("maxNumberOfAttributes", OptionalInt64),
            ("maxNumberOfAnnotations", OptionalInt64),
            ("maxNumberOfMessageEvents", OptionalInt64),
        ]),
    ),
    ("openCensusAgent", Message(&[("address", Text), ("context", Texts)])),
    ("customTags", Any),
    ("maxPathTagLength", UInt32),
    ("sampling", Double),
    ("tlsSettings", Message(TLS)),
    ("enableIstioTags", OptionalBool),
];

const REMOTE_SERVICE: Fields = &[("address", Text), ("tlsSettings", Message(TLS)), ("tcpKeepalive", Any)];

const KEY_PROVIDER: Fields = &[("pollDelay", Duration), ("fallback", OptionalBool)];

const FORWARD_CLIENT_CERT: Type =
    Enum(&["UNDEFINED", "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"]);

const DISABLED: Fields = &[("disabled", OptionalBool)];
const ENABLED: Fields = &[("enabled", OptionalBool)];

const PROXY_HEADERS: Fields = &[
    ("forwardedClientCert", FORWARD_CLIENT_CERT),
    ("setCurrentClientCertDetails", Any),
    ("requestId", Message(DISABLED)),
    ("server", Message(&[("disabled", OptionalBool), ("value", Text)])),
    ("attemptCount", Message(DISABLED)),
    ("envoyDebugHeaders", Message(DISABLED)),
    ("metadataExchangeHeaders", Message(&[("mode", Enum(&["UNDEFINED", "IN_MESH"]))])),
    ("preserveHttp1HeaderCase", OptionalBool),
    ("xForwardedHost", Message(ENABLED)),
    ("xForwardedPort", Message(ENABLED)),
];

const CONNECTION_SETTINGS: Fields = &[
    ("profile", Enum(&["SIDECAR", "EDGE"])),
    ("listenerPerConnectionBufferLimitBytes", OptionalInt32),
    ("clusterPerConnectionBufferLimitBytes", OptionalInt32),
    ("httpIdleTimeout", Duration),
    ("httpMaxConnectionDuration", Duration),
    ("httpDrainTimeout", Duration),
    ("httpRequestTimeout", Duration),
    ("httpRequestHeadersTimeout", Duration),
    ("httpStreamIdleTimeout", Duration),
    ("httpMaxStreamDuration", Duration),
    ("httpMaxConcurrentStreams", OptionalInt32),
    ("http2InitialStreamWindowSize", OptionalInt32),
    ("http2InitialConnectionWindowSize", OptionalInt32),
    (
        "httpHeadersWithUnderscoresAction",
        Enum(&[
            "HEADERS_WITH_UNDERSCORES_UNSPECIFIED",
            "HEADERS_WITH_UNDERSCORES_ALLOW",
            "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
            "HEADERS_WITH_UNDERSCORES_DROP_HEADER",
        ]),
    ),
    ("httpMergeSlashes", OptionalBool),
    (
        "httpPathWithEscapedSlashesAction",
        Enum(&[
            "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED",
            "KEEP_UNCHANGED",
            "REJECT_REQUEST",
            "UNESCAPE_AND_REDIRECT",
            "UNESCAPE_AND_FORWARD",
        ]),
    ),
    ("listenerConnectionLimit", OptionalInt32),
    ("globalDownstreamConnectionLimit", OptionalInt32),
];

/// `ProxyConfig`.
pub(super) const PROXY_CONFIG: Fields = &[
    ("configPath", Text),
    ("binaryPath", Text),
    ("serviceCluster", Text),
    (
        "tracingServiceName",
        Enum(&["APP_LABEL_AND_NAMESPACE", "CANONICAL_NAME_ONLY", "CANONICAL_NAME_AND_NAMESPACE"]),
    ),
    ("drainDuration", Duration),
    ("discoveryAddress", Text),
    ("discoveryRefreshDelay", Duration),
    ("zipkinAddress", Text),
    ("statsdUdpAddress", Text),
    ("envoyMetricsServiceAddress", Text),
    ("proxyAdminPort", Int32),
    ("availabilityZone", Text),
    ("controlPlaneAuthPolicy", Enum(&["NONE", "MUTUAL_TLS"])),
    ("customConfigFile", Text),
    ("statNameLength", Int32),
    ("concurrency", OptionalInt32),
    ("proxyBootstrapTemplatePath", Text),
    ("interceptionMode", Enum(&["REDIRECT", "TPROXY", "NONE"])),
    ("tracing", Message(TRACING)),
    ("sds", Message(&[("enabled", Bool), ("k8sSaJwtPath", Text)])),
    ("envoyAccessLogService", Message(REMOTE_SERVICE)),
    ("envoyMetricsService", Message(REMOTE_SERVICE)),
    ("proxyMetadata", TextMap),
    ("runtimeValues", TextMap),
    ("statusPort", Int32),
    ("extraStatTags", Texts),
    (
        "gatewayTopology",
        Message(&[
            ("numTrustedProxies", UInt32),
            ("forwardClientCertDetails", FORWARD_CLIENT_CERT),
            ("proxyProtocol", Any),
        ]),
    ),
    ("terminationDrainDuration", Duration),
    ("meshId", Text),
    ("readinessProbe", Any),
    (
        "proxyStatsMatcher",
        Message(&[("inclusionPrefixes", Texts), ("inclusionSuffixes", Texts), ("inclusionRegexps", Texts)]),
    ),
    ("holdApplicationUntilProxyStarts", OptionalBool),
    ("caCertificatesPem", Texts),
    ("image", Message(&[("imageType", Text)])),
    ("privateKeyProvider", Message(&[("cryptomb", Message(KEY_PROVIDER)), ("qat", Message(KEY_PROVIDER))])),
    ("proxyHeaders", Message(PROXY_HEADERS)),
    ("fileFlushInterval", Duration),
    ("fileFlushMinSizeKb", UInt32),
    ("statsCompression", OptionalBool),
    ("connectionSettings", Message(CONNECTION_SETTINGS)),
];
