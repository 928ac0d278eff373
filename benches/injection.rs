//! One injection with the pack `istio`, engine only: from the pod's JSON to the patch in base64.
//!
//! ```text
//! cargo bench --bench injection [-- --json]         time and allocations of each kind
//! cargo bench --bench injection -- unseen 1000      that many injections of a kind and nothing else, to be counted:
//! valgrind --tool=callgrind target/release/deps/injection-… unseen 1000
//! ```
//!
//! `unseen`: every pod is of a workload that was not injected before. `replica`: all pods are replicas of one.
//! `first`: as unseen, with an injector that has injected nothing before, as after a start or a change of settings.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::alloc::System;
use std::hint::black_box;
use std::time::Instant;

use outrigger::injection::{Injector, Request};
use outrigger::settings::Settings;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Pods of one measurement.
const COUNT: usize = 2000;
/// Pods that are injected before.
const WARM_UP: usize = 20;
/// Microseconds that Istio's injector takes for the pod of one container.
const ISTIO: f64 = 2400.0;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if let [kind, count] = arguments.as_slice() {
        let injector = injector();
        let pods = pods(kind, count.parse().unwrap(), 1);
        for pod in &pods {
            inject(&injector, pod);
        }
        return;
    }
    let rows =
        [1, 3, 10, 100].map(|containers| ["unseen", "replica"].map(|kind| Row::measure(kind, containers)));
    let rows: Vec<Row> = rows.into_iter().flatten().chain([Row::measure("first", 1)]).collect();
    if std::env::args().any(|argument| argument == "--json") {
        let budget = |kind: &str, what: &str, wanted: u32| {
            let row = rows.iter().find(|row| row.kind == kind && row.containers == 1).unwrap();
            let what = format!("one injection, {what}: Istio's time over ours");
            json!({"what": what, "measured": ISTIO / row.microseconds, "wanted": wanted, "at": "least"})
        };
        let budgets = [
            budget("unseen", "a workload not seen before", 10),
            budget("replica", "the next replica of one", 30),
        ];
        let figures: Vec<Value> = rows.iter().map(Row::json).collect();
        println!("{:#}", json!({"budgets": budgets, "figures": figures}));
        return;
    }
    println!(
        "{:<10} {:>11} {:>12} {:>12} {:>12} {:>12}",
        "", "containers", "us", "allocations", "bytes", "patch"
    );
    rows.iter().for_each(Row::print);
    growth();
}

/// How time and memory grow: with annotations, and with reloads of the settings.
fn growth() {
    println!("\n{:<12} {:>12} {:>12}", "annotations", "us", "us each");
    for annotations in [10, 100, 1000, 10_000] {
        let injector = injector();
        let best = (0..20).map(|i| {
            let mut pod = pod(&format!("web-{i}"), 1);
            let annotation = |n: usize| (format!("example.com/key-{n}"), json!("a value"));
            pod["metadata"]["annotations"] = (0..annotations).map(annotation).collect();
            let pod = pod.to_string();
            let start = Instant::now();
            inject(&injector, &pod);
            start.elapsed().as_secs_f64() * 1e6
        });
        let best = best.fold(f64::MAX, f64::min);
        println!("{annotations:<12} {best:>12.1} {:>12.2}", best / annotations as f64);
    }
    println!("\n{:<12} {:>12} {:>12}", "reloads", "ms each", "bytes kept");
    for reloads in [10, 100, 1000] {
        let (region, start) = (Region::new(ALLOCATOR), Instant::now());
        for _ in 0..reloads {
            inject(&injector(), &pod("web", 1).to_string());
        }
        let change = region.change();
        let kept = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
        println!(
            "{reloads:<12} {:>12.2} {kept:>12}",
            start.elapsed().as_secs_f64() * 1e3 / f64::from(reloads)
        );
    }
}

/// What one injection of a kind takes.
struct Row {
    kind: &'static str,
    containers: usize,
    microseconds: f64,
    allocations: usize,
    bytes: usize,
    /// Bytes.
    patch: usize,
}

impl Row {
    fn print(&self) {
        let Row { kind, containers, microseconds, allocations, bytes, patch } = self;
        println!(
            "{kind:<10} {containers:>11} {microseconds:>12.1} {allocations:>12} {bytes:>12} {patch:>12}"
        );
    }

    fn json(&self) -> Value {
        json!({"kind": self.kind, "containers": self.containers, "microseconds": self.microseconds,
               "allocations": self.allocations, "bytes": self.bytes, "patch": self.patch})
    }

    fn measure(kind: &'static str, containers: usize) -> Row {
        let count = if kind == "first" { 50 } else { COUNT / containers.max(1) };
        let pods = pods(kind, count + WARM_UP, containers);
        let warm = injector();
        for pod in &pods[count..] {
            inject(&warm, pod);
        }
        let fresh: Vec<Injector> =
            if kind == "first" { (0..count).map(|_| injector()).collect() } else { Vec::new() };
        let (mut best, mut allocations, mut bytes, mut patch) = (f64::MAX, 0, 0, 0);
        // The fastest of some turns, because others use the machine too.
        for turn in 0..10 {
            let slice = &pods[turn * count / 10..(turn + 1) * count / 10];
            let region = Region::new(ALLOCATOR);
            let start = Instant::now();
            for (i, pod) in slice.iter().enumerate() {
                let injector = fresh.get(turn * count / 10 + i).unwrap_or(&warm);
                patch = inject(injector, pod);
            }
            best = f64::min(best, start.elapsed().as_secs_f64() / slice.len() as f64);
            let change = region.change();
            (allocations, bytes) = (change.allocations / slice.len(), change.bytes_allocated / slice.len());
        }
        Row { kind, containers, microseconds: best * 1e6, allocations, bytes, patch }
    }
}

fn injector() -> Injector {
    Injector::new(Settings::parse("pack: istio", "bench").unwrap()).unwrap()
}

fn inject(injector: &Injector, pod: &str) -> usize {
    let request = Request { namespace: "default", ..Request::default() };
    black_box(injector.patch(pod, &request).unwrap().patch_bytes())
}

/// Pods as the ReplicaSet controller sends them; replicas differ in what the API server adds.
fn pods(kind: &str, count: usize, containers: usize) -> Vec<String> {
    let pod = |i: usize| match kind {
        "replica" => with_additions(pod("web", containers), i),
        _ => pod(&format!("web-{i}"), containers),
    };
    (0..count).map(|i| pod(i).to_string()).collect()
}

/// The volume of the service account's token and the managed fields, which differ from pod to pod.
fn with_additions(mut pod: Value, i: usize) -> Value {
    let volume = format!("kube-api-access-{:05}", i % 100_000);
    for container in pod["spec"]["containers"].as_array_mut().unwrap() {
        container["volumeMounts"] = json!([{"name": volume, "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    }
    pod["spec"]["volumes"] = json!([{"name": volume, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}]);
    pod["metadata"]["managedFields"] = json!([{"manager": "kube-controller-manager", "operation": "Update",
        "apiVersion": "v1", "time": format!("2026-01-01T{:02}:{:02}:{:02}Z", i / 3600 % 24, i / 60 % 60, i % 60),
        "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:generateName": {}, "f:labels": {".": {}, "f:app": {}},
        "f:ownerReferences": {".": {}, "k:{\"uid\":\"u\"}": {}}}, "f:spec": {"f:containers":
        {"k:{\"name\":\"web-0\"}": {".": {}, "f:image": {}, "f:name": {}, "f:ports": {}, "f:resources": {}}}}}}]);
    pod
}

fn pod(name: &str, containers: usize) -> Value {
    let container = |i: usize| {
        json!({"name": format!("{name}-{i}"), "image": format!("registry.example/{name}:1.{i}"), "resources": {},
            "ports": [{"name": "http", "containerPort": 8080 + i}]})
    };
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "generateName": format!("{name}-5d4f8-"),
            "labels": {"app": name, "pod-template-hash": "5d4f8", "tier": "backend", "track": "stable"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-5d4f8"), "uid": "u", "controller": true}],
        },
        "spec": {"containers": (0..containers).map(container).collect::<Vec<_>>()},
        "status": {},
    })
}
