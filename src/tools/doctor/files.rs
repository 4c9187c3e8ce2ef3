//! Checks the files that the configuration names: whether the sidecar can read them, which other users can,
//! and whether a new version of a mounted Secret ever gets there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{Check, Finding, Findings, Surroundings};
use ground::tls::is_replaced_at_once;
use server::config::Effective;

/// Permissions beyond the owner's and the group's.
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;

/// A setting that names a file.
struct Named {
    setting: String,
    path: PathBuf,
    content: Content,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// A secret on one line.
    Secret,
    PrivateKey,
    /// Certificates, which are public.
    Public,
}

pub(super) fn check(around: &Surroundings) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Files);
    let mounts = fs::read_to_string(around.root.join("proc/self/mountinfo")).unwrap_or_default();
    for named in around.config.effective.iter().filter_map(Named::of) {
        let before = findings.len();
        named.check(around, &mounts, &mut findings);
        if findings.len() == before {
            findings.ok(named.place(), "readable, and only by users that need it");
        }
    }
    findings.all()
}

impl Named {
    fn of(effective: &Effective) -> Option<Self> {
        let key = effective.key.strip_suffix("_file")?;
        let content = match key {
            "key" => Content::PrivateKey,
            "certificate" | "ca" | "client_ca" => Content::Public,
            _ => Content::Secret,
        };
        let path: String = serde_json::from_str(&effective.value).ok()?;
        let table = effective.header.trim_matches(['[', ']']);
        Some(Self { setting: format!("{table}.{}", effective.key), path: path.into(), content })
    }

    fn place(&self) -> String {
        format!("{} {}", self.setting, self.path.display())
    }

    fn check(&self, around: &Surroundings, mounts: &str, findings: &mut Findings) {
        let read = fs::metadata(&self.path).and_then(|facts| Ok((facts, fs::read(&self.path)?)));
        let (facts, content) = match read {
            Ok((facts, content)) => (facts, content),
            Err(error) => {
                findings.fatal(
                    self.place(),
                    format!("it can't be read: {error}"),
                    "mount it there, readable by the sidecar's user: in a pod, the Secret's \
                     defaultMode 0440 and the pod's fsGroup",
                );
                return;
            }
        };
        let is_projected = is_replaced_at_once(&self.path);
        self.look_at_mode(facts.permissions().mode(), is_projected, findings);
        if self.content == Content::Secret {
            self.look_at_space(&content, findings);
        }
        let resolved = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        if !is_projected
            && (is_mount_point(mounts, &self.path) || is_mount_point(mounts, &resolved))
        {
            findings.note(
                self.place(),
                "it is mounted alone (subPath), and such a file never changes while the pod lives",
                "mount the Secret's whole folder instead, if it is to be replaced without a \
                 restart of the pod",
            );
        } else if !is_projected && around.in_kubernetes() {
            findings.note(
                self.place(),
                "it is no file of a mounted Secret (no ..data beside it), so Kubernetes will not \
                 replace it",
                "mount a Secret there, unless something else writes the file",
            );
        }
    }

    fn look_at_mode(&self, mode: u32, is_projected: bool, findings: &mut Findings) {
        let shown = format!("{:04o}", mode & 0o7777);
        if mode & OTHERS_WRITE != 0 {
            findings.warning(
                self.place(),
                format!("its mode is {shown}: any process here may replace it"),
                "let only its owner write it: chmod o-w",
            );
        }
        if self.content == Content::Public || mode & OTHERS_READ == 0 {
            return;
        }
        let what = format!("its mode is {shown}: any process here may read it");
        if is_projected {
            // Only a note: every Secret has this mode by default, and only this container's own processes are
            // here.
            findings.note(
                self.place(),
                what,
                "the volume's defaultMode 0440 and the pod's fsGroup would let only the sidecar \
                 read it",
            );
        } else {
            findings.warning(self.place(), what, "let only the sidecar's user read it: chmod 0400");
        }
    }

    fn look_at_space(&self, content: &[u8], findings: &mut Findings) {
        let text = String::from_utf8_lossy(content);
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.trim() != secret {
            findings.warning(
                self.place(),
                "it begins or ends with white space, which counts as part of the secret",
                "write it without white space, such as by printf %s",
            );
        }
    }
}

/// Whether something is mounted on `path` itself, by proc(5), "mountinfo": the fifth field, with
/// blanks and the like in octal.
fn is_mount_point(mounts: &str, path: &Path) -> bool {
    let Some(path) = path.to_str() else { return false };
    let path = path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(path.as_str()))
}
