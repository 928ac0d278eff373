//! Asks the kernel itself what legacy iptables holds, where a tool would be started only to look
//! (linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h). Only about tables that exist: asking
//! for another makes it.

// The one system call for this has no safe wrapper anywhere: its answer has a form of its own.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use crate::rules::{Endings, chain};
use crate::values::Family;

const GET_INFO: c_int = 64;
const GET_ENTRIES: c_int = 65;
/// Size of the answer to GET_INFO, and of what comes before the entries.
const INFO: usize = 84;
const HEAD: usize = 40;
/// Built-in chains by the number of their hook.
const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

unsafe extern "C" {
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut u32) -> c_int;
}

/// How our rules in `table` end, and those that jump to them; `None` if the kernel does not say.
pub(crate) fn endings(family: Family, table: &str) -> Option<Endings> {
    let (domain, protocol) = match family {
        Family::V4 => (AddressFamily::INET, ipproto::RAW),
        Family::V6 => (AddressFamily::INET6, ipproto::RAW),
    };
    let socket = socket_with(domain, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).ok()?;
    let mut info = vec![0; INFO];
    name(&mut info, table);
    ask(&socket, family, GET_INFO, &mut info)?;
    let size = number(&info, 80)?;
    let mut entries = vec![0; HEAD + size];
    name(&mut entries, table);
    entries[32..36].copy_from_slice(&u32::try_from(size).ok()?.to_ne_bytes());
    ask(&socket, family, GET_ENTRIES, &mut entries)?;
    read(family, &info, entries.get(HEAD..)?)
}

fn name(buffer: &mut [u8], table: &str) {
    let length = table.len().min(31);
    buffer[..length].copy_from_slice(&table.as_bytes()[..length]);
}

fn ask(socket: &OwnedFd, family: Family, what: c_int, buffer: &mut [u8]) -> Option<()> {
    let level = match family {
        Family::V4 => 0,
        Family::V6 => 41,
    };
    let mut length = u32::try_from(buffer.len()).ok()?;
    // SAFETY: the descriptor is open, and `buffer` and `length` are ours for the time of the call; the kernel
    // writes at most `length` bytes to `buffer`, and the length that it wrote to `length`.
    let result = unsafe {
        getsockopt(socket.as_fd().as_raw_fd(), level, what, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    (result == 0).then_some(())
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?)))
}

fn text(bytes: &[u8]) -> String {
    crate::netlink::text(bytes)
}

/// A chain as it is read.
struct Chain {
    /// Where its first rule is.
    first: usize,
    name: String,
    /// How its rules end: a word, or the place that a jump leads to.
    rules: Vec<Result<String, usize>>,
}

/// Entries lie one after the other; a chain of a user's own begins with one that has its name for an error.
fn read(family: Family, info: &[u8], entries: &[u8]) -> Option<Endings> {
    // Where an entry says how far away its target and the next entry are.
    let offsets = match family {
        Family::V4 => 88,
        Family::V6 => 140,
    };
    let valid = number(info, 32)?;
    let hook_at = |at: usize| {
        (0..HOOKS.len()).find(|hook| valid & 1 << hook != 0 && number(info, 36 + 4 * hook) == Some(at))
    };
    let mut chains: Vec<Chain> = Vec::new();
    let mut at = 0;
    while at < entries.len() {
        let entry = entries.get(at..)?;
        let (target, next) = (short(entry, offsets)?, short(entry, offsets + 2)?);
        let target = entry.get(target..next)?;
        let name = text(target.get(2..31)?);
        if let Some(hook) = hook_at(at) {
            chains.push(Chain { first: at, name: HOOKS[hook].to_owned(), rules: Vec::new() });
        }
        if name == "ERROR" {
            chains.push(Chain { first: at + next, name: text(target.get(32..)?), rules: Vec::new() });
        } else if let Some(chain) = chains.last_mut() {
            chain.rules.push(match name.as_str() {
                "" => match number(target, 32)? as u32 as i32 {
                    -1 => Ok("DROP".to_owned()),
                    -2 => Ok("ACCEPT".to_owned()),
                    -5 => Ok("RETURN".to_owned()),
                    offset => Err(usize::try_from(offset).ok()?),
                },
                _ => Ok(name),
            });
        }
        at += next.max(1);
    }
    let of_jump = |to: usize| chains.iter().find(|chain| chain.first == to).map(|chain| chain.name.clone());
    let mut endings = Endings::new();
    for Chain { name, rules, .. } in &chains {
        // The last one is the chain's policy, or its return.
        let rules = rules.split_last().map(|(_, rules)| rules).unwrap_or_default();
        let all: Option<Vec<String>> =
            rules.iter().map(|ending| ending.clone().or_else(|to| of_jump(to).ok_or(to)).ok()).collect();
        let (all, ours) = (all?, |name: &String| chain::OURS.contains(&name.as_str()));
        if ours(name) {
            endings.push((name.clone(), all));
        } else {
            let jumps: Vec<String> = all.into_iter().filter(ours).collect();
            endings.extend((!jumps.is_empty()).then(|| (name.clone(), jumps)));
        }
    }
    endings.sort();
    Some(endings)
}

/// Reads bytes that no kernel has sent.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_any(bytes: &[u8]) -> Option<Endings> {
    let (info, entries) = bytes.split_at(bytes.len().min(INFO));
    read(Family::V4, info, entries)
}
