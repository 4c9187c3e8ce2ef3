//! The npm package for pages, `frontend/`: sources, built files, size, types and behaviour.

use std::path::Path;
use std::process::Command;

use crate::neighbour::tool;

/// Runs `npm run check` of the package, which compares `dist/` with the sources, measures it, compiles it
/// against three versions of Velt's types, and runs the package's own tests.
#[test]
fn frontend_package_passes_its_own_check() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("frontend");
    let installed = package.join("node_modules/.package-lock.json");
    assert!(installed.is_file(), "{} is missing: run tests/run", installed.display());
    let checked = Command::new(tool("npm"))
        .args(["run", "check", "--silent", "--prefix"])
        .arg(&package)
        .output()
        .expect("npm");
    let said = String::from_utf8_lossy(&checked.stdout);
    let complained = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}\n{complained}");
    // The check names what it has done: a check that leaves a part out is no success.
    for part in ["the sources compile", "bytes after gzip", "types fit three", "the tests pass"] {
        let is_done = said.lines().any(|line| line.starts_with("ok: ") && line.contains(part));
        assert!(is_done, "nothing was said of {part:?}:\n{said}");
    }
}
