//! When the certificate that Outrigger keeps in a cluster is followed by the next one, and when the old one's CA may go.
//!
//! Every leaf comes with a CA of its own, whose key is thrown away: there is no CA key to keep, and none to lose. What
//! is kept is told apart by what is there, so that whoever leads goes on where another one stopped:
//!
//! ```text
//! nothing usable, due, or asked for   make the next pair, or have it signed; its CA is trusted beside the old one
//! a next pair                         its CA into every caBundle; wait for API servers to see that; serve it
//! a served pair alone                 once no replica serves another one, its CA is the only one that is trusted
//! ```
//!
//! Adding to what is trusted is always safe, and a CA goes only when it is proven that nobody needs it: two leaders, or
//! one that stops between any two steps, leave no moment in which a leaf is served that is not trusted. The time is
//! the API server's, which is the one that judges.

use super::{Bundle, Facts, Identity, Made};

/// How long a certificate is good for, in days. The next one is made when two thirds are over.
pub(crate) const LIFE_DAYS: u32 = 90;

/// A leaf and its key, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// The chain, the leaf first.
    pub certificate: String,
    /// The leaf's private key.
    pub key: String,
}

impl Pair {
    /// When it expires, in Unix seconds; `None` where it cannot be read.
    pub(crate) fn not_after(&self) -> Option<i64> {
        let identity = Identity::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).ok()?;
        identity.facts().ok().map(|facts| facts.not_after)
    }
}

/// What is kept of certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// What replicas serve.
    pub served: Option<Pair>,
    /// What they will serve once its CA is trusted.
    pub next: Option<Pair>,
    /// The key, PKCS#8 in PEM, of a certificate that another signer is asked for.
    pub requested: Option<String>,
    /// The CAs to trust, the newest first.
    pub trusted: Bundle,
    /// Whether somebody has asked for the next pair.
    pub asked: bool,
}

impl Kept {
    /// This, with a new pair to serve next.
    #[must_use]
    pub(crate) fn with_next(mut self, made: Made) -> Self {
        self.trusted = Bundle::from_pem(made.ca.as_bytes()).and(&self.trusted);
        self.next = Some(Pair { certificate: made.certificate, key: made.key });
        (self.requested, self.asked) = (None, false);
        self
    }
}

/// What is so elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct World<'a> {
    /// The time of the API server, in Unix seconds.
    pub now: i64,
    /// The names that the certificate must be good for.
    pub names: &'a [String],
    /// `caBundle` of each webhook that leads to us.
    pub bundles: &'a [Bundle],
    /// Whether API servers have had the time to see these bundles.
    pub settled: bool,
    /// Whether it was seen that every replica serves [`Kept::served`].
    pub proven: bool,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make a pair, or have it signed, and keep this [with it](Kept::with_next).
    Make(Kept),
    /// Keep this.
    Keep(Kept),
    /// Write this into every `caBundle`.
    Trust(Bundle),
    /// Let API servers see the bundles.
    Settle,
    /// See which certificate each replica serves.
    Prove,
    /// Nothing before this time, in Unix seconds.
    Rest(i64),
}

/// The next step.
pub(crate) fn step(kept: &Kept, world: &World) -> Step {
    let now = world.now;
    let trusted = kept.trusted.unexpired(now);
    let bundles = world.bundles.iter().fold(Bundle::default(), |all, bundle| all.and(&bundle.unexpired(now)));
    let all_trust = world.bundles.iter().all(|bundle| bundle.holds(&trusted));
    let usable_now = |pair: &Option<Pair>| pair.as_ref().and_then(|pair| usable(pair, &trusted, world));

    if usable_now(&kept.next).is_some() {
        return if !all_trust {
            Step::Trust(trusted.and(&bundles))
        } else if !world.settled {
            Step::Settle
        } else {
            Step::Keep(Kept { served: kept.next.clone(), next: None, trusted, ..kept.clone() })
        };
    }
    let served = usable_now(&kept.served);
    let wanted = kept.asked || kept.requested.is_some();
    match served.as_ref().map(|(facts, _)| due(facts)).filter(|due| now < *due && !wanted) {
        // Before anything that may take its time.
        None if served.is_some() && !all_trust => Step::Trust(trusted.and(&bundles)),
        None => {
            // Until the next one is served, any that is trusted somewhere is better than none.
            let trusted = trusted.and(&bundles);
            let served = kept.served.clone().filter(|pair| usable(pair, &trusted, world).is_some());
            // Whoever asks for the next one does not want that which is on its way.
            let requested = kept.requested.clone().filter(|_| !kept.asked);
            Step::Make(Kept { served, next: None, requested, trusted, asked: false })
        }
        Some(_) if !all_trust => Step::Trust(trusted.and(&bundles)),
        Some(due) => {
            let own = served.map(|(_, own)| own).unwrap_or_default();
            if kept.trusted == own && world.bundles.iter().all(|bundle| *bundle == own) {
                Step::Rest(due)
            } else if !world.proven {
                Step::Prove
            } else if kept.trusted != own {
                Step::Keep(Kept { trusted: own, next: None, ..kept.clone() })
            } else {
                Step::Trust(own)
            }
        }
    }
}

/// What a pair says, and the CA that has signed it; `None` where it cannot be served.
fn usable(pair: &Pair, trusted: &Bundle, world: &World) -> Option<(Facts, Bundle)> {
    let identity = Identity::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes()).ok()?;
    let verified = |bundle: &Bundle| {
        world.names.iter().all(|name| bundle.verify(identity.chain(), name, world.now).is_ok())
    };
    let own = trusted.only(verified);
    let facts = identity.facts().ok()?;
    identity.server_config().ok()?;
    (!own.is_empty()).then_some((facts, own))
}

/// When the next one is to be made.
fn due(facts: &Facts) -> i64 {
    facts.not_before + (facts.not_after - facts.not_before) / 3 * 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{make, unix_now};
    use super::*;

    fn names() -> Vec<String> {
        vec!["outrigger.outrigger-system.svc".to_owned()]
    }

    /// A cluster: what is kept, what the one registration trusts, and what each replica serves.
    #[derive(Debug, Default)]
    struct Cluster {
        kept: Kept,
        version: u64,
        bundle: Bundle,
        bundle_version: u64,
        /// When this bundle was written, in steps.
        bundle_time: u64,
        replicas: [Option<Pair>; 3],
        time: u64,
    }

    /// What a leader has read, which may be old by the time it acts.
    #[derive(Debug, Clone)]
    struct Read {
        kept: Kept,
        version: u64,
        bundle: Bundle,
        bundle_version: u64,
        settled: bool,
        proven: bool,
    }

    impl Cluster {
        fn read(&self) -> Read {
            // As the leader does it: the replicas are asked after the Secret was read.
            let proven =
                self.replicas.iter().flatten().all(|served| Some(served) == self.kept.served.as_ref());
            Read {
                kept: self.kept.clone(),
                version: self.version,
                bundle: self.bundle.clone(),
                bundle_version: self.bundle_version,
                settled: self.time > self.bundle_time + 3,
                proven,
            }
        }

        /// Does what follows from `read`; what was written meanwhile by another leader makes it fail.
        fn act(&mut self, read: &Read, now: i64) -> Step {
            let (names, bundles) = (names(), [read.bundle.clone()]);
            let world =
                World { now, names: &names, bundles: &bundles, settled: read.settled, proven: read.proven };
            let step = step(&read.kept, &world);
            match step.clone() {
                Step::Make(kept) if self.version == read.version => {
                    self.kept = kept.with_next(make(&names, LIFE_DAYS, now).unwrap());
                    self.version += 1;
                }
                Step::Keep(kept) if self.version == read.version => {
                    self.kept = kept;
                    self.version += 1;
                }
                Step::Trust(bundle) if self.bundle_version == read.bundle_version => {
                    self.bundle = bundle;
                    self.bundle_version += 1;
                    self.bundle_time = self.time;
                }
                _ => {}
            }
            step
        }

        fn update(&mut self, replica: usize) {
            if let Some(served) = &self.kept.served {
                self.replicas[replica] = Some(served.clone());
            }
        }

        fn serves_what_is_trusted(&self, now: i64) -> bool {
            self.replicas.iter().flatten().all(|pair| {
                let identity = Identity::from_pem(pair.certificate.as_bytes(), pair.key.as_bytes()).unwrap();
                self.bundle.verify(identity.chain(), &names()[0], now).is_ok()
            })
        }

        /// One leader, undisturbed, until there is nothing to do.
        fn settle(&mut self, now: i64) -> Vec<&'static str> {
            let mut steps = Vec::new();
            for _ in 0..20 {
                self.time += 10;
                let read = self.read();
                steps.push(match self.act(&read, now) {
                    Step::Make(_) => "make",
                    Step::Keep(kept) if kept.next.is_none() && kept.trusted.len() == 1 => "keep one",
                    Step::Keep(_) => "keep",
                    Step::Trust(bundle) if bundle.len() == 1 => "trust one",
                    Step::Trust(_) => "trust",
                    Step::Settle => "settle",
                    Step::Prove => "prove",
                    Step::Rest(_) => return steps,
                });
                assert!(self.serves_what_is_trusted(now), "{steps:?}");
                (0..3).for_each(|replica| self.update(replica));
                assert!(self.serves_what_is_trusted(now), "{steps:?}");
            }
            panic!("it does not come to rest: {steps:?}");
        }
    }

    #[test]
    fn the_first_certificate_and_its_rotation_by_request_and_by_age() {
        let now = unix_now();
        let mut cluster = Cluster::default();
        assert_eq!(cluster.settle(now), ["make", "trust one", "keep one"]);
        let first = cluster.kept.clone();
        assert!(cluster.settle(now).is_empty());
        cluster.kept.asked = true;
        let rotation = ["make", "trust", "keep", "keep one", "trust one"];
        assert_eq!(cluster.settle(now), rotation);
        assert!(cluster.kept.served != first.served && cluster.kept.trusted != first.trusted);
        assert!(!cluster.kept.asked);
        let day = 86_400;
        assert!(cluster.settle(now + i64::from(LIFE_DAYS) * day / 2).is_empty());
        assert_eq!(cluster.settle(now + i64::from(LIFE_DAYS) * day / 3 * 2 + day), rotation);
    }

    #[test]
    fn what_is_lost_or_damaged_is_made_anew_and_the_old_ca_stays_until_it_is_not_needed() {
        let now = unix_now();
        let rotation = ["make", "trust", "keep", "keep one", "trust one"];
        let damages: [fn(&mut Kept); 5] = [
            |kept| *kept = Kept::default(),
            |kept| kept.served = None,
            |kept| kept.trusted = Bundle::default(),
            |kept| kept.served.as_mut().unwrap().key = "nonsense".to_owned(),
            |kept| {
                let other = make(&names(), 1, unix_now()).unwrap();
                *kept.served.as_mut().unwrap() = Pair { certificate: other.certificate, key: other.key };
            },
        ];
        for (n, damage) in damages.into_iter().enumerate() {
            let mut cluster = Cluster::default();
            cluster.settle(now);
            damage(&mut cluster.kept);
            cluster.version += 1;
            assert_eq!(cluster.settle(now), rotation, "{n}");
        }
    }

    #[test]
    fn a_bundle_that_another_hand_has_changed_is_mended() {
        let now = unix_now();
        let mut cluster = Cluster::default();
        cluster.settle(now);
        let other = Bundle::from_pem(make(&names(), 1, now).unwrap().ca.as_bytes());
        let good = std::mem::replace(&mut cluster.bundle, other);
        let read = cluster.read();
        assert!(matches!(cluster.act(&read, now), Step::Trust(bundle) if bundle.holds(&good)));
        cluster.settle(now);
        assert_eq!(cluster.bundle, good);
    }

    #[test]
    fn a_certificate_for_other_names_is_followed_by_one_for_the_right_ones() {
        let made = make(&["elsewhere.svc".to_owned()], 90, unix_now()).unwrap();
        let mut cluster = Cluster { kept: Kept::default().with_next(made), ..Cluster::default() };
        let steps = cluster.settle(unix_now());
        assert_eq!((steps[0], cluster.kept.trusted.len()), ("make", 1));
    }

    #[test]
    fn what_a_signer_is_asked_for_is_kept_until_another_is_wanted() {
        let (now, names) = (unix_now(), names());
        let mut cluster = Cluster::default();
        cluster.settle(now);
        let bundles = [cluster.bundle.clone()];
        let world = World { now, names: &names, bundles: &bundles, settled: true, proven: true };
        let asked = Kept { requested: Some("key".to_owned()), ..cluster.kept.clone() };
        assert_eq!(step(&asked, &world), Step::Make(asked.clone()));
        // Meanwhile, what is served stays trusted.
        let nothing = [Bundle::default()];
        let untrusted = World { bundles: &nothing, ..world.clone() };
        assert_eq!(step(&asked, &untrusted), Step::Trust(cluster.kept.trusted.clone()));
        let again = Kept { asked: true, ..asked.clone() };
        assert_eq!(step(&again, &world), Step::Make(Kept { requested: None, ..asked.clone() }));
        let made = make(&names, LIFE_DAYS, now).unwrap();
        assert_eq!(asked.with_next(made).requested, None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        /// Two leaders that act on what they read a while ago, replicas that learn of a change at any time, and
        /// somebody who deletes the Secret or asks for rotation: what is served is trusted, always.
        #[test]
        fn what_is_served_is_trusted_at_every_moment(moves in prop::collection::vec(0..12_u8, 1..120)) {
            let now = unix_now();
            let mut cluster = Cluster::default();
            cluster.settle(now);
            let mut reads = [cluster.read(), cluster.read()];
            for each in moves {
                cluster.time += 1;
                match each {
                    0 | 1 => reads[usize::from(each)] = cluster.read(),
                    2..=6 => { cluster.act(&reads[usize::from(each % 2)].clone(), now); }
                    7..=9 => cluster.update(usize::from(each - 7)),
                    10 => { cluster.kept = Kept::default(); cluster.version += 1; }
                    _ => { cluster.kept.asked = true; cluster.version += 1; }
                }
                prop_assert!(cluster.serves_what_is_trusted(now));
            }
            cluster.settle(now);
            prop_assert_eq!(cluster.bundle.len(), 1);
        }
    }
}
