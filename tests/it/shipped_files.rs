//! Files that are shipped beside the code say what the code does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ground::metrics::Metrics;
use serde_json::Value;
use server::config::Config;
use tools::probe::Probe;

use crate::support::{self, config};

/// Header, key and value of every setting in force.
fn in_force(config: &Config) -> BTreeMap<(String, String), String> {
    let settings = config.effective.iter();
    settings.map(|one| ((one.header.clone(), one.key.clone()), one.value.clone())).collect()
}

#[test]
fn sidecar_toml_is_valid_and_writes_out_the_defaults() {
    let text = fs::read_to_string("sidecar.toml").expect("sidecar.toml");
    let written = config(&text).unwrap_or_else(|error| panic!("{error}"));
    let mut defaults = in_force(&config("").expect("the defaults are valid"));
    let mut shipped = in_force(&written);
    // The default routes stand in the file as tables, and in the defaults as one value.
    defaults.retain(|(_, key), _| key != "route");
    shipped.retain(|(header, _), _| header != "[[delivery.route]]");
    assert_eq!(shipped, defaults);
    let routes = |config: &Config| format!("{:?}", config.delivery.routes);
    assert_eq!(routes(&written), routes(&config("").expect("valid")));
}

#[test]
fn sidecar_toml_lacks_nothing_but_credentials() {
    let text = fs::read_to_string("sidecar.toml").expect("sidecar.toml");
    let error = Config::parse("sidecar.toml", &text, &BTreeMap::new()).expect_err("refused");
    let complaint = error.to_string();
    assert!(complaint.starts_with("the configuration has 2 problems:"), "{complaint}");
    assert!(complaint.contains("velt.api_key is missing"), "{complaint}");
    assert!(complaint.contains("velt.auth_token is missing"), "{complaint}");
}

#[test]
fn sidecar_toml_mentions_every_key_even_those_without_a_default() {
    let text = fs::read_to_string("sidecar.toml").expect("sidecar.toml");
    let mut source = fs::read_to_string("src/server/config.rs").expect("src/server/config.rs");
    for file in fs::read_dir("src/server/config/table").expect("the tables") {
        let path = file.expect("an entry").path();
        // A folder has presets, and no keys of its own.
        if path.is_file() {
            source += &fs::read_to_string(path).expect("a table");
        }
    }
    let mut keys = 0;
    for call in ["value(\"", "optional(\"", "required(\"", "list(\"", "secret(\"", ">(\"", "_or(\""]
    {
        for rest in source.split(call).skip(1) {
            let key = rest.split('"').next().expect("a key");
            let mentioned = text.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ']);
                let rest = line.strip_prefix(key).map(str::trim_start);
                // Secrets stand in the file only as the name of another file.
                rest.is_some_and(|rest| rest.starts_with('=') || rest.starts_with("_file"))
            });
            assert!(mentioned, "sidecar.toml does not mention {key}");
            keys += 1;
        }
    }
    assert!(keys > 40, "only {keys} keys were looked for");
}

#[test]
fn kustomize_settings_are_valid_and_fit_the_declared_ports() {
    let text = fs::read_to_string("deploy/kustomize/common/settings.env").expect("settings.env");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.map(|line| line.split_once('=').expect("NAME=value"));
    let mut environment: BTreeMap<String, String> =
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    // The files that these variables name are not mounted here.
    environment.retain(|name, _| !name.ends_with("_FILE"));
    environment.extend(support::environment());
    let config = Config::parse("settings.env", "", &environment);
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    for variant in ["component", "component-before-1.29"] {
        let file = format!("deploy/kustomize/{variant}/container.yaml");
        let container = fs::read_to_string(file).expect("the container");
        for port in [config.listen.address.port(), config.admin.address.port()] {
            assert!(container.contains(&format!("containerPort: {port}")), "{variant} {port}");
        }
        for probe in [Probe::Startup, Probe::Ready, Probe::Live] {
            let path = format!("path: {}\n", probe.path());
            assert!(container.contains(&path), "{variant} {path}");
        }
    }
}

/// Every name of a metric of the sidecar's that is in `text`, as scraped.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let names = text.match_indices("velt_sidecar_").map(|(at, _)| {
        let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
        let rest = &text[at..];
        rest[..rest.find(|it| !is_name(it)).unwrap_or(rest.len())].to_owned()
    });
    names.collect()
}

#[test]
fn alerts_dashboard_and_runbooks_name_existing_metrics() {
    let scrape = Metrics::new().encode().expect("metrics");
    let there = metrics_in(&String::from_utf8_lossy(&scrape));
    for file in [
        "deploy/monitoring/prometheus-rule.yaml",
        "deploy/monitoring/dashboard.json",
        "docs/runbooks.md",
    ] {
        let named = metrics_in(&fs::read_to_string(file).expect(file));
        assert!(named.len() > 5, "{file} names metrics");
        let unknown: Vec<_> = named.difference(&there).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn each_alert_has_one_runbook_page_and_each_page_an_alert() {
    let rules = fs::read_to_string("deploy/monitoring/prometheus-rule.yaml").expect("the rules");
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let runbooks = fs::read_to_string("docs/runbooks.md").expect("the runbooks");
    let pages: Vec<_> = runbooks.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(alerts, pages, "in this order");
    for alert in alerts {
        let link = format!("runbook: docs/runbooks.md#{}\n", alert.to_lowercase());
        assert_eq!(rules.matches(&link).count(), 1, "{link}");
    }
}

/// Returns the files that the sources include from outside of `src`, as paths from the root.
fn included(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            included(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let names = ["include_str!(\"", "include_bytes!(\"", "include!(\""]
                .map(|call| text.split(call).skip(1));
            for name in names.into_iter().flatten() {
                let name = name.split('"').next().expect("a name");
                let mut file = folder.to_owned();
                for part in name.split('/') {
                    if part == ".." {
                        file.pop();
                    } else {
                        file.push(part);
                    }
                }
                assert!(file.is_file(), "{} includes {}", path.display(), file.display());
                found.insert(file);
            }
        }
    }
}

/// Returns the files and folders that the Dockerfile's build stage copies.
fn copied() -> Vec<String> {
    let dockerfile = fs::read_to_string("deploy/Dockerfile").expect("the Dockerfile");
    let copies = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let from_context = copies.filter(|line| !line.starts_with("--from"));
    let sources = from_context.flat_map(|line| {
        let (sources, _) = line.rsplit_once(' ').expect("sources and a folder");
        sources.split(' ')
    });
    sources.map(str::to_owned).collect()
}

#[test]
fn image_is_built_with_each_file_that_the_sources_include() {
    let mut files = BTreeSet::new();
    included(Path::new("src"), &mut files);
    let ignored = fs::read_to_string("deploy/Dockerfile.dockerignore").expect("its list");
    let copied = copied();
    let in_image: BTreeSet<&str> = copied.iter().map(String::as_str).collect();
    let let_in: BTreeSet<&str> =
        ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let is_in =
            |folders: &BTreeSet<&str>| folders.iter().any(|folder| file.starts_with(folder));
        assert!(is_in(&in_image), "the Dockerfile does not copy {}", file.display());
        assert!(is_in(&let_in), "{} is not let in", file.display());
    }
}

/// Returns the targets of the workspace in a folder: package, kind and name. Tests are no part of the image.
fn targets(folder: &Path) -> BTreeSet<[String; 3]> {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--offline", "--no-deps", "--format-version", "1"]);
    let output = cargo.current_dir(folder).output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut found = BTreeSet::new();
    for package in metadata["packages"].as_array().expect("a list") {
        for target in package["targets"].as_array().expect("a list") {
            let names = [&package["name"], &target["kind"][0], &target["name"]];
            if *names[1] != "test" {
                found.insert(names.map(|name| name.as_str().expect("text").to_owned()));
            }
        }
    }
    found
}

#[test]
fn image_is_built_with_each_target_of_the_workspace() {
    let folder = tempfile::tempdir().expect("a folder");
    for source in copied() {
        // The counts of a release are there in a release alone.
        if source.contains('[') {
            continue;
        }
        let from = fs::canonicalize(&source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let to = folder.path().join(&source);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a disk");
        std::os::unix::fs::symlink(from, to).expect("a disk");
    }
    let all = targets(Path::new("."));
    assert!(all.len() > 15, "{all:?}");
    assert_eq!(targets(folder.path()), all);
    // cargo passes over a target without its file in silence.
    fs::remove_file(folder.path().join("benches")).expect("it is copied");
    assert_ne!(targets(folder.path()), all);
}
