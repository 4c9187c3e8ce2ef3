//! Memory that the process takes of its container's limit, cheap enough to measure a hundred times a
//! second.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::limit::{Group, number};

/// Reads how much memory is in use.
pub(super) struct Meter {
    statm: Option<File>,
    page: u64,
    /// Control group in which the kernel counts memory for this process alone: sockets above all.
    group: Option<Group>,
}

impl Meter {
    pub(super) fn new() -> Self {
        // In a control group shared with other processes, the kernel's memory may be theirs.
        let group = Group::own(Path::new("/")).filter(Group::is_ours);
        let page = rustix::param::page_size() as u64;
        Self { statm: File::open("/proc/self/statm").ok(), page, group }
    }

    /// Bytes of the process that the kernel can't take back: its resident pages without pages of files.
    pub(super) fn own(&self) -> u64 {
        let pages = || {
            let mut text = [0; 128];
            let read = self.statm.as_ref()?.read_at(&mut text, 0).ok()?;
            let mut words = std::str::from_utf8(&text[..read]).ok()?.split(' ').skip(1);
            let resident: u64 = words.next()?.parse().ok()?;
            let shared: u64 = words.next()?.parse().ok()?;
            Some(resident.saturating_sub(shared))
        };
        pages().unwrap_or_default() * self.page
    }

    /// Bytes that the kernel holds for this process and counts towards the container's limit.
    pub(super) fn of_kernel(&self) -> u64 {
        let Some(group) = &self.group else { return 0 };
        if !group.version2 {
            return number(&group.path.join("memory.kmem.usage_in_bytes")).unwrap_or_default();
        }
        let text = fs::read_to_string(group.path.join("memory.stat")).unwrap_or_default();
        let value = |name: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        };
        let stacks = || Some(value("slab")? + value("kernel_stack")? + value("pagetables")?);
        value("sock").unwrap_or_default() + value("kernel").or_else(stacks).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_pages_are_measured() {
        let meter = Meter::new();
        let before = meter.own();
        let held = vec![7_u8; 64 << 20];
        let after = meter.own();
        assert!(after >= before + (60 << 20), "{before} {after} {}", held[1]);
    }
}
