//! More than the webhook can take: what is over its capacity is told so, what is under it is answered, and afterwards all
//! is as before.

use std::sync::Barrier;
use std::sync::mpsc::channel;
use std::thread;

use outrigger::webhook::Limits;
use serde_json::json;

use crate::client::{Client, DEADLINE, pod, post_head, review};
use crate::limits::{SOON, Small, patient};

/// Requests that the webhook takes at once, and clients.
const CAPACITY: usize = 16;
const CLIENTS: usize = 4 * CAPACITY;

#[test]
fn at_four_times_its_capacity_it_sheds_the_rest_and_recovers_at_once() {
    let small = Small::start(Limits { requests: CAPACITY, ..patient() });
    let body = review(&pod("cart")).to_string();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| small.client()).collect();
    let (working, shed) = clients.split_at_mut(CAPACITY);
    for client in working.iter_mut() {
        client.send(post_head("/inject", "application/json", body.len())).unwrap();
    }
    small.counted(&format!("outrigger_requests_in_flight {CAPACITY}"));
    for client in shed {
        let answer = client.post("/inject", &review(&pod("cart")));
        assert_eq!(answer.status, 503);
        assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
    }
    for client in working {
        client.send(&body).unwrap();
        assert!(client.answer().unwrap().injected(&pod("cart")).is_some());
    }
    // On the same connections.
    for client in &mut clients {
        assert!(client.post("/inject", &review(&pod("cart"))).injected(&pod("cart")).is_some());
    }
    let shed = CLIENTS - CAPACITY;
    small.counted(&format!("outrigger_requests_rejected_total{{reason=\"busy\"}} {shed}"));
}

#[test]
fn a_storm_is_answered_request_by_request() {
    let small = Small::start(Limits { requests: 2, ..patient() });
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for number in 0..8 {
            let (small, start) = (&small, &start);
            scope.spawn(move || {
                let mut client = small.client();
                start.wait();
                for n in 0..50 {
                    let pod = pod(&format!("cart-{number}-{n}"));
                    let answer = client.post("/inject", &review(&pod));
                    match answer.status {
                        503 => assert!(answer.head.contains("retry-after: 1"), "{}", answer.head),
                        _ => assert!(answer.injected(&pod).is_some()),
                    }
                }
            });
        }
    });
    small.counted("outrigger_requests_in_flight 0");
    assert!(small.client().post("/inject", &review(&pod("cart"))).injected(&pod("cart")).is_some());
}

#[test]
fn who_never_reads_answers_is_cut_off_and_disturbs_nobody() {
    let small = Small::start(Limits { idle_time: SOON, ..patient() });
    let mut deaf = small.client();
    let (ended, end) = channel();
    thread::spawn(move || {
        let body = review(&pod("cart")).to_string();
        let request = post_head("/inject", "application/json", body.len()) + &body;
        // Until no answer can be put anywhere, so that no request is taken either, and the server has had enough.
        while deaf.send(&request).is_ok() {}
        ended.send(()).unwrap();
    });
    assert!(small.client().post("/inject", &review(&pod("cart"))).injected(&pod("cart")).is_some());
    end.recv_timeout(DEADLINE).unwrap();
    assert!(small.client().post("/inject", &review(&pod("cart"))).injected(&pod("cart")).is_some());
    small.counted("outrigger_requests_in_flight 0");
}

#[test]
fn a_pod_of_three_megabytes_is_injected_and_comes_back_whole() {
    let small = Small::start(patient());
    let mut large = pod("cart");
    // Long, many, and with what JSON escapes.
    large["metadata"]["annotations"] = (0..3_000)
        .map(|n| (format!("example.com/note-{n}"), json!("\"\\\n\u{1}é".repeat(60) + &"x".repeat(500))))
        .collect();
    assert!(large.to_string().len() > 3_000_000);
    let injected = small.client().post("/inject", &review(&large)).injected(&large).unwrap();
    for (name, value) in large["metadata"]["annotations"].as_object().unwrap() {
        assert_eq!(&injected["metadata"]["annotations"][name], value);
    }
    assert!(injected["spec"].to_string().contains("istio-proxy"), "{}", injected["spec"]);
}
