//! Compares the table of crates in ARCHITECTURE.md with the manifests. The compiler refuses any other import.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Crates of the workspace, each with the crates of the workspace that it may use.
type Uses = BTreeMap<String, BTreeSet<String>>;

fn read(file: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn members() -> Vec<String> {
    let root = read("Cargo.toml");
    let (_, list) = root.split_once("\nmembers = [").expect("a list of members");
    let (list, _) = list.split_once(']').expect("an end of the list");
    list.split('"').filter_map(|part| part.strip_prefix("src/")).map(str::to_owned).collect()
}

/// Returns what the manifests say. Dependencies for tests only count too: a test is code as well.
fn by_manifests(members: &[String]) -> Uses {
    let of = |member: &String| {
        let manifest = read(&format!("src/{member}/Cargo.toml"));
        let names = manifest.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
        let ours = names.filter(|name| members.iter().any(|member| member == name));
        (member.clone(), ours.map(str::to_owned).collect())
    };
    members.iter().map(of).collect()
}

/// Returns what the table says: a row for each crate, `| crate | crates that it uses | .. |`.
fn by_table(members: &[String]) -> Uses {
    let page = read("ARCHITECTURE.md");
    let (_, table) = page.split_once("| crate | uses |").expect("a table of crates");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let uses: Uses = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').collect();
            (cells[1].trim().trim_matches('`').to_owned(), names(cells[2]))
        })
        .collect();
    assert_eq!(uses.keys().collect::<BTreeSet<_>>(), members.iter().collect(), "a row for each");
    uses
}

#[test]
fn table_of_crates_agrees_with_the_manifests() {
    let members = members();
    assert!(members.len() >= 7, "{members:?}");
    assert_eq!(by_table(&members), by_manifests(&members));
}

#[test]
fn request_path_uses_no_tools() {
    let uses = by_manifests(&members());
    for (name, used) in &uses {
        // The log shows events of crates whose names begin so.
        let named = format!("name = \"velt-sidecar-{name}\"");
        assert!(read(&format!("src/{name}/Cargo.toml")).contains(&named), "{name}");
        assert!(!used.contains("tools"), "{name} uses the tools");
    }
    // The compiler refuses circles, so these few lines decide all the others.
    assert_eq!(uses["token"], BTreeSet::from(["ground".to_owned()]));
    assert_eq!(uses["identity"], uses["token"]);
    assert_eq!(uses["hop"], uses["token"]);
}
