//! Work and memory grow no faster than what is injected: counted in allocations and bytes, which load on the machine
//! does not change. `benches/injection.rs` prints the times.

#![allow(clippy::unwrap_used)]

use std::alloc::System;
use std::sync::Mutex;

use outrigger::injection::{Injector, Request};
use outrigger::settings::Settings;
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One measurement at a time: the allocator counts for all threads.
static ALONE: Mutex<()> = Mutex::new(());

fn injector(pack: &str) -> Injector {
    Injector::new(Settings::parse(&format!("pack: {pack}"), "test").unwrap()).unwrap()
}

fn inject(injector: &Injector, pod: &Value) {
    let request = Request { namespace: "shop", ..Request::default() };
    assert!(injector.patch(&pod.to_string(), &request).unwrap().patch().is_some());
}

/// Allocations, and bytes allocated, of the injection of a pod of each size, by an injector that has seen such pods.
fn costs(sizes: [usize; 3], pod: impl Fn(&str, usize) -> Value) -> [(usize, usize); 3] {
    let injector = injector("istio");
    sizes.map(|size| {
        inject(&injector, &pod("before", size));
        let pod = pod("web", size);
        let region = Region::new(ALLOCATOR);
        inject(&injector, &pod);
        let change = region.change();
        (change.allocations, change.bytes_allocated)
    })
}

/// From the second to the third size, ten times as far apart as the first two, costs grow ten times as much, or less.
/// Buffers double when they are full, so that bytes may be somewhat more.
fn assert_linear(of: &str, [small, medium, large]: [(usize, usize); 3]) {
    let steps = |a: usize, b: usize, c: usize| (c.saturating_sub(b), 10 * b.saturating_sub(a));
    let (allocations, expected) = steps(small.0, medium.0, large.0);
    assert!(allocations * 10 <= expected * 11, "{of}: {allocations} allocations, {expected} expected");
    let (bytes, expected) = steps(small.1, medium.1, large.1);
    assert!(bytes <= expected * 2, "{of}: {bytes} bytes, {expected} expected");
}

fn pod(name: &str, containers: usize, annotations: usize) -> Value {
    let container = |i: usize| {
        json!({"name": format!("{name}-{i}"), "image": "registry.example/app:1",
               "ports": [{"containerPort": 8080 + i}], "readinessProbe": {"httpGet": {"path": "/", "port": 8080 + i}}})
    };
    let annotation = |i: usize| (format!("example.com/key-{i}"), json!("a value"));
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"app": name},
                     "annotations": (0..annotations).map(annotation).collect::<Value>()},
        "spec": {"containers": (0..containers).map(container).collect::<Vec<_>>()},
    })
}

#[test]
fn costs_grow_no_faster_than_containers() {
    let _alone = ALONE.lock().unwrap();
    assert_linear("containers", costs([10, 100, 1000], |name, containers| pod(name, containers, 0)));
}

#[test]
fn costs_grow_no_faster_than_annotations() {
    let _alone = ALONE.lock().unwrap();
    assert_linear("annotations", costs([100, 1000, 10_000], |name, annotations| pod(name, 1, annotations)));
}

/// What is kept of pods has a bound, and an injector that is gone has left nothing.
#[test]
fn memory_grows_neither_with_pods_nor_with_reloads_of_settings() {
    let _alone = ALONE.lock().unwrap();
    let kept = |pods: usize| {
        let region = Region::new(ALLOCATOR);
        let injector = injector("linkerd-daemonset");
        for i in 0..pods {
            inject(&injector, &pod(&format!("web-{i}"), 1, 50));
        }
        let during = region.change();
        drop(injector);
        let after = region.change();
        [during, after].map(|change| change.bytes_allocated.saturating_sub(change.bytes_deallocated))
    };
    kept(1);
    let [during, after] = kept(4000);
    assert!(during < 8 << 20, "{during} bytes are kept of 4,000 pods");
    assert!(after < 64 << 10, "{after} bytes are left of an injector that is gone");
    let region = Region::new(ALLOCATOR);
    for _ in 0..20 {
        kept(10);
    }
    let change = region.change();
    let left = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    assert!(left < 64 << 10, "{left} bytes are left of 20 reloads");
}
