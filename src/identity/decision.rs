//! Decision about the identity of a request, with its reasons. Counts and log lines are in `telling`.

use http::HeaderName;

use super::assertion::Places;
use super::guard::{Removed, Stripped};
use super::peer::{Believed, Trust};
use super::user::{Flaws, SignedIn};
use super::{Caller, HeaderSource, Identity, InvalidAssertion, Reader, Refusal};
use ground::metrics::SpoofKind;
use ground::peer::Peer;

/// Purpose for which a caller of [`Identity::decide`] asks who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// The request is to be served.
    ForReal,
    /// The request is to be explained with the keys at hand: no key is fetched, no assertion is remembered.
    ToExplain,
}

/// Findings about the caller of a request.
pub struct Decision {
    pub trust: Trust,
    /// Headers that were removed since only the login proxy may set them.
    pub spoofs: Spoofs,
    /// Parts of the user's description that were left out. These parts are no reason to refuse the request.
    pub flaws: Flaws,
    pub conclusion: Conclusion,
    /// Whether a cookie has the assertion that decided.
    pub by_cookie: bool,
    /// Times at which the user has signed in, if an assertion tells them.
    pub signed_in: SignedIn,
}

/// Result of a decision.
pub enum Conclusion {
    Caller(Caller),
    /// The identity was refused, but the settings let the request go on as anonymous.
    Ignored(Refusal),
    Refused(Refusal),
}

impl Conclusion {
    /// Returns why an assertion counts for nothing, if the request goes on as anonymous all the same.
    pub fn unbelieved(&self) -> Option<InvalidAssertion> {
        match self {
            Self::Ignored(Refusal::Invalid(invalid)) => Some(*invalid),
            Self::Ignored(_) | Self::Caller(_) | Self::Refused(_) => None,
        }
    }
}

impl From<Caller> for Conclusion {
    fn from(caller: Caller) -> Self {
        Self::Caller(caller)
    }
}

/// Attempts of one kind to set headers that only the login proxy may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoof {
    pub kind: SpoofKind,
    pub removed: Removed,
}

/// Spoof attempts of a request, by kind. Nearly every request has none, which costs no allocation.
#[derive(Debug, Default)]
pub struct Spoofs(Vec<Spoof>);

impl Spoofs {
    /// Returns the attempts, by kind.
    pub fn iter(&self) -> impl Iterator<Item = &Spoof> {
        self.0.iter()
    }

    pub(super) fn add(&mut self, kind: SpoofKind, removed: Removed) {
        if removed.count > 0 {
            self.0.push(Spoof { kind, removed });
        }
    }

    /// Adds identity headers that were removed because their sender may not set them.
    pub(super) fn forged(&mut self, stripped: Stripped) {
        self.add(SpoofKind::IdentityHeader, stripped.headers);
        self.add(SpoofKind::Alias, stripped.aliases);
    }
}

/// Place in which an [`Identity`] looks for the user.
#[derive(Clone, Copy, Debug)]
pub enum Reads<'a> {
    Header(&'a HeaderName),
    Assertion(&'a Places),
    /// Header of the app's responses.
    App(&'a HeaderName),
}

impl Identity {
    /// Returns the place in which this identity looks for the user.
    pub fn reads(&self) -> Reads<'_> {
        match &self.reader {
            Reader::Header(source) => Reads::Header(&source.user),
            Reader::Assertion(assertions) => Reads::Assertion(assertions.places()),
            Reader::App(source) => Reads::App(&source.headers.user),
        }
    }

    /// Returns the name of the header, or the path of the claim, with the user's grants; `None` if the source
    /// is not asked for grants.
    pub fn asks_for_grants(&self) -> Option<String> {
        let header = |source: &HeaderSource| source.grants.as_ref().map(HeaderName::to_string);
        match &self.reader {
            Reader::Header(source) => header(source),
            Reader::App(source) => header(&source.headers),
            Reader::Assertion(assertions) => {
                assertions.grants_claim().map(|path| format!("the claim {path}"))
            }
        }
    }

    /// Returns the header in which the login proxy has to show its secret, if a secret is configured.
    pub fn secret_header(&self) -> Option<&HeaderName> {
        self.anchors.secret_header()
    }

    /// Whether a user's header counts for nothing because the peer has not shown the secret.
    pub fn lacks_secret(&self, trust: Trust) -> bool {
        matches!((&self.reader, trust), (Reader::Header(_), Trust::NoSecret(_)))
    }

    /// Whether a name in a client certificate has to vouch for the login proxy.
    pub fn needs_name(&self) -> bool {
        self.anchors.needs_name()
    }

    /// Decides whether the word of `peer` about the client's address, the scheme and the host is kept, and
    /// says why.
    pub fn believes(&self, peer: &Peer, trust: Trust) -> Believed {
        self.proxies.believe(peer, trust)
    }
}
