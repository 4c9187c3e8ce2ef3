//! Identity of the caller, and whether it may be believed. The sole reader of identity headers.
//!
//! Absence of an identity never means privilege: it means anonymous. Ambiguity is refused, not resolved,
//! since the app behind the sidecar might resolve it the other way. A plain header is believed only from a
//! peer that an anchor vouches for, an assertion only by its signature. Identity headers without either are
//! removed before the app can see them.
//!
//! `peer` is about the anchors, `guard` about spellings, `headers` reads plain headers,
//! [`assertion`] checks signed assertions with the keys that `keys` fetches, `app` reads what the app says
//! of its user. `user` has the types in which all three readers describe a user, `placeholders` the values
//! that stand for no value; `telling` counts and logs.

#![forbid(unsafe_code)]

mod algorithm;
mod app;
pub mod assertion;
mod decision;
mod guard;
mod headers;
pub mod keys;
mod peer;
mod placeholders;
mod telling;
mod user;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};

pub use self::app::AppSource;
pub use self::assertion::{AssertionSource, InvalidAssertion};
use self::assertion::{Assertions, Presented, Verdict};
pub use self::decision::{Asking, Conclusion, Decision, Reads, Spoof, Spoofs};
pub use self::guard::Removed;
use self::guard::{Guard, Seen, Stripped};
pub use self::headers::{GroupsLines, HeaderSource};
use self::peer::{Anchors, Proxies};
pub use self::peer::{Believed, SecretSettings, Shown, Trust};
pub use self::placeholders::{Placeholder, Placeholders};
use self::user::Said;
pub use self::user::{Attribute, Flaws, MAX_VALUE_BYTES, Organization, User};
use ground::alarm::Alarms;
use ground::metrics::{AssertionResult, Flaw, IdentityMetrics, RefusalKind, SpoofKind};
use ground::outgoing::TlsError;
use ground::peer::Peer;

/// Sources of identity, and the peers to believe.
#[derive(Clone, Debug)]
pub struct Settings {
    pub source: Source,
    /// Headers in which the front speaks of the user, beside the headers that are read. Guarded alike, but
    /// not read.
    pub guarded: Vec<HeaderName>,
    /// The front proxy's addresses.
    pub trusted_peers: Vec<ipnet::IpNet>,
    /// Names in client certificates; if there are any, the front proxy must show one.
    pub trusted_names: Vec<String>,
    /// Secret that the front proxy must show in addition.
    pub secret: Option<SecretSettings>,
    /// The app's own names in `Host`: a browser on this machine that asks for another name is no front.
    /// If this is empty, other headers of the request tell a browser from a front.
    pub trusted_hosts: Vec<String>,
    /// Peers whose word on the client's address, the scheme and the host is kept; `None` for the default of
    /// the source.
    pub trusted_proxies: Option<Vec<ipnet::IpNet>>,
    pub ambiguous: OnAmbiguous,
    pub forward: ForwardIdentity,
    /// Headers that only the sidecar may set on a request: the token's.
    pub token_headers: Vec<HeaderName>,
}

/// Source of the caller's identity.
#[derive(Clone, Debug)]
pub enum Source {
    /// Plain headers that the front proxy sets.
    Header(Box<HeaderSource>),
    /// A signed JWT in a header.
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
    /// Whether the peer is the front proxy.
    pub trusted: bool,
    /// Whether the user's header counts for nothing because the peer has not shown the secret.
    pub lacks_secret: bool,
    /// Whether the peer's word about the client's address, the scheme and the host is kept.
    pub believed: Believed,
}

/// Reason why an identity was refused. The front proxy's fault or an attacker's.
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
            Self::Ambiguous { kind, header } => write!(
                formatter,
                "The identity header {header} can't be trusted: {}. Have the login proxy, or the \
                 app if it names the user, set this header exactly once.",
                kind.reason()
            ),
            Self::Invalid(fault) => {
                write!(formatter, "The identity assertion is not valid: {}.", fault.reason())
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
    metrics: IdentityMetrics,
    spoofs: Alarms<SpoofKind>,
    refusals: Alarms<RefusalKind>,
    flaws: Alarms<Flaw>,
    faults: Alarms<AssertionResult>,
}

enum Reader {
    Header(Box<HeaderSource>),
    Assertion(Box<Assertions>),
    App(Box<AppSource>),
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
        let old = old.and_then(|old| match &old.reader {
            Reader::Assertion(assertions) => Some(&**assertions),
            Reader::Header(_) | Reader::App(_) => None,
        });
        let mut own = settings.token_headers;
        own.extend(settings.secret.as_ref().map(|secret| secret.header.clone()));
        let mut names: Vec<HeaderName> = settings.source.names().cloned().collect();
        names.extend(settings.guarded);
        let by_header = matches!(settings.source, Source::Header(_));
        let reader = match settings.source {
            Source::Header(source) => Reader::Header(source),
            Source::Assertion(source) => {
                Reader::Assertion(Box::new(Assertions::new(*source, old, metrics.clone())?))
            }
            Source::App(source) => Reader::App(source),
        };
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
            metrics,
            spoofs: Alarms::new(),
            refusals: Alarms::new(),
            flaws: Alarms::new(),
            faults: Alarms::new(),
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
        match decision.conclusion {
            Conclusion::Caller(caller) => {
                Ok(Identified { caller, trusted, lacks_secret, believed })
            }
            Conclusion::Ignored(_) => {
                Ok(Identified { caller: Caller::Anonymous, trusted, lacks_secret, believed })
            }
            Conclusion::Refused(refusal) => Err(refusal),
        }
    }

    /// Decides like [`Self::identify`], returns every step of the decision, and neither counts nor logs.
    pub async fn decide(&self, asking: Asking, peer: &Peer, headers: &mut HeaderMap) -> Decision {
        let mut spoofs = Spoofs::default();
        let seen = self.guard.scan(headers);
        let shown = self.anchors.take_secret(headers);
        if let Some(header) = self.anchors.secret_header().filter(|_| shown.is_wrong()) {
            spoofs.add(SpoofKind::Secret, Removed::one(header));
        }
        spoofs.add(SpoofKind::TokenHeader, self.guard.strip_own(headers, &seen));
        let trust = self.anchors.trust(peer, headers, shown);
        let trusted = trust.is_trusted();
        let found = match &self.reader {
            Reader::Header(_) if !trusted => {
                spoofs.forged(self.guard.strip(headers, &seen));
                Ok((Caller::Anonymous.into(), Flaws::default()))
            }
            Reader::Header(source) => {
                let clear = self.guard.unambiguous(headers, &seen);
                clear.and_then(|()| source.read(headers)).and_then(|said| {
                    let caller = match said.user {
                        Some(user) => {
                            self.check_lines(source, headers)?;
                            Caller::Known(user)
                        }
                        None => self.without_user(source, headers, &seen, &mut spoofs),
                    };
                    Ok((caller.into(), said.flaws))
                })
            }
            Reader::App(_) => {
                // Forged even from the front proxy, which does not speak for the app.
                spoofs.forged(self.guard.strip(headers, &seen));
                Ok((Caller::Unnamed.into(), Flaws::default()))
            }
            Reader::Assertion(assertions) => {
                if !trusted {
                    spoofs.forged(self.strip_unsigned(assertions, headers, &seen));
                }
                let found = self.guard.unambiguous(headers, &seen);
                match found.and_then(|()| assertions.find(headers)) {
                    Ok(Presented::Assertion(assertion)) => {
                        let verdict = self.judge(asking, assertions, &assertion).await;
                        let flaws = verdict.flaws();
                        let once = match &verdict {
                            Verdict::Valid(Said { user: Some(_), .. }) => {
                                self.guard.unrepeated(headers)
                            }
                            _ => Ok(()),
                        };
                        once.map(|()| {
                            let (seen, spoofs) = (&seen, &mut spoofs);
                            let conclusion = self
                                .by_verdict(assertions, verdict, trusted, headers, seen, spoofs);
                            (conclusion, flaws)
                        })
                    }
                    Ok(presented) => {
                        let conclusion = self.unsigned(assertions, headers, &seen, &mut spoofs);
                        Ok((conclusion, presented.flaws()))
                    }
                    Err(refusal) => Err(refusal),
                }
            }
        };
        let (conclusion, flaws) = found.unwrap_or_else(|refusal| {
            if self.ambiguous == OnAmbiguous::Refuse {
                return (Conclusion::Refused(refusal), Flaws::default());
            }
            self.guard.strip(headers, &seen);
            (Conclusion::Ignored(refusal), Flaws::default())
        });
        let refused = matches!(conclusion, Conclusion::Refused(_));
        if self.forward == ForwardIdentity::Strip && !refused {
            self.guard.strip(headers, &seen);
        }
        Decision { trust, spoofs, flaws, conclusion }
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

    /// Returns the verdict on an assertion.
    async fn judge(
        &self,
        asking: Asking,
        assertions: &Assertions,
        assertion: &HeaderValue,
    ) -> Verdict {
        let now = unix_now();
        if asking == Asking::ToExplain {
            return assertions.examine(assertion, now);
        }
        match assertions.recall(assertion, now) {
            Some(verdict) => verdict,
            // Boxed, since it is rare and would make every request's future larger.
            None => Box::pin(assertions.verify(assertion, now)).await,
        }
    }

    /// Draws the conclusion from a verdict, and removes the headers that the app may not see.
    fn by_verdict(
        &self,
        assertions: &Assertions,
        verdict: Verdict,
        trusted: bool,
        headers: &mut HeaderMap,
        seen: &Seen,
        spoofs: &mut Spoofs,
    ) -> Conclusion {
        match verdict {
            Verdict::Valid(Said { user: Some(user), .. }) => {
                Conclusion::Caller(Caller::Known(user))
            }
            Verdict::Valid(Said { user: None, .. }) | Verdict::OtherScheme => {
                self.unsigned(assertions, headers, seen, spoofs)
            }
            Verdict::Unavailable => {
                if !trusted {
                    assertions.strip(headers);
                }
                Conclusion::Caller(Caller::Unverified)
            }
            Verdict::Invalid(fault) if assertions.refuses() => {
                Conclusion::Refused(Refusal::Invalid(fault))
            }
            Verdict::Invalid(fault) => {
                spoofs.forged(self.strip_unsigned(assertions, headers, seen));
                assertions.strip(headers);
                Conclusion::Ignored(Refusal::Invalid(fault))
            }
        }
    }

    /// Refuses two lines of a header that is guarded but not read.
    fn check_lines(&self, source: &HeaderSource, headers: &HeaderMap) -> Result<(), Refusal> {
        match source.groups_lines {
            GroupsLines::One => self.guard.unrepeated(headers),
            GroupsLines::Several => Ok(()),
        }
    }

    /// Removes the user's attributes: the front names no user, so the attributes come from the client of
    /// the front.
    fn without_user(
        &self,
        source: &HeaderSource,
        headers: &mut HeaderMap,
        seen: &Seen,
        spoofs: &mut Spoofs,
    ) -> Caller {
        let blank = |value: &HeaderValue| source.is_blank(value);
        spoofs.forged(self.guard.strip_leftovers(&source.user, blank, headers, seen));
        Caller::Anonymous
    }

    /// Removes the plain headers: the front signs the users whom it knows and no assertion names a user, so
    /// the plain headers come from the client of the front.
    fn unsigned(
        &self,
        assertions: &Assertions,
        headers: &mut HeaderMap,
        seen: &Seen,
        spoofs: &mut Spoofs,
    ) -> Conclusion {
        let blank = |value: &HeaderValue| assertions.is_blank(value);
        spoofs.forged(self.guard.strip_leftovers(assertions.header(), blank, headers, seen));
        Conclusion::Caller(Caller::Anonymous)
    }

    /// Removes every plain identity header, but not the assertion's.
    fn strip_unsigned(
        &self,
        assertions: &Assertions,
        headers: &mut HeaderMap,
        seen: &Seen,
    ) -> Stripped {
        self.guard.strip_all_but(assertions.header(), headers, seen)
    }
}

impl Source {
    /// Returns the headers that the source reads.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let (plain, signed) = match self {
            Self::Header(source) => (Some(source.names()), None),
            Self::Assertion(source) => (None, Some(&source.header)),
            Self::App(source) => (Some(source.headers.names()), None),
        };
        plain.into_iter().flatten().chain(signed)
    }

    /// Whether the source may name a user's organization.
    pub fn names_organization(&self) -> bool {
        match self {
            Self::Header(source) => source.organization.is_some(),
            Self::Assertion(source) => source.policy.claims.organization.is_some(),
            Self::App(source) => source.headers.organization.is_some(),
        }
    }
}

impl Refusal {
    fn ambiguous(kind: RefusalKind, header: &HeaderName) -> Self {
        Self::Ambiguous { kind, header: header.clone() }
    }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
