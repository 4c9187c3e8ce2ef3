//! Which headers are guarded, and in which spellings an app may take others for them.

use http::header::{CONNECTION, TRAILER};
use http::{HeaderMap, HeaderName};

use super::Refusal;
use crate::metrics::RefusalKind;

/// The names that mean identity, those that are ours alone, and their aliases.
pub(super) struct Guard {
    identity: Vec<HeaderName>,
    /// Never anybody else's on a request: the token's headers and the secret's.
    own: Vec<HeaderName>,
    /// A bit for each length that one of the names has, so that nearly every other header is
    /// known to be no alias by its length alone.
    lengths: u64,
}

/// How many headers were removed.
#[derive(Default)]
pub(super) struct Stripped {
    pub(super) headers: u64,
    pub(super) aliases: u64,
}

impl Guard {
    pub(super) fn new(identity: Vec<HeaderName>, own: Vec<HeaderName>) -> Self {
        let names = identity.iter().chain(&own);
        let lengths = names.fold(0, |lengths, name| lengths | length_bit(name));
        Self { identity, own, lengths }
    }

    /// Refuses a message whose `Connection` or `Trailer` names a guarded header: the next hop
    /// would remove it, or take a later value for it.
    pub(super) fn nominated(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        for (list, kind) in
            [(CONNECTION, RefusalKind::ConnectionNominated), (TRAILER, RefusalKind::Trailer)]
        {
            if let Some(header) = self.guarded_in(headers, &list) {
                return Err(Refusal::ambiguous(kind, header));
            }
        }
        Ok(())
    }

    /// A guarded header that the comma-separated header `list` names, in any case.
    fn guarded_in(&self, headers: &HeaderMap, list: &HeaderName) -> Option<&HeaderName> {
        let values = headers.get_all(list).into_iter();
        let items = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        items.map(<[u8]>::trim_ascii).find_map(|item| {
            let mut guarded = self.identity.iter().chain(&self.own);
            guarded.find(|name| name.as_str().as_bytes().eq_ignore_ascii_case(item))
        })
    }

    /// Refuses an alias of an identity header.
    pub(super) fn unaliased(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match headers.keys().find_map(|name| self.alias_of(name, &self.identity)) {
            Some(header) => Err(Refusal::ambiguous(RefusalKind::Alias, header)),
            None => Ok(()),
        }
    }

    /// Removes our own headers and their aliases from a request; says how many there were.
    pub(super) fn strip_own(&self, headers: &mut HeaderMap) -> u64 {
        let stripped = self.remove(&self.own, None, headers);
        stripped.headers + stripped.aliases
    }

    /// Removes every identity header and its aliases.
    pub(super) fn strip(&self, headers: &mut HeaderMap) -> Stripped {
        self.remove(&self.identity, None, headers)
    }

    /// The same but for `kept` and its aliases.
    pub(super) fn strip_all_but(&self, kept: &HeaderName, headers: &mut HeaderMap) -> Stripped {
        self.remove(&self.identity, Some(kept), headers)
    }

    fn remove(
        &self,
        names: &[HeaderName],
        kept: Option<&HeaderName>,
        headers: &mut HeaderMap,
    ) -> Stripped {
        let is_alias =
            |name: &&HeaderName| self.alias_of(name, names).is_some_and(|own| Some(own) != kept);
        let aliases: Vec<HeaderName> = headers.keys().filter(is_alias).cloned().collect();
        for alias in &aliases {
            headers.remove(alias);
        }
        let names = names.iter().filter(|name| Some(*name) != kept);
        let headers = names.filter(|name| headers.remove(*name).is_some()).count();
        Stripped { headers: headers as u64, aliases: aliases.len() as u64 }
    }

    /// The one of `names` that `name` could be taken for by an app that has one character for
    /// all that is no letter or digit, as WSGI and CGI do with `-` and `_` (oauth2-proxy
    /// CVE-2025-64484) and PHP with the dot as well.
    fn alias_of<'a>(&self, name: &HeaderName, names: &'a [HeaderName]) -> Option<&'a HeaderName> {
        if self.lengths & length_bit(name) == 0 {
            return None;
        }
        let name = name.as_str();
        let fold = |byte: u8| if byte.is_ascii_alphanumeric() { byte } else { b'-' };
        names.iter().find(|own| {
            let own = own.as_str();
            own.len() == name.len()
                && own != name
                && own.bytes().map(fold).eq(name.bytes().map(fold))
        })
    }
}

fn length_bit(name: &HeaderName) -> u64 {
    1 << (name.as_str().len() % 64)
}
