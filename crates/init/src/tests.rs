//! The way from options to rules and back, and that nothing that others write makes the program panic.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rustix::io::Errno;

use crate::expression::{expressions, read_list};
use crate::netlink::{Messages, Refusal, attribute};
use crate::nft_batch::Batch;
use crate::nft_tables::Observed;
use crate::nft_tables::wanted;
use crate::options::{Capture, Options, Surroundings};
use crate::print;
use crate::rules::{Action, Match, RuleSet, TableKind, chain};
use crate::sidecar::{Dns, Groups, Mode};
use crate::values::{Families, Family, Selection};
use crate::{iptables_text as iptables, istio, linkerd, machine};

fn surroundings(environment: &[(&str, &str)]) -> Surroundings {
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Surroundings { environment, etc: "/nowhere".into() }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn istio(text: &str, environment: &[(&str, &str)]) -> Options {
    istio::options(&words(text), &surroundings(environment)).unwrap()
}

fn sidecar(options: &Options) -> &crate::sidecar::Sidecar {
    match &options.capture {
        Capture::Sidecar { plan, .. } => plan,
        other => panic!("{other:?}"),
    }
}

fn rules(options: &Options) -> RuleSet {
    match &options.capture {
        Capture::Sidecar { plan, .. } => plan.rules(),
        Capture::ProxyInit(plan) => plan.rules(),
        Capture::PrepareProxy(plan) => plan.rules(),
        Capture::Daemonset(plan) => plan.rules(),
    }
}

#[test]
fn defaults_are_istios() {
    let options = istio("", &[]);
    let plan = sidecar(&options);
    assert_eq!((plan.outbound_port, plan.inbound_port, plan.tunnel_port), (15001, 15006, 15008));
    assert_eq!((plan.proxy_uids.as_slice(), plan.proxy_gids.as_slice()), (&[1337][..], &[1337][..]));
    assert_eq!(plan.mode, Mode::Redirect);
    assert!(plan.inbound_ports.is_none() && plan.outbound_ranges.is_none());
    assert_eq!(plan.groups, Groups::AllExcept(Vec::new()));
    assert_eq!(plan.dns, Dns::Off);
    assert_eq!((options.steering.mark, options.steering.table), (1337, 133));
    assert_eq!(options.backend, None);
    assert!(options.repair && !options.force && options.self_test.is_none() && options.dry_run.is_none());
}

#[test]
fn what_istios_injector_passes() {
    let text = "istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x 10.0.0.0/8 -b * -d 15090,15021,15020 \
                --log_output_level=default:info --native-nftables --force-apply";
    let options = istio(text.trim_start_matches("istio-iptables "), &[]);
    let plan = sidecar(&options);
    assert_eq!(plan.inbound_ports, Selection::All);
    assert_eq!(plan.inbound_excluded_ports.len(), 3);
    assert_eq!(plan.proxy_gids, [1337], "the group is as the user");
    assert!(options.force);
    assert_eq!(options.backend.unwrap().name(), "nftables");
    assert!(options.warnings.is_empty(), "flags for logging are no reason to warn");
}

#[test]
fn the_command_line_wins_over_the_environment() {
    let environment = [
        ("ISTIO_INBOUND_PORTS", "1,2"),
        ("ISTIO_SERVICE_CIDR", "10.0.0.0/8"),
        ("ISTIO_META_DNS_CAPTURE", "true"),
        ("CAPTURE_ALL_DNS", "1"),
        ("INVALID_DROP", "true"),
        ("DROP_INVALID", "false"),
        ("ISTIO_DUAL_STACK", "false"),
        ("ENVOY_PORT", "9"),
        ("PROXY_UID", "7,8"),
    ];
    let options = istio("-b 3", &environment);
    let plan = sidecar(&options);
    assert_eq!(plan.inbound_ports, Selection::Only(vec![crate::values::Ports::one(3)]));
    assert!(!plan.outbound_ranges.is_none());
    assert_eq!(plan.dns, Dns::All);
    assert!(plan.drop_invalid, "the alias wins over the derived name");
    assert_eq!(options.families.dual_stack, Some(false));
    assert_eq!(plan.outbound_port, 15001, "ENVOY_PORT is no variable of istio-iptables");
    assert_eq!((plan.proxy_uids.as_slice(), plan.proxy_gids.as_slice()), (&[7, 8][..], &[7, 8][..]));
}

#[test]
fn malformed_variables_are_errors_that_name_them() {
    for (name, value) in [
        ("ISTIO_META_DNS_CAPTURE", "yes"),
        ("PROBE_TIMEOUT", "5"),
        ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "10.0.0.0/8"),
        ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.0/7"),
        ("ISTIO_OUTBOUND_OWNER_GROUPS", "nobody-has-this-name"),
        ("OUTRIGGER_ENABLE_IPV6", "maybe"),
        ("FORCE_IPTABLES_BINARY", "both"),
        ("ISTIO_INBOUND_TPROXY_MARK", "-1"),
    ] {
        let error = istio::options(&words("--run-validation"), &surroundings(&[(name, value)])).unwrap_err();
        assert_eq!(error.status(), 255);
        assert!(error.to_string().starts_with(name), "{error}");
    }
    let groups: Vec<String> = (0..65).map(|group| group.to_string()).collect();
    let environment = [("ISTIO_OUTBOUND_OWNER_GROUPS", groups.join(","))];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert!(istio::options(&[], &surroundings(&environment)).is_err());
}

#[test]
fn linkerds_command_lines() {
    let host = surroundings(&[("HOST_IP", "10.0.0.7"), ("L5D_MESH_SERVICE_HOST", "10.96.0.7")]);
    let proxy = |text: &str| match linkerd::daemonset(&words(text), &host).unwrap().capture {
        Capture::Daemonset(plan) => plan.proxy.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(proxy("-p 4140 -m false"), "10.0.0.7:4140");
    assert_eq!(proxy("-p 4140 -m true -s l5d-mesh -u 1337"), "10.96.0.7:4140");
    assert_eq!(proxy("-p 4140 --proxy-address fd00::7"), "[fd00::7]:4140");
    assert!(linkerd::daemonset(&words("-p 4140 -m true"), &host).is_err(), "L5D_SERVICE_HOST is not there");
    assert!(linkerd::is_daemonset(&words("-p 4140 -m false")) && !linkerd::is_daemonset(&words("-m TPROXY")));

    let text = "-p 4143 -o 4140 --proxy-uid 2102 --proxy-gid -1 --inbound-ports-to-ignore 4190,4567-4568 --ipv6=false";
    match linkerd::proxy_init(&words(text), &host).unwrap().capture {
        Capture::ProxyInit(plan) => {
            assert_eq!((plan.inbound_port, plan.outbound_port), (4143, Some(4140)));
            assert_eq!((plan.proxy_uid, plan.proxy_gid), (Some(2102), None));
            assert_eq!(plan.families, Families::only(Family::V4));
            assert_eq!(plan.inbound_ignored_ports.len(), 2);
        }
        other => panic!("{other:?}"),
    }

    // Go has many words for true.
    let text = "-p 4143 -o 4140 --simulate=1 --ipv6=t";
    let options = linkerd::proxy_init(&words(text), &host).unwrap();
    assert!(options.dry_run.is_some(), "nothing is to be changed");
    assert!(matches!(options.capture, Capture::ProxyInit(plan) if plan.families == Families::BOTH));
    assert_eq!(
        linkerd::daemonset(&words("-p 4140 --cleanup-only=1"), &host).unwrap().task,
        crate::options::Task::Clean
    );
    assert!(crate::cni::install::options(&words("--check=1")).unwrap().check, "it is only to look");
}

/// As golden rules have it, chain by chain: the whole default, which users know by heart.
#[test]
fn the_default_rules() {
    let options = istio("-b * -i * -d 15090,15021,15020 --ip-families ipv4", &[]);
    let mut rules = rules(&options);
    rules.families = Families::only(Family::V4);
    let text =
        print::render(&rules, crate::options::Form::Iptables, crate::options::Backend::Nftables, false);
    let expected = "\
# IPv4: iptables-restore --noflush
*nat
:ISTIO_INBOUND - [0:0]
:ISTIO_REDIRECT - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A ISTIO_INBOUND -p tcp -m tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp -m tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp -m tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -j ISTIO_OUTPUT
COMMIT
# ip -6 addr add ::6/128 dev lo
";
    assert_eq!(text, expected);
}

/// Options that say something of everything.
fn any_options() -> impl Strategy<Value = (String, Vec<(&'static str, String)>)> {
    let ports = prop::sample::select(vec!["", "*", "80", "80,8000-8100", "1,2,3"]);
    let nets = prop::sample::select(vec![
        "",
        "*",
        "10.0.0.0/8",
        "127.1.2.3/32,fd00::/8",
        "10.1.2.0/23,2001:db8::/33",
    ]);
    let interfaces = prop::sample::select(vec!["", "eth0", "vm+,net1"]);
    let owners = prop::sample::select(vec!["1337", "3,4", "1000620000"]);
    let groups = prop::sample::select(vec!["*", "", "7,8"]);
    let mode = prop::sample::select(vec!["REDIRECT", "TPROXY"]);
    let dns = prop::sample::select(vec!["", "--redirect-dns", "--redirect-dns --capture-all-dns"]);
    let flags = (ports.clone(), nets.clone(), interfaces.clone(), owners, mode, dns, any::<bool>());
    (flags, ports, nets, interfaces, groups).prop_map(|((b, i, c, u, m, dns, drop), d, x, k, groups)| {
        let (d, x) = (d.replace('*', ""), x.replace('*', ""));
        let drop = if drop { "--drop-invalid" } else { "" };
        let q = d.clone();
        let text =
            format!("-b={b} -i={i} -c={c} -u={u} -m={m} {dns} {drop} -d={d} -x={x} -k={k} -q={q} -o={q}");
        (text, vec![("ISTIO_OUTBOUND_OWNER_GROUPS", groups.to_owned())])
    })
}

fn planned(text: &str, environment: &[(&str, String)], families: Families) -> RuleSet {
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut options = istio(text, &environment);
    if let Capture::Sidecar { plan, .. } = &mut options.capture {
        plan.families = families;
        if plan.dns == Dns::Servers(Vec::new()) {
            plan.dns = Dns::Servers(vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()]);
        }
    }
    rules(&options)
}

/// A kernel that lacks a module refuses the first message that needs it; the error names both.
#[test]
fn a_missing_module_is_named() {
    let rules = planned("-b=* -i=* -m=TPROXY --redirect-dns --capture-all-dns", &[], Families::BOTH);
    let nothing = Observed { generation: 1, tables: Vec::new(), leftovers: Vec::new() };
    let batch = Batch::between(&nothing, &wanted(&rules));
    let named = |sequence| {
        let message = batch.explain(&[Refusal { sequence, errno: Errno::NOENT }]).to_string();
        let (_, rest) = message.split_once(" (modules: ")?;
        assert!(rest.contains("modprobe") && message.contains("the kernel refuses "), "{message}");
        Some(rest.split_once(')')?.0.to_owned())
    };
    let named: BTreeSet<String> = (0..batch.messages.last).filter_map(named).collect();
    for module in ["nf_tables", "nft_chain_nat", "nft_redir", "nft_tproxy", "nft_ct"] {
        assert!(named.iter().any(|list| list.split(", ").any(|one| one == module)), "{module}: {named:?}");
    }
}

fn some_families() -> impl Strategy<Value = Families> {
    prop::sample::select(vec![Families::BOTH, Families::only(Family::V4), Families::only(Family::V6)])
}

proptest! {
    /// What a back end wrote is what it reads.
    #[test]
    fn expressions_come_back(((text, environment), families) in (any_options(), some_families())) {
        let rules = planned(&text, &environment, families);
        for rule in rules.tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules) {
            let list = expressions(rule, families, false);
            let mut message = Messages::default();
            message.begin(0, 0, &[]).nested(4, |to| list.iter().for_each(|expression| expression.write(to)));
            prop_assert_eq!(read_list(attribute(&message.bytes[16..], 4)), list);
        }
    }

    /// The dry run's text, read as iptables-save's, is the plan.
    #[test]
    fn iptables_text_comes_back(((text, environment), families) in (any_options(), some_families())) {
        let rules = planned(&text, &environment, families);
        for family in families.each() {
            prop_assert!(iptables::reads_its_own(&rules, family));
        }
    }

    /// What any set of rules has to hold, whatever was asked for.
    #[test]
    fn rules_are_sound(((text, environment), families) in (any_options(), some_families())) {
        let rules = planned(&text, &environment, families);
        prop_assert!(rules.tables.iter().any(|table| table.kind == TableKind::Nat));
        for table in &rules.tables {
            for entry in &table.entries {
                prop_assert!(table.chains.iter().any(|chain| chain.name == entry.chain));
            }
            for chain in &table.chains {
                prop_assert!(chain::OURS.contains(&chain.name));
                for rule in &chain.rules {
                    if let Action::Jump(target) = rule.action {
                        prop_assert!(table.chains.iter().any(|chain| chain.name == target), "{target}");
                    }
                    // A port means nothing before the protocol.
                    let protocol = rule.matches.iter().position(|test| matches!(test, Match::Protocol(_)));
                    let ported = |test: &Match| {
                        matches!(test, Match::SourcePort(_) | Match::DestinationPort(_) | Match::NotDestinationPorts(_))
                    };
                    let port = rule.matches.iter().position(ported);
                    prop_assert!(port.is_none() || protocol < port && protocol.is_some());
                    // An address names its family.
                    for test in &rule.matches {
                        if let Match::Source(net) | Match::Destination(net) | Match::NotDestination(net) = test {
                            prop_assert_eq!(rule.families, Families::only(net.family()));
                        }
                    }
                }
            }
        }
        // The proxy's own connections are never turned back to its outbound port.
        let nat = rules.tables.iter().find(|table| table.kind == TableKind::Nat).unwrap();
        let output = nat.chains.iter().find(|chain| chain.name == chain::OUTPUT).unwrap();
        let own = output.rules.iter().position(|rule| rule.action == Action::Return && matches!(rule.matches[..], [Match::Uid(_)]));
        let captured = output.rules.iter().position(|rule| rule.action == Action::Jump(chain::REDIRECT));
        prop_assert!(own.is_some() && captured.is_none_or(|captured| own.unwrap() < captured));
    }

    #[test]
    fn every_form_can_be_printed(((text, environment), families) in (any_options(), some_families())) {
        let rules = planned(&text, &environment, families);
        use crate::options::{Backend, Form};
        for form in [Form::Iptables, Form::Nft, Form::Json] {
            let text = print::render(&rules, form, Backend::Nftables, true);
            prop_assert!(text.lines().count() > 10);
        }
    }

    /// Whatever a manifest says: options, or an error with a text.
    #[test]
    fn any_command_line(
        arguments in prop::collection::vec(
            prop_oneof![
                "[ -~]{0,12}",
                "--?[a-z-]{1,12}(=[ -~]{0,9})?",
                prop::sample::select(istio::FLAGS.iter().map(|flag| format!("--{}", flag.name)).collect::<Vec<_>>()),
                prop::sample::select(linkerd::PROXY_INIT_FLAGS.iter().map(|flag| format!("--{}", flag.name)).collect::<Vec<_>>()),
                "[0-9a-f.:/,*-]{0,20}",
            ],
            0..8,
        ),
        name in prop::sample::select(vec!["ISTIO_SERVICE_CIDR", "ISTIO_INBOUND_PORTS", "PROBE_TIMEOUT", "PROXY_UID", "HOST_IP"]),
        value in "\\PC{0,20}",
    ) {
        let mut environment = BTreeMap::new();
        environment.insert(name.to_owned(), value);
        let surroundings = Surroundings { environment, etc: "/nowhere".into() };
        for front_end in [istio::options, linkerd::daemonset, linkerd::proxy_init] {
            if let Err(error) = front_end(&arguments, &surroundings) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    #[test]
    fn any_environment_file(content in "(([A-Z_]{1,8}=)?[ -~]{0,30}\n?){0,6}") {
        let folder = std::env::temp_dir().join(format!("oi-env-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("cluster.env");
        std::fs::write(&file, &content).unwrap();
        let arguments = ["--cluster-env".to_owned(), file.display().to_string(), "--sidecar-env=/nowhere".to_owned()];
        let _ = machine::options(&arguments, &surroundings(&[]));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// Whatever a kernel or a tool says.
    #[test]
    fn any_answer(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "(\\*nat\n)?(-A [A-Z_]{1,15} [ -~]{0,40}\n|:[ -~]{0,20}\n){0,9}COMMIT\n") {
        let _ = read_list(&bytes);
        let _ = iptables::count_ours(&text);
        let _ = crate::legacy::read_any(&bytes);
    }
}
