//! The VEX document: each statement has the form that scanners read, names a package of the image, and gives a
//! reason that the image itself shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::image::root_files;
use super::{file, run_well};
use crate::neighbour::tool;

const DOCUMENT: &str = "deploy/vex/velt-sidecar.openvex.json";

/// Functions of glibc by which its regular expressions are reached.
const EXPRESSIONS: &[&str] = &["regcomp", "regexec", "re_search", "re_match", "re_compile_pattern"];

/// Name of a type that the demangler of Rust's names prints. Names of functions would not do: a library is stripped of
/// those that it does not export.
const PRINTED_BY_DEMANGLER: &str = "usize";

/// Directories and files of the image that are not run and not mapped.
const DATA: &str = "/etc/";

/// Evidence that a fault is out of reach.
enum Evidence {
    /// No file of the image imports any of these functions.
    NotImported(&'static [&'static str]),
    /// No file of the image has the name.
    NoFile(&'static [&'static str]),
    /// The library of the image has no such text in it.
    NoText(&'static str, &'static str),
}

/// Returns the evidence for a statement. A statement without evidence does not belong into the document.
fn evidence(vulnerability: &str) -> Evidence {
    match vulnerability {
        "CVE-2010-4756" => Evidence::NotImported(&["glob", "glob64", "wordexp"]),
        "CVE-2018-20796" | "CVE-2019-9192" => Evidence::NotImported(EXPRESSIONS),
        "CVE-2019-1010023" => Evidence::NoFile(&["ldd", "sh", "bash", "busybox"]),
        "CVE-2022-27943" => Evidence::NoText("libgcc_s.so.1", PRINTED_BY_DEMANGLER),
        other => panic!("{other}: say here what shows that the image is not affected"),
    }
}

fn statements() -> Vec<Value> {
    let text = fs::read_to_string(file(DOCUMENT)).expect("the document");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    // Fields that https://github.com/openvex/spec/blob/main/OPENVEX-SPEC.md requires of a document.
    assert_eq!(document["@context"], "https://openvex.dev/ns/v0.2.0");
    for field in ["@id", "author", "timestamp"] {
        assert!(document[field].is_string(), "{field}");
    }
    assert!(document["version"].as_u64().is_some_and(|version| version >= 1));
    document["statements"].as_array().expect("a list").clone()
}

/// Returns the files of the image that are run or mapped.
fn programs(folder: &Path) -> Vec<PathBuf> {
    let mut open = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")) {
                found.push(path);
            } else {
                let inside = path.to_string_lossy().into_owned();
                assert!(inside.contains(DATA) || inside.contains("/var/lib/dpkg/"), "{inside}");
            }
        }
    }
    found
}

/// Returns the names that a program takes from others, without versions.
fn imports(program: &Path) -> Vec<String> {
    let mut nm = Command::new(tool("nm"));
    let listed = run_well(nm.args(["--dynamic", "--undefined-only"]).arg(program), "");
    let name = |line: &str| line.split_whitespace().last().map(str::to_owned);
    let names = listed.lines().filter_map(name);
    names.map(|name| name.split('@').next().expect("a first part").to_owned()).collect()
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}

/// Fails if the image does not show what the evidence says.
fn holds(vulnerability: &str, evidence: &Evidence, programs: &[PathBuf]) {
    match evidence {
        Evidence::NotImported(names) => {
            for program in programs {
                let found: Vec<_> = imports(program)
                    .into_iter()
                    .filter(|import| names.contains(&import.as_str()))
                    .collect();
                assert_eq!(found, [""; 0], "{vulnerability}: {}", program.display());
            }
        }
        Evidence::NoFile(names) => {
            let found = programs.iter().find(|program| names.contains(&name_of(program)));
            assert_eq!(found, None, "{vulnerability}");
        }
        Evidence::NoText(library, text) => {
            let library = programs.iter().find(|program| name_of(program) == *library);
            let library = library.expect("it is in the image");
            assert!(!has_text(library, text), "{vulnerability}: {text}");
        }
    }
}

fn has_text(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).expect("it can be read");
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn demangler_is_known_by_what_it_prints() {
    // A library of binutils, stripped too, that has the demangler in it.
    let nm = fs::canonicalize(tool("nm")).expect("nm is installed");
    let libraries = run_well(Command::new("ldd").arg(nm), "");
    let library = libraries
        .lines()
        .find_map(|line| line.split(" => ").nth(1).filter(|path| path.contains("libbfd")));
    let library = library.and_then(|path| path.split(' ').next()).expect("nm needs libbfd");
    assert!(has_text(Path::new(library), PRINTED_BY_DEMANGLER), "{library}");
}

#[test]
fn image_shows_the_reason_of_each_statement() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = root_files(folder.path());
    let programs = programs(&root);
    assert!(programs.len() >= 4, "{programs:?}");
    // The imports are read at all: without sockets there is no sidecar.
    let sidecar = programs.iter().find(|program| name_of(program) == "velt-sidecar");
    let imported = imports(sidecar.expect("the binary"));
    assert!(imported.iter().any(|name| name == "getaddrinfo"), "{imported:?}");
    for statement in statements() {
        let name = statement["vulnerability"]["name"].as_str().expect("a name");
        holds(name, &evidence(name), &programs);
    }
}

#[test]
fn vex_statements_have_the_form_that_scanners_read() {
    let rootfs = fs::read_to_string(file("deploy/rootfs")).expect("the script");
    let packages = rootfs.split("for package in ").nth(1).and_then(|rest| rest.split(';').next());
    let packages: Vec<_> = packages.expect("a loop").split(' ').collect();
    let statements = statements();
    assert!(!statements.is_empty());
    for statement in &statements {
        let name = statement["vulnerability"]["name"].as_str().expect("a name");
        assert_eq!(statement["status"], "not_affected", "{name}: an alarm that is none");
        // The specification's words. Beside a justification, the schema allows no impact statement.
        let justifications = [
            "component_not_present",
            "vulnerable_code_not_present",
            "vulnerable_code_not_in_execute_path",
            "vulnerable_code_cannot_be_controlled_by_adversary",
            "inline_mitigations_already_exist",
        ];
        let justification = statement["justification"].as_str().expect("a word");
        assert!(justifications.contains(&justification), "{name}: {justification}");
        assert!(statement["impact_statement"].is_null(), "{name}");
        assert!(statement["status_notes"].as_str().is_some_and(|notes| notes.len() > 60));
        let products = statement["products"].as_array().expect("a list");
        assert_eq!(products.len(), 1, "{name}");
        // Names without version or qualifiers: scanners fill in point releases and architectures, and a name that
        // has others suppresses nothing, without a word.
        assert_eq!(products[0]["@id"], "pkg:oci/velt-sidecar", "{name}");
        for component in products[0]["subcomponents"].as_array().expect("a list") {
            let id = component["@id"].as_str().expect("a name");
            let package = id.strip_prefix("pkg:deb/debian/").expect("a package of Debian");
            assert!(packages.contains(&package), "{name}: {package} is not in the image");
        }
    }
}
