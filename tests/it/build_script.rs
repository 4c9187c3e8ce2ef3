//! `build.rs`: how it has the binary linked, and systems for which it refuses to build.

use std::process::Command;

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn linker_packs_addresses_and_sets_cold_code_apart() {
    // A linker that does not know a flag of `build.rs` ignores the flag, and an idle sidecar takes a megabyte more.
    let binary = std::fs::read(env!("CARGO_BIN_EXE_velt-sidecar")).expect("it is built");
    // The header of an ELF file says where the names of its sections stand.
    let number = |at: usize, bytes: usize| {
        binary[at..at + bytes].iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte))
    };
    let section = number(0x28, 8) + number(0x3a, 2) * number(0x3e, 2);
    let start = number(section + 0x18, 8);
    let names = &binary[start..start + number(section + 0x20, 8)];
    let has = |section: &[u8]| names.windows(section.len()).any(|name| name == section);
    assert!(has(b"\0.text.unlikely\0"), "-z keep-text-section-prefix");
    let glibc = Command::new("getconf").arg("GNU_LIBC_VERSION").output().expect("it is there");
    let glibc = String::from_utf8(glibc.stdout).expect("text");
    let minor = glibc.trim().strip_prefix("glibc 2.").expect("glibc 2").parse::<u32>();
    if minor.expect("a number") >= 36 {
        assert!(has(b"\0.relr.dyn\0"), "-z pack-relative-relocs");
    }
}

/// Output of the build script in a build for `system`.
fn printed_in_a_build_for(system: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("build");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut compiler = Command::new(rustc);
    compiler.args(["--edition", "2024", "-o"]).arg(&script).arg("build.rs");
    assert!(compiler.status().expect("there is a compiler").success());
    let run = Command::new(&script).env("CARGO_CFG_TARGET_OS", system).output().expect("it starts");
    assert!(run.status.success(), "{run:?}");
    String::from_utf8(run.stdout).expect("text")
}

#[test]
fn build_for_windows_is_refused_with_a_way_out() {
    let printed = printed_in_a_build_for("windows");
    assert!(printed.contains("cargo::error=velt-sidecar is built for Linux"), "{printed}");
    assert!(printed.contains("WSL 2"), "{printed}");
    for system in ["linux", "macos"] {
        let printed = printed_in_a_build_for(system);
        assert!(!printed.contains("cargo::error"), "{printed}");
    }
}
