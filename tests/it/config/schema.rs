//! The JSON schema of `sidecar.toml`: made from the tables, equal to the file that is kept, and of one mind with the
//! reader.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::Value;
use server::config::{Code, Complaint, Config, ConfigError, Place, schema};

use super::parse;

/// Beginnings of values that no pattern tells from valid ones: other spellings of a number, and a size of more bytes than
/// 64 bits count.
const BEYOND_A_SCHEMA: [&str; 5] = ["\"0x", "\"0b", "\"+", "\"1e", "\"99999999999GiB"];

fn made() -> Value {
    serde_json::from_str(&schema()).expect("JSON")
}

fn validator() -> &'static Validator {
    static VALIDATOR: OnceLock<Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| jsonschema::draft7::new(&made()).expect("a schema"))
}

/// Whether the schema takes a file; `None` if the file is no TOML.
pub(crate) fn takes(toml: &str) -> Option<bool> {
    let document: Value = toml::from_str(toml).ok()?;
    Some(validator().is_valid(&document))
}

/// Whether a complaint is about one key or value of the file.
fn is_of_schema(complaint: &Complaint) -> bool {
    let sorts = [Code::UnknownKey, Code::WrongType, Code::InvalidValue];
    let is_beyond = BEYOND_A_SCHEMA.iter().any(|start| complaint.problem.contains(start));
    matches!(complaint.place, Place::Line(_)) && sorts.contains(&complaint.code) && !is_beyond
}

/// Asserts that the schema refuses what the reader refuses for one key or value, and takes what the reader takes.
#[track_caller]
pub(crate) fn agrees(toml: &str, parsed: &Result<Config, ConfigError>) {
    let Some(taken) = takes(toml) else { return };
    match parsed {
        Ok(_) => assert!(taken, "the schema refuses what the reader takes:\n{toml}"),
        Err(error) => {
            let refused = error.complaints.iter().any(is_of_schema);
            assert!(
                !(refused && taken),
                "the schema takes what the reader refuses:\n{toml}\n{error}"
            );
        }
    }
}

#[test]
fn kept_schema_is_what_the_code_makes() {
    let kept = fs::read_to_string("sidecar.schema.json").unwrap_or_default();
    let told = "write it anew: cargo run -- schema > sidecar.schema.json";
    assert!(kept == schema(), "sidecar.schema.json is not what the code makes; {told}");
}

/// Collects the path of each key of a table, and the keys without a description.
fn keys_of(table: &Value, path: &str, keys: &mut BTreeSet<String>, bare: &mut Vec<String>) {
    for (name, schema) in table["properties"].as_object().expect("keys") {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if schema.get("description").is_none() {
            bare.push(path.clone());
        }
        let item = schema.get("items").unwrap_or(schema);
        if item["type"] == "object" {
            keys_of(item, &path, keys, bare);
        } else {
            keys.insert(path);
        }
    }
}

/// Returns the path of each key in the sample file, in use or as an example.
fn keys_of_the_sample(text: &str) -> BTreeSet<String> {
    let (mut table, mut keys) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        let is_name = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_lowercase() || b"_.0123456789".contains(&byte))
        };
        let header = line.trim_matches(['[', ']']);
        if line.starts_with('[') && line.ends_with(']') && is_name(header) {
            header.clone_into(&mut table);
        } else if let Some((key, value)) = line.split_once(" = ")
            && is_name(key)
            && !key.contains('.')
            && (value.ends_with('[') || toml::from_str::<Value>(line).is_ok())
        {
            keys.insert(format!("{table}.{key}"));
        }
    }
    keys
}

#[test]
fn schema_has_each_key_of_the_sample_file_and_no_other() {
    let text = fs::read_to_string("sidecar.toml").expect("sidecar.toml");
    let (mut keys, mut bare) = (BTreeSet::new(), Vec::new());
    keys_of(&made(), "", &mut keys, &mut bare);
    assert_eq!(keys, keys_of_the_sample(&text));
    assert!(keys.len() > 150, "{}", keys.len());
    assert_eq!(bare, Vec::<String>::new(), "keys and tables without a comment in sidecar.toml");
}

fn is(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|it| it == extension)
}

fn files_in(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if path.is_dir() && !matches!(name, "target" | "node_modules" | ".git") {
            files_in(&path, found);
        } else if is(&path, "md") || is(&path, "toml") && name.contains("sidecar") {
            found.push(path);
        }
    }
}

/// Returns the configurations in a file: the file itself, or the blocks of a document.
fn configurations(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a file");
    if is(file, "toml") {
        return vec![text];
    }
    let blocks = text.split("```toml\n").skip(1);
    blocks.map(|block| block.split("```").next().expect("a first part").to_owned()).collect()
}

#[test]
fn schema_agrees_about_each_configuration_that_is_shipped() {
    let mut files = Vec::new();
    for folder in ["docs", "examples", "deploy", "frontend"] {
        files_in(Path::new(folder), &mut files);
    }
    let mut seen = 0;
    for file in
        files.iter().map(PathBuf::as_path).chain(["README.md", "sidecar.toml"].map(Path::new))
    {
        for toml in configurations(file) {
            agrees(&toml, &parse(&toml, &[]));
            seen += 1;
        }
    }
    assert!(seen >= 55, "only {seen} configurations");
}

#[test]
fn schema_names_each_word_that_a_setting_takes() {
    let preset = &made()["properties"]["identity"]["properties"]["preset"]["enum"];
    let names: Vec<&str> =
        preset.as_array().expect("words").iter().filter_map(Value::as_str).collect();
    assert!(names.len() >= 20, "{names:?}");
    for name in names {
        // Some presets need more settings, which is another complaint.
        let parsed = parse(&format!("[identity]\npreset = {name:?}"), &[]);
        let wrong = parsed.err().is_some_and(|error| error.to_string().contains("won't do"));
        assert!(!wrong, "{name}");
    }
}
