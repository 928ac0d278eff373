//! Real packets through real rules: who connects where, and where it lands, by every back end and in both IP
//! families. Needs root, `ip`, `nft` and iptables; run with `--features netns-tests`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::net::SocketAddr;

use support::scenario::{APPLICATION, From, GROUP_202, PROXY_GROUP, REFUSED, SIDECAR, To, land, scenario};
use support::{APP, BACKENDS, Dial, FAMILIES, Family, Namespace, PROXY, Who, World, ask, dial, listen};

const EVERYTHING: &str = "-m REDIRECT -b * -i * -d 15090,15021,15020";

#[test]
fn inbound_lands_at_the_proxy_but_for_excluded_ports() {
    scenario(
        EVERYTHING,
        &[],
        &[
            (From::Peer, To::Pod(8080), "15006"),
            (From::Peer, To::Pod(9999), "15006"),
            (From::Peer, To::Pod(22), "15006"),
            (From::Peer, To::Pod(15001), "15006"),
            (From::Peer, To::Pod(15006), "15006"),
            (From::Peer, To::Pod(15008), "15008"),
            (From::Peer, To::Pod(15020), "15020"),
        ],
    );
}

#[test]
fn outbound_lands_at_the_proxy_but_for_the_proxys_own_and_loopback() {
    scenario(
        EVERYTHING,
        &[],
        &[
            (APPLICATION, To::Peer(80), "15001"),
            (APPLICATION, To::Peer(53), "15001"),
            (APPLICATION, To::Peer(9), "15001"),
            (APPLICATION, To::Vip(80), "15001"),
            (APPLICATION, To::Pod(8080), "8080"),
            (APPLICATION, To::Loopback(8080), "8080"),
            (APPLICATION, To::Loopback2(8080), "8080"),
            (SIDECAR, To::Peer(80), "peer:80"),
            (SIDECAR, To::Pod(8080), "15006"),
            (SIDECAR, To::Loopback(8080), "8080"),
            (SIDECAR, To::Pod(15008), "15008"),
            (From::ProxyInbound, To::Pod(8080), "8080"),
            (PROXY_GROUP, To::Peer(80), "peer:80"),
        ],
    );
}

#[test]
fn only_listed_ranges_are_captured_outbound() {
    scenario(
        "-b * -i 10.96.0.0/16,fd96::/16",
        &[],
        &[(APPLICATION, To::Vip(80), "15001"), (APPLICATION, To::Peer(80), "peer:80")],
    );
}

#[test]
fn an_excluded_range_beats_an_included_port() {
    scenario(
        "-b * -i * -x 10.9.0.0/24,fd09::/64 -q 80",
        &[],
        &[(APPLICATION, To::Peer(80), "peer:80"), (APPLICATION, To::Vip(80), "15001")],
    );
}

#[test]
fn only_listed_ports_are_captured_outbound() {
    scenario(
        "-b * -q 80",
        &[],
        &[(APPLICATION, To::Peer(80), "15001"), (APPLICATION, To::Peer(81), "peer:81")],
    );
}

#[test]
fn a_range_of_ports_is_captured_outbound() {
    scenario(
        "-b * -q 70-80",
        &[],
        &[
            (APPLICATION, To::Peer(80), "15001"),
            (APPLICATION, To::Peer(70), "15001"),
            (APPLICATION, To::Peer(81), "peer:81"),
        ],
    );
}

#[test]
fn excluded_ports_are_let_out() {
    scenario(
        "-b * -i * -o 80",
        &[],
        &[(APPLICATION, To::Peer(80), "peer:80"), (APPLICATION, To::Peer(81), "15001")],
    );
}

#[test]
fn a_listed_range_inside_loopback_is_captured() {
    scenario(
        "-b * -i 127.1.2.3/32",
        &[],
        &[(APPLICATION, To::Loopback2(8080), "15001"), (APPLICATION, To::Loopback(8080), "8080")],
    );
}

#[test]
fn only_listed_ports_are_captured_inbound() {
    scenario(
        "-b 8080 -i *",
        &[],
        &[
            (From::Peer, To::Pod(8080), "15006"),
            (From::Peer, To::Pod(9999), REFUSED),
            (From::Peer, To::Pod(15020), "15020"),
        ],
    );
}

#[test]
fn without_inbound_ports_nothing_is_captured_inbound() {
    scenario("-i *", &[], &[(From::Peer, To::Pod(8080), "8080"), (APPLICATION, To::Peer(80), "15001")]);
}

#[test]
fn without_ranges_nothing_is_captured_outbound() {
    scenario("-b *", &[], &[(From::Peer, To::Pod(8080), "15006"), (APPLICATION, To::Peer(80), "peer:80")]);
}

#[test]
fn an_excluded_interface_is_let_alone() {
    let flags = ["-b * -i * -c eth0", "-b * -i * -c eth+", "-m TPROXY -b * -i * -c eth0"];
    for flags in flags {
        scenario(flags, &[], &[(From::Peer, To::Pod(8080), "8080"), (APPLICATION, To::Peer(80), "peer:80")]);
    }
}

#[test]
fn the_group_of_a_process_decides_where_groups_are_listed() {
    let only = "ISTIO_OUTBOUND_OWNER_GROUPS";
    let except = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE";
    let included = [(GROUP_202, To::Peer(80), "15001"), (APPLICATION, To::Peer(80), "peer:80")];
    let excluded = [(GROUP_202, To::Peer(80), "peer:80"), (APPLICATION, To::Peer(80), "15001")];
    let none = [(GROUP_202, To::Peer(80), "peer:80"), (APPLICATION, To::Peer(80), "peer:80")];
    scenario("-b * -i *", &[(only, "202")], &included);
    scenario("-b * -i *", &[(except, "202")], &excluded);
    scenario("-b * -i *", &[(only, "")], &none);
}

#[test]
fn tproxy_keeps_addresses() {
    for backend in BACKENDS {
        let world = World::captured("-m TPROXY -b * -i * -d 15020", backend);
        for family in FAMILIES {
            let place = format!("{backend}, {family:?}");
            let from_peer = |port| {
                let to = SocketAddr::new(family.pod(), port);
                dial(&world.peer, support::APP_ROOT, to, Dial::default()).unwrap().landing
            };
            let application = from_peer(8080);
            assert_eq!(application.name, "15006", "{place}");
            assert_eq!(application.local, SocketAddr::new(family.pod(), 8080), "{place}");
            assert_eq!(application.peer.ip(), family.peer(), "{place}");
            assert_eq!(from_peer(15008).name, "15006", "{place}: tunnels too");
            assert_eq!(from_peer(15020).name, "15020", "{place}");
            // A port on which nothing listens.
            assert_eq!(from_peer(9999).local.port(), 9999, "{place}");

            let to = SocketAddr::new(family.pod(), 8080);
            let own = dial(&world.pod, PROXY, to, Dial::default()).unwrap().landing;
            assert_eq!((own.name.as_str(), own.original), ("15006", Some(to)), "{place}");
            // In a client's name: the application sees the client, and its replies find the proxy.
            let client = SocketAddr::new(family.peer(), 40_000);
            let how = Dial { source: Some(client), mark: Some(1337), transparent: true };
            let seen = dial(&world.pod, PROXY, to, how).unwrap();
            assert_eq!((seen.landing.name.as_str(), seen.landing.peer), ("8080", client), "{place}");
            assert_eq!(seen.transfer(100_000), 100_000, "{place}");

            for (from, to, wanted) in [
                (APPLICATION, To::Peer(80), "15001"),
                (APPLICATION, To::Pod(8080), "8080"),
                (APPLICATION, To::Loopback(8080), "8080"),
                (From::ProxyInbound, To::Pod(8080), "8080"),
            ] {
                assert_eq!(land(&world, family, from, to).unwrap(), wanted, "{place}: {from:?} to {to:?}");
            }
        }
    }
}

#[test]
fn tproxy_without_a_proxy_lets_nothing_through() {
    for backend in BACKENDS {
        let world = World::new();
        for family in FAMILIES {
            listen(&world.pod, APP, SocketAddr::new(family.any(), 8080), "8080", false);
        }
        world.apply(&format!("-u 1337 -g 1337 -m TPROXY -b * -i * --backend {backend}"));
        for family in FAMILIES {
            let to = SocketAddr::new(family.pod(), 8080);
            let refused = world
                .peer
                .inside(|| std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_millis(300)));
            assert!(refused.is_err(), "{backend}, {family:?}: a connection went past the proxy");
        }
    }
}

#[test]
fn tproxy_captures_only_listed_ports() {
    scenario(
        "-m TPROXY -b 8080 -i *",
        &[],
        &[
            (From::Peer, To::Pod(8080), "15006"),
            (From::Peer, To::Pod(15020), "15020"),
            (From::Peer, To::Pod(9999), REFUSED),
        ],
    );
}

/// Who answers datagrams.
fn answers(world: &World, who: Who, to: SocketAddr, wanted: &str, place: &str) {
    assert_eq!(ask(&world.pod, who, to).as_deref(), Ok(wanted), "{place}: UDP of {who:?} to {to}");
}

#[test]
fn udp_is_let_alone() {
    for backend in BACKENDS {
        for mode in ["REDIRECT", "TPROXY"] {
            let world = World::captured(&format!("-m {mode} -b * -i *"), backend);
            for family in FAMILIES {
                for port in [53, 123] {
                    let to = SocketAddr::new(family.peer(), port);
                    answers(&world, APP, to, &format!("peer:{port}"), backend);
                }
            }
        }
    }
}

#[test]
fn dns_of_all_servers_is_captured() {
    for backend in BACKENDS {
        let world = World::captured("-b * -i * --redirect-dns --capture-all-dns", backend);
        for family in FAMILIES {
            let peer = SocketAddr::new(family.peer(), 53);
            answers(&world, APP, peer, "15053", backend);
            answers(&world, APP, SocketAddr::new(family.vip(), 53), "15053", backend);
            answers(&world, APP, SocketAddr::new(family.peer(), 123), "peer:123", backend);
            answers(&world, PROXY, peer, "peer:53", backend);
            for (from, to, wanted) in [
                (APPLICATION, To::Peer(53), "15053"),
                (APPLICATION, To::Loopback(53), "15053"),
                (SIDECAR, To::Peer(53), "peer:53"),
                (APPLICATION, To::Peer(80), "15001"),
            ] {
                let found = land(&world, family, from, to).unwrap();
                assert_eq!(found, wanted, "{backend}, {family:?}: {from:?} to {to:?}");
            }
        }
    }
}

#[test]
fn dns_of_known_servers_alone_is_captured() {
    for backend in BACKENDS {
        let world = World::new();
        world.listen(false);
        let flags = format!("-u 1337 -g 1337 -b * -i * --redirect-dns --backend {backend}");
        let mut init = world.init(&flags);
        init.env("OUTRIGGER_DNS_SERVERS_V4", "10.9.0.1").env("OUTRIGGER_DNS_SERVERS_V6", "fd09::1");
        support::succeeded(init.output().unwrap());
        for family in FAMILIES {
            answers(&world, APP, SocketAddr::new(family.peer(), 53), "15053", backend);
            answers(&world, APP, SocketAddr::new(family.vip(), 53), "peer:53", backend);
            assert_eq!(land(&world, family, APPLICATION, To::Peer(53)).unwrap(), "15053", "{backend}");
            assert_eq!(land(&world, family, APPLICATION, To::Vip(53)).unwrap(), "15001", "{backend}");
        }
    }
}

/// The same port for the query to the proxy and for the proxy's own query: the tuples are equal, and only the
/// zones keep them apart.
#[test]
fn equal_queries_do_not_meet() {
    for backend in BACKENDS {
        let world = World::captured("-b * -i * --redirect-dns --capture-all-dns", backend);
        for family in FAMILIES {
            let (from, to) = (SocketAddr::new(family.pod(), 34_567), SocketAddr::new(family.peer(), 53));
            for (who, wanted) in [(APP, "15053"), (PROXY, "peer:53"), (APP, "15053"), (PROXY, "peer:53")] {
                let answer = world.pod.inside_as(who, || {
                    let socket = bind_when_free(from);
                    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
                    socket.connect(to).unwrap();
                    socket.send(b"?").unwrap();
                    let mut buffer = [0; 64];
                    let length = socket.recv(&mut buffer).map_err(|error| error.kind())?;
                    Ok::<_, std::io::ErrorKind>(String::from_utf8_lossy(&buffer[..length]).into_owned())
                });
                assert_eq!(answer.as_deref(), Ok(wanted), "{backend}, {family:?}: {who:?}");
            }
        }
    }
}

/// A process that another test is just starting holds our closed sockets open until it has begun.
fn bind_when_free(address: SocketAddr) -> std::net::UdpSocket {
    let deadline = std::time::Instant::now() + support::PATIENCE;
    loop {
        match std::net::UdpSocket::bind(address) {
            Ok(socket) => return socket,
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && std::time::Instant::now() < deadline =>
            {
                std::thread::yield_now();
            }
            Err(error) => panic!("{address}: {error}"),
        }
    }
}

#[test]
fn a_virtual_machines_traffic_is_outbound() {
    for backend in BACKENDS {
        let world = World::new();
        world.listen(false);
        let guest = Namespace::new("guest");
        world.pod.ip(&format!("link add vnet0 type veth peer name eth0 netns {}", guest.name));
        for (namespace, name, last) in [(&world.pod, "vnet0", 1), (&guest, "eth0", 2)] {
            namespace.ip(&format!("link set {name} addrgenmode none"));
            namespace.ip(&format!("link set {name} up"));
            namespace.ip(&format!("addr add 10.8.0.{last}/24 dev {name}"));
            namespace.ip(&format!("addr add fd08::{last}/64 dev {name} nodad"));
        }
        guest.ip("route add default via 10.8.0.1");
        guest.ip("route add default via fd08::1");
        world.pod.inside(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        });
        // A router asks for its neighbours from link-local addresses.
        world.pod.ip("addr add fe80::2/64 dev eth0 nodad");
        world.pod.ip("addr add fe80::1/64 dev vnet0 nodad");
        world.apply(&format!("-u 1337 -g 1337 -b * -i * -k vnet0 --backend {backend}"));
        for family in FAMILIES {
            let peer = SocketAddr::new(family.peer(), 80);
            let landing = dial(&guest, APP, peer, Dial::default()).unwrap().landing;
            assert_eq!(
                (landing.name.as_str(), landing.original),
                ("15001", Some(peer)),
                "{backend}, {family:?}"
            );
            let time = SocketAddr::new(family.peer(), 123);
            assert_eq!(ask(&guest, APP, time).as_deref(), Ok("peer:123"), "{backend}, {family:?}");
        }
    }
}

#[test]
fn large_transfers_arrive_whole() {
    for backend in BACKENDS {
        for mode in ["REDIRECT", "TPROXY"] {
            let world = World::captured(&format!("-m {mode} -b * -i * --drop-invalid"), backend);
            for family in FAMILIES {
                let size = 20 << 20;
                let (pod, peer) = (SocketAddr::new(family.pod(), 8080), SocketAddr::new(family.peer(), 80));
                let inbound = dial(&world.peer, support::APP_ROOT, pod, Dial::default()).unwrap();
                assert_eq!(inbound.landing.name, "15006");
                assert_eq!(inbound.transfer(size), size, "{backend}, {mode}, {family:?}: inbound");
                let outbound = dial(&world.pod, APP, peer, Dial::default()).unwrap();
                assert_eq!(outbound.landing.name, "15001");
                assert_eq!(outbound.transfer(size), size, "{backend}, {mode}, {family:?}: outbound");
            }
        }
    }
}

#[test]
fn connections_from_before_stay() {
    for backend in BACKENDS {
        let world = World::new();
        world.listen(false);
        for family in FAMILIES {
            let (pod, peer) = (SocketAddr::new(family.pod(), 8080), SocketAddr::new(family.peer(), 80));
            world.apply("--cleanup-only");
            let inbound = dial(&world.peer, support::APP_ROOT, pod, Dial::default()).unwrap();
            let outbound = dial(&world.pod, APP, peer, Dial::default()).unwrap();
            world.apply(&format!("-u 1337 -g 1337 {EVERYTHING} --backend {backend}"));
            assert_eq!(inbound.transfer(1 << 20), 1 << 20, "{backend}, {family:?}: inbound");
            assert_eq!(outbound.transfer(1 << 20), 1 << 20, "{backend}, {family:?}: outbound");
            assert_eq!(land(&world, family, APPLICATION, To::Peer(80)).unwrap(), "15001");
        }
    }
}

/// A segment of no connection: the end of one that never was. The kernel answers it with a reset, unless it is
/// dropped before.
fn stray_segment(world: &World, to: std::net::SocketAddrV4, from: std::net::Ipv4Addr) {
    let (port, sequence, acknowledged, fin_ack, window) = (40_404u16, 1u32, 1u32, 0x5011u16, 1000u16);
    let mut segment = Vec::new();
    segment.extend_from_slice(&port.to_be_bytes());
    segment.extend_from_slice(&to.port().to_be_bytes());
    segment.extend_from_slice(&sequence.to_be_bytes());
    segment.extend_from_slice(&acknowledged.to_be_bytes());
    segment.extend_from_slice(&fin_ack.to_be_bytes());
    segment.extend_from_slice(&window.to_be_bytes());
    segment.extend_from_slice(&[0; 4]);
    let pseudo = [&from.octets()[..], &to.ip().octets(), &[0, 6, 0, 20], &segment].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    world.peer.inside(|| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::TCP))
                .unwrap();
        let target = std::net::SocketAddrV4::new(*to.ip(), 0);
        assert_eq!(socket.send_to(&segment, &target.into()).unwrap(), segment.len());
    });
}

/// Resets that the pod has sent.
fn resets(world: &World) -> u64 {
    let counters = world.pod.inside(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let mut lines = counters.lines().filter(|line| line.starts_with("Tcp:"));
    let names = lines.next().unwrap().split(' ').position(|name| name == "OutRsts").unwrap();
    lines.next().unwrap().split(' ').nth(names).unwrap().parse().unwrap()
}

#[test]
fn packets_of_no_connection_are_dropped_on_request() {
    for backend in BACKENDS {
        for (flag, answered) in [("", 1), ("--drop-invalid", 0)] {
            let world = World::captured(&format!("-b * -i * {flag}"), backend);
            let to = std::net::SocketAddrV4::new([10, 9, 0, 2].into(), 8080);
            let before = resets(&world);
            stray_segment(&world, to, [10, 9, 0, 1].into());
            // On the same wire, behind it: when this has landed, that has been dealt with.
            assert_eq!(land(&world, Family::V4, From::Peer, To::Pod(8080)).unwrap(), "15006");
            assert_eq!(resets(&world) - before, answered, "{backend} {flag}");
        }
    }
}
