//! One HTTP request on a connection of its own.

use std::pin::pin;
use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::local::LocalExecutor;

/// What is spoken on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Http1,
    /// HTTP/2 without negotiation, as gRPC speaks it.
    Http2,
    /// TLS, any certificate; the server chooses the version of HTTP.
    Tls,
}

/// A response, read to its end or to the limit.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
    /// The body was longer than the limit, and is cut.
    pub(crate) cut: bool,
}

/// Sends `request` on `stream` and reads at most `limit` bytes of the answer's body. Must run on a local runtime.
pub(crate) async fn ask(
    stream: TcpStream,
    wire: Wire,
    request: Request<Bytes>,
    limit: usize,
) -> Result<Answer, String> {
    let address = stream.peer_addr().map_err(|error| error.to_string())?;
    match wire {
        Wire::Http1 => http1(stream, request, limit).await,
        Wire::Http2 => http2(stream, request, limit).await,
        Wire::Tls => {
            let name = ServerName::IpAddress(address.ip().into());
            let connector = TlsConnector::from(tls()?);
            let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                http2(stream, absolute(request, &address.to_string()), limit).await
            } else {
                http1(stream, request, limit).await
            }
        }
    }
}

/// HTTP/2 wants scheme and authority, and has no use for a connection's headers.
fn absolute(mut request: Request<Bytes>, address: &str) -> Request<Bytes> {
    let host = request.headers_mut().remove(http::header::HOST);
    request.headers_mut().remove(http::header::CONNECTION);
    let authority = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or(address);
    if let Ok(uri) = format!("https://{authority}{}", request.uri()).parse() {
        *request.uri_mut() = uri;
    }
    request
}

/// The same in HTTP/1 on any stream.
pub(crate) async fn http1<S>(stream: S, request: Request<Bytes>, limit: usize) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| describe(&error))?;
    exchange(sender.send_request(request.map(Full::new)), connection, limit).await
}

async fn http2<S>(stream: S, request: Request<Bytes>, limit: usize) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http2::handshake(LocalExecutor, TokioIo::new(stream))
        .await
        .map_err(|error| describe(&error))?;
    exchange(sender.send_request(request.map(Full::new)), connection, limit).await
}

/// Drives `connection` until the response has been read: nothing outlives its answer.
async fn exchange(
    sent: impl Future<Output = hyper::Result<http::Response<Incoming>>>,
    connection: impl Future,
    limit: usize,
) -> Result<Answer, String> {
    let answer = async { read(sent.await.map_err(|error| describe(&error))?, limit).await };
    let (mut answer, mut connection) = (pin!(answer), pin!(connection));
    tokio::select! {
        answer = &mut answer => return answer,
        _ = &mut connection => {}
    }
    // Its last words may have come with the connection's end.
    answer.await
}

async fn read(response: http::Response<Incoming>, limit: usize) -> Result<Answer, String> {
    let (head, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    let mut answer = Answer {
        status: head.status,
        headers: head.headers,
        body: Bytes::new(),
        trailers: HeaderMap::new(),
        cut: false,
    };
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| describe(&error))?.into_data() {
            Ok(data) if bytes.len() + data.len() > limit => {
                bytes.extend_from_slice(&data[..limit - bytes.len()]);
                answer.cut = true;
                break;
            }
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => answer.trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    answer.body = bytes.freeze();
    Ok(answer)
}

/// hyper says what it was doing; the reason is its source.
fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn tls() -> Result<Arc<ClientConfig>, String> {
    static CONFIG: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    });
    CONFIG.clone()
}

/// Accepts any certificate, as the kubelet does for probes: the question is whether the application answers, not who
/// it is.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
