//! Everything that talks to an API server. What comes from it stays raw JSON, as everywhere.
//!
//! The cluster is found as kubectl finds it: a kubeconfig that is named, those of `$KUBECONFIG`, `~/.kube/config`, or
//! the service account of the pod that the program runs in.

pub mod apply;
mod events;
mod installation;
mod keeper;
mod lease;
mod namespaces;
mod replicas;
mod restart;
mod running;
mod serving;
mod signer;
mod survey;
mod wanting;
mod watches;
mod which;

use std::time::Duration;

use axum::http::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE, DATE};
use axum::http::request::Builder;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tokio::time::timeout;

pub use installation::Installation;
pub use keeper::ROTATE_ANNOTATION;
pub use restart::{How, Left, is_rolled_out, restart};
pub use running::Running;
pub use signer::Signer;
pub use survey::survey;
pub use wanting::wanting;
pub use which::Which;

/// All registrations of mutating webhooks.
const REGISTRATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
/// How long an answer may take: by then API servers have given a request up themselves (`--request-timeout`).
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a cluster cannot be asked, or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cluster is configured, or its configuration cannot be used.
    #[error("no cluster to ask: {0}")]
    Unknown(String),
    /// The API server answers with an error: the object is not there, nobody may see it, it is another one by now.
    #[error("{what}: the API server says: {message}")]
    Refused {
        /// The path that was asked for.
        what: String,
        /// The HTTP status.
        code: u16,
        /// What the API server says.
        message: String,
    },
    /// No answer.
    #[error("{server} does not answer: {message}")]
    Silent {
        /// The API server.
        server: String,
        /// What went wrong.
        message: String,
    },
}

impl Error {
    /// Whether the API server answered with this HTTP status.
    pub fn is(&self, status: u16) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == status)
    }
}

impl std::fmt::Display for Cluster {
    /// The address of its API server.
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.server)
    }
}

/// A cluster that can be asked.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    server: String,
    /// The namespace of the context, `default` where it names none.
    pub namespace: String,
}

impl Cluster {
    /// Finds the cluster. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub async fn find(which: &Which) -> Result<Self, Error> {
        let config = which.config().await.map_err(Error::Unknown)?;
        let (server, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let client = which::client(config).map_err(Error::Unknown)?;
        Ok(Self { client, server, namespace })
    }

    /// An object or a list, by its path, such as `/api/v1/namespaces/shop`.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Silent`].
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.request(Request::get(path), path, Vec::new()).await
    }

    /// All items of the list at `path`, a part at a time.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, Error> {
        let mut items = Vec::new();
        self.pages(path, JSON, |found| items.extend(found)).await?;
        Ok(items)
    }

    /// Shows the items of the list at `path`, a part at a time, with nothing but their metadata.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn metadata(&self, path: &str, mut see: impl FnMut(&[Value])) -> Result<(), Error> {
        self.pages(path, METADATA, |found| see(&found)).await
    }

    async fn pages(&self, path: &str, accept: &str, mut see: impl FnMut(Vec<Value>)) -> Result<(), Error> {
        let mut from = String::new();
        let separator = if path.contains('?') { '&' } else { '?' };
        loop {
            let request = Request::get(format!("{path}{separator}limit={PAGE}{from}"));
            let mut part = self.request(request.header(ACCEPT, accept), path, Vec::new()).await?;
            if let Value::Array(found) = part["items"].take() {
                see(found);
            }
            match part["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => from = format!("&continue={token}"),
                None => return Ok(()),
            }
        }
    }

    /// The text at `path`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn text(&self, path: &str) -> Result<String, Error> {
        let request = Request::get(path).body(Vec::new()).map_err(|e| self.silent(&e))?;
        self.answered(self.client.request_text(request)).await?.map_err(|e| self.error(path, &e))
    }

    /// An object by its path, `None` where there is none, and when that was so: the answer's `Date`.
    ///
    /// # Errors
    /// As [`Self::get`].
    async fn get_dated(&self, path: &str) -> Result<(Option<Value>, String), Error> {
        let request = Request::get(path).body(Body::empty()).map_err(|e| self.silent(&e))?;
        let answer = self.answered(self.client.send(request)).await?.map_err(|e| self.silent(&cause(&e)))?;
        let (status, date) = (answer.status(), answer.headers().get(DATE));
        let date = date.and_then(|date| date.to_str().ok()).unwrap_or_default().to_owned();
        let body = self.answered(answer.into_body().collect()).await?;
        let body = body.map_err(|e| self.silent(&cause(&e)))?.to_bytes();
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        match status.as_u16() {
            200 => Ok((Some(value), date)),
            404 => Ok((None, date)),
            code => {
                let message = value["message"].as_str().unwrap_or("(no message)").to_owned();
                Err(Error::Refused { what: path.to_owned(), code, message })
            }
        }
    }

    /// Creates an object in the collection at `path`; the answer is what was stored.
    ///
    /// # Errors
    /// As [`Self::get`]; 409 where it is there already.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.request(Request::post(path).header(CONTENT_TYPE, JSON), path, written(object)).await
    }

    /// Replaces the object at `path`; the answer is what was stored.
    ///
    /// # Errors
    /// As [`Self::get`]; 409 where its `metadata.resourceVersion` is not the one that is there.
    pub(crate) async fn replace(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.request(Request::put(path).header(CONTENT_TYPE, JSON), path, written(object)).await
    }

    /// Changes the object at `path`; the answer is what was stored.
    ///
    /// # Errors
    /// As [`Self::get`]; 422 where a test of a JSON patch fails.
    pub async fn patch(&self, path: &str, change: &Change<'_>) -> Result<Value, Error> {
        let (kind, change) = match change {
            Change::Json(change) => ("application/json-patch+json", change),
            Change::Merge(change) => ("application/merge-patch+json", change),
            Change::Apply(change) => ("application/apply-patch+yaml", change),
        };
        self.request(Request::patch(path).header(CONTENT_TYPE, kind), path, written(change)).await
    }

    /// Deletes the object at `path`.
    ///
    /// # Errors
    /// As [`Self::get`]; 404 where there is none.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value, Error> {
        self.request(Request::delete(path), path, Vec::new()).await
    }

    async fn request(&self, request: Builder, path: &str, body: Vec<u8>) -> Result<Value, Error> {
        let request = request.body(body).map_err(|e| self.silent(&e))?;
        self.answered(self.client.request(request)).await?.map_err(|e| self.error(path, &e))
    }

    /// The answer, if there is one within [`PATIENCE`]: an API server that is frozen closes no connection.
    async fn answered<T>(&self, answer: impl Future<Output = T>) -> Result<T, Error> {
        timeout(PATIENCE, answer).await.map_err(|_| self.late(PATIENCE))
    }

    fn late(&self, patience: Duration) -> Error {
        self.silent(&format_args!("no answer within {} s", patience.as_secs()))
    }

    fn silent(&self, message: &dyn std::fmt::Display) -> Error {
        Error::Silent { server: self.server.clone(), message: message.to_string() }
    }

    fn error(&self, path: &str, error: &kube::Error) -> Error {
        match error {
            kube::Error::Api(status) => {
                Error::Refused { what: path.to_owned(), code: status.code, message: status.message.clone() }
            }
            other => self.silent(&cause(other)),
        }
    }
}

const JSON: &str = "application/json";
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches>
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// Items of one answer.
const PAGE: usize = 500;

fn written(object: &Value) -> Vec<u8> {
    object.to_string().into_bytes()
}

/// What is to be changed of an object, in the API server's three ways.
#[derive(Debug)]
pub enum Change<'a> {
    /// RFC 6902: a list of operations.
    Json(&'a Value),
    /// RFC 7386.
    Merge(&'a Value),
    /// Server-side apply; the path's query names the field manager.
    Apply(&'a Value),
}

/// The last of an error's causes: what the system, or the other side, said. Those before it name the layers of a library.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(error) = last.source() {
        last = error;
    }
    last.to_string()
}
