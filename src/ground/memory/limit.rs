//! The memory limit of the control groups that this process is in, of version 1 and 2 (kernel.org, "Control
//! Group v2" and "Memory Resource Controller").

use std::fs;
use std::path::{Path, PathBuf};

/// Value above which version 1 means no limit: it writes the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 60;

/// Control group of memory that this process is in, and whether the group is of version 2.
pub(super) struct Group {
    pub(super) path: PathBuf,
    pub(super) version2: bool,
    top: PathBuf,
}

impl Group {
    /// Finds the group below `root`, which is `/` except in tests.
    pub(super) fn own(root: &Path) -> Option<Self> {
        let listed = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let unified = root.join("sys/fs/cgroup");
        let version1 = listed.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|name| name == "memory").then_some(path)
        });
        let (top, own, version2) = match version1 {
            Some(path) => (unified.join("memory"), path, false),
            None => (unified, listed.lines().find_map(|line| line.strip_prefix("0::"))?, true),
        };
        let path = top.join(own.trim_start_matches('/'));
        // In a container the path may be the host's; the folder visible there is the container's own
        // group.
        let seen = !own.contains("..") && path.join("cgroup.procs").exists();
        let path = if seen { path } else { top.clone() };
        Some(Self { path, version2, top })
    }

    /// Least limit of this group and of the groups that contain it.
    fn limit(&self) -> Option<u64> {
        let files: &[&str] =
            if self.version2 { &["memory.max", "memory.high"] } else { &["memory.limit_in_bytes"] };
        let groups = self.path.ancestors().take_while(|group| group.starts_with(&self.top));
        let limits =
            groups.flat_map(|group| files.iter().filter_map(|file| number(&group.join(file))));
        limits.filter(|limit| *limit < NO_LIMIT).min()
    }

    /// Whether this process is alone in the group.
    pub(super) fn is_ours(&self) -> bool {
        let processes = fs::read_to_string(self.path.join("cgroup.procs"));
        processes.is_ok_and(|processes| processes.lines().count() == 1)
    }
}

/// Limit of the control groups that this process is in; `max` is no number, so it sets no limit.
pub(super) fn of_control_groups(root: &Path) -> Option<u64> {
    Group::own(root)?.limit()
}

pub(super) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limit that is found if `/proc/self/cgroup` reads `own` and `files` exist below the control
    /// groups.
    fn found(own: &str, files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("written");
        };
        write("proc/self/cgroup", own);
        for (path, text) in files {
            write(&format!("sys/fs/cgroup/{path}"), text);
        }
        of_control_groups(root.path())
    }

    #[test]
    fn limit_is_the_least_of_nested_groups() {
        let two = &[
            ("pod/container/cgroup.procs", "1\n"),
            ("pod/container/memory.max", "max\n"),
            ("pod/container/memory.high", "300000000\n"),
            ("pod/memory.max", "268435456\n"),
        ];
        assert_eq!(found("0::/pod/container\n", two), Some(268_435_456));
        let one = &[
            ("memory/a/b/cgroup.procs", "1\n"),
            ("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/a/memory.limit_in_bytes", "1000000\n"),
        ];
        let own = "12:cpu,cpuacct:/a\n5:memory:/a/b\n0::/\n";
        assert_eq!(found(own, one), Some(1_000_000));
    }

    #[test]
    fn limit_of_a_container_is_found_at_its_root() {
        assert_eq!(found("0::/\n", &[("memory.max", "67108864\n")]), Some(67_108_864));
        // The path is the host's, which the container does not see.
        let own = "5:memory:/kubepods/pod1/c1\n";
        let file = ("memory/memory.limit_in_bytes", "268435456\n");
        assert_eq!(found(own, &[file]), Some(268_435_456));
        assert_eq!(found("0::/../../x\n", &[("memory.max", "1048576\n")]), Some(1_048_576));
    }

    #[test]
    fn unlimited_group_has_no_limit() {
        assert_eq!(found("0::/\n", &[("memory.max", "max\n")]), None);
        let file = ("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(found("5:memory:/\n", &[file]), None);
        assert_eq!(found("", &[]), None);
    }
}
