//! Injected pods that run: their order of start, their traffic, their end.

use serde_json::{Value, json};

use crate::cluster::{Namespace, outrigger, repository, until};
use crate::install::installed;
use crate::pods::{self, IMAGE, container_status};

/// A sample, as it is.
fn sample_text(name: &str) -> String {
    let file = repository(&format!("samples/{name}.yaml"));
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Installs a sample.
fn sample(namespace: &Namespace, name: &str) {
    namespace.try_kubectl(&["apply", "--filename=-"], &sample_text(name)).expect("applied");
    namespace.wait("condition=Available", &format!("deployment/{name}"));
}

/// The only pod with the label `app=name`.
fn pod_of(namespace: &Namespace, name: &str) -> Value {
    let mut pods = namespace.pods(&format!("app={name}"));
    assert_eq!(pods.len(), 1);
    pods.remove(0)
}

/// A pod's address.
pub(crate) fn address_of(pod: &Value) -> &str {
    pod["status"]["podIP"].as_str().unwrap_or_else(|| panic!("no address: {pod:#}"))
}

/// A pod that runs `command` in its container `app`, with the label `app=name`.
pub(crate) fn running(name: &str, command: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 60,
            "containers": [{"name": "app", "image": IMAGE, "command": command}]
        }
    })
}

/// A command that runs until SIGTERM. A shell that is the first process has to be told to end then.
pub(crate) const UNTIL_SIGTERM: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"];

/// Sends back what it gets on port 9000.
pub(crate) const ECHO: [&str; 6] = ["nc", "-ll", "-p", "9000", "-e", "cat"];

/// What the proxy in a pod counted, read from one of its other containers.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) fn read(namespace: &Namespace, pod: &str, container: &str) -> Metrics {
        Metrics::fetched(namespace, pod, container, &["wget", "-qO-"])
    }

    /// As [`Metrics::read`], in a container of the samples, whose images have a curl.
    fn of_sample(namespace: &Namespace, deployment: &str, container: &str) -> Metrics {
        Metrics::fetched(namespace, &format!("deployment/{deployment}"), container, &["curl", "-sS"])
    }

    fn fetched(namespace: &Namespace, pod: &str, container: &str, program: &[&str]) -> Metrics {
        let exec = ["exec", pod, "-c", container, "--"];
        let url = "http://127.0.0.1:15090/stats/prometheus";
        Metrics(namespace.kubectl(&[&exec[..], program, &[url]].concat()).stdout)
    }

    /// The sum of the series `name` that have all of these labels, each as `label="value"`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let lines = self.0.lines().filter(|line| {
            line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
        });
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// TCP connections that were opened, of the series that have the label `reporter`.
    pub(crate) fn tcp_opened(&self, reporter: &str) -> u64 {
        self.sum("istio_tcp_connections_opened_total", &[reporter])
    }

    /// TCP connections of one direction: `source` for what the application opened, `destination` for what was opened
    /// to it.
    fn tcp(&self, reporter: &str) -> Tcp {
        let sum =
            |name: &str| self.sum(&format!("istio_tcp_{name}_total"), &[&format!("reporter=\"{reporter}\"")]);
        Tcp {
            opened: sum("connections_opened"),
            closed: sum("connections_closed"),
            received: sum("received_bytes"),
            sent: sum("sent_bytes"),
        }
    }
}

/// Connections and bytes of one direction.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tcp {
    opened: u64,
    closed: u64,
    received: u64,
    sent: u64,
}

#[test]
fn both_proxies_count_the_bytes_of_a_connection() {
    installed();
    let namespace = Namespace::injected("bytes");
    namespace.create_object(&running("echo", &ECHO));
    namespace.create_object(&running("client", &UNTIL_SIGTERM));
    for (pod, reporter) in [("pod/echo", "destination"), ("pod/client", "source")] {
        namespace.wait("condition=Ready", pod);
        assert_eq!(Metrics::read(&namespace, pod, "app").tcp(reporter), Tcp::default(), "{pod}");
    }

    count_bytes(&namespace);
}

/// Sends bytes from the pod `client` to the pod `echo` and back, and sees both proxies count each of them.
///
/// Nothing else may speak to these two.
pub(crate) fn count_bytes(namespace: &Namespace) {
    const SIZE: u64 = 1_000_000;
    let echo = namespace.get("pod", "echo");
    let address = address_of(&echo);
    let there_and_back = format!("head -c {SIZE} /dev/zero | nc {address} 9000 | wc -c");
    let echoed =
        namespace.kubectl(&["exec", "client", "-c", "app", "--", "sh", "-c", &there_and_back]).stdout;
    assert_eq!(echoed.trim(), SIZE.to_string());

    let expected = Tcp { opened: 1, closed: 1, received: SIZE, sent: SIZE };
    for (pod, reporter) in [("pod/echo", "destination"), ("pod/client", "source")] {
        until(&format!("the bytes at {pod}"), || match Metrics::read(namespace, pod, "app").tcp(reporter) {
            counted if counted == expected => Ok(()),
            counted => Err(format!("{counted:?}, not {expected:?}")),
        });
    }
}

#[test]
fn a_request_from_another_pod_reaches_the_application() {
    installed();
    let namespace = Namespace::injected("request");
    sample(&namespace, "httpbin");
    sample(&namespace, "sleep");
    for app in ["httpbin", "sleep"] {
        let pod = pod_of(&namespace, app);
        assert!(pods::injected(&pod), "{pod:#}");
        let init = &container_status(&pod, "istio-init")["state"]["terminated"];
        assert_eq!(init["exitCode"], 0, "{init:#}");
        let proxy = container_status(&pod, "istio-proxy");
        assert_eq!((&proxy["started"], &proxy["ready"]), (&json!(true), &json!(true)), "{proxy:#}");
        // Whole seconds; `a_job_with_a_sidecar_completes` shows the order without a clock.
        let started = |name| container_status(&pod, name)["state"]["running"]["startedAt"].as_str();
        assert!(started("istio-proxy").unwrap() <= started(app).unwrap(), "{pod:#}");
    }
    let curl = |arguments: &[&str]| {
        let exec = ["exec", "deployment/sleep", "-c", "sleep", "--", "curl", "-sS"];
        namespace.try_kubectl(&[&exec[..], arguments].concat(), "").map(|output| output.stdout)
    };
    let get = |path: &str| curl(&[&format!("http://httpbin:8000{path}")]).expect("an answer");
    // The node learns of a Service's pods a moment after they are ready.
    until("an answer from the Service", || {
        let status = ["-o", "/dev/null", "-w", "%{http_code}", "http://httpbin:8000/status/418"];
        // Only httpbin says so.
        curl(&status).and_then(|code| if code == "418" { Ok(()) } else { Err(code) })
    });
    let json = |path| serde_json::from_str::<Value>(&get(path)).expect("JSON");
    // The application sees the proxy's own source address, so nothing else opened the connection.
    assert_eq!(json("/ip"), json!({"origin": "127.0.0.6"}));
    assert_eq!(
        curl(&["-o", "/dev/null", "-w", "%{size_download}", "http://httpbin:8000/bytes/100000"]),
        Ok("100000".to_owned())
    );
    let headers = &json("/headers")["headers"];
    assert_eq!(headers["Host"], "httpbin:8000", "{headers}");
    assert!(headers["X-Request-Id"].is_string(), "{headers}");
    for (app, reporter) in [("httpbin", "destination"), ("sleep", "source")] {
        let labels = [&format!("reporter=\"{reporter}\""), "response_code=\"200\""];
        until(&format!("three requests at {app}"), || {
            match Metrics::of_sample(&namespace, app, app).sum("istio_requests_total", &labels) {
                3 => Ok(()),
                other => Err(other.to_string()),
            }
        });
    }
}

/// Without the webhook: `outrigger inject` to a file, in a namespace that asks for nothing.
#[test]
fn bookinfo_injected_by_hand_calls_through_its_sidecars() {
    installed();
    let namespace = Namespace::create("bookinfo", json!({}));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bookinfo.yaml");
    std::fs::write(&file, format!("{}---\n{}", sample_text("bookinfo"), sample_text("sleep"))).unwrap();
    let injected = outrigger(&["inject", "-f", &file.display().to_string(), "-n", &namespace.name]).stdout;
    namespace.try_kubectl(&["apply", "--filename=-"], &injected).expect("applied");
    let parts =
        ["productpage-v1", "details-v1", "reviews-v1", "reviews-v2", "reviews-v3", "ratings-v1", "sleep"];
    for part in parts {
        namespace.wait("condition=Available", &format!("deployment/{part}"));
    }
    let curl = |url: &str| {
        let exec = ["exec", "deployment/sleep", "-c", "sleep", "--", "curl", "-sSf", url];
        namespace.try_kubectl(&exec, "").map(|output| output.stdout)
    };
    // The node learns of a Service's pods a moment after they are ready, and a busy one may be slow to answer.
    let asked = |path: &str, is: &dyn Fn(&str) -> bool| {
        until(path, || {
            let answer = curl(&format!("http://productpage:9080{path}"))?;
            if is(&answer) { Ok(()) } else { Err(answer) }
        });
    };
    asked("/productpage", &|page| {
        page.contains("<dt>Year</dt><dd>1595</dd>")
            && page.contains("Reviews v")
            && !page.contains("unavailable:")
    });
    let is_json = |answer: &str, expected: &Value| {
        serde_json::from_str::<Value>(answer).is_ok_and(|answer| answer == *expected)
    };
    let ratings = json!({"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}});
    asked("/api/v1/products/0/ratings", &|answer| is_json(answer, &ratings));
    // Which version answers is the node's choice for each connection, so each is asked by its address.
    for (version, color) in [("v1", None), ("v2", Some("black")), ("v3", Some("red"))] {
        let pods = namespace.pods(&format!("app=reviews,version={version}"));
        let url = format!("http://{}:9080/reviews/0", address_of(&pods[0]));
        let rating = color.map_or(Value::Null, |color| json!({"stars": 5, "color": color}));
        until(&format!("reviews {version}"), || {
            let answer = curl(&url)?;
            let reviews: Value =
                serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
            let is = reviews["version"] == version && reviews["reviews"][0]["rating"] == rating;
            if is { Ok(()) } else { Err(answer) }
        });
    }
    for (part, container, reporter) in
        [("productpage-v1", "productpage", "source"), ("details-v1", "details", "destination")]
    {
        let labels = [format!("reporter=\"{reporter}\""), "response_code=\"200\"".to_owned()];
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        until(&format!("requests at {part}"), || {
            let metrics = Metrics::of_sample(&namespace, part, container);
            if metrics.sum("istio_requests_total", &labels) > 0 {
                Ok(())
            } else {
                Err(format!("{metrics:?}"))
            }
        });
    }
}

#[test]
fn a_job_with_a_sidecar_completes() {
    installed();
    let namespace = Namespace::injected("job");
    sample(&namespace, "httpbin");
    // The very first thing that the application does: find its sidecar ready, and use it.
    let httpbin = pod_of(&namespace, "httpbin");
    let address = address_of(&httpbin);
    let first_act =
        format!("wget -qO- http://127.0.0.1:15021/healthz/ready && wget -qO- http://{address}:8000/ip");
    let container = json!({"name": "app", "image": IMAGE, "command": ["sh", "-c", first_act]});
    namespace.create_object(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"},
        "spec": {"backoffLimit": 0, "template": {
            "metadata": {"labels": {"app": "job"}},
            "spec": {"restartPolicy": "Never", "containers": [container]}
        }}
    }));
    namespace.wait("condition=Complete", "job/job");
    let pod = pod_of(&namespace, "job");
    assert!(pods::injected(&pod), "{pod:#}");
    assert_eq!(pod["status"]["phase"], "Succeeded", "{pod:#}");
    for name in ["istio-init", "app", "istio-proxy"] {
        let status = container_status(&pod, name);
        assert_eq!(status["state"]["terminated"]["exitCode"], 0, "{status:#}");
        assert_eq!(status["restartCount"], 0, "{status:#}");
    }
}

#[test]
fn a_deleted_pod_ends_by_itself_within_its_grace_period() {
    installed();
    let namespace = Namespace::injected("end");
    let mut pod = running("pod", &UNTIL_SIGTERM);
    // Keeps the pod's last status to be read.
    pod["metadata"]["finalizers"] = json!(["outrigger.dev/test"]);
    namespace.create_object(&pod);
    namespace.wait("condition=Ready", "pod/pod");
    namespace.kubectl(&["delete", "pod", "pod", "--wait=false"]);
    let ended = until("the end of all containers", || {
        let pod = namespace.get("pod", "pod");
        let runs = |name: &&str| container_status(&pod, name)["state"]["terminated"].is_null();
        match ["app", "istio-proxy"].iter().find(|name| runs(name)) {
            Some(name) => Err(format!("{name} still runs")),
            None => Ok(pod),
        }
    });
    for name in ["app", "istio-proxy"] {
        let terminated = &container_status(&ended, name)["state"]["terminated"];
        // 137 would be the kubelet's SIGKILL at the end of the grace period.
        assert_eq!(terminated["exitCode"], 0, "{name}: {terminated:#}");
    }
    // The sidecar serves until the application is gone.
    let finished = |name| container_status(&ended, name)["state"]["terminated"]["finishedAt"].as_str();
    assert!(finished("app").unwrap() <= finished("istio-proxy").unwrap(), "{ended:#}");
    namespace.kubectl(&[
        "patch",
        "pod",
        "pod",
        "--type=merge",
        "--patch",
        r#"{"metadata":{"finalizers":null}}"#,
    ]);
    namespace.wait("delete", "pod/pod");
}
