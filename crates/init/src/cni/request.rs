//! What a container runtime asks a plugin for: variables of the environment, and the network configuration on standard
//! input (<https://www.cni.dev/docs/spec/>, sections 2 and 5).

use std::collections::BTreeMap;

use outrigger_contract::CAPTURE_ANNOTATION;
use serde_json::{Map, Value, json};

use crate::istio;
use crate::options::{Capture, Options, Surroundings, Task};
use crate::sidecar::Dns;

/// Versions of the specification, oldest first. Before 0.3.0 there was no chaining.
pub(crate) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Error codes of the specification.
pub(crate) const INCOMPATIBLE: u32 = 1;
pub(crate) const ENVIRONMENT: u32 = 4;
pub(crate) const IO: u32 = 5;
pub(crate) const UNDECODABLE: u32 = 6;
pub(crate) const CONFIGURATION: u32 = 7;
/// Our own, from 100 on: the pod's annotation makes no sense; capture could not be programmed, or is not as planned.
pub(crate) const ANNOTATION: u32 = 100;
pub(crate) const CAPTURE: u32 = 101;

/// Capabilities: what the runtime adds to the configuration of a plugin that asks for it. containerd passes annotations
/// since 1.5, CRI-O since 1.28.
pub(crate) const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
pub(crate) const DNS: &str = "dns";

/// Names that say which pod it is (CNI_ARGS).
const NAMESPACE: &str = "K8S_POD_NAMESPACE";
const NAME: &str = "K8S_POD_NAME";

/// An error as the runtime is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) details: String,
}

impl Refusal {
    pub(crate) fn new(code: u32, message: &str, details: String) -> Refusal {
        Refusal { code, message: message.to_owned(), details }
    }

    pub(crate) fn answer(&self, version: &str) -> Value {
        json!({"cniVersion": version, "code": self.code, "msg": self.message, "details": self.details})
    }
}

/// A request that makes sense.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) asked: Asked,
    /// `None`: the pod is not to be captured.
    pub(crate) work: Option<Work>,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The versions that this plugin speaks, with the answer.
    Version(Value),
    /// Capture, with the answer: the result of the plugins before this one.
    Add(Value),
    /// Whether capture is as it was made.
    Check,
    /// What leaves nothing to do: the namespace goes with all that is in it, and nothing is kept outside.
    Nothing,
}

/// Capture in one namespace.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) netns: String,
    /// As messages name it.
    pub(crate) pod: String,
    pub(crate) options: Options,
    pub(crate) surroundings: Surroundings,
}

/// The version that an answer to this configuration has.
pub(crate) fn version_of(input: &str) -> String {
    let configuration: Option<Value> = serde_json::from_str(input).ok();
    let version = configuration.as_ref().and_then(|configuration| configuration["cniVersion"].as_str());
    version.unwrap_or(VERSIONS[VERSIONS.len() - 1]).to_owned()
}

impl Request {
    pub(crate) fn read(environment: &BTreeMap<String, String>, input: &str) -> Result<Request, Refusal> {
        let command = environment.get("CNI_COMMAND").map(String::as_str).unwrap_or_default();
        let needed: &[&str] = match command {
            "ADD" | "CHECK" => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            "DEL" => &["CNI_CONTAINERID", "CNI_IFNAME"],
            "GC" | "STATUS" | "VERSION" => &[],
            other => {
                let known = "it is none of ADD, DEL, CHECK, GC, STATUS, VERSION".to_owned();
                return Err(Refusal::new(ENVIRONMENT, &format!("CNI_COMMAND: {other:?}"), known));
            }
        };
        let missing = |name: &&&str| environment.get(**name).is_none_or(String::is_empty);
        let missing: Vec<&str> = needed.iter().filter(missing).copied().collect();
        if !missing.is_empty() {
            let message = format!("{command} needs {}", missing.join(", "));
            return Err(Refusal::new(
                ENVIRONMENT,
                &message,
                "the variables are empty or not there".to_owned(),
            ));
        }
        let configuration: Map<String, Value> = serde_json::from_str(input).map_err(|error| {
            Refusal::new(UNDECODABLE, "the network configuration is no JSON object", error.to_string())
        })?;
        let configuration = Value::Object(configuration);
        let version = version_of(input);
        if command == "VERSION" {
            let answer = json!({"cniVersion": version, "supportedVersions": VERSIONS});
            return Ok(Request { asked: Asked::Version(answer), work: None });
        }
        if !VERSIONS.contains(&version.as_str()) {
            let message = format!("cniVersion: {version:?} is not supported");
            return Err(Refusal::new(INCOMPATIBLE, &message, format!("have {}", VERSIONS.join(", "))));
        }
        if !matches!(command, "ADD" | "CHECK") {
            return Ok(Request { asked: Asked::Nothing, work: None });
        }
        let Some(result) = configuration.get("prevResult").filter(|result| result.is_object()) else {
            let details = "it belongs behind another plugin in a list (.conflist)".to_owned();
            return Err(Refusal::new(
                CONFIGURATION,
                "prevResult: this plugin makes no network of its own",
                details,
            ));
        };
        let asked = match command {
            "ADD" => {
                let mut result = result.clone();
                result["cniVersion"] = version.into();
                Asked::Add(result)
            }
            _ => Asked::Check,
        };
        let runtime = &configuration["runtimeConfig"];
        let work = match &runtime[ANNOTATIONS][CAPTURE_ANNOTATION] {
            Value::String(told) => Some(Work::read(told, runtime, environment)?),
            _ => None,
        };
        Ok(Request { asked, work })
    }
}

impl Work {
    fn read(told: &str, runtime: &Value, environment: &BTreeMap<String, String>) -> Result<Work, Refusal> {
        let arguments = environment.get("CNI_ARGS").map(String::as_str).unwrap_or_default();
        let named = |wanted: &str| {
            let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value).unwrap_or("?")
        };
        let pod = format!("pod {}/{}", named(NAMESPACE), named(NAME));
        let refused = |reason: &str| {
            let message = format!("{pod}: annotation {CAPTURE_ANNOTATION}: {reason}");
            Refusal::new(
                ANNOTATION,
                &message,
                "the injector writes this annotation; take yours away".to_owned(),
            )
        };
        let (arguments, variables) = told_of(told).ok_or_else(|| {
            refused("it is not of the form {\"args\": [\"-p\", \"15001\"], \"env\": {\"NAME\": \"value\"}}")
        })?;
        let mut surroundings = Surroundings {
            environment: variables,
            // The node's users and name servers are not the pod's.
            etc: "/dev/null".into(),
        };
        let servers = name_servers(runtime);
        surroundings.environment.extend(servers.clone());
        let arguments = match arguments.first().map(String::as_str) {
            Some("istio-iptables") => &arguments[1..],
            _ => &arguments[..],
        };
        let options =
            istio::options(arguments, &surroundings).map_err(|failure| refused(&failure.to_string()))?;
        let netns = environment.get("CNI_NETNS").cloned().unwrap_or_default();
        Ok(Work { netns, pod, options: within(options, servers.is_empty()), surroundings })
    }
}

/// Arguments and variables.
fn told_of(text: &str) -> Option<(Vec<String>, BTreeMap<String, String>)> {
    let told: Value = serde_json::from_str(text).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let arguments = told["args"].as_array()?.iter().map(text).collect::<Option<_>>()?;
    let variables = told["env"].as_object()?;
    let variables = variables.iter().map(|(name, value)| Some((name.clone(), text(value)?)));
    Some((arguments, variables.collect::<Option<_>>()?))
}

/// The pod's name servers, as the variables that name them.
fn name_servers(runtime: &Value) -> BTreeMap<String, String> {
    let servers = runtime[DNS]["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (v6, v4): (Vec<&str>, Vec<&str>) =
        servers.iter().filter_map(Value::as_str).partition(|server| server.contains(':'));
    let all = [("OUTRIGGER_DNS_SERVERS_V4", v4), ("OUTRIGGER_DNS_SERVERS_V6", v6)];
    let given = all.into_iter().filter(|(_, servers)| !servers.is_empty());
    given.map(|(name, servers)| (name.to_owned(), servers.join(","))).collect()
}

/// Of what the annotation asks for, only what is to be captured: whoever may create a pod may write it, and this
/// process is root on the node. It reads and writes no file, goes to no other namespace, and tries nothing with packets.
fn within(options: Options, servers_unknown: bool) -> Options {
    let capture = match options.capture {
        Capture::Sidecar { mut plan, detect_dns: true } if servers_unknown => {
            plan.dns = Dns::All;
            Capture::Sidecar { plan, detect_dns: false }
        }
        capture => capture,
    };
    Options {
        capture,
        task: Task::Apply,
        netns: None,
        dry_run: None,
        self_test: None,
        force: false,
        repair: true,
        close_wait: None,
        // The plugin looks itself.
        allow_host_network: true,
        ..options
    }
}
