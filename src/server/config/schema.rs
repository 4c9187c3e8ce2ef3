//! JSON schema of `sidecar.toml`, which editors complete and check the file by.
//!
//! The schema repeats no declaration. The tables are read from a few sample documents that reach each branch of the
//! reading, and the reader notes the keys for which they ask, with type and default. Descriptions are the comments in
//! `sidecar.toml`. The schema refuses no file that the reader takes, and knows rules about single values alone.

mod comments;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use self::comments::Comments;
use super::Config;
use super::reader::{Reader, Section, variable_name};

/// Largest number that a setting takes.
pub(super) const LARGEST: u64 = 1 << 40;

/// Pattern of a time of at most a day, which may be zero.
pub(super) const TIME: &str = "^0*(\
    ([0-9]{1,7}|[1-7][0-9]{7}|8[0-5][0-9]{6}|86[0-3][0-9]{5}|86400000)ms\
    |([0-9]{1,4}|[1-7][0-9]{4}|8[0-5][0-9]{3}|86[0-3][0-9]{2}|86400)s\
    |([0-9]{1,3}|1[0-3][0-9]{2}|14[0-3][0-9]|1440)m\
    |([0-9]|1[0-9]|2[0-4])h)$";

/// Pattern of a size that is not zero.
pub(super) const SIZE: &str = r"^\+?0*[1-9][0-9]*(KiB|MiB|GiB)$";

/// The sample file, whose comments describe the keys.
const SAMPLE_FILE: &str = include_str!("../../../sidecar.toml");

/// Documents that reach each branch of the reading. The first has the defaults.
const SURVEYED: [&str; 4] = [
    "",
    "[identity]\nsource = \"app\"\n",
    "[identity]\nsource = \"assertion\"\n[identity.assertion]\njwks_url = \"https://id.example/keys\"\n",
    r#"
[listen.tls]
certificate_file = "c"
key_file = "k"
client_ca_file = "a"
[identity]
details_path = "/details"
[[velt.resource]]
[logout.oidc]
path = "/logout"
jwks_url = "https://id.example/keys"
[shared]
addresses = ["store:6379"]
[tracing]
create = true
otlp_endpoint = "https://collector.example/"
[[delivery.route]]
"#,
];

/// Form of a value in the JSON schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// A string that matches a pattern.
    Text(&'static str),
    /// A time of at most a day that is not zero.
    Span,
    /// A time like [`Form::Span`], or `off`.
    Limit,
    /// A string out of a list.
    Words(Vec<&'static str>),
    /// One of a few words, or a string that matches a pattern.
    OrWords(&'static [&'static str], &'static str),
    /// A whole number.
    Whole { least: u64, most: u64 },
    /// A number from 0 to 1.
    Share,
    /// `true` or `false`.
    Flag,
}

impl Form {
    fn schema(&self) -> Value {
        match self {
            Self::Text(pattern) => json!({"type": "string", "pattern": pattern}),
            // Patterns in JSON schemas can't look ahead in every editor.
            Self::Span => json!({
                "type": "string",
                "allOf": [{"pattern": TIME}, {"pattern": "[1-9]"}],
            }),
            Self::Limit => json!({
                "type": "string",
                "anyOf": [{"enum": ["off"]}, {"allOf": [{"pattern": TIME}, {"pattern": "[1-9]"}]}],
            }),
            Self::Words(words) => json!({"type": "string", "enum": words}),
            Self::OrWords(words, pattern) => json!({
                "type": "string",
                "anyOf": [{"enum": words}, {"pattern": pattern}],
            }),
            Self::Whole { least, most } => {
                json!({"type": "integer", "minimum": least, "maximum": most})
            }
            Self::Share => json!({"type": "number", "minimum": 0, "maximum": 1}),
            Self::Flag => json!({"type": "boolean"}),
        }
    }

    /// Returns a default as JSON. `text` is the default as the tables write it.
    fn default(&self, text: &str) -> Value {
        match self {
            Self::Whole { .. } | Self::Share | Self::Flag => {
                serde_json::from_str(text).expect("a default is valid")
            }
            _ => text.into(),
        }
    }
}

/// A key for which a table has asked, or a table.
#[derive(Clone, Debug, Default)]
pub struct Declaration {
    /// Form of the value, or of each item; `None` for a table.
    pub form: Option<Form>,
    /// Words about valid values.
    pub expected: &'static str,
    /// Whether the value is a list, or the table is one of an array.
    pub is_list: bool,
    /// Whether the table can't be read without the key.
    pub is_required: bool,
    pub default: Option<Vec<String>>,
}

impl Declaration {
    /// Adds what a later call, or a later document, has shown.
    pub fn merge(&mut self, later: Self) {
        if self.form.is_none() {
            self.form = later.form;
            self.expected = later.expected;
        }
        self.is_list |= later.is_list;
        self.is_required |= later.is_required;
        if self.default.is_none() {
            self.default = later.default;
        }
    }
}

/// Keys and tables by their paths.
pub type Declarations = BTreeMap<Vec<String>, Declaration>;

/// Returns the JSON schema of `sidecar.toml`, for humans to read too.
pub fn schema() -> String {
    let mut declared = Declarations::new();
    for document in SURVEYED {
        for (path, later) in survey(document) {
            declared.entry(path).or_default().merge(later);
        }
    }
    let comments = Comments::of(SAMPLE_FILE, &declared);
    let mut schema = table(&[], &declared, &comments);
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "sidecar.toml of velt-sidecar".into();
    let text = serde_json::to_string_pretty(&schema).expect("string keys");
    format!("{text}\n")
}

/// Returns what the tables ask for when they read `document`.
fn survey(document: &str) -> Declarations {
    let environment = BTreeMap::new();
    let reader = Reader::new(document, &environment).surveying();
    let table = reader.document();
    // Missing credentials end no reading early.
    let _ = Section::top(&reader, &table, Config::read);
    reader.declared()
}

/// Returns the schema of the table `path`.
fn table(path: &[String], declared: &Declarations, comments: &Comments) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let within = |other: &&Vec<String>| other.len() == path.len() + 1 && other.starts_with(path);
    for key in declared.keys().filter(within) {
        let declaration = &declared[key];
        let name = key.last().expect("it is longer than the table's");
        let mut schema = match &declaration.form {
            Some(form) => value(form, declaration),
            None if declaration.is_list => {
                json!({"type": "array", "items": table(key, declared, comments)})
            }
            None => table(key, declared, comments),
        };
        describe(&mut schema, key, declaration, declared, comments);
        properties.insert(name.clone(), schema);
        // Elsewhere, a variable may have the key, or another setting decides whether it is needed.
        if declaration.is_required && is_in_array(path, declared) {
            required.push(name.clone());
        }
    }
    let mut schema = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

/// Whether `path` is a table of an array.
fn is_in_array(path: &[String], declared: &Declarations) -> bool {
    declared.get(path).is_some_and(|table| table.form.is_none() && table.is_list)
}

fn value(form: &Form, declaration: &Declaration) -> Value {
    let schema = form.schema();
    let mut schema =
        if declaration.is_list { json!({"type": "array", "items": schema}) } else { schema };
    let default = declaration.default.as_ref().map(|default| {
        let mut values = default.iter().map(|text| form.default(text));
        if declaration.is_list {
            Value::Array(values.collect())
        } else {
            values.next().expect("a default has a value")
        }
    });
    if let Some(default) = default {
        schema["default"] = default;
    }
    schema
}

/// Adds the comment of the sample file, what may be written, and the variable.
fn describe(
    schema: &mut Value,
    path: &[String],
    declaration: &Declaration,
    declared: &Declarations,
    comments: &Comments,
) {
    let (table, key) = path.split_at(path.len() - 1);
    let mut parts = Vec::from_iter(comments.get(path).map(str::to_owned));
    if declaration.form.is_some() {
        let each = if declaration.is_list { "A list of" } else { "Write" };
        parts.push(format!("{each}: {}.", declaration.expected));
        // The environment holds an array as a whole only.
        if !is_in_array(table, declared) {
            let variable = variable_name(&table.join("."), &key[0]);
            parts.push(format!("Variable: {variable}."));
        }
    }
    if !parts.is_empty() {
        schema["description"] = parts.join("\n\n").into();
    }
}
