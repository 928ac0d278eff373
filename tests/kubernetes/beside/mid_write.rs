//! The leader dies in the middle of a rotation, after each of its writes but the last: another replica ends it, and no
//! pod is refused at any moment.
//!
//! A leader is held where it is by taking away its right to the next write.

use super::{Beside, How, Omitted};
use crate::certificate::{Kept, kept, renewed};
use crate::cluster::until;
use crate::stream::Stream;

/// How far a rotation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The next pair is in the Secret.
    Made,
    /// Its CA is in caBundle, beside the old one.
    Trusted,
    /// Replicas are given the new pair.
    Served,
    /// In the Secret the new CA is alone.
    Alone,
}

/// Waits until a rotation has come so far.
pub(super) fn until_state(beside: &Beside, before: &Kept, expected: State) {
    until(&format!("a rotation that is at {expected:?}"), || {
        let kept = kept(&beside.installation)?;
        let trusting = kept.bundles.iter().map(|bundle| bundle.len()).min();
        let same = kept.certificate == before.certificate;
        let state = match (kept.next.is_empty(), same, kept.trusted.len(), trusting) {
            (false, true, 2, Some(1)) => Some(State::Made),
            (false, true, 2, Some(2)) => Some(State::Trusted),
            (true, false, 2, Some(2)) => Some(State::Served),
            (true, false, 1, Some(2)) => Some(State::Alone),
            _ => None,
        };
        if state == Some(expected) { Ok(()) } else { Err(format!("{state:?}: {kept:?}")) }
    });
}

const TRUST: (&str, &str) = ("mutatingwebhookconfigurations", "patch");
const KEEP: (&str, &str) = ("secrets", "update");
const PROVE: (&str, &str) = ("endpointslices", "list");

/// What the leader may not do, one after the other, and where that holds it. What follows is taken away before what
/// comes first is given back.
const DEATHS: [&[(Omitted, State)]; 4] = [
    &[(&[TRUST], State::Made)],
    &[(&[TRUST], State::Made), (&[TRUST, KEEP], State::Made), (&[KEEP], State::Trusted)],
    &[(&[PROVE], State::Served)],
    &[(&[PROVE], State::Served), (&[PROVE, TRUST], State::Served), (&[TRUST], State::Alone)],
];

fn death(number: usize, stages: &[(Omitted, State)]) {
    let beside = Beside::new(&format!("death-{number}"));
    let own = &beside.installation.name;
    let first = beside.start("first", &How::default());
    first.said("leading");
    let second = beside.start("second", &How::default());
    // Who dies is asked for its certificate, but is sent no pods: that a pod is refused because a connection is, is not
    // what this is about. Who is sent pods may not lead.
    // Its roles are the cluster's, and those of four tests at a time: each has a name of its own.
    let account = format!("{own}-follower");
    beside.account(&account, &[("leases", "get"), ("leases", "update"), ("leases", "create")]);
    let follower = beside.serving("follower", &How { account: Some(&account), ..How::default() });
    for replica in [&first, &second] {
        beside.endpoint(replica, false);
    }
    let stream = Stream::start(beside.pods());
    let (before, generation) = (kept(&beside.installation).unwrap(), beside.generation());

    for (n, (omitted, state)) in stages.iter().enumerate() {
        beside.account(own, omitted);
        beside.until_refused(own, omitted);
        if n == 0 {
            beside.rotate();
        }
        until_state(&beside, &before, *state);
    }
    // It is held by what it tries, and not only slow.
    let (_, verb) = stages.last().unwrap().0[0];
    until("a leader that tries to go on", || {
        let log = first.process.log();
        if log.contains(&format!("cannot {verb} resource")) { Ok(()) } else { Err(log) }
    });
    assert_eq!(beside.lease().unwrap()["holderIdentity"], "first");
    first.process.kill();
    beside.account(own, &[]);

    renewed(&beside.installation, &before);
    assert!(stream.finish() > 0);
    assert_eq!(beside.lease().unwrap()["holderIdentity"], "second");
    assert_eq!(second.count("have the next certificate"), 0, "the one that was made is used");
    // Both CAs, and the new one alone.
    assert_eq!(beside.generation(), generation + 2);
    assert_eq!(follower.count("serving certificate"), 2);
}

#[test]
fn a_leader_that_dies_in_the_middle_of_a_rotation_is_followed_by_one_that_ends_it() {
    std::thread::scope(|scope| {
        for (number, stages) in DEATHS.into_iter().enumerate() {
            scope.spawn(move || death(number, stages));
        }
    });
}
