//! Who is asking, and whether we may believe it. The sole reader of identity headers.
//!
//! Absence of an identity never means privilege: it means anonymous. Ambiguity is refused, not
//! resolved, since the app behind us might resolve it the other way. A plain header is believed
//! only from a trusted peer; anybody else's copy is removed before the app can see it.

use std::net::IpAddr;

use http::header::{CONNECTION, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::metrics::{Counters, RefusalKind, SpoofKind};

/// The longest user id, email, name or organization that is believed, in bytes.
pub const MAX_VALUE_BYTES: usize = 256;

/// Where identity comes from and whom to believe.
#[derive(Clone, Debug)]
pub struct Settings {
    pub source: HeaderSource,
    /// The front proxy's addresses.
    pub trusted_peers: Vec<IpNet>,
    pub ambiguous: OnAmbiguous,
    pub forward: ForwardIdentity,
    /// Headers of ours that nobody else may set on a request: the token's.
    pub token_headers: Vec<HeaderName>,
}

/// Identity in plain headers that the front proxy sets. Other sources (a verified assertion, the
/// app's own word) stand beside this one and yield the same [`Caller`].
#[derive(Clone, Debug)]
pub struct HeaderSource {
    pub user: HeaderName,
    pub email: Option<HeaderName>,
    pub name: Option<HeaderName>,
    pub organization: Option<HeaderName>,
    pub groups: Option<HeaderName>,
    /// Groups whose members are Velt admins. Without any, `is_admin` is not sent.
    pub admin_groups: Vec<String>,
}

/// What becomes of a request whose identity is ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAmbiguous {
    /// 400.
    Refuse,
    /// Its identity headers are removed and it goes on as anonymous.
    Drop,
}

/// Whether a trusted peer's identity headers travel on to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardIdentity {
    Keep,
    Strip,
}

/// Who is asking.
#[derive(Clone, PartialEq, Eq)]
pub enum Caller {
    Known(User),
    /// A normal state: the request goes through, without a token.
    Anonymous,
}

/// What a trusted source said about a user, byte for byte. It cannot print itself.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub id: Box<str>,
    pub email: Option<Box<str>>,
    pub name: Option<Box<str>>,
    pub organization: Option<Box<str>>,
    /// `None` unless groups decide it.
    pub is_admin: Option<bool>,
}

/// Why an identity was refused, and by which header. The front proxy's fault or an attacker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    pub header: HeaderName,
}

/// Reads and guards identity headers.
pub struct Identity {
    settings: Settings,
    /// Whether a configured name has an underscore in it, so that dashes make aliases of it.
    underscored: bool,
    refusals: Counters<RefusalKind>,
    spoofs: Counters<SpoofKind>,
}

impl Identity {
    /// From settings that the configuration has checked.
    pub fn new(
        settings: Settings,
        refusals: Counters<RefusalKind>,
        spoofs: Counters<SpoofKind>,
    ) -> Self {
        let underscored = settings.source.names().any(|name| name.as_str().contains('_'));
        Self { settings, underscored, refusals, spoofs }
    }

    /// Whether `peer` is the front proxy, whose headers are believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        // An IPv4 peer of a dual-stack socket is written as ::ffff:a.b.c.d.
        let peer = peer.to_canonical();
        self.settings.trusted_peers.iter().any(|range| range.contains(&peer))
    }

    /// Reads who is asking, and leaves in `headers` only what the app may see of it.
    ///
    /// # Errors
    ///
    /// The ambiguity, unless the settings say to drop it.
    pub fn identify(&self, trusted: bool, headers: &mut HeaderMap) -> Result<Caller, Refusal> {
        for name in &self.settings.token_headers {
            if headers.remove(name).is_some() {
                self.spoofs.increment(SpoofKind::TokenHeader);
            }
        }
        if !trusted {
            self.strip_forged(headers);
            return Ok(Caller::Anonymous);
        }
        let caller = match self.unambiguous(headers) {
            Ok(caller) => caller,
            Err(refusal) => {
                self.refusals.increment(refusal.kind);
                if self.settings.ambiguous == OnAmbiguous::Refuse {
                    return Err(refusal);
                }
                self.strip(headers);
                return Ok(Caller::Anonymous);
            }
        };
        if self.settings.forward == ForwardIdentity::Strip {
            self.strip(headers);
        }
        Ok(caller)
    }

    /// Removes from a request's trailers what would be identity as a header. RFC 9110 section
    /// 6.5.1 forbids merging them, but an app may do it all the same.
    pub fn sanitize_trailers(&self, trailers: &mut HeaderMap) {
        let stripped = self.strip(trailers);
        self.spoofs.add(SpoofKind::Trailer, (stripped.headers + stripped.aliases) as u64);
        for name in &self.settings.token_headers {
            if trailers.remove(name).is_some() {
                self.spoofs.increment(SpoofKind::Trailer);
            }
        }
    }

    fn strip_forged(&self, headers: &mut HeaderMap) {
        let stripped = self.strip(headers);
        self.spoofs.add(SpoofKind::IdentityHeader, stripped.headers as u64);
        self.spoofs.add(SpoofKind::Alias, stripped.aliases as u64);
    }

    fn unambiguous(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        if let Some(header) = self.protected_in(headers, CONNECTION) {
            return Err(refusal(RefusalKind::ConnectionNominated, header));
        }
        if let Some(header) = self.protected_in(headers, TRAILER) {
            return Err(refusal(RefusalKind::Trailer, header));
        }
        if let Some(header) = headers.keys().find_map(|name| self.alias_of(name)) {
            return Err(refusal(RefusalKind::Alias, header));
        }
        self.settings.source.read(headers)
    }

    /// An identity or token header that the comma-separated header `list` names, in any case.
    fn protected_in(&self, headers: &HeaderMap, list: HeaderName) -> Option<&HeaderName> {
        let values = headers.get_all(list).into_iter();
        let items = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        items.map(<[u8]>::trim_ascii).find_map(|item| {
            let mut protected = self.settings.source.names().chain(&self.settings.token_headers);
            protected.find(|name| name.as_str().as_bytes().eq_ignore_ascii_case(item))
        })
    }

    /// The identity header that `name` could be taken for by an app that folds `_` into `-`, as
    /// WSGI, PHP and CGI do (oauth2-proxy CVE-2025-64484).
    fn alias_of(&self, name: &HeaderName) -> Option<&HeaderName> {
        let name = name.as_str();
        // Nearly no header has an underscore in it, so this is where most of them end.
        if !name.contains('_') && !self.underscored {
            return None;
        }
        let fold = |byte: u8| if byte == b'_' { b'-' } else { byte };
        self.settings.source.names().find(|own| {
            let own = own.as_str();
            own != name && own.bytes().map(fold).eq(name.bytes().map(fold))
        })
    }

    fn strip(&self, headers: &mut HeaderMap) -> Stripped {
        let is_alias = |name: &&HeaderName| self.alias_of(name).is_some();
        let aliases: Vec<HeaderName> = headers.keys().filter(is_alias).cloned().collect();
        for alias in &aliases {
            headers.remove(alias);
        }
        let names = self.settings.source.names();
        let headers = names.filter(|name| headers.remove(*name).is_some()).count();
        Stripped { headers, aliases: aliases.len() }
    }
}

/// How many headers were removed.
struct Stripped {
    headers: usize,
    aliases: usize,
}

impl HeaderSource {
    fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let optional = [&self.email, &self.name, &self.organization, &self.groups];
        std::iter::once(&self.user).chain(optional.into_iter().flatten())
    }

    fn read(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let Some(id) = single(headers, &self.user, Commas::Refused)? else {
            return Ok(Caller::Anonymous);
        };
        let optional = |name: &Option<HeaderName>, commas| match name {
            Some(name) => single(headers, name, commas),
            None => Ok(None),
        };
        Ok(Caller::Known(User {
            id,
            email: optional(&self.email, Commas::Refused)?,
            // "Lovelace, Ada" is one name.
            name: optional(&self.name, Commas::Allowed)?,
            organization: optional(&self.organization, Commas::Refused)?,
            is_admin: self.is_admin(headers)?,
        }))
    }

    /// Whether one of the caller's groups is an admin group. Groups are a list by nature: several
    /// lines and commas mean more groups.
    fn is_admin(&self, headers: &HeaderMap) -> Result<Option<bool>, Refusal> {
        let Some(name) = &self.groups else { return Ok(None) };
        if self.admin_groups.is_empty() {
            return Ok(None);
        }
        let mut is_admin = false;
        for value in headers.get_all(name) {
            let groups = text(value).ok_or_else(|| refusal(RefusalKind::BadBytes, name))?;
            is_admin |= groups.split(',').any(|group| {
                self.admin_groups.iter().any(|admin| admin == group.trim_matches(' '))
            });
        }
        Ok(Some(is_admin))
    }
}

/// Whether a comma may stand in a value, or is a sign of two values joined to one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commas {
    Allowed,
    Refused,
}

/// The one value of `name`, `None` if the header is not there.
fn single(
    headers: &HeaderMap,
    name: &HeaderName,
    commas: Commas,
) -> Result<Option<Box<str>>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refuse = |kind| Err(refusal(kind, name));
    if values.next().is_some() {
        return refuse(RefusalKind::Repeated);
    }
    match value.len() {
        0 => return refuse(RefusalKind::Empty),
        length if length > MAX_VALUE_BYTES => return refuse(RefusalKind::TooLong),
        _ => {}
    }
    let Some(text) = text(value) else { return refuse(RefusalKind::BadBytes) };
    if text.trim().len() != text.len() {
        return refuse(if text.trim().is_empty() {
            RefusalKind::Empty
        } else {
            RefusalKind::BadBytes
        });
    }
    if commas == Commas::Refused && text.contains(',') {
        return refuse(RefusalKind::List);
    }
    Ok(Some(text.into()))
}

/// `value` as UTF-8 without control characters. No normalisation: users who differ in a byte
/// are different users.
fn text(value: &HeaderValue) -> Option<&str> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

fn refusal(kind: RefusalKind, header: &HeaderName) -> Refusal {
    Refusal { kind, header: header.clone() }
}
