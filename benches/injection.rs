//! One injection with the pack `istio`, engine only: the pod's JSON is parsed, injected, compared, and the patch
//! written.
//!
//! ```text
//! cargo bench --bench injection                     time and allocations of each kind
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
use outrigger::patch;
use outrigger::settings::Settings;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Pods of one measurement.
const COUNT: usize = 2000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if let [kind, count] = arguments.as_slice() {
        let injector = injector();
        let pods = pods(kind, count.parse().unwrap(), 1);
        pods.iter().for_each(|pod| drop(inject(&injector, pod)));
        return;
    }
    println!(
        "{:<10} {:>11} {:>12} {:>12} {:>12} {:>12}",
        "", "containers", "us", "allocations", "bytes", "patch"
    );
    for containers in [1, 3, 10, 100] {
        for kind in ["unseen", "replica"] {
            measure(kind, containers);
        }
    }
    measure("first", 1);
}

fn measure(kind: &str, containers: usize) {
    let count = if kind == "first" { 50 } else { COUNT / containers.max(1) };
    let pods = pods(kind, count, containers);
    let warm = injector();
    pods.iter().take(20).for_each(|pod| drop(inject(&warm, pod)));
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
            patch = black_box(inject(injector, pod)).len();
        }
        best = f64::min(best, start.elapsed().as_secs_f64() / slice.len() as f64);
        let change = region.change();
        (allocations, bytes) = (change.allocations / slice.len(), change.bytes_allocated / slice.len());
    }
    println!("{kind:<10} {containers:>11} {:>12.1} {allocations:>12} {bytes:>12} {patch:>12}", best * 1e6);
}

fn injector() -> Injector {
    Injector::new(Settings::parse("pack: istio", "bench").unwrap()).unwrap()
}

fn inject(injector: &Injector, pod: &[u8]) -> Vec<u8> {
    let pod: Value = serde_json::from_slice(pod).unwrap();
    let request = Request { namespace: "default", ..Request::default() };
    let injected = injector.inject(&pod, &request).unwrap().pod.unwrap();
    serde_json::to_vec(&patch::diff(&pod, &injected)).unwrap()
}

/// Pods as the ReplicaSet controller sends them.
fn pods(kind: &str, count: usize, containers: usize) -> Vec<Vec<u8>> {
    let names = (0..count).map(|i| if kind == "replica" { "web".to_owned() } else { format!("web-{i}") });
    names.map(|name| serde_json::to_vec(&pod(&name, containers)).unwrap()).collect()
}

fn pod(name: &str, containers: usize) -> Value {
    let container = |i: usize| {
        json!({"name": format!("{name}-{i}"), "image": format!("registry.example/{name}:1.{i}"), "resources": {},
            "ports": [{"name": "http", "containerPort": 8080 + i}]})
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": format!("{name}-5d4f8-"),
            "labels": {"app": name, "pod-template-hash": "5d4f8", "tier": "backend", "track": "stable"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-5d4f8"), "uid": "u", "controller": true}],
        },
        "spec": {"containers": (0..containers).map(container).collect::<Vec<_>>()},
        "status": {},
    })
}
