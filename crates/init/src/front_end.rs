//! Which of the command lines that exist in the wild a run has.

use crate::linkerd;

/// Whose command line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrontEnd {
    Istio,
    Daemonset,
    ProxyInit,
    PrepareProxy,
    Machine,
    InstallCni,
}

impl FrontEnd {
    /// By the first word; without one, by flags that only one of them has.
    pub(crate) fn of(arguments: &[String]) -> (FrontEnd, &[String]) {
        let rest = arguments.get(1..).unwrap_or_default();
        match arguments.first().map(String::as_str) {
            Some("istio-iptables") => (FrontEnd::Istio, rest),
            Some("linkerd-init") => (FrontEnd::Daemonset, rest),
            Some("proxy-init") => (FrontEnd::ProxyInit, rest),
            Some("prepare-proxy") => (FrontEnd::PrepareProxy, rest),
            Some("vm") => (FrontEnd::Machine, rest),
            Some("install-cni") => (FrontEnd::InstallCni, rest),
            _ if linkerd::is_daemonset(arguments) => (FrontEnd::Daemonset, arguments),
            _ if linkerd::is_proxy_init(arguments) => (FrontEnd::ProxyInit, arguments),
            _ => (FrontEnd::Istio, arguments),
        }
    }
}
