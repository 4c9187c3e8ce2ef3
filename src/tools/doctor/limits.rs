//! Compares what the configuration would take with the system's limits for this container, and the time that
//! the sidecar takes to end with the time that Kubernetes allows.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Check, Finding, Findings, Surroundings};
use hop::listener::{RESERVED_DESCRIPTORS, raise_descriptor_limit, spare_descriptors};
use server::config::Workers;

/// Time that Kubernetes waits after SIGTERM unless told otherwise (`terminationGracePeriodSeconds`).
const DEFAULT_PERIOD: Duration = Duration::from_secs(30);

pub(super) fn check(around: &Surroundings) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Limits);
    look_at_descriptors(around, &mut findings);
    let groups = groups(&around.root);
    look_at_memory(around, &groups, &mut findings);
    look_at_processors(around, &groups, &mut findings);
    findings.all()
}

fn look_at_descriptors(around: &Surroundings, findings: &mut Findings) {
    let listen = &around.config.listen;
    let (limit, wanted) = (raise_descriptor_limit(), listen.max_connections);
    let spare = spare_descriptors(around.config.workers.count());
    let fitting = listen.clone().within_descriptors(limit, spare).max_connections;
    let place = format!("listen.max_connections {wanted}");
    if fitting < wanted {
        findings.warning(
            place,
            format!("the system allows {limit} open files, which serve {fitting} connections"),
            format!(
                "raise the hard limit (ulimit -n) to two for each connection and {}, or lower the \
                 setting",
                spare + RESERVED_DESCRIPTORS
            ),
        );
    } else {
        findings.ok(place, format!("the system allows {limit} open files, which is enough"));
    }
}

fn look_at_memory(around: &Surroundings, groups: &[PathBuf], findings: &mut Findings) {
    let cache = around.config.cache.max_bytes;
    let place = format!("cache.max_bytes {}", mebibytes(cache));
    let limits = groups.iter().filter_map(|group| read(&group.join("memory.max"))?.parse().ok());
    let Some(limit) = limits.min() else {
        findings.ok(place, "this container's memory is not limited");
        return;
    };
    let of = format!("of the {} that this container may have", mebibytes(limit));
    if cache > limit / 2 {
        findings.warning(
            place,
            format!(
                "the cache alone may take more than half {of}, and the sidecar could be killed"
            ),
            "lower it to a quarter of the memory limit, or raise the limit",
        );
    } else {
        findings.ok(place, format!("less than half {of}"));
    }
}

fn look_at_processors(around: &Surroundings, groups: &[PathBuf], findings: &mut Findings) {
    let quotas = groups.iter().filter_map(|group| {
        let quota = read(&group.join("cpu.max"))?;
        let (quota, period) = quota.split_once(' ')?;
        let (quota, period): (u32, u32) = (quota.parse().ok()?, period.parse().ok()?);
        (period > 0).then(|| f64::from(quota) / f64::from(period))
    });
    let quota = quotas.min_by(f64::total_cmp);
    let place = match around.config.workers {
        Workers::Auto => "runtime.workers auto".to_owned(),
        Workers::Exactly(count) => format!("runtime.workers {count}"),
    };
    match (quota, around.config.workers) {
        (Some(quota), Workers::Exactly(count)) if count as f64 > quota.max(1.0).ceil() => {
            findings.warning(
                place,
                format!("more threads than the {quota:.1} CPUs that this container may use"),
                "write \"auto\": throttled threads delay every request",
            );
        }
        (Some(quota), _) => findings.ok(place, format!("this container may use {quota:.1} CPUs")),
        (None, _) => findings.ok(place, "this container's CPU time is not limited"),
    }
}

/// Returns the control groups that this process is in, from its own outwards (cgroup v2: kernel.org, "Control
/// Group v2"). In a container, most often only the process's own group is visible.
fn groups(root: &Path) -> Vec<PathBuf> {
    let top = root.join("sys/fs/cgroup");
    let listed = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let own = listed.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    // Beyond the container's own root there is nothing to see.
    let own = if own.starts_with("..") { "" } else { own };
    let own = top.join(own);
    own.ancestors().take_while(|group| group.starts_with(&top)).map(Path::to_owned).collect()
}

fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn mebibytes(bytes: u64) -> String {
    format!("{}MiB", bytes >> 20)
}

pub(super) fn look_at_shutdown(around: &Surroundings) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Shutdown);
    let shutdown = &around.config.shutdown;
    let sum = shutdown.grace + shutdown.deadline;
    let what = format!("the sidecar takes up to {sum:?} to end");
    if sum > DEFAULT_PERIOD {
        findings.note(
            "[shutdown]",
            format!("{what}, and Kubernetes kills it after 30s unless told otherwise"),
            "set the pod's terminationGracePeriodSeconds above that time, and above the time that \
             the app takes to end",
        );
    } else {
        findings.ok("[shutdown]", what);
    }
    findings.all()
}
