//! Checks the table of allowed imports between modules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules, each with the modules of this crate that it may import, as in ARCHITECTURE.md.
const ALLOWED: &[(&str, &[&str])] = &[
    ("lib", &[]),
    (
        "main",
        &["admin", "app", "config", "demo", "doctor", "emulator", "explain", "listener", "logging"],
    ),
    (
        "app",
        &[
            "access_log",
            "admin",
            "config",
            "explain",
            "identity",
            "inject",
            "listener",
            "logging",
            "memory",
            "metrics",
            "outgoing",
            "proxy",
            "reload",
            "sidecar",
            "tls",
            "token",
            "trace",
        ],
    ),
    (
        "sidecar",
        &[
            "access_log",
            "client_connection",
            "identity",
            "inject",
            "logging",
            "metrics",
            "proxy",
            "token",
            "trace",
            "user_id",
        ],
    ),
    (
        "config",
        &[
            "access_log",
            "identity",
            "inject",
            "listener",
            "logging",
            "memory",
            "proxy",
            "tls",
            "token",
            "trace",
            "spelling",
        ],
    ),
    ("reload", &["config", "logging", "metrics"]),
    ("identity", &["alarm", "metrics", "names", "outgoing", "spelling", "tls", "user_id"]),
    ("token", &["logging", "metrics", "outgoing", "tls", "trace", "user_id"]),
    ("inject", &["names", "token"]),
    (
        "proxy",
        &[
            "alarm",
            "client_connection",
            "dozing",
            "memory",
            "metrics",
            "names",
            "spelling",
            "tcp",
            "tls",
        ],
    ),
    ("listener", &["client_connection", "dozing", "logging", "memory", "metrics", "tcp", "tls"]),
    ("access_log", &["lines", "logging", "metrics", "trace"]),
    ("trace", &["logging", "metrics", "outgoing", "tls"]),
    ("admin", &["explain", "logging", "metrics", "outgoing", "sidecar", "tls", "token"]),
    ("explain", &["config", "identity", "inject", "metrics", "outgoing", "sidecar", "tls"]),
    ("memory", &["metrics"]),
    ("alarm", &["metrics"]),
    ("metrics", &[]),
    ("logging", &["lines"]),
    ("lines", &[]),
    ("client_connection", &[]),
    ("dozing", &[]),
    ("names", &[]),
    ("spelling", &[]),
    ("tcp", &["memory"]),
    ("tls", &[]),
    ("user_id", &[]),
    ("outgoing", &["tls"]),
    ("emulator", &["listener", "metrics"]),
    ("doctor", &["config", "identity", "listener", "logging", "outgoing", "proxy", "tls", "token"]),
    ("demo", &["app", "config", "emulator", "listener", "memory", "metrics", "proxy", "spelling"]),
];

#[test]
fn every_import_is_in_the_table() {
    let mut files = Vec::new();
    rust_files(Path::new("src"), &mut files);
    let mut seen = BTreeSet::new();
    for file in &files {
        let module = module_of(file);
        let allowed = ALLOWED.iter().find(|(name, _)| *name == module);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{module} is not in the table"));
        let text = fs::read_to_string(file).expect("a source file");
        for path in ["crate::", "velt_sidecar::"] {
            for rest in text.split(path).skip(1) {
                let imported = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next();
                let imported = imported.expect("a first part");
                assert!(!imported.is_empty(), "{}: one import a line", file.display());
                // A module may name itself; `token::Token` names the first part only.
                let fine = imported == module || allowed.contains(&imported);
                assert!(fine, "{} imports {imported}", file.display());
                seen.insert((module.clone(), imported.to_owned()));
            }
        }
    }
    let domain = |imported: &str| !seen.contains(&("token".into(), imported.into()));
    assert!(domain("identity") && domain("proxy"), "the token domain knows no requests");
    for (module, imports) in ALLOWED {
        for import in *imports {
            let used = seen.contains(&((*module).to_owned(), (*import).to_owned()));
            assert!(used, "{module} no longer imports {import}: take it out of the table");
        }
    }
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn module_of(file: &Path) -> String {
    let below = file.strip_prefix("src").expect("below src");
    let first = below.components().next().expect("a first part").as_os_str();
    first.to_string_lossy().trim_end_matches(".rs").to_owned()
}
