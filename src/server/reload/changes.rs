//! Differences between two configurations, and which of them wait for a restart.

use std::fmt;

use crate::config::Effective;

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path of the setting, such as `delivery.header.max_wait`.
    pub path: String,
    /// Old value as TOML, or the fingerprint of a secret. `None` if the setting did not exist.
    pub old: Option<String>,
    pub new: Option<String>,
}

/// Writes the change as part of one line.
impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &'_ Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        write!(formatter, "{}: {} -> {}", self.path, shown(&self.old), shown(&self.new))
    }
}

/// Settings that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changes that take effect at once.
    pub live: Vec<Change>,
    /// Changes that take effect at the next start.
    pub at_restart: Vec<Change>,
}

impl Changes {
    /// Compares `old` with `new`.
    pub fn between<'a>(old: &'a [Effective], new: &'a [Effective]) -> Self {
        let (old, new) = (named(old), named(new));
        let find = |side: &[(String, &'a Effective)], path: &str| {
            side.iter().find(|(name, _)| name == path).map(|(_, setting)| *setting)
        };
        let mut changes = Self::default();
        let mut note = |path: &str, old: Option<&Effective>, new: Option<&Effective>| {
            let (old, new) = (old.map(Effective::shown), new.map(Effective::shown));
            let change = Change { path: path.to_owned(), old, new };
            let needs_restart = needs_restart(path);
            let list = if needs_restart { &mut changes.at_restart } else { &mut changes.live };
            list.push(change);
        };
        for (path, setting) in &old {
            let now = find(&new, path);
            if !now.is_some_and(|now| now.is_same(setting)) {
                note(path, Some(setting), now);
            }
        }
        for (path, setting) in &new {
            if find(&old, path).is_none() {
                note(path, None, Some(setting));
            }
        }
        changes
    }

    /// Whether a change that waits for a restart is about the way to the sidecar or about which app is behind
    /// it. Then all other changes wait as well: the peers to believe and the paths that carry tokens may be
    /// meant for the new place.
    pub fn wait_together(&self) -> bool {
        const PLACES: [&str; 7] = [
            "listen.address",
            "listen.tls.",
            "admin.address",
            "app.address",
            "app.protocol",
            "app.ca_file",
            "app.server_name",
        ];
        let waiting = self.at_restart.iter();
        waiting.map(|change| &change.path).any(|path| PLACES.iter().any(|it| path.starts_with(it)))
    }

    /// Returns all changes: first the changes that wait for a restart, then the live ones.
    pub fn all(self) -> Vec<Change> {
        self.at_restart.into_iter().chain(self.live).collect()
    }

    /// Whether the live setting `path` differs.
    pub fn names(&self, path: &str) -> bool {
        self.live.iter().any(|change| change.path == path)
    }

    /// Whether a live setting of one of `tables` differs.
    pub fn concern(&self, tables: &[&str]) -> bool {
        self.live.iter().any(|change| {
            tables.iter().any(|table| {
                let rest = change.path.strip_prefix(table);
                rest.is_some_and(|rest| rest.starts_with(['.', '[']))
            })
        })
    }
}

/// Returns the settings in force after a reload from `old` to `new`. A setting that waits for a restart keeps
/// its old value, so that the difference is reported for as long as it exists.
pub(super) fn in_force(old: &[Effective], new: &[Effective]) -> Vec<Effective> {
    let mut old: Vec<Effective> =
        old.iter().filter(|setting| needs_restart(&setting.path())).cloned().collect();
    let mut in_force = Vec::with_capacity(new.len());
    for setting in new {
        let path = setting.path();
        if needs_restart(&path) {
            let was = old.iter().position(|old| old.path() == path);
            let was = was.map(|position| old.remove(position));
            in_force.extend(was.map(|was| Effective { table: setting.table, ..was }));
        } else {
            in_force.push(setting.clone());
        }
    }
    in_force.extend(old);
    in_force
}

/// Whether a change of `path` needs a restart. Sockets, settings bound to them, and stores of what users have
/// already can't change in a running process without dropping something.
fn needs_restart(path: &str) -> bool {
    const TABLES: [&str; 17] = [
        "listen.",
        "admin.address",
        "app.",
        "cache.",
        "runtime.",
        "reload.",
        "log.format",
        "access_log.",
        "tracing.",
        // Credentials, roots and keys of the store change while it is in use.
        "shared.mode",
        "shared.addresses",
        "shared.primary",
        "shared.tls",
        "shared.database",
        "shared.prefix",
        "shared.patience",
        "shared.longest_cut_off",
    ];
    TABLES.iter().any(|table| path.starts_with(table))
}

/// Returns each setting's path and value. The path of a table in an array has the number of the table in it.
fn named(effective: &[Effective]) -> Vec<(String, &Effective)> {
    let mut numbers: Vec<(&str, usize, usize)> = Vec::new();
    let mut named = Vec::with_capacity(effective.len());
    for setting in effective {
        let table = setting.header.trim_matches(['[', ']']);
        let path = if setting.header.starts_with("[[") {
            let of_table =
                |(name, id, _): &&(&str, usize, usize)| *name == table && *id == setting.table;
            let number = if let Some((_, _, number)) = numbers.iter().find(of_table) {
                *number
            } else {
                let number = numbers.iter().filter(|(name, ..)| *name == table).count();
                numbers.push((table, setting.table, number));
                number
            };
            format!("{table}[{number}].{}", setting.key)
        } else {
            format!("{table}.{}", setting.key)
        };
        named.push((path, setting));
    }
    named
}
