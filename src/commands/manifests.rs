//! The manifests that a command line names: files, folders, standard input; split and parsed.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use outrigger::injection::Request;
use outrigger::manifest::{self, Document, Object, Pod, Problem};
use serde_json::Value;

/// The namespace of objects that name none, as in kubectl.
const DEFAULT_NAMESPACE: &str = "default";

/// Which manifests, and what is known about their namespaces.
#[derive(Debug, Args)]
#[command(next_help_heading = "Manifests")]
pub(crate) struct ManifestFlags {
    /// File, folder (its *.yaml, *.yml and *.json) or - for standard input; may be given several times
    #[arg(short, long = "filename", value_name = "FILE", required = true, value_parser = NonEmptyStringValueParser::new())]
    filenames: Vec<String>,
    /// Namespace of objects that name none [default: that of --namespace-manifest, else default]
    #[arg(short, long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    namespace: Option<String>,
    /// The Namespace object, for its labels and annotations; those among the manifests are seen anyway
    #[arg(long, value_name = "FILE")]
    namespace_manifest: Option<PathBuf>,
}

/// Text with its name: `app.yaml`, `standard input`.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: String,
    bytes: Vec<u8>,
}

impl Stream {
    /// Objects that come from elsewhere than a file.
    pub(crate) fn of_objects(name: &str, objects: &[Value]) -> Self {
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        Self { name: name.to_owned(), bytes: text.join("\n").into_bytes() }
    }
}

/// A document, and what it parses to.
#[derive(Debug)]
pub(crate) struct Parsed<'a> {
    pub(crate) stream: &'a str,
    pub(crate) document: Document<'a>,
    pub(crate) value: Result<Option<Value>, outrigger::yaml::Error>,
}

impl Parsed<'_> {
    /// A failure with its place.
    pub(crate) fn failure(&self, line: usize, message: impl fmt::Display) -> String {
        format!("{}, document {}, line {line}: {message}", self.stream, self.document.number)
    }

    /// The line on which one of its objects begins.
    pub(crate) fn line_of(&self, object: &Object) -> usize {
        match object.pointer.as_str() {
            "" => self.document.first_line_of_content(),
            pointer => self.document.line_of(pointer),
        }
    }

    /// A problem of one of its objects.
    pub(crate) fn problem(&self, object: &Object, title: &str, problem: &Problem) -> String {
        let line = self.document.line_of(&format!("{}{}", object.pointer, problem.pointer));
        self.failure(line, format_args!("{title}: {problem}"))
    }

    /// The objects that it holds; none where it does not parse.
    pub(crate) fn objects(&self) -> Result<Vec<Object<'_>>, String> {
        match &self.value {
            Ok(Some(value)) => {
                manifest::objects(value).map_err(|p| self.failure(self.document.line_of(&p.pointer), p))
            }
            Ok(None) => Ok(Vec::new()),
            Err(e) => Err(self.failure(e.line, format_args!("column {}: {}", e.column, e.message))),
        }
    }
}

impl ManifestFlags {
    /// Reads what the flags name, and says what could not be read.
    pub(crate) fn read(&self) -> (Vec<Stream>, Vec<String>) {
        let mut streams = Vec::new();
        let mut failures = Vec::new();
        for name in &self.filenames {
            match read(name) {
                Ok(read) => {
                    for outcome in read {
                        match outcome {
                            Ok(stream) => streams.push(stream),
                            Err(failure) => failures.push(failure),
                        }
                    }
                }
                Err(failure) => failures.push(failure),
            }
        }
        (streams, failures)
    }

    /// The namespace that the flags name.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// What is known about namespaces: by the flags, and by the Namespace objects among the manifests.
    pub(crate) fn namespaces(&self, parsed: &[Parsed]) -> Result<Namespaces, String> {
        let mut known = HashMap::new();
        for object in parsed.iter().filter_map(|p| p.objects().ok()).flatten() {
            if object.kind == "Namespace" && object.api_version == "v1" {
                known.insert(object.name.to_owned(), object.value["metadata"].clone());
            }
        }
        let mut default = self.namespace.clone();
        if let Some(file) = &self.namespace_manifest {
            let metadata = namespace_metadata(file)?;
            let name = metadata["name"].as_str().unwrap_or_default().to_owned();
            let name =
                if name.is_empty() { default.clone().unwrap_or(DEFAULT_NAMESPACE.to_owned()) } else { name };
            default.get_or_insert_with(|| name.clone());
            known.insert(name, metadata);
        }
        Ok(Namespaces { default: default.unwrap_or(DEFAULT_NAMESPACE.to_owned()), known })
    }
}

/// The namespaces that are known.
#[derive(Debug)]
pub(crate) struct Namespaces {
    default: String,
    known: HashMap<String, Value>,
}

impl Namespaces {
    /// The namespace that an object is in.
    pub(crate) fn of<'a>(&'a self, object: &Object<'a>) -> &'a str {
        if object.namespace.is_empty() { &self.default } else { object.namespace }
    }

    /// What the injector is told about a workload's pod.
    pub(crate) fn request<'a>(&'a self, object: &Object<'a>, pod: &'a Pod) -> Request<'a> {
        let namespace = self.of(object);
        Request {
            namespace,
            namespace_metadata: self.known.get(namespace),
            environment: &[],
            tag: None,
            owner: pod.owner.as_ref(),
        }
    }
}

/// The documents of all streams, in order.
pub(crate) fn parse(streams: &[Stream]) -> Vec<Parsed<'_>> {
    let mut parsed = Vec::new();
    for Stream { name, bytes } in streams {
        for document in manifest::split(bytes) {
            parsed.push(Parsed { stream: name, document, value: document.parse() });
        }
    }
    parsed
}

fn namespace_metadata(file: &Path) -> Result<Value, String> {
    let place = file.display();
    let bytes = std::fs::read(file).map_err(|e| format!("--namespace-manifest: cannot read {place}: {e}"))?;
    let documents = manifest::split(&bytes);
    let values: Result<Vec<_>, _> = documents.iter().filter_map(|d| d.parse().transpose()).collect();
    let values = values.map_err(|e| format!("--namespace-manifest: {place}: {e}"))?;
    match values.as_slice() {
        [value] if value["kind"] == "Namespace" => Ok(value["metadata"].clone()),
        _ => Err(format!(
            "--namespace-manifest: {place}: must hold one object of kind Namespace; kubectl get namespace NAME -o yaml \
             prints it"
        )),
    }
}

/// One `-f`: the streams of a folder may fail one by one.
fn read(name: &str) -> Result<Vec<Result<Stream, String>>, String> {
    if name == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map_err(|e| format!("cannot read standard input: {e}"))?;
        return stream("standard input", bytes).map(|stream| vec![Ok(stream)]);
    }
    if name.starts_with("http://") || name.starts_with("https://") {
        return Err(format!("{name}: URLs are not fetched; pipe it: curl -fsSL '{name}' | outrigger … -f -"));
    }
    let path = Path::new(name);
    if !path.is_dir() {
        return read_file(path).map(|stream| vec![Ok(stream)]);
    }
    let entries = std::fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut files: Vec<PathBuf> = entries
        .map_err(|e| format!("cannot read the folder {name}: {e}"))?
        .iter()
        .map(|e| e.path())
        .collect();
    files.retain(|file| {
        let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default();
        matches!(extension, "yaml" | "yml" | "json") && !file.is_dir()
    });
    if files.is_empty() {
        return Err(format!("the folder {name} holds no *.yaml, *.yml or *.json"));
    }
    files.sort();
    Ok(files.iter().map(|file| read_file(file)).collect())
}

fn read_file(path: &Path) -> Result<Stream, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    stream(&path.display().to_string(), bytes)
}

fn stream(name: &str, bytes: Vec<u8>) -> Result<Stream, String> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(format!("{name}: is UTF-16, and must be UTF-8; save it as UTF-8"));
    }
    Ok(Stream { name: name.to_owned(), bytes })
}
