//! Who connects where, and where it lands.

use std::net::{IpAddr, SocketAddr};

use super::{APP, BACKENDS, Dial, FAMILIES, Family, PROXY, Who, World, dial};

/// Where somebody dials, whichever the family.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    Pod(u16),
    Peer(u16),
    Vip(u16),
    Loopback(u16),
    /// Another address of loopback; IPv4 has more than one.
    Loopback2(u16),
}

/// Who dials.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    /// From outside.
    Peer,
    /// In the pod.
    Pod(Who),
    /// In the pod, from the proxy's own source address.
    ProxyInbound,
}

pub(crate) const APPLICATION: From = From::Pod(APP);
pub(crate) const SIDECAR: From = From::Pod(PROXY);

/// Someone else with the proxy's group.
pub(crate) const PROXY_GROUP: From = From::Pod(Who { uid: 0, gid: 1337 });
pub(crate) const GROUP_202: From = From::Pod(Who { uid: 1000, gid: 202 });

pub(crate) const REFUSED: &str = "connection refused";

fn address(family: Family, to: To) -> Option<SocketAddr> {
    let (ip, port) = match to {
        To::Pod(port) => (family.pod(), port),
        To::Peer(port) => (family.peer(), port),
        To::Vip(port) => (family.vip(), port),
        To::Loopback(port) => (family.loopback(), port),
        To::Loopback2(port) => match family {
            Family::V4 => (IpAddr::from([127, 1, 2, 3]), port),
            Family::V6 => return None,
        },
    };
    Some(SocketAddr::new(ip, port))
}

/// Connects, and checks what every landing at the proxy has: the original destination.
pub(crate) fn land(world: &World, family: Family, from: From, to: To) -> Option<String> {
    let to = address(family, to)?;
    let connected = match from {
        From::Peer => dial(&world.peer, super::APP_ROOT, to, Dial::default()),
        From::Pod(who) => dial(&world.pod, who, to, Dial::default()),
        From::ProxyInbound => {
            let source = Some(SocketAddr::new(family.inbound_source(), 0));
            dial(&world.pod, PROXY, to, Dial { source, ..Dial::default() })
        }
    };
    let landing = match connected {
        Err(kind) => return Some(kind),
        Ok(connection) => connection.landing,
    };
    let captured = ["15001", "15006", "15053"].contains(&landing.name.as_str());
    if captured && landing.local.port() != to.port() {
        assert_eq!(landing.original, Some(to), "original destination of {from:?} to {to}");
    }
    if matches!(from, From::ProxyInbound) {
        assert_eq!(landing.peer.ip(), family.inbound_source(), "the application sees the proxy's address");
    }
    Some(landing.name)
}

pub(crate) type Case = (From, To, &'static str);

/// Every back end, every family, every case.
pub(crate) fn scenario(flags: &str, environment: &[(&str, &str)], cases: &[Case]) {
    for backend in BACKENDS {
        let world = World::new();
        world.listen(flags.contains("TPROXY"));
        let mut init = world.init(&format!("-u 1337 -g 1337 {flags} --backend {backend}"));
        super::succeeded(init.envs(environment.iter().copied()).output().unwrap());
        for family in FAMILIES {
            for (from, to, wanted) in cases {
                if let Some(found) = land(&world, family, *from, *to) {
                    assert_eq!(found, *wanted, "{backend}, {family:?}: {from:?} to {to:?} with {flags}");
                }
            }
        }
    }
}
