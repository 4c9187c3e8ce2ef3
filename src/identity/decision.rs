//! What was decided of a request and why, apart from counting it and telling of it.

use http::HeaderName;
use tracing::warn;

use super::guard::{Removed, Stripped};
use super::peer::{Believed, Trust};
use super::{Caller, Identity, Peer, Reader, Refusal};
use crate::metrics::{Label as _, SpoofKind};

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
    pub conclusion: Conclusion,
}

/// What came of it.
pub enum Conclusion {
    Caller(Caller),
    /// Refused, but the settings say to go on as anonymous.
    Ignored(Refusal),
    Refused(Refusal),
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

    /// Whether a name in a client certificate has to vouch for the front proxy.
    pub fn needs_name(&self) -> bool {
        self.anchors.needs_name()
    }

    /// Whether what `peer` says of the client's address, the scheme and the host is kept.
    pub fn believes(&self, peer: &Peer, trust: Trust) -> Believed {
        self.proxies.believe(peer, trust)
    }

    /// Counts what was decided, and tells of it now and then.
    pub(super) fn tell(&self, decision: &Decision, peer: &Peer) {
        for spoof in decision.spoofs.iter() {
            self.tell_spoof(spoof, Some(peer), Some(decision.trust));
        }
        match &decision.conclusion {
            Conclusion::Caller(_) | Conclusion::Ignored(Refusal::Invalid(_)) => {}
            Conclusion::Ignored(refusal) | Conclusion::Refused(refusal) => {
                self.tell_refusal(refusal, peer);
            }
        }
    }

    fn tell_refusal(&self, refusal: &Refusal, peer: &Peer) {
        let address = peer.address;
        match refusal {
            Refusal::Ambiguous { kind, header } => {
                self.metrics.refusals.increment(*kind);
                self.metrics.recent.ambiguous(*kind, header, Some(address));
                if let Some(count) = self.refusals.raise(*kind, 1) {
                    let reason = kind.reason();
                    warn!(%header, reason, count, peer = %address, "an ambiguous identity");
                }
            }
            Refusal::Invalid(fault) => {
                self.metrics.recent.invalid(fault.result(), address);
                if let Some(count) = self.faults.raise(fault.result(), 1) {
                    let reason = fault.reason();
                    warn!(reason, count, peer = %address, "an assertion was refused");
                }
            }
        }
    }

    pub(super) fn tell_spoof(&self, spoof: &Spoof, peer: Option<&Peer>, trust: Option<Trust>) {
        let Spoof { kind, removed: Removed { count, header } } = spoof;
        if *count == 0 {
            return;
        }
        let address = peer.map(|peer| peer.address);
        self.metrics.spoofs.add(*kind, *count);
        self.metrics.recent.spoofed(*kind, header.clone(), address);
        if let Some(count) = self.spoofs.raise(*kind, *count) {
            let peer = address.map(tracing::field::display);
            let kind = kind.as_str();
            if trust == Some(Trust::Page) {
                warn!(
                    kind,
                    count,
                    peer,
                    "headers were removed that only the front proxy may set: a browser on this \
                     machine has sent them for a page of another site; identity.trusted_hosts says \
                     which names are the app's own"
                );
                return;
            }
            warn!(
                kind,
                count,
                peer,
                "headers were removed that only the front proxy may set; \
                 identity.trusted_peers says who that is"
            );
        }
    }
}
