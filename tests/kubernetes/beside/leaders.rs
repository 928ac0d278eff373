//! Two replicas that both lead for a moment: what they write is compared first, and done once.

use serde_json::json;

use super::mid_write::{State, until_state};
use super::{Beside, How, Replica};
use crate::certificate::{kept, renewed};
use crate::cluster::until;
use crate::stream::Stream;

/// One rotation was done, by both together.
fn done_once(beside: &Beside, generation: u64, replicas: [&Replica; 2], made_before: usize) {
    let said = |message: &str| replicas.map(|replica| replica.count(message)).iter().sum::<usize>();
    assert_eq!(said("have the next certificate"), made_before + 1);
    // Both CAs, and the new one alone; nothing was written to and fro.
    assert_eq!(beside.generation(), generation + 2);
}

#[test]
fn a_lease_that_is_stolen_again_and_again_makes_no_second_rotation() {
    let beside = Beside::new("stolen");
    let first = beside.serving("first", &How::default());
    let second = beside.serving("second", &How::default());
    let stream = Stream::start(beside.pods());
    let (before, generation) = (kept(&beside.installation).unwrap(), beside.generation());
    beside.rotate();
    let (mut both, mut thefts) = (false, 0);
    until("two leaders, and the end of the rotation", || {
        let holder = beside.lease()?["holderIdentity"].clone();
        let thief = if holder == "first" { "second" } else { "first" };
        let patch = json!({"spec": {"holderIdentity": thief}}).to_string();
        let lease = format!("lease/{}", beside.installation.name);
        beside.installation.namespace.kubectl(&["patch", &lease, "--type=merge", "--patch", &patch]);
        thefts += 1;
        // The thief leads as soon as it looks, the other one until it looks.
        until("a thief that leads", || {
            both |= first.leads()? && second.leads()?;
            let leads = if thief == "first" { first.leads()? } else { second.leads()? };
            if leads { Ok(()) } else { Err(thief.to_owned()) }
        });
        let kept = kept(&beside.installation)?;
        let renewed = kept.certificate != before.certificate && kept.bundles.iter().all(|b| b.len() == 1);
        if both && renewed { Ok(()) } else { Err(format!("both: {both}, {kept:?}")) }
    });
    renewed(&beside.installation, &before);
    assert!(stream.finish() > 0 && thefts > 1);
    done_once(&beside, generation, [&first, &second], 1);
}

#[test]
fn a_leader_that_was_frozen_past_its_lease_does_no_harm_when_it_wakes_up() {
    let beside = Beside::new("frozen");
    let first = beside.start("first", &How::default());
    first.said("leading");
    let second = beside.serving("second", &How::default());
    // Nobody is sent to a replica that answers no probe; but it may still be serving.
    beside.endpoint(&first, false);
    let stream = Stream::start(beside.pods());
    let (before, generation) = (kept(&beside.installation).unwrap(), beside.generation());
    let transitions = || beside.lease().map(|lease| lease["leaseTransitions"].as_u64());
    let led = transitions().unwrap();

    beside.rotate();
    until_state(&beside, &before, State::Trusted);
    first.process.freeze();
    until("another leader", || {
        let lease = beside.lease()?;
        if lease["holderIdentity"] == "second" { Ok(()) } else { Err(lease.to_string()) }
    });
    // The old CA is trusted as long as it is not known what the frozen one serves.
    until_state(&beside, &before, State::Served);
    second.said("the old CA stays");
    first.process.thaw();
    renewed(&beside.installation, &before);
    first.said("following");
    assert!(stream.finish() > 0);
    assert_eq!((first.leads(), second.leads()), (Ok(false), Ok(true)));
    assert_eq!(transitions().unwrap(), led.map(|led| led + 1));
    done_once(&beside, generation, [&first, &second], 1);
}
