//! How much memory there is, and whether there is room for more.
//!
//! The kernel ends a container that needs more than its limit. So before something new is taken in, the container's own
//! account is asked: what is in use, the kernel's share for sockets and pipes among it, less the pages of files that the
//! kernel can take back.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::{Limit, Side};

/// What is taken for the limit where there is none.
const PLENTY: u64 = 2 << 30;
/// Hierarchy v1 has a number of this size where there is no limit.
const NONE: u64 = 1 << 62;
/// How long one look at the account holds. A look takes some microseconds, as long as memory is plenty.
const LOOK: Duration = Duration::from_millis(20);

/// A control group that bounds this process' memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// Bytes.
    limit: u64,
    /// Holds the bytes in use.
    usage: PathBuf,
    /// Holds what they are in use for.
    stat: PathBuf,
}

/// The group with the smallest limit, if there is one.
pub(crate) fn group() -> Option<Group> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    find(&groups, Path::new("/sys/fs/cgroup"))
}

/// Bytes that all HTTP/2 connections together may have to keep for readers that are slower than their senders: a quarter of
/// the limit, or of 2 GiB.
pub(crate) fn for_windows(group: Option<&Group>) -> u64 {
    group.map_or(PLENTY, |group| group.limit.min(PLENTY)) / 4
}

/// Of the control groups that `groups` (/proc/self/cgroup) names, and that are mounted at `mount`. A container may see its
/// own group as the root, whatever it is called outside.
fn find(groups: &str, mount: &Path) -> Option<Group> {
    let found = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let (root, limit, usage) = match controllers {
            "" => (mount.to_owned(), "memory.max", "memory.current"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (mount.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            _ => return None,
        };
        Some([root.join(path), root].map(|folder| {
            // `max` is no number, and no limit.
            let limit = number(&folder.join(limit)).filter(|limit| *limit < NONE)?;
            Some(Group { limit, usage: folder.join(usage), stat: folder.join("memory.stat") })
        }))
    });
    found.flatten().flatten().min_by_key(|group| group.limit)
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

impl Group {
    /// Whether more than three quarters are in use. A quarter is left to what has been taken in already. Where the kernel
    /// does not say, there is room.
    fn full(&self) -> bool {
        let most = self.limit / 4 * 3;
        number(&self.usage).is_some_and(|usage| usage > most && usage.saturating_sub(self.files()) > most)
    }

    /// Bytes of files' pages, in the group and those below it.
    fn files(&self) -> u64 {
        let stat = std::fs::read_to_string(&self.stat).unwrap_or_default();
        let number = |name: &str| -> Option<u64> {
            let line = stat.lines().filter_map(|line| line.split_once(' ')).find(|(key, _)| *key == name);
            line?.1.parse().ok()
        };
        let sum = |active: &str, inactive: &str| Some(number(active)? + number(inactive)?);
        // In hierarchy v1, what has no prefix is the group's alone.
        let all = sum("total_active_file", "total_inactive_file");
        all.or_else(|| sum("active_file", "inactive_file")).unwrap_or(0)
    }
}

/// Whether a worker takes in more.
#[derive(Debug)]
pub(crate) struct Room {
    group: Option<Group>,
    /// When the account was looked at last, and what it said.
    last: Cell<Option<(Instant, bool)>>,
    said: Cell<bool>,
}

impl Room {
    /// Room in `group`; without one there always is.
    pub(crate) fn new(group: Option<Group>) -> Room {
        Room { group, last: Cell::new(None), said: Cell::new(false) }
    }

    /// Whether there is no room, and something is turned away for it, which is counted in `side`.
    pub(crate) fn full(&self, side: &Side) -> bool {
        let full = self.is_full();
        if full {
            side.met(Limit::Memory);
        }
        full
    }

    /// Waits until there is room for another connection, which is counted once if it has to. Who would be alone in `side`
    /// need not wait: nobody's end would make room.
    pub(crate) async fn wait(&self, side: &Side) {
        if side.active() == 0 || !self.full(side) {
            return;
        }
        while side.active() > 0 && self.is_full() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_full(&self) -> bool {
        let Some(group) = &self.group else { return false };
        if let Some((_, full)) = self.last.get().filter(|(since, _)| since.elapsed() < LOOK) {
            return full;
        }
        let full = group.full();
        self.last.set(Some((Instant::now(), full)));
        if full && !self.said.replace(true) {
            tracing::warn!(
                limit = group.limit,
                "three quarters of the container's memory limit are in use; more connections wait"
            );
        }
        full
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A group of which all is in use.
    pub(crate) fn full() -> Group {
        // Both files hold something else.
        Group { limit: 0, usage: "/proc/sys/kernel/pid_max".into(), stat: "/dev/null".into() }
    }

    struct Mount(PathBuf);

    impl Mount {
        fn new(name: &str) -> Mount {
            Mount(std::env::temp_dir().join(format!("outrigger-{name}-{}", std::process::id())))
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn limit(&self, groups: &str) -> Option<u64> {
            find(groups, &self.0).map(|group| group.limit)
        }
    }

    impl Drop for Mount {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_limit_is_that_of_the_group_however_it_is_mounted() {
        let mount = Mount::new("cgroup");
        assert_eq!(mount.limit("0::/\n"), None);
        mount.write("memory.max", "max\n");
        mount.write("pod/app/memory.max", "134217728\n");
        assert_eq!(mount.limit("0::/\n"), None);
        assert_eq!(mount.limit("0::/pod/app\n"), Some(128 << 20));
        mount.write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        mount.write("memory/pod/memory.limit_in_bytes", "67108864\n");
        assert_eq!(mount.limit("5:cpu:/pod\n4:memory:/pod\n0::/\n"), Some(64 << 20));
        // Seen from outside, it has another name; and the root has no limit.
        assert_eq!(mount.limit("4:memory:/kubepods/x\n"), None);
        assert_eq!(for_windows(None), 512 << 20);
        assert_eq!(for_windows(find("4:memory:/pod\n", &mount.0).as_ref()), 16 << 20);
    }

    #[test]
    fn pages_of_files_are_room_and_all_else_in_use_is_not() {
        for (mount, groups, folder, limit, usage, prefix) in [
            ("v2", "0::/\n", "", "memory.max", "memory.current", ""),
            ("v1", "4:memory:/\n", "memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ] {
            let mount = Mount::new(mount);
            mount.write(&format!("{folder}{limit}"), "1000\n");
            let full = |used: u32, files: u32| {
                mount.write(&format!("{folder}{usage}"), &format!("{used}\n"));
                let of_files =
                    format!("anon 5\n{prefix}inactive_file {}\n{prefix}active_file 100\n", files - 100);
                // What the group itself has, without those below it, says nothing in v1.
                let own = if prefix.is_empty() { "" } else { "inactive_file 0\nactive_file 0\n" };
                mount.write(&format!("{folder}memory.stat"), &format!("{own}{of_files}"));
                find(groups, &mount.0).unwrap().full()
            };
            assert!(!full(750, 100));
            assert!(full(900, 149));
            assert!(!full(900, 150));
            assert!(!full(1000, 900));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_alone_waits_for_room() {
        let side = Side::default();
        let room = Room::new(Some(full()));
        room.wait(&side).await;
        let first = side.accept();
        let waited = tokio::time::timeout(Duration::from_secs(10), room.wait(&side)).await;
        assert!(waited.is_err());
        assert_eq!(side.times_met(Limit::Memory), 1, "one connection, however often it looks");
        drop(first);
        room.wait(&side).await;
        let _second = side.accept();
        Room::new(None).wait(&side).await;
    }
}
