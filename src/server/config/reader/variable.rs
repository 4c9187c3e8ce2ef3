//! Variables of the environment that look like settings and are none.

use std::collections::BTreeSet;

use super::{ENV_PREFIX, nearest};

/// First word of each variable of a setting: `VELT_API_KEY`, `VELT_SIDECAR_LISTEN__ADDRESS`.
const FIRST_WORD: &str = "VELT";

/// Returns advice about the variable `name`, which belongs to no setting. `None` if `name` does not look like
/// a setting either. `read` has the variables of all settings.
pub(super) fn remedy(name: &str, value: &str, read: &BTreeSet<String>) -> Option<String> {
    let mean = |known: &str| format!("did you mean {known}?");
    let meant = folded(name);
    // The environment has many variables, and all of ours begin with one word.
    if meant.starts_with(FIRST_WORD)
        && let Some(known) = read.iter().find(|known| folded(known) == meant)
    {
        return Some(mean(known));
    }
    let setting = name.strip_prefix(ENV_PREFIX)?;
    // Compare without the prefix, which all names compared here share.
    let known = || read.iter().filter_map(|name| name.strip_prefix(ENV_PREFIX));
    let is_meant = setting.contains("__")
        || !is_of_kubernetes(setting, value) && known().any(|known| begins_alike(setting, known));
    is_meant.then(|| match nearest(setting, known()) {
        Some(nearest) => mean(&format!("{ENV_PREFIX}{nearest}")),
        None if setting.contains("__") => "unset it".into(),
        None => "write two underscores between the table and the key, or unset it".into(),
    })
}

/// Returns a form of `name` that stays the same under the likeliest mistakes: another case, one underscore
/// for two, other punctuation.
fn folded(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    let words = upper.split(|character: char| !character.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
}

/// Whether `setting` begins with the table of `known`, and one underscore.
fn begins_alike(setting: &str, known: &str) -> bool {
    let table = known.split_once("__").map(|(table, _)| table);
    table.and_then(|table| setting.strip_prefix(table)).is_some_and(|rest| rest.starts_with('_'))
}

/// Whether Kubernetes has set the variable for a Service whose name begins with ours, as it does for each
/// Service: `..._SERVICE_HOST`, `..._SERVICE_PORT`, `..._PORT=tcp://...`, `..._PORT_8080_TCP_ADDR`.
fn is_of_kubernetes(setting: &str, value: &str) -> bool {
    let words: Vec<&str> = setting.split('_').collect();
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    words.windows(2).any(|pair| matches!(pair, ["SERVICE", "HOST" | "PORT"]))
        || words
            .windows(3)
            .any(|three| matches!(three, ["PORT", port, "TCP" | "UDP" | "SCTP"] if is_number(port)))
        || words.last() == Some(&"PORT") && value.contains("://")
}
