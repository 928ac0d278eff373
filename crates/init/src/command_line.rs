//! A command line from its first word to what is done about it.

use crate::error::Outcome;
use crate::front_end::FrontEnd;
use crate::options::Surroundings;
use crate::run::{carry_out, enter};
use crate::{cni, help, istio, linkerd, machine, print};

/// Reads the command line and does what it says.
pub(crate) fn run(arguments: &[String], surroundings: &Surroundings) -> Outcome<()> {
    let (front_end, arguments) = FrontEnd::of(arguments);
    if let Some(text) = help::wanted(front_end, arguments) {
        return print::out(&text);
    }
    let options = match front_end {
        FrontEnd::Istio => istio::options(arguments, surroundings),
        FrontEnd::Daemonset => linkerd::daemonset(arguments, surroundings),
        FrontEnd::ProxyInit => linkerd::proxy_init(arguments, surroundings),
        FrontEnd::PrepareProxy => istio::prepare_proxy(arguments, surroundings),
        FrontEnd::Machine => machine::options(arguments, surroundings),
        FrontEnd::InstallCni => return cni::install(arguments),
    }?;
    if let Some(name) = &options.netns {
        enter(name)?;
    }
    carry_out(&options, surroundings)
}
