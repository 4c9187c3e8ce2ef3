//! The Debian package and the archive of deploy/package, made of the test's own binary without its debug
//! information, and installed in a small Debian that `tests/run` has made.

mod machine;
mod service;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;

use self::machine::Root;
use super::platforms::{EXPOSURE, UNIT};
use super::{file, run, run_well};
use crate::neighbour::tool;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Files of the package that no command prints, with their owners and modes.
const FILES: [(&str, &str); 9] = [
    ("-rw-r--r-- root:root", "/etc/velt-sidecar/sidecar.toml"),
    ("-rwxr-xr-x root:root", "/usr/bin/velt-sidecar"),
    ("-rw-r--r-- root:root", "/usr/lib/systemd/system/velt-sidecar.service"),
    ("-rw-r--r-- root:root", "/usr/share/bash-completion/completions/velt-sidecar"),
    ("-rw-r--r-- root:root", "/usr/share/doc/velt-sidecar/changelog.gz"),
    ("-rw-r--r-- root:root", "/usr/share/doc/velt-sidecar/copyright"),
    ("-rw-r--r-- root:root", "/usr/share/fish/vendor_completions.d/velt-sidecar.fish"),
    ("-rw-r--r-- root:root", "/usr/share/man/man1/velt-sidecar.1.gz"),
    ("-rw-r--r-- root:root", "/usr/share/zsh/vendor-completions/_velt-sidecar"),
];

/// Completes a line of bash as the Tab key does: the words after the first are the line.
const COMPLETE: &str = r#"
. /usr/share/bash-completion/bash_completion
_completion_loader "$1"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
function=$(complete -p "$1" | sed 's/.* -F \([^ ]*\) .*/\1/')
"$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// Package of the test's binary. Made once, since the compression takes seconds.
static PACKAGE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
    fs::create_dir_all(&folder).expect("a disk");
    let binary = folder.join("binary");
    let mut strip = Command::new(tool("strip"));
    run_well(strip.arg("-o").arg(&binary).arg(env!("CARGO_BIN_EXE_velt-sidecar")), "");
    let files = folder.join("files");
    run_well(&mut package(&binary, &files), "");
    only_file(&files, ".deb")
});

/// Returns a call of deploy/package.
fn package(binary: &Path, folder: &Path) -> Command {
    let mut package = Command::new(file("deploy/package"));
    package.arg(binary).arg(folder).env("SOURCE_DATE_EPOCH", "1767225600");
    package
}

/// Returns the one file in `folder` whose name ends like this.
fn only_file(folder: &Path, ending: &str) -> PathBuf {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found = paths.filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(ending))
    });
    let path = found.next().unwrap_or_else(|| panic!("no {ending} in {}", folder.display()));
    assert_eq!(found.next(), None, "{ending}");
    path
}

/// Makes a program in `folder` that runs the test's binary, and is packed in no time.
fn small_binary(folder: &Path) -> PathBuf {
    let path = folder.join("small");
    let text = format!("#!/bin/sh\nexec {} \"$@\"\n", env!("CARGO_BIN_EXE_velt-sidecar"));
    fs::write(&path, text).expect("a disk");
    fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("our file");
    path
}

#[test]
fn packages_are_the_same_bytes_each_time_and_fit_their_sums() {
    let folder = TempDir::new().expect("a folder");
    let binary = small_binary(folder.path());
    let made = ["one", "two"].map(|name| {
        let made = folder.path().join(name);
        let mut shell = Command::new("sh");
        // Neither the mask of the caller nor the place of the binary may show.
        shell.args(["-c", "umask $0; \"$@\"", if name == "one" { "077" } else { "002" }]);
        let call = package(&binary, &made);
        shell.arg(call.get_program()).args(call.get_args()).env("SOURCE_DATE_EPOCH", "1767225600");
        if name == "two" {
            // Nor may the caller's settings.
            shell.env("TZ", "Asia/Tokyo").env("LC_ALL", "C").env("XZ_OPT", "-0");
            shell.env("GZIP", "-1").env("TAR_OPTIONS", "--mode=0777");
        }
        run_well(&mut shell, "");
        made
    });
    let sums =
        made.clone().map(|folder| fs::read_to_string(folder.join("SHA256SUMS")).expect("sums"));
    assert_eq!(sums[0], sums[1]);
    assert_eq!(sums[0].lines().count(), 2, "{}", sums[0]);
    run_well(Command::new("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(&made[0]), "");

    let deb = only_file(&made[0], ".deb");
    let architecture = run_well(Command::new("dpkg").arg("--print-architecture"), "");
    let name = format!("velt-sidecar_{VERSION}_{}.deb", architecture.trim());
    assert_eq!(deb.file_name().and_then(|name| name.to_str()), Some(&*name));
    assert_archive_is_whole(&only_file(&made[0], ".tar.gz"), folder.path());
}

/// Asserts that the archive has one folder of its own name, which belongs to root, and that what is in it works.
fn assert_archive_is_whole(archive: &Path, folder: &Path) {
    let owners = run_well(Command::new("tar").arg("-tvf").arg(archive).arg("--numeric-owner"), "");
    assert!(owners.lines().all(|line| line.contains(" 0/0 ")), "{owners}");
    run_well(Command::new("tar").arg("-xf").arg(archive).current_dir(folder), "");
    let name = archive.file_name().and_then(|name| name.to_str()).expect("a plain name");
    let top = folder.join(name.strip_suffix(".tar.gz").expect("it was chosen by that"));
    assert!(name.starts_with(&format!("velt-sidecar-{VERSION}-")), "{name}");
    let printed = run_well(Command::new(top.join("velt-sidecar")).arg("version"), "");
    assert_eq!(printed, format!("velt-sidecar {VERSION}\n"));
    for same in ["LICENSE", "README.md", "CHANGELOG.md", "sidecar.toml", "sidecar.schema.json"] {
        assert_eq!(fs::read(top.join(same)).ok(), fs::read(file(same)).ok(), "{same}");
    }
    let unit = fs::read(top.join("systemd/velt-sidecar.service"));
    assert_eq!(unit.ok(), fs::read(file(UNIT)).ok());
    for shell in ["bash", "fish", "zsh"] {
        let script = fs::read_to_string(top.join(format!("completions/velt-sidecar.{shell}")));
        assert!(script.expect("a script").contains("without-secrets"), "{shell}");
    }
    assert!(top.join("man/velt-sidecar-admin-invalidate.1").is_file());
}

#[test]
fn package_refuses_a_wrong_call_and_another_cargo_deb() {
    let folder = TempDir::new().expect("a folder");
    let binary = small_binary(folder.path());
    let three = run(package(&binary, folder.path()).arg("three"), "").expect_err("too many");
    assert!(three.contains("deploy/package [BINARY [FOLDER]]"), "{three}");
    let mut outside = package(&binary, folder.path());
    outside.env_remove("SOURCE_DATE_EPOCH").env("GIT_DIR", folder.path());
    let refused = run(&mut outside, "").expect_err("no commit, as in an archive of the sources");
    assert!(refused.contains("set SOURCE_DATE_EPOCH"), "{refused}");
    let other = folder.path().join("cargo-deb");
    fs::write(&other, "#!/bin/sh\necho cargo-deb 1.0.0\n").expect("a disk");
    fs::set_permissions(&other, Permissions::from_mode(0o755)).expect("our file");
    let path = std::env::var("PATH").expect("tests have it");
    let mut call = package(&binary, folder.path());
    call.env("PATH", format!("{}:{path}", folder.path().display()));
    let refused = run(&mut call, "").expect_err("another version");
    assert!(refused.contains("install cargo-deb 3."), "{refused}");
}

#[test]
fn binary_of_another_version_is_not_packed() {
    let folder = TempDir::new().expect("a folder");
    let binary = folder.path().join("old");
    for version in ["0.0.9", "0.1.0-rc1", ""] {
        fs::write(&binary, format!("#!/bin/sh\necho velt-sidecar {version}\n")).expect("a disk");
        fs::set_permissions(&binary, Permissions::from_mode(0o755)).expect("our file");
        let files = folder.path().join("files");
        let refused = run(&mut package(&binary, &files), "").expect_err(version);
        let said = format!("is version {version}, and the checkout is {VERSION}: build it anew");
        assert!(refused.contains(&said), "{refused}");
        assert_eq!(fs::read_dir(&files).expect("a folder").count(), 0, "nothing is made");
    }
}

#[test]
fn package_has_what_the_system_needs_of_it() {
    let root = Root::unpack();
    root.install(&PACKAGE);
    for (kind, path) in FILES {
        let seen = root.run(&["find", path, "-printf", "%M %u:%g"]);
        assert_eq!(seen, kind, "{path}");
    }
    let listed = root.run(&["dpkg", "--listfiles", "velt-sidecar"]);
    let open = [&["find"][..], &listed.lines().collect::<Vec<_>>(), &["-maxdepth", "0"]].concat();
    let open = [&open[..], &["(", "-perm", "/022", "-o", "-not", "-user", "root", ")"]].concat();
    assert_eq!(root.run(&open), "", "only root may write");
    assert_eq!(root.run(&["dpkg", "--verify", "velt-sidecar"]), "");
    let of_package = |field: &str| root.run(&["dpkg-query", "-Wf", field, "velt-sidecar"]);
    assert_eq!(of_package("${Status}, ${Version}"), format!("install ok installed, {VERSION}"));
    let conffiles = of_package("${Conffiles}");
    assert_eq!(conffiles.trim().split(' ').next(), Some("/etc/velt-sidecar/sidecar.toml"));
    assert_eq!(conffiles.trim().lines().count(), 1, "{conffiles}");

    // dpkg-shlibdeps does not see that packed addresses need a newer glibc than any symbol.
    let binary = fs::read(root.path("/usr/bin/velt-sidecar")).expect("it is installed");
    if binary.windows(18).any(|part| part == b"\0GLIBC_ABI_DT_RELR") {
        let depends = of_package("${Depends}");
        assert!(depends.contains("libc6 (>= 2.36)"), "{depends}");
    }
    assert_eq!(root.run(&["velt-sidecar", "--version"]), format!("velt-sidecar {VERSION}"));
    let settings = ["--without-secrets", "--config", "/etc/velt-sidecar/sidecar.toml"];
    root.run(&[&["velt-sidecar", "check"], &settings[..]].concat());
}

#[test]
fn package_brings_manual_pages_and_completions() {
    let root = Root::unpack();
    root.install(&PACKAGE);
    let page = root.run(&["man", "--pager=cat", "velt-sidecar"]);
    let named: BTreeSet<_> =
        page.split_whitespace().filter_map(|word| word.strip_suffix("(1)")).collect();
    assert!(named.contains("velt-sidecar-check") && named.len() > 10, "{page}");
    for page in named {
        let page = root.run(&["man", "--pager=cat", page]);
        assert!(page.contains("SYNOPSIS"), "{page}");
    }
    // man joins the words by a dash.
    assert!(
        root.run(&["man", "--pager=cat", "velt-sidecar", "check"]).contains("--without-secrets")
    );

    let completed = |line: &[&str]| {
        root.run(&[&["bash", "-c", COMPLETE, "bash", "velt-sidecar"], line].concat())
    };
    assert_eq!(completed(&["che"]), "check");
    assert_eq!(completed(&["check", "--wi"]), "--without-secrets");
    assert_eq!(completed(&["check", "--format", "j"]), "json");
    assert_eq!(completed(&["admin", "log-l"]), "log-level");
}

#[test]
fn installed_unit_is_the_one_in_the_repository() {
    let root = Root::unpack();
    root.install(&PACKAGE);
    let path = "/usr/lib/systemd/system/velt-sidecar.service";
    let installed = fs::read_to_string(root.path(path)).expect("a unit");
    let own = fs::read_to_string(file(UNIT)).expect("a unit");
    let differing: Vec<_> = own.lines().zip(installed.lines()).filter(|(a, b)| a != b).collect();
    let run = "/bin/velt-sidecar run --config /etc/velt-sidecar/sidecar.toml";
    let (local, packed) = (format!("ExecStart=/usr/local{run}"), format!("ExecStart=/usr{run}"));
    assert_eq!(differing, [(&*local, &*packed)]);
    // systemd-analyze warns of keys that systemd does not know, of commands and of manual pages that are not there.
    assert_eq!(root.run_with_errors(&["systemd-analyze", "verify", path]), "");
    let threshold = format!("--threshold={EXPOSURE}");
    root.run(&["systemd-analyze", "security", "--offline=true", "--no-pager", &threshold, path]);
    assert!(
        !root.path("/etc/systemd/system/multi-user.target.wants/velt-sidecar.service").exists()
    );
}
