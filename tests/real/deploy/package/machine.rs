//! A small Debian of a test's own: its files, and the same booted by `systemd-nspawn`, with systemd as its first
//! process and on the network of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::super::{run, run_well};
use crate::neighbour::{Process, eventually, tool};

/// Files of a Debian in which nothing runs.
pub struct Root(TempDir);

impl Root {
    /// Unpacks a Debian as it is after its installation.
    pub fn unpack() -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--preserve-permissions", "--numeric-owner", "--file"]);
        run_well(tar.arg(tool("fresh-root.tar")).arg("--directory").arg(folder.path()), "");
        Self(folder)
    }

    /// Returns where this machine has a file of the root.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside.trim_start_matches('/'))
    }

    /// Copies a file into the root, and returns its path there.
    pub fn bring(&self, file: &Path) -> String {
        let inside = format!("/root/{}", file.file_name().expect("a name").display());
        fs::copy(file, self.path(&inside)).expect("a disk");
        inside
    }

    /// Runs a command that must succeed. Returns its standard output without the last line end.
    pub fn run(&self, command: &[&str]) -> String {
        run_well(&mut self.command(command), "").trim_end().to_owned()
    }

    /// Runs a command that must succeed. Returns what it says on both outputs.
    pub fn run_with_errors(&self, command: &[&str]) -> String {
        let command = [&["sh", "-c", "exec \"$@\" 2>&1", "sh"], command].concat();
        self.run(&command)
    }

    /// Installs a package whose dependencies are there.
    pub fn install(&self, package: &Path) {
        let inside = self.bring(package);
        self.run(&install(&inside));
    }

    fn command(&self, command: &[&str]) -> Command {
        let mut chroot = Command::new(tool("chroot"));
        chroot.arg(self.0.path()).args(command);
        plain(&mut chroot);
        chroot
    }
}

/// Returns the command by which an operator installs a package from a file, without questions.
pub fn install(package: &str) -> Vec<&str> {
    let mut command = vec!["apt-get", "--quiet", "--yes", "--no-install-recommends"];
    // The answer to a question about a changed configuration file, as by the Enter key.
    command.extend(["--option=Dpkg::Options::=--force-confdef", "install", package]);
    command
}

/// Gives a command the environment of a login that has nothing of this machine's.
fn plain(command: &mut Command) {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    command.env_clear().env("PATH", path).env("LC_ALL", "C.UTF-8");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("MANWIDTH", "120");
}

/// A booted Debian. Dropping this value ends all that runs in it.
pub struct Machine {
    // Before the files that its processes use.
    process: Process,
    /// First process of the booted Debian, by this machine's numbers.
    first: u32,
    pub root: Root,
}

impl Machine {
    /// Boots a fresh Debian, and waits until its systemd has started all.
    pub async fn boot() -> Self {
        let root = Root::unpack();
        let name = root.0.path().file_name().expect("a name").display().to_string();
        let mut nspawn = Command::new(tool("systemd-nspawn"));
        nspawn.arg("--directory").arg(root.0.path());
        nspawn.arg(format!("--machine=test{}", name.replace(['.', '_'], "-")));
        // There is no systemd on this machine that could keep the account of machines.
        nspawn.args(["--boot", "--quiet", "--register=no", "--keep-unit", "--console=pipe"]);
        nspawn.stdin(Stdio::null()).stdout(Stdio::null());
        let mut machine = Self { process: Process::start(&mut nspawn), first: 0, root };
        eventually("systemd to have started all", async || {
            assert!(!machine.process.has_ended(), "systemd-nspawn has ended: {nspawn:?}");
            machine.first = machine.look_for_first()?;
            match machine.try_run(&["systemctl", "is-system-running"]) {
                Ok(_) => Ok(()),
                // Units of the machine's own, such as a mount that a container may not make.
                Err(error) if error.contains("degraded") => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await;
        machine
    }

    fn look_for_first(&mut self) -> Result<u32, String> {
        let process = self.process.child().id();
        let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
        let children = children.map_err(|error| error.to_string())?;
        let is_systemd = |process: &&str| {
            fs::read_to_string(format!("/proc/{process}/comm"))
                .is_ok_and(|name| name == "systemd\n")
        };
        let first = children.split_whitespace().find(is_systemd);
        first.and_then(|process| process.parse().ok()).ok_or_else(|| format!("{children:?}"))
    }

    /// Runs a command. Returns its standard output without the last line end, or an error with its whole output.
    pub fn try_run(&self, command: &[&str]) -> Result<String, String> {
        let mut nsenter = Command::new(tool("nsenter"));
        nsenter.arg(format!("--target={}", self.first)).arg("--all").args(command);
        plain(&mut nsenter);
        run(&mut nsenter, "").map(|printed| printed.trim_end().to_owned())
    }

    /// Runs a command that must succeed. Returns its standard output without the last line end.
    pub fn run(&self, command: &[&str]) -> String {
        self.try_run(command).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns a property of the service, as systemd has it.
    pub fn property(&self, name: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", name, "velt-sidecar"])
    }

    /// Returns what the service and systemd have written about the service.
    pub fn journal(&self) -> String {
        self.run(&["journalctl", "--no-pager", "--output=cat", "--unit", "velt-sidecar"])
    }
}
