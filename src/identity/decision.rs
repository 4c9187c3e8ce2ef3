//! What was decided of a request and why, apart from counting it and telling of it.

use http::HeaderName;

use super::guard::{Removed, Stripped};
use super::peer::{Believed, Trust};
use super::user::Flaws;
use super::{Caller, Identity, Peer, Reader, Refusal};
use crate::metrics::SpoofKind;

/// Why somebody wants to know who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// It is a request.
    ForReal,
    /// To explain one: with the keys at hand, fetching none and remembering nothing.
    ToExplain,
}

/// All that was found out about who is asking.
pub struct Decision {
    pub trust: Trust,
    /// Headers that were removed since only the front proxy may set them.
    pub spoofs: Spoofs,
    /// Parts of the user's description that were left out. They do not refuse the request.
    pub flaws: Flaws,
    pub conclusion: Conclusion,
}

/// What came of it.
pub enum Conclusion {
    Caller(Caller),
    /// Refused, but the settings say to go on as anonymous.
    Ignored(Refusal),
    Refused(Refusal),
}

impl From<Caller> for Conclusion {
    fn from(caller: Caller) -> Self {
        Self::Caller(caller)
    }
}

/// Attempts of one kind to say what only the front proxy may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoof {
    pub kind: SpoofKind,
    pub removed: Removed,
}

/// All such attempts of a request. Nearly always there are none, which costs no allocation.
#[derive(Debug, Default)]
pub struct Spoofs(Vec<Spoof>);

impl Spoofs {
    /// Each kind that there was.
    pub fn iter(&self) -> impl Iterator<Item = &Spoof> {
        self.0.iter()
    }

    pub(super) fn add(&mut self, kind: SpoofKind, removed: Removed) {
        if removed.count > 0 {
            self.0.push(Spoof { kind, removed });
        }
    }

    /// Identity headers from somebody who may not set them.
    pub(super) fn forged(&mut self, stripped: Stripped) {
        self.add(SpoofKind::IdentityHeader, stripped.headers);
        self.add(SpoofKind::Alias, stripped.aliases);
    }
}

/// Where an [`Identity`] looks for the user.
#[derive(Clone, Copy, Debug)]
pub enum Reads<'a> {
    Header(&'a HeaderName),
    Assertion(&'a HeaderName),
    /// In the app's responses.
    App(&'a HeaderName),
}

impl Identity {
    /// Where it looks for the user.
    pub fn reads(&self) -> Reads<'_> {
        match &self.reader {
            Reader::Header(source) => Reads::Header(&source.user),
            Reader::Assertion(assertions) => Reads::Assertion(assertions.header()),
            Reader::App(source) => Reads::App(&source.headers.user),
        }
    }

    /// The header in which the front proxy shows its secret, if it has to.
    pub fn secret_header(&self) -> Option<&HeaderName> {
        self.anchors.secret_header()
    }

    /// Whether a user's header counts for nothing because the peer has not shown the secret.
    pub fn lacks_secret(&self, trust: Trust) -> bool {
        matches!((&self.reader, trust), (Reader::Header(_), Trust::NoSecret(_)))
    }

    /// Whether a name in a client certificate has to vouch for the front proxy.
    pub fn needs_name(&self) -> bool {
        self.anchors.needs_name()
    }

    /// Whether the word of `peer` about the client's address, the scheme and the host is kept, and why.
    pub fn believes(&self, peer: &Peer, trust: Trust) -> Believed {
        self.proxies.believe(peer, trust)
    }
}
