//! The command lines of others, with real packets. Needs root, `ip`, `nft` and iptables; run with
//! `--features netns-tests`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use support::scenario::{APPLICATION, From, REFUSED, SIDECAR, To, land};
use support::{BACKENDS, FAMILIES, Family, World};

#[test]
fn outbound_goes_to_the_proxy_on_the_node() {
    let world = World::new();
    world.listen(false);
    // The "node" is the peer; its proxy listens on 81.
    for (flags, variable, value) in [
        ("linkerd-init -p 81 -m false", "HOST_IP", "10.9.0.1"),
        ("-p 81 -s l5d-mesh -m true", "L5D_MESH_SERVICE_HOST", "10.9.0.1"),
        ("-p 81 -s L5D -m true", "L5D_SERVICE_HOST", "10.9.0.1"),
        ("linkerd-init -p 81 --proxy-address 10.9.0.1", "UNUSED", ""),
    ] {
        support::succeeded(world.init(flags).env(variable, value).output().unwrap());
        for who in [APPLICATION, SIDECAR] {
            assert_eq!(land(&world, Family::V4, who, To::Vip(80)).unwrap(), "peer:81", "{flags}");
            assert_eq!(land(&world, Family::V4, who, To::Loopback(8080)).unwrap(), "8080", "{flags}");
        }
        assert_eq!(land(&world, Family::V4, From::Peer, To::Pod(8080)).unwrap(), "8080", "{flags}");
    }
}

#[test]
fn packets_land_where_linkerd_2_sends_them() {
    for backend in BACKENDS {
        let world = World::new();
        world.listen(false);
        world.apply(&format!(
            "proxy-init -p 15006 -o 15001 --proxy-uid 1337 --inbound-ports-to-ignore 15020,15030-15040 \
             --outbound-ports-to-ignore 81 --backend {backend}"
        ));
        for family in FAMILIES {
            for (from, to, wanted) in [
                (From::Peer, To::Pod(8080), "15006"),
                (From::Peer, To::Pod(15020), "15020"),
                (From::Peer, To::Pod(15035), REFUSED),
                (APPLICATION, To::Peer(80), "15001"),
                (APPLICATION, To::Peer(81), "peer:81"),
                (APPLICATION, To::Pod(8080), "8080"),
                (SIDECAR, To::Peer(80), "peer:80"),
                // Over loopback linkerd's proxy is never in between.
                (SIDECAR, To::Pod(8080), "8080"),
            ] {
                let found = land(&world, family, from, to).unwrap();
                assert_eq!(found, wanted, "{backend}, {family:?}: {from:?} to {to:?}");
            }
        }
    }
}

#[test]
fn a_machine_is_captured_as_its_files_say() {
    let world = World::new();
    world.listen(false);
    let folder = std::env::temp_dir().join(format!("oi-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (cluster, sidecar) = (folder.join("cluster.env"), folder.join("sidecar.env"));
    std::fs::write(&cluster, "# from the mesh\nISTIO_SERVICE_CIDR=10.96.0.0/16\n").unwrap();
    std::fs::write(&sidecar, "ISTIO_INBOUND_PORTS='3306,8080'\n").unwrap();
    let flags = format!("vm --cluster-env {} --sidecar-env {} -u 1337", cluster.display(), sidecar.display());
    support::succeeded(world.init(&flags).output().unwrap());
    for (from, to, wanted) in [
        (From::Peer, To::Pod(8080), "15006"),
        (From::Peer, To::Pod(3306), "15006"),
        (From::Peer, To::Pod(22), REFUSED),
        (From::Peer, To::Pod(15020), "15020"),
        (APPLICATION, To::Vip(80), "15001"),
        (APPLICATION, To::Peer(80), "peer:80"),
    ] {
        assert_eq!(land(&world, Family::V4, from, to).unwrap(), wanted, "{from:?} to {to:?}");
    }
    std::fs::write(&sidecar, "ISTIO_INBOUND_PORTS=*\n").unwrap();
    support::succeeded(world.init(&flags).output().unwrap());
    assert_eq!(land(&world, Family::V4, From::Peer, To::Pod(8081)).unwrap(), "15006");
    assert_eq!(land(&world, Family::V4, From::Peer, To::Pod(22)).unwrap(), REFUSED, "SSH is never captured");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn packets_land_where_istios_first_init_containers_sent_them() {
    for backend in BACKENDS {
        for (flags, vip, peer) in [("", "15001", "15001"), ("-i 10.96.0.0/16,fd96::/16", "15001", "peer:80")]
        {
            let world = World::new();
            world.listen(false);
            world.apply(&format!("prepare-proxy -p 15001 -u 1337 {flags} --backend {backend}"));
            for family in FAMILIES {
                for (from, to, wanted) in [
                    (From::Peer, To::Pod(8080), "15001"),
                    (APPLICATION, To::Vip(80), vip),
                    (APPLICATION, To::Peer(80), peer),
                    (APPLICATION, To::Loopback(8080), "8080"),
                    (APPLICATION, To::Pod(8080), "15001"),
                    (SIDECAR, To::Peer(80), "peer:80"),
                ] {
                    let found = land(&world, family, from, to).unwrap();
                    assert_eq!(found, wanted, "{backend}, {family:?}: {from:?} to {to:?} with {flags}");
                }
            }
        }
    }
}
