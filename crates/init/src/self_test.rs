//! Proves capture with packets, before the proxy is there: this process listens where the proxy will, and
//! dials as the proxy and as an application do. Nothing leaves the namespace while capture works.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, ipproto, listen, socket_with, sockopt,
};
use rustix::process::{Uid, getgid, getuid};
use rustix::thread::set_thread_uid;

use crate::error::{Failure, Outcome};
use crate::log::Log;
use crate::options::SelfTest;
use crate::sidecar::{Groups, Sidecar};
use crate::values::{Family, Net, Ports, Selection};

/// One attempt; the rules may come from somebody else and come late.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Addresses that belong to nobody (RFC 5737, RFC 3849).
const NOBODY_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(203, 0, 113, 1)];
const NOBODY_V6: [Ipv6Addr; 1] = [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)];

/// One direction in one family.
struct Leg {
    name: String,
    /// Where the proxy will listen.
    listens: SocketAddr,
    dials: SocketAddr,
    /// Where it dials from, if that is not the kernel's choice.
    source: Option<IpAddr>,
    /// The user that dials, if not the one that this process runs as.
    user: Option<u32>,
}

/// Tries every leg that the plan captures. `addresses` are this namespace's.
pub(crate) fn run(plan: &Sidecar, test: SelfTest, addresses: &[IpAddr], log: Log) -> Outcome<()> {
    let deadline = Instant::now() + test.timeout;
    let mut tried = Vec::new();
    for family in plan.families.each() {
        for leg in [inbound(plan, test, family, addresses), outbound(plan, test, family)] {
            match leg {
                Err(reason) => log.info("self-test leaves out a direction", &[("reason", reason.into())]),
                Ok(leg) => match leg.run(deadline) {
                    Ok(true) => tried.push(leg.name),
                    Ok(false) => {
                        let reason = format!("{}: there is no route to {}", leg.name, leg.dials.ip());
                        log.info("self-test leaves out a direction", &[("reason", reason.into())]);
                    }
                    Err(reason) => {
                        return Err(Failure::SelfTest(format!("self-test, {}: {reason}", leg.name)));
                    }
                },
            }
        }
    }
    if tried.is_empty() {
        return Err(Failure::SelfTest("self-test: there was no direction to try".to_owned()));
    }
    log.info("self-test passed", &[("directions", tried.join(", ").into())]);
    Ok(())
}

/// The proxy calls an address of this pod: that is turned to the inbound port.
fn inbound(plan: &Sidecar, test: SelfTest, family: Family, addresses: &[IpAddr]) -> Result<Leg, String> {
    let name = format!("{family} inbound");
    let Some(user) = plan.proxy_uids.first().copied() else {
        return Err(format!("{name}: no user is the proxy's"));
    };
    let source = family.inbound_source();
    let own = addresses.iter().copied().filter(|a| Family::of(*a) == family && !a.is_loopback());
    let target = std::iter::once(source).chain(own).find(|address| match family {
        Family::V4 => !plan.loopback_v4.contains(*address),
        Family::V6 => true,
    });
    let Some(target) = target else {
        return Err(format!("{name}: every address of this namespace is inside {}", plan.loopback_v4));
    };
    let user = (getuid().as_raw() != user).then_some(user);
    let listens = SocketAddr::new(family.loopback(), plan.inbound_port);
    // From the same address it would look like the proxy calling the application.
    let source = Some(family.loopback()).filter(|_| target == source);
    Ok(Leg { name, listens, dials: SocketAddr::new(target, test.port), source, user })
}

/// An application calls somebody: that is turned to the outbound port.
fn outbound(plan: &Sidecar, test: SelfTest, family: Family) -> Result<Leg, String> {
    let name = format!("{family} outbound");
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    if plan.proxy_uids.contains(&user) || plan.proxy_gids.contains(&group) {
        return Err(format!("{name}: this process is a user of the proxy's; run it as root to try this too"));
    }
    let captured = match &plan.groups {
        Groups::AllExcept(groups) => !groups.contains(&group),
        Groups::Only(groups) => groups.contains(&group),
    };
    if !captured {
        return Err(format!("{name}: the group of this process, {group}, is not captured"));
    }
    let nobody: Vec<IpAddr> = match family {
        Family::V4 => NOBODY_V4.map(IpAddr::V4).to_vec(),
        Family::V6 => NOBODY_V6.map(IpAddr::V6).to_vec(),
    };
    let candidates = match &plan.outbound_ranges {
        Selection::All => nobody,
        Selection::Only(nets) => {
            let of_family = nets.iter().filter(|net| net.family() == family && !net.address.is_loopback());
            of_family.map(|net| second(*net)).collect()
        }
    };
    let included = |ports: &Ports| (ports.first..=ports.last).contains(&test.port);
    let excluded = |address: &IpAddr| plan.outbound_excluded_ranges.iter().any(|net| net.contains(*address));
    let target = candidates.into_iter().find(|address| !excluded(address));
    match target {
        Some(address) if !plan.outbound_excluded_ports.iter().any(included) => Ok(Leg {
            name,
            listens: SocketAddr::new(family.loopback(), plan.outbound_port),
            dials: SocketAddr::new(address, test.port),
            source: None,
            user: None,
        }),
        _ => Err(format!("{name}: the plan captures no address on port {} that could be tried", test.port)),
    }
}

/// The first address of a range that can be a host's.
fn second(net: Net) -> IpAddr {
    match net.address {
        address if net.is_host() => address,
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() | 1).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() | 1).into(),
    }
}

impl Leg {
    /// Dials until the connection arrives where the proxy will listen. `false`: there is no route to dial by.
    fn run(&self, deadline: Instant) -> Result<bool, String> {
        let listener = self.listen().map_err(|errno| match errno {
            Errno::ADDRINUSE => format!("{} is in use; is the proxy running already?", self.listens),
            errno => format!("cannot listen on {}: {errno}", self.listens),
        })?;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let dialler = scope.spawn(|| self.dial(deadline, &stop));
            let arrived = self.await_arrival(&listener, deadline, &stop);
            stop.store(true, Ordering::Relaxed);
            let dialled = dialler.join().unwrap_or_else(|_| Err("the dialling thread died".to_owned()));
            match (arrived, dialled) {
                (Ok(true), _) => Ok(true),
                (_, Ok(Some(reason))) => Err(format!(
                    "a connection to {} did not arrive at {}: {reason}",
                    self.dials, self.listens
                )),
                (_, Ok(None)) => Ok(false),
                (_, Err(reason)) => Err(reason),
            }
        })
    }

    fn listen(&self) -> Result<TcpListener, Errno> {
        let family = if self.listens.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        sockopt::set_socket_reuseport(&fd, true)?;
        bind(&fd, &self.listens)?;
        listen(&fd, 16)?;
        Ok(fd.into())
    }

    /// Waits for a connection that was meant for the dialled address.
    fn await_arrival(
        &self,
        listener: &TcpListener,
        deadline: Instant,
        stop: &AtomicBool,
    ) -> Result<bool, String> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let slice = left.min(Duration::from_millis(100));
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(slice.subsec_nanos()) };
            let mut ready = [PollFd::new(listener, PollFlags::IN)];
            match poll(&mut ready, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(errno.to_string()),
            }
            let Ok((mut stream, _)) = listener.accept() else { continue };
            let original = match self.dials {
                SocketAddr::V4(_) => sockopt::ip_original_dst(&stream).map(SocketAddr::V4),
                SocketAddr::V6(_) => sockopt::ipv6_original_dst(&stream).map(SocketAddr::V6),
            };
            let _ = stream.write_all(b"captured");
            if original.is_ok_and(|to| to.ip() == self.dials.ip() && to.port() == self.dials.port()) {
                return Ok(true);
            }
        }
    }

    fn connect(&self, patience: Duration) -> Result<TcpStream, Errno> {
        let family = if self.dials.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        if let Some(source) = self.source {
            bind(&fd, &SocketAddr::new(source, 0))?;
        }
        match connect(&fd, &self.dials) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno),
        }
        let timeout = Timespec::try_from(patience).map_err(|_| Errno::INVAL)?;
        if poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&timeout))? == 0 {
            return Err(Errno::TIMEDOUT);
        }
        sockopt::socket_error(&fd)??;
        let stream = TcpStream::from(fd);
        stream.set_nonblocking(false).map_err(|_| Errno::INVAL)?;
        Ok(stream)
    }

    /// Dials again and again; says why the last attempt did not do, or `None` if there is no route.
    fn dial(&self, deadline: Instant, stop: &AtomicBool) -> Result<Option<String>, String> {
        if let Some(user) = self.user {
            // Of this thread only, and it ends with the leg.
            set_thread_uid(Uid::from_raw(user)).map_err(|errno| {
                format!(
                    "cannot become user {user}, the proxy's: {errno}; run the self-test as that user, \
                     or with the capability SETUID"
                )
            })?;
        }
        let mut last = "no answer in time".to_owned();
        while !stop.load(Ordering::Relaxed) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let attempt = left.min(ATTEMPT);
            match self.connect(attempt) {
                Ok(mut stream) => {
                    let _ = stream.set_read_timeout(Some(attempt));
                    let mut answer = [0; 16];
                    match stream.read(&mut answer) {
                        Ok(length) if &answer[..length] == b"captured" => {
                            last = "it arrived with another destination".to_owned()
                        }
                        _ => last = "something else answered".to_owned(),
                    }
                }
                Err(Errno::NETUNREACH) => {
                    stop.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
                Err(errno) => last = errno.to_string(),
            }
            let pause = Instant::now() + attempt;
            while Instant::now() < pause.min(deadline) && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(Some(last))
    }
}
