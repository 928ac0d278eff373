//! What holds for whatever is read, for the targets of `fuzz/`. Each function panics where something does not hold.

use std::collections::BTreeMap;

use crate::error::Outcome;
use crate::expression::{expressions, read_list};
use crate::front_end::FrontEnd;
use crate::netlink::{Messages, attribute};
use crate::options::{Backend, Capture, Form, Options, Surroundings, Task};
use crate::rules::RuleSet;
use crate::run::rules;
use crate::sidecar::Dns;
use crate::values::Families;
use crate::{cni, facts, flags, iptables_text, istio, legacy, linkerd, machine, print};

fn surroundings(environment: BTreeMap<String, String>) -> Surroundings {
    Surroundings { environment, etc: "/nowhere".into() }
}

/// What is still a fact about the namespace is taken for granted.
fn completed(capture: &Capture) -> RuleSet {
    let mut capture = capture.clone();
    if let Capture::Sidecar { plan, .. } = &mut capture {
        plan.families = Families::BOTH;
        if plan.dns == Dns::Servers(Vec::new()) {
            plan.dns = Dns::Servers(vec![[10, 96, 0, 10].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 0xa].into()]);
        }
    }
    rules(&capture)
}

/// The rules of a plan are read back from each form that a back end knows, and can be shown in each.
fn come_back(rules: &RuleSet) {
    for family in rules.families.each() {
        assert!(iptables_text::reads_its_own(rules, family), "{rules:?}");
    }
    for rule in rules.tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules) {
        let list = expressions(rule, rules.families, false);
        let mut message = Messages::default();
        message.begin(0, 0, &[]).nested(4, |to| list.iter().for_each(|expression| expression.write(to)));
        assert_eq!(read_list(attribute(&message.bytes[16..], 4)), list);
    }
    for form in [Form::Iptables, Form::Nft, Form::Json] {
        print::render(rules, form, Backend::Nftables, true);
    }
}

fn check(read: Outcome<Options>) {
    match read {
        Ok(options) => come_back(&completed(&options.capture)),
        Err(failure) => assert!(failure.to_string().len() > 10, "{failure}"),
    }
}

/// A command line, one argument a line; a line `$NAME=value` is a variable. Accepted options give rules that come back.
pub fn command_line(text: &str) {
    let (variables, arguments): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('$'));
    let variables = variables.iter().filter_map(|line| line[1..].split_once('='));
    let surroundings = surroundings(variables.map(|(name, value)| (name.into(), value.into())).collect());
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let (front_end, arguments) = FrontEnd::of(&arguments);
    match front_end {
        FrontEnd::Istio => check(istio::options(arguments, &surroundings)),
        FrontEnd::Daemonset => check(linkerd::daemonset(arguments, &surroundings)),
        FrontEnd::ProxyInit => check(linkerd::proxy_init(arguments, &surroundings)),
        FrontEnd::PrepareProxy => check(istio::prepare_proxy(arguments, &surroundings)),
        // It would read the files that it is told to; see `machine`.
        FrontEnd::Machine => drop(flags::parse(arguments, &machine::FLAGS)),
        FrontEnd::InstallCni => drop(cni::install::options(arguments)),
    }
}

/// Why `istio-iptables` would not take these arguments and variables.
///
/// # Errors
/// What it would say.
pub fn istio_takes(arguments: &[String], environment: &BTreeMap<String, String>) -> Result<(), String> {
    let options = istio::options(arguments, &surroundings(environment.clone())).map_err(|e| e.to_string())?;
    come_back(&completed(&options.capture));
    Ok(())
}

/// `cluster.env` or `sidecar.env`: what is read of it is read once more from assignments in quotes.
pub fn environment_file(text: &str) {
    let Ok(found) = machine::assignments("cluster.env", text) else { return };
    for quote in ['"', '\''] {
        let quoted = found.iter().filter(|(_, value)| !value.contains(quote));
        let written: String = quoted.map(|(name, value)| format!("{name}={quote}{value}{quote}\n")).collect();
        let again = machine::assignments("cluster.env", &written);
        let again = again.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(again.iter().all(|(name, value)| found.get(name) == Some(value)), "{written}");
    }
    let arguments = machine::defaults(&found);
    check(istio::options(&arguments, &surroundings(found)));
}

/// A request to the CNI plugin: the variables, an empty line, the configuration. What an annotation asks for is captured and
/// no more; and a list of plugins gets ours once, and loses it again.
pub fn cni(text: &str) {
    let (variables, configuration) = text.split_once("\n\n").unwrap_or(("", text));
    let variables = variables.lines().filter_map(|line| line.split_once('='));
    let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    match cni::request::Request::read(&environment, configuration) {
        Ok(cni::request::Request { work: Some(work), .. }) => {
            let options = &work.options;
            assert!(options.netns.is_none() && options.dry_run.is_none() && options.self_test.is_none());
            assert!(options.task == Task::Apply && options.close_wait.is_none());
            come_back(&completed(&options.capture));
        }
        Ok(_) => {}
        Err(refusal) => assert!(!refusal.message.is_empty()),
    }
    if let Ok(with) = cni::chain::with(configuration) {
        let list = with.as_deref().unwrap_or(configuration);
        assert_eq!(cni::chain::with(list), Ok(None));
        if let Ok(Some(without)) = cni::chain::without(list) {
            assert_eq!(cni::chain::without(&without).ok().flatten(), None);
        }
    }
}

/// Whatever the kernel, a tool or a file of /etc says.
pub fn answers(bytes: &[u8]) {
    let _ = read_list(bytes);
    let _ = legacy::read_any(bytes);
    let text = String::from_utf8_lossy(bytes);
    facts::nameservers(&text);
    let found = iptables_text::parse(&text);
    // What is there once it has been taken away is nothing of ours.
    let _ = iptables_text::restore(&[], &found, false);
}
