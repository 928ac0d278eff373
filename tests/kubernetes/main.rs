//! A real Kubernetes: its API server calls the real webhook, its kubelet runs the injected pods.
//!
//! `tests/kubernetes/run` brings a cluster up, gives it the images and runs these tests; `docs/testing.md` says how to
//! use another cluster. The webhook runs in the cluster, from its image, as the manifests install it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accepted;
mod admission;
mod availability;
mod beside;
mod capture;
#[path = "../conformance/cases.rs"]
mod cases;
mod certificate;
mod cluster;
mod cni;
mod explain;
mod install;
mod installation;
mod merge_keys;
mod operate;
mod packaging;
mod pods;
mod policy;
mod services;
mod signer;
mod stream;
mod traces;
mod traffic;
mod workloads;
