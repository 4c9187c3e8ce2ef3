//! How the binary is linked: as Rust does it by default, but for the addresses that the loader has
//! to adjust at every start.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    let glibc_here = target("OS") == "linux"
        && target("ENV") == "gnu"
        && env::var("HOST").ok() == env::var("TARGET").ok();
    // 3 KiB of bits in the place of 300 of records, all of which the loader reads and an idle
    // process keeps. Only glibc 2.36 and later can read them, and what is built on a machine must
    // start there. A linker that knows nothing of it goes on without.
    if glibc_here && glibc_version() >= Some((2, 36)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Of this machine, where `getconf` says "glibc 2.36".
fn glibc_version() -> Option<(u32, u32)> {
    let answer = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
