//! How the binary is linked: what is asked of the linker here takes memory off an idle sidecar, and
//! a linker that does not know it goes on without.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("FAMILY") == "windows" {
        // Said here, since many of the dependencies do not compile there, and say nothing of what to do.
        println!(
            "cargo::error=velt-sidecar needs Linux, or macOS for development. On Windows, build and run it \
             in WSL 2: docs/install.md"
        );
        return;
    }
    if target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    // What hardly ever runs stands apart, since the kernel maps 64 KiB around each function that runs. GNU's
    // linker does so of its own accord.
    link_with("-Wl,-z,keep-text-section-prefix");
    let built_here = env::var("HOST").ok() == env::var("TARGET").ok();
    // 3 KiB of bits in the place of 300 of records, all of which the loader reads and an idle
    // process keeps. Only glibc 2.36 and later can read them, and what is built on a machine must
    // start there.
    if built_here && glibc_version() >= Some((2, 36)) {
        link_with("-Wl,-z,pack-relative-relocs");
    }
}

fn link_with(argument: &str) {
    println!("cargo:rustc-link-arg-bins={argument}");
}

/// Of this machine, where `getconf` says "glibc 2.36".
fn glibc_version() -> Option<(u32, u32)> {
    let answer = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
