//! Guarded headers, and the spellings in which an app may take other headers for guarded ones.

use http::header::{CONNECTION, TRAILER};
use http::{HeaderMap, HeaderName};

use super::headers::is_blank;
use super::{Placeholders, Refusal};
use ground::metrics::RefusalKind;
use ground::names::{NameSet, Names};
use ground::spelling::is_read_as;

/// Names of the identity headers and of the sidecar's own headers. Aliases of these names are guarded too.
pub(super) struct Guard {
    identity: NameSet,
    /// The sidecar's own headers, removed from every request: the token's headers and the secret's.
    own: NameSet,
    /// All names in `identity` and `own`.
    guarded: NameSet,
}

/// Names of the headers that a message came with, as far as the guard asks for these names, from one pass
/// over the headers. Stays usable while headers are removed, since no header is added.
pub(super) struct Seen {
    names: Names,
    /// Names that an app may take for a guarded name of another spelling. Nearly every request has none.
    aliases: Vec<HeaderName>,
}

/// Identity headers that a request has to lose before the app sees the request. An alias of a header goes
/// with the header.
#[derive(Clone, Copy)]
pub(super) enum Removal<'a> {
    Nothing,
    /// One header.
    One(&'a HeaderName),
    /// Every header but this one.
    AllBut(&'a HeaderName),
    /// Every header but `kept`, if there is one, and the headers of blank lines. A front that has no user sends blank lines, so
    /// they are no spoof attempt of a client.
    Leftovers {
        kept: Option<&'a HeaderName>,
        placeholders: &'a Placeholders,
    },
    All,
}

impl Removal<'_> {
    /// Whether the header that was found under the name `found` stays. `name` is the identity header that
    /// `found` names, or of which `found` is an alias.
    fn keeps(self, headers: &HeaderMap, name: &HeaderName, found: &HeaderName) -> bool {
        match self {
            Self::Nothing => true,
            Self::One(removed) => name != removed,
            Self::AllBut(kept) => name == kept,
            Self::Leftovers { kept, placeholders } => {
                let mut lines = headers.get_all(found).iter();
                Some(name) == kept || lines.all(|line| is_blank(line, placeholders))
            }
            Self::All => false,
        }
    }
}

/// Headers and aliases that were removed.
#[derive(Default)]
pub(super) struct Stripped {
    pub(super) headers: Removed,
    pub(super) aliases: Removed,
}

/// Number of removed headers, and the name of one of these headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub count: u64,
    pub header: Option<HeaderName>,
}

impl Removed {
    /// Counts one removed header.
    pub(super) fn one(header: &HeaderName) -> Self {
        Self { count: 1, header: Some(header.clone()) }
    }

    fn add(&mut self, header: &HeaderName) {
        self.count += 1;
        self.header.get_or_insert_with(|| header.clone());
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        self.count += other.count;
        self.header = self.header.or(other.header);
        self
    }
}

impl Guard {
    pub(super) fn new(identity: Vec<HeaderName>, own: Vec<HeaderName>) -> Self {
        let guarded = NameSet::new(identity.iter().chain(&own).cloned());
        Self { identity: NameSet::new(identity), own: NameSet::new(own), guarded }
    }

    /// Refuses a message whose `Connection` or `Trailer` names a guarded header (the next hop would remove
    /// it, or take a later value for it), and a message with an alias of an identity header. Headers that
    /// fall to `removal` do not count: the app does not see them.
    pub(super) fn unambiguous(
        &self,
        removal: Removal<'_>,
        headers: &HeaderMap,
        seen: &Seen,
    ) -> Result<(), Refusal> {
        for (list, kind) in
            [(CONNECTION, RefusalKind::ConnectionNominated), (TRAILER, RefusalKind::Trailer)]
        {
            if seen.names.may_have(&list)
                && let Some(header) = self.guarded_in(headers, &list)
            {
                return Err(Refusal::ambiguous(kind, header));
            }
        }
        // Skip the aliases that were removed meanwhile, for the same reason.
        let mut left = seen.aliases.iter().filter(|name| headers.contains_key(*name));
        let kept = |alias: &HeaderName| {
            alias_of(alias, &self.identity).filter(|name| removal.keeps(headers, name, alias))
        };
        match left.find_map(kept) {
            Some(header) => Err(Refusal::ambiguous(RefusalKind::Alias, header)),
            None => Ok(()),
        }
    }

    /// Refuses a message with two lines of an identity header, whether the header is read here or not: the
    /// app may believe the line that the client has sent. Headers that fall to `removal` do not count.
    pub(super) fn unrepeated(
        &self,
        removal: Removal<'_>,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        // Nearly no message has two lines of any header.
        if headers.len() == headers.keys_len() {
            return Ok(());
        }
        let mut left = self.identity.iter().filter(|name| removal.keeps(headers, name, name));
        let repeated = left.find(|name| headers.get_all(*name).iter().nth(1).is_some());
        repeated.map_or(Ok(()), |name| Err(Refusal::ambiguous(RefusalKind::Repeated, name)))
    }

    /// Finds a guarded header that the comma-separated header `list` names, in any case.
    fn guarded_in(&self, headers: &HeaderMap, list: &HeaderName) -> Option<&HeaderName> {
        let values = headers.get_all(list).into_iter();
        let items = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        items.map(<[u8]>::trim_ascii).find_map(|item| {
            self.guarded.iter().find(|name| name.as_str().as_bytes().eq_ignore_ascii_case(item))
        })
    }

    /// Notes the names in `headers`.
    pub(super) fn scan(&self, headers: &HeaderMap) -> Seen {
        let mut seen = Seen { names: Names::default(), aliases: Vec::new() };
        for name in headers.keys() {
            seen.names = seen.names.with(name);
            // Compare the length first: nearly every header has a length that no guarded name has.
            if self.guarded.has_length_of(name) && alias_of(name, &self.guarded).is_some() {
                seen.aliases.push(name.clone());
            }
        }
        seen
    }

    /// Removes the sidecar's own headers and their aliases from a request.
    pub(super) fn strip_own(&self, headers: &mut HeaderMap, seen: &Seen) -> Removed {
        let stripped = remove(&self.own, headers, seen, |_, _, _| false);
        stripped.headers.and(stripped.aliases)
    }

    /// Removes every identity header and its aliases.
    pub(super) fn strip(&self, headers: &mut HeaderMap, seen: &Seen) -> Stripped {
        self.remove(Removal::All, headers, seen)
    }

    /// Removes the identity headers, and their aliases, that `removal` does not keep.
    pub(super) fn remove(
        &self,
        removal: Removal<'_>,
        headers: &mut HeaderMap,
        seen: &Seen,
    ) -> Stripped {
        // Return early for nearly every request.
        if matches!(removal, Removal::Nothing) {
            return Stripped::default();
        }
        remove(&self.identity, headers, seen, |headers, name, found| {
            removal.keeps(headers, name, found)
        })
    }
}

/// Removes `names` and their aliases, except where `keeps` says true. `keeps` gets one of `names`, and the
/// name under which the header was found.
fn remove(
    names: &NameSet,
    headers: &mut HeaderMap,
    seen: &Seen,
    keeps: impl Fn(&HeaderMap, &HeaderName, &HeaderName) -> bool,
) -> Stripped {
    let mut stripped = Stripped::default();
    for alias in &seen.aliases {
        let own = alias_of(alias, names).filter(|own| !keeps(headers, own, alias));
        if own.is_some() && headers.remove(alias).is_some() {
            stripped.aliases.add(alias);
        }
    }
    for name in names.among(seen.names) {
        if !keeps(headers, name, name) && headers.remove(name).is_some() {
            stripped.headers.add(name);
        }
    }
    stripped
}

/// Finds the name in `names` for which an app may take `name`.
fn alias_of<'a>(name: &HeaderName, names: &'a NameSet) -> Option<&'a HeaderName> {
    let text = name.as_str();
    names.iter().find(|own| is_read_as(text, own.as_str()) && *own != name)
}
