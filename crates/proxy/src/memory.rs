//! How much memory there is.

use std::path::Path;

/// What is taken for the limit where there is none.
const PLENTY: u64 = 2 << 30;

/// Bytes that all HTTP/2 connections together may have to keep for readers that are slower than their senders: a quarter of
/// the container's memory limit, or of 2 GiB.
pub(crate) fn for_windows() -> u64 {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit(&groups, Path::new("/sys/fs/cgroup")).unwrap_or(PLENTY).min(PLENTY) / 4
}

/// The limit of the control groups that `groups` (/proc/self/cgroup) names, of those mounted at `mount`. A container may
/// see its own group as the root, whatever it is called outside.
fn limit(groups: &str, mount: &Path) -> Option<u64> {
    let paths = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let (root, file) = match controllers {
            "" => (mount.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (mount.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        Some([root.join(path).join(file), root.join(file)])
    });
    // `max` is no number, and no limit.
    paths.flatten().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_that_of_the_group_however_it_is_mounted() {
        let mount = std::env::temp_dir().join(format!("outrigger-cgroup-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = mount.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(limit("0::/\n", &mount), None);
        write("memory.max", "max\n");
        write("pod/app/memory.max", "134217728\n");
        assert_eq!(limit("0::/\n", &mount), None);
        assert_eq!(limit("0::/pod/app\n", &mount), Some(128 << 20));
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/pod/memory.limit_in_bytes", "67108864\n");
        assert_eq!(limit("5:cpu:/pod\n4:memory:/pod\n0::/\n", &mount), Some(64 << 20));
        // Seen from outside, it has another name.
        assert_eq!(limit("4:memory:/kubepods/x\n", &mount), Some(9_223_372_036_854_771_712));
        std::fs::remove_dir_all(&mount).unwrap();
    }
}
