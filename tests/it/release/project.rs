//! A small project with everything that brings paths into a binary, and `deploy/optimized` in it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Manifest of a workspace with a crate in it and one crate from the registry, as the sidecar's own is.
const MANIFEST: &str = r#"
[workspace]
members = ["inner"]

[package]
name = "velt-sidecar"
version = "0.1.0"
edition = "2024"

[dependencies]
bytes = "1"
inner = { path = "inner" }

[profile.release]
codegen-units = 1
lto = "fat"
strip = true
"#;

const INNER_MANIFEST: &str = r#"
[package]
name = "inner"
version = "0.1.0"
edition = "2024"
"#;

/// Compiles C with the flags from the environment, as the crate `cc` does, and writes Rust code.
const BUILD_SCRIPT: &str = r#"
use std::{env, fs, process::Command};

fn main() {
    let out = env::var("OUT_DIR").unwrap();
    let here = env::var("CARGO_MANIFEST_DIR").unwrap();
    let flags = env::var("CFLAGS").unwrap_or_default();
    let mut cc = Command::new("cc");
    cc.args(flags.split_whitespace()).args(["-O2", "-c", "-o"]);
    assert!(cc.arg(format!("{out}/c.o")).arg(format!("{here}/place.c")).status().unwrap().success());
    let mut ar = Command::new("ar");
    assert!(ar.args(["crD"]).arg(format!("{out}/libc_place.a")).arg(format!("{out}/c.o")).status().unwrap().success());
    println!("cargo:rustc-link-search=native={out}");
    println!("cargo:rustc-link-lib=static=c_place");
    fs::write(format!("{out}/written.rs"), "pub fn written() -> &'static str { file!() }").unwrap();
}
"#;

const INNER: &str = r#"
include!(concat!(env!("OUT_DIR"), "/written.rs"));

unsafe extern "C" {
    fn place() -> *const std::ffi::c_char;
}

pub fn places() -> [String; 3] {
    let c = unsafe { std::ffi::CStr::from_ptr(place()) };
    [file!().to_owned(), written().to_owned(), c.to_str().unwrap().to_owned()]
}
"#;

/// Prints the places, and panics within the crate from the registry if told to.
const MAIN: &str = r#"
fn main() {
    println!("{:?} {}", inner::places(), file!());
    let end = std::env::args().count() - 1;
    println!("{:?}", bytes::Bytes::from_static(b"four").slice(..end));
}
"#;

/// Returns the entry of a crate in the sidecar's lock file, so that the crate is on this machine.
fn locked(name: &str) -> String {
    let lock = fs::read_to_string("Cargo.lock").expect("the lock file");
    let heading = format!("name = \"{name}\"\n");
    let entry = lock.split("[[package]]\n").find(|entry| entry.starts_with(&heading));
    format!("[[package]]\n{}", entry.expect("a dependency"))
}

pub struct Project {
    folder: PathBuf,
}

impl Project {
    /// Lays the project out in `folder`.
    pub fn new(folder: PathBuf) -> Self {
        let own = |name: &str, depends: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"0.1.0\"\n{depends}\n")
        };
        let lock = [
            "version = 4\n\n".to_owned(),
            locked("bytes"),
            own("inner", ""),
            own("velt-sidecar", "dependencies = [\n \"bytes\",\n \"inner\",\n]\n"),
        ];
        for (name, text) in [
            ("Cargo.toml", MANIFEST),
            ("Cargo.lock", &lock.concat()),
            ("src/main.rs", MAIN),
            ("inner/Cargo.toml", INNER_MANIFEST),
            ("inner/build.rs", BUILD_SCRIPT),
            ("inner/place.c", "const char *place(void) { return __FILE__; }\n"),
            ("inner/src/lib.rs", INNER),
        ] {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a disk");
            fs::write(path, text).expect("a disk");
        }
        fs::create_dir(folder.join("deploy")).expect("a disk");
        for script in ["deploy/optimized", "deploy/reproduce"] {
            // A copy keeps the right to run it.
            fs::copy(script, folder.join(script)).expect("the script");
        }
        Self { folder }
    }

    /// Returns a command without the variables that belong to the build of the tests, and without a network.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for name in ["CARGO_TARGET_DIR", "CFLAGS", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
            command.env_remove(name);
        }
        command.env("CARGO_NET_OFFLINE", "true").current_dir(&self.folder);
        command
    }

    /// Has each build write its time into the binary.
    pub fn vary(&self) {
        let script = self.folder.join("inner/build.rs");
        let place = r#""pub fn written() -> &'static str { file!() }""#;
        let time = r#"format!("pub fn written() -> &'static str {{ \"{:?}\" }}", std::time::SystemTime::now())"#;
        let text = BUILD_SCRIPT.replace(place, time);
        assert_ne!(text, BUILD_SCRIPT);
        fs::write(script, text).expect("a disk");
    }

    /// Commits the project as it is, builds the commit twice by `deploy/reproduce`, and has the builds compared.
    pub fn built_twice(&self) -> Output {
        for command in
            ["init --quiet", "add src inner deploy Cargo.toml Cargo.lock", "commit --quiet -m all"]
        {
            let mut git = self.command("git");
            git.args(["-c", "user.name=test", "-c", "user.email=test@example.com"]);
            let output = git.args(command.split(' ')).output().expect("git starts");
            assert!(output.status.success(), "{output:?}");
        }
        let mut script = self.command(self.folder.join("deploy/reproduce"));
        script.arg("--twice").output().expect("it starts")
    }

    /// Runs `deploy/optimized` with the arguments, and with variables that the test sets.
    pub fn optimized(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut script = self.command(self.folder.join("deploy/optimized"));
        script.args(arguments).envs(environment.iter().copied());
        script.output().expect("it starts")
    }

    /// Builds by the script, and returns the bytes of the binary.
    pub fn built(&self, environment: &[(&str, &str)]) -> Vec<u8> {
        let output = self.optimized(&["--plain", "built"], environment);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.read("built/velt-sidecar")
    }

    /// Builds by cargo alone, and returns the bytes of the binary.
    pub fn built_by_cargo(&self) -> Vec<u8> {
        let mut cargo = self.command("cargo");
        let output = cargo.args(["build", "--release", "--locked"]).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.read("target/release/velt-sidecar")
    }

    pub fn read(&self, path: impl AsRef<Path>) -> Vec<u8> {
        fs::read(self.folder.join(path)).expect("it is there")
    }

    pub fn run(&self) -> String {
        let output = Command::new(self.folder.join("built/velt-sidecar")).output();
        String::from_utf8(output.expect("it starts").stdout).expect("text")
    }
}
