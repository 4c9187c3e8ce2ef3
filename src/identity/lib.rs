//! Identity of the caller, and whether it may be believed. The sole reader of identity headers.
//!
//! Absence of an identity never means privilege: it means anonymous. Ambiguity is refused, not resolved,
//! since the app behind the sidecar might resolve it the other way. A plain header is believed only from a
//! peer for which an anchor vouches (an address range, a name in a certificate, a secret), an assertion only
//! by its signature. Identity headers without either are removed before the app can see them.
//!
//! `peer` checks the anchors, `guard` the spellings of guarded headers, `headers` reads plain headers,
//! [`assertion`] checks signed assertions with the keys that `keys` fetches, `app` reads what the app says
//! of its user in headers, `app_answer` what the app says of a user in JSON. `ruling` concludes from all of
//! them who the caller is and which headers have to go. `user` has the types in which all readers describe a
//! user, `placeholders` the values that stand for no value; `telling` counts and logs decisions. `logout` reads an
//! identity provider's word that a user was signed out.

#![forbid(unsafe_code)]

mod algorithm;
mod app;
mod app_answer;
pub mod assertion;
mod decision;
mod guard;
mod headers;
pub mod keys;
mod logout;
mod peer;
mod placeholders;
mod ruling;
mod telling;
mod user;

use std::fmt;

use http::{HeaderMap, HeaderName};

pub use self::app::AppSource;
pub use self::app_answer::{AnswerFault, AnswerKey, AppAnswer, DetailsSource, MAX_ANSWER_BYTES};
use self::assertion::Assertions;
pub use self::assertion::{AssertionSource, InvalidAssertion};
pub use self::decision::{Asking, Conclusion, Decision, Reads, Spoof, Spoofs};
pub use self::guard::Removed;
use self::guard::{Guard, Seen};
pub use self::headers::{GroupsLines, HeaderSource};
pub use self::logout::{InvalidLogout, LogoutRefusal, LogoutSource, LogoutToken, LogoutTokens};
use self::peer::{Anchors, Proxies};
pub use self::peer::{Believed, OF_MESHES, SecretSettings, Shown, Trust, holds_everyone};
pub use self::placeholders::{Placeholder, Placeholders};
use self::ruling::Ruling;
pub use self::user::{
    Attribute, Flaws, Granted, Groups, MAX_VALUE_BYTES, Organization, SignedIn, User,
};
use ground::alarm::Alarms;
use ground::groups::KnownGroups;
use ground::metrics::{
    AppAnswerResult, AssertionResult, Flaw, IdentityMetrics, RefusalKind, SpoofKind,
};
use ground::outgoing::TlsError;
use ground::peer::Peer;

/// Sources of identity, and the peers to believe.
#[derive(Clone, Debug)]
pub struct Settings {
    pub source: Source,
    /// Place at which the app tells more of a user, before a token is minted; `None` if it is not asked.
    pub details: Option<DetailsSource>,
    /// Headers in which the front speaks of the user, beside the headers that are read. Guarded alike, but
    /// not read.
    pub guarded: Vec<HeaderName>,
    /// The login proxy's addresses.
    pub trusted_peers: Vec<ipnet::IpNet>,
    /// Names in client certificates; if there are any, the login proxy must show one.
    pub trusted_names: Vec<String>,
    /// Secret that the login proxy must show in addition.
    pub secret: Option<SecretSettings>,
    /// The app's own names in `Host`: a browser on this machine that asks for another name is no front.
    /// If this is empty, other headers of the request tell a browser from a front.
    pub trusted_hosts: Vec<String>,
    /// Peers whose word on the client's address, the scheme and the host is kept; `None` for the default of
    /// the source.
    pub trusted_proxies: Option<Vec<ipnet::IpNet>>,
    pub ambiguous: OnAmbiguous,
    pub forward: ForwardIdentity,
    /// Headers that only the sidecar may set on a request: the token's, and the user's in a question for
    /// details.
    pub token_headers: Vec<HeaderName>,
}

/// Source of the caller's identity.
#[derive(Clone, Debug)]
pub enum Source {
    /// Plain headers that the login proxy sets.
    Header(Box<HeaderSource>),
    /// A signed JWT in a header or a cookie, or an encrypted session in a cookie.
    Assertion(Box<AssertionSource>),
    /// The app, in a header of its responses.
    App(Box<AppSource>),
}

/// Treatment of a request whose identity is ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAmbiguous {
    /// The sidecar answers 400.
    Refuse,
    /// The request goes on as anonymous, without its identity headers.
    Drop,
}

/// Whether identity headers that are believed travel on to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardIdentity {
    Keep,
    Strip,
}

/// Caller of a request, as far as known.
#[derive(Clone, PartialEq, Eq)]
pub enum Caller {
    Known(User),
    /// A normal state: the request goes through, without a token.
    Anonymous,
    /// The caller's assertion could not be checked, since there are no keys. The request goes through as
    /// well; the app decides what the caller may do there.
    Unverified,
    /// The caller is not named yet: the app knows the user, and may name the user in its response.
    Unnamed,
}

/// Caller of a request, with the trust in the peer that sent it.
pub struct Identified {
    pub caller: Caller,
    /// Whether the peer is the login proxy.
    pub trusted: bool,
    /// Whether the user's header counts for nothing because the peer has not shown the secret.
    pub lacks_secret: bool,
    /// Why the request's assertion counts for nothing, if the settings let it go on as anonymous.
    pub unbelieved: Option<InvalidAssertion>,
    /// Whether the peer's word about the client's address, the scheme and the host is kept.
    pub believed: Believed,
    /// Whether a cookie says who is asking. Browsers send cookies along with the requests of other sites' pages.
    pub by_cookie: bool,
    /// Times at which the user has signed in, if an assertion tells them.
    pub signed_in: SignedIn,
}

/// Reason why an identity was refused. The login proxy's fault or an attacker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The identity could be read in two ways, because of this header.
    Ambiguous { kind: RefusalKind, header: HeaderName },
    /// The identity is signed, but the assertion is not valid.
    Invalid(InvalidAssertion),
}

/// Text for the answer to the request.
impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous { kind: kind @ RefusalKind::CookieTwice, .. } => write!(
                formatter,
                "The session's cookie can't be trusted: {}. Remove the cookies of this site from the \
                 browser; have the app set its cookie in one place, without Domain.",
                kind.reason()
            ),
            Self::Ambiguous { kind: kind @ RefusalKind::Disagreement, header } => write!(
                formatter,
                "The identity in {header} can't be trusted: {}. Sign out, and sign in again.",
                kind.reason()
            ),
            Self::Ambiguous { kind, header } => write!(
                formatter,
                "The identity header {header} can't be trusted: {}. Have the login proxy, or the \
                 app if it names the user, set this header exactly once.",
                kind.reason()
            ),
            Self::Invalid(invalid) => {
                write!(formatter, "The identity assertion is not valid: {}.", invalid.reason())
            }
        }
    }
}

/// Reads and guards identity headers.
pub struct Identity {
    anchors: Anchors,
    proxies: Proxies,
    guard: Guard,
    reader: Reader,
    ambiguous: OnAmbiguous,
    forward: ForwardIdentity,
    details: Option<DetailsSource>,
    metrics: IdentityMetrics,
    spoofs: Alarms<SpoofKind>,
    refusals: Alarms<RefusalKind>,
    flaws: Alarms<Flaw>,
    invalid_assertions: Alarms<AssertionResult>,
    answers: Alarms<AppAnswerResult>,
}

enum Reader {
    Header(Box<HeaderSource>),
    Assertion(Box<Assertions>),
    App(Box<AppSource>),
}

impl Reader {
    fn new(
        source: Source,
        old: Option<&Self>,
        metrics: &IdentityMetrics,
    ) -> Result<Self, TlsError> {
        let old = old.and_then(|old| match old {
            Self::Assertion(assertions) => Some(&**assertions),
            Self::Header(_) | Self::App(_) => None,
        });
        Ok(match source {
            Source::Header(source) => Self::Header(source),
            Source::Assertion(source) => {
                Self::Assertion(Box::new(Assertions::new(*source, old, metrics.clone())?))
            }
            Source::App(source) => Self::App(source),
        })
    }
}

impl Identity {
    /// Builds an identity from settings that the configuration has checked.
    ///
    /// # Errors
    ///
    /// If TLS for fetching keys can't be set up.
    pub fn new(settings: Settings, metrics: IdentityMetrics) -> Result<Self, TlsError> {
        Self::succeeding(None, settings, metrics)
    }

    /// Builds an identity from other settings, with the keys that `old` holds, if they are published in the
    /// same place.
    ///
    /// # Errors
    ///
    /// If TLS for fetching keys can't be set up.
    pub fn succeeding(
        old: Option<&Self>,
        settings: Settings,
        metrics: IdentityMetrics,
    ) -> Result<Self, TlsError> {
        let mut own = settings.token_headers;
        own.extend(settings.secret.as_ref().map(|secret| secret.header.clone()));
        let mut names: Vec<HeaderName> = settings.source.names().cloned().collect();
        names.extend(settings.guarded);
        let by_header = matches!(settings.source, Source::Header(_));
        let reader = Reader::new(settings.source, old.map(|old| &old.reader), &metrics)?;
        Ok(Self {
            anchors: Anchors::new(
                settings.trusted_peers,
                settings.trusted_names,
                settings.secret,
                settings.trusted_hosts,
            ),
            proxies: Proxies::new(settings.trusted_proxies, by_header),
            guard: Guard::new(names, own),
            reader,
            ambiguous: settings.ambiguous,
            forward: settings.forward,
            details: settings.details,
            metrics,
            spoofs: Alarms::new(),
            refusals: Alarms::new(),
            flaws: Alarms::new(),
            invalid_assertions: Alarms::new(),
            answers: Alarms::new(),
        })
    }

    /// Begins to fetch keys, where any are needed, and returns at once. Needs a tokio runtime.
    pub fn start(&self) {
        if let Reader::Assertion(assertions) = &self.reader {
            assertions.start();
        }
    }

    /// Fetches the keys of assertions before this identity is put into force, and waits for them. Returns
    /// at once if no keys are needed, or if the keys in force were taken over.
    ///
    /// # Errors
    ///
    /// If the keys can't be fetched.
    pub async fn keys_arrive(&self) -> Result<(), keys::Unfetched> {
        match &self.reader {
            Reader::Assertion(assertions) => assertions.keys_arrive().await,
            Reader::Header(_) | Reader::App(_) => Ok(()),
        }
    }

    /// Sets the gauges that age by themselves, before a scrape.
    pub fn observe(&self) {
        if let Reader::Assertion(assertions) = &self.reader {
            assertions.observe();
        }
    }

    /// Whether a request is from a peer that is believed. `headers` must be as the peer sent them.
    pub fn trusts(&self, peer: &Peer, headers: &HeaderMap) -> bool {
        self.anchors.trust(peer, headers, self.anchors.shown(headers)).is_trusted()
    }

    /// Finds the caller, and leaves in `headers` only the identity that the app may see.
    ///
    /// # Errors
    ///
    /// The ambiguity, or the invalid assertion, unless the settings say to go on without an identity.
    pub async fn identify(
        &self,
        peer: &Peer,
        headers: &mut HeaderMap,
    ) -> Result<Identified, Refusal> {
        let decision = self.decide(Asking::ForReal, peer, headers).await;
        self.tell(&decision, peer);
        let trusted = decision.trust.is_trusted();
        let lacks_secret = self.lacks_secret(decision.trust);
        let believed = self.believes(peer, decision.trust);
        let Decision { by_cookie, signed_in, .. } = decision;
        let unbelieved = decision.conclusion.unbelieved();
        let caller = match decision.conclusion {
            Conclusion::Caller(caller) => caller,
            Conclusion::Ignored(_) => Caller::Anonymous,
            Conclusion::Refused(refusal) => return Err(refusal),
        };
        Ok(Identified { caller, trusted, lacks_secret, unbelieved, believed, by_cookie, signed_in })
    }

    /// Decides like [`Self::identify`], returns every step of the decision, and neither counts nor logs.
    pub async fn decide(&self, asking: Asking, peer: &Peer, headers: &mut HeaderMap) -> Decision {
        let seen = self.guard.scan(headers);
        let mut spoofs = Spoofs::default();
        let shown = self.take_own(headers, &seen, &mut spoofs);
        let trust = self.anchors.trust(peer, headers, shown);
        let ruling = self.rule(asking, trust.is_trusted(), headers, &seen).await;
        spoofs.forged(self.guard.remove(ruling.forged, headers, &seen));
        self.guard.remove(ruling.hidden, headers, &seen);
        let Ruling { conclusion, flaws, by_cookie, signed_in, .. } = ruling;
        Decision { trust, spoofs, flaws, conclusion, by_cookie, signed_in }
    }

    /// Removes the front's secret and the headers that only the sidecar sets. Returns the verdict on the
    /// secret. Must come before [`Anchors::trust`]: a token header that a page sends, such as
    /// `X-Forwarded-Token`, would count as a sign of a front.
    fn take_own(&self, headers: &mut HeaderMap, seen: &Seen, spoofs: &mut Spoofs) -> Shown {
        let shown = self.anchors.take_secret(headers);
        if let Some(header) = self.anchors.secret_header().filter(|_| shown.is_wrong()) {
            spoofs.add(SpoofKind::Secret, Removed::one(header));
        }
        spoofs.add(SpoofKind::TokenHeader, self.guard.strip_own(headers, seen));
        shown
    }

    /// Removes from a request's trailers the names that would be identity as headers. RFC 9110 section 6.5.1
    /// forbids merging trailers into the header section, but an app may merge them all the same.
    pub fn sanitize_trailers(&self, trailers: &mut HeaderMap) {
        let seen = self.guard.scan(trailers);
        let identity = self.guard.strip(trailers, &seen);
        let own = self.guard.strip_own(trailers, &seen);
        let removed = identity.headers.and(identity.aliases).and(own);
        self.tell_spoof(&Spoof { kind: SpoofKind::Trailer, removed }, None, None);
    }
}

impl Settings {
    /// Whether a user's organization may be named, by the source or by the app.
    pub fn names_organization(&self) -> bool {
        self.details.is_some() || self.source.names_organization()
    }
}

impl Source {
    /// Returns the headers that the source reads.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let (plain, signed) = match self {
            Self::Header(source) => (Some(source.names()), None),
            Self::Assertion(source) => (None, source.places.header()),
            Self::App(source) => (Some(source.headers.names()), None),
        };
        plain.into_iter().flatten().chain(signed)
    }

    /// Returns the word in `identity.source`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Header(_) => "header",
            Self::Assertion(_) => "assertion",
            Self::App(_) => "app",
        }
    }

    /// Whether the source may name a user's organization.
    fn names_organization(&self) -> bool {
        match self {
            Self::Header(source) => source.organization.is_some(),
            Self::Assertion(source) => !source.policy.claims.organization.is_empty(),
            Self::App(source) => source.headers.organization.is_some(),
        }
    }

    /// Whether the source may name a user's groups.
    pub fn names_groups(&self) -> bool {
        match self {
            Self::Header(source) => source.groups.is_some(),
            Self::Assertion(source) => source.policy.claims.groups.is_some(),
            Self::App(source) => source.headers.groups.is_some(),
        }
    }

    /// Tells the source on which groups resources depend.
    pub fn set_known_groups(&mut self, known: KnownGroups) {
        match self {
            Self::Header(source) => source.known_groups = known,
            Self::Assertion(source) => source.policy.claims.known_groups = known,
            Self::App(source) => source.headers.known_groups = known,
        }
    }
}

impl Refusal {
    fn ambiguous(kind: RefusalKind, header: &HeaderName) -> Self {
        Self::Ambiguous { kind, header: header.clone() }
    }
}
