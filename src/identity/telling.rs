//! Counts the decisions about identity, and writes log lines: at most one a minute for each kind.

use std::fmt::Display;
use std::net::IpAddr;

use http::header::COOKIE;
use tracing::field::display;
use tracing::{error, info, warn};

use super::guard::Removed;
use super::user::{Attribute, Flaws};
use super::{Conclusion, Decision, Identity, InvalidAssertion, Reads, Refusal, Spoof, Trust};
use ground::metrics::{AppAnswerResult, Flaw, Label as _, RefusalKind};
use ground::peer::Peer;

impl Identity {
    /// Counts a decision, and logs it if a line of its kind is due.
    pub(super) fn tell(&self, decision: &Decision, peer: &Peer) {
        for spoof in decision.spoofs.iter() {
            self.tell_spoof(spoof, Some(peer), Some(decision.trust));
        }
        self.tell_flaws(decision.flaws, Some(peer.address()));
        match &decision.conclusion {
            // A session that has expired is the everyday end of a session, and any client can send nonsense. The
            // rest is an attack, or a configuration that does not fit the login.
            Conclusion::Ignored(Refusal::Invalid(
                InvalidAssertion::Expired | InvalidAssertion::Malformed,
            ))
            | Conclusion::Caller(_) => {}
            Conclusion::Ignored(refusal @ Refusal::Invalid(_)) => {
                self.log_refusal(refusal, Some(peer.address()));
            }
            Conclusion::Ignored(refusal) | Conclusion::Refused(refusal) => {
                self.tell_refusal(refusal, Some(peer.address()));
            }
        }
    }

    /// Counts a refusal, and logs it now and then. `peer` is `None` if the app's response was refused.
    pub(super) fn tell_refusal(&self, refusal: &Refusal, peer: Option<IpAddr>) {
        self.count_refusal(refusal, peer);
        self.log_refusal(refusal, peer);
    }

    fn count_refusal(&self, refusal: &Refusal, peer: Option<IpAddr>) {
        match refusal {
            Refusal::Ambiguous { kind, header } => {
                self.metrics.refusals.increment(*kind);
                self.metrics.recent.ambiguous(*kind, header, peer);
            }
            Refusal::Invalid(invalid) => {
                // `assertion` counts the check in the metrics.
                if let Some(peer) = peer {
                    self.metrics.recent.invalid(invalid.result(), peer);
                }
            }
        }
    }

    fn log_refusal(&self, refusal: &Refusal, peer: Option<IpAddr>) {
        let peer = peer.map(display);
        match refusal {
            Refusal::Ambiguous { kind, header } => {
                if let Some(count) = self.refusals.raise(*kind, 1) {
                    let reason = kind.reason();
                    if peer.is_some() {
                        warn!(%header, reason, count, peer, "an ambiguous identity");
                        return;
                    }
                    warn!(
                        %header,
                        reason,
                        count,
                        "the user that the app's response names can't be used, so there is no \
                         token: have the app send the header once, with one user's id"
                    );
                }
            }
            Refusal::Invalid(invalid) => {
                if let Some(count) = self.invalid_assertions.raise(invalid.result(), 1) {
                    let reason = invalid.reason();
                    warn!(reason, count, peer, "an assertion was refused");
                }
            }
        }
    }

    pub(super) fn tell_spoof(&self, spoof: &Spoof, peer: Option<&Peer>, trust: Option<Trust>) {
        let Spoof { kind, removed: Removed { count, header } } = spoof;
        if *count == 0 {
            return;
        }
        let address = peer.map(Peer::address);
        self.metrics.spoofs.add(*kind, *count);
        self.metrics.recent.spoofed(*kind, header.clone(), address);
        if let Some(count) = self.spoofs.raise(*kind, *count) {
            let (kind, peer) = (kind.as_str(), address.map(display));
            let advice = self.advice_on_spoof(trust);
            warn!(kind, count, peer, "headers were removed that only {advice}");
        }
    }

    /// Says in words who may set the headers that were removed, and which setting decides about it.
    fn advice_on_spoof(&self, trust: Option<Trust>) -> &'static str {
        match (self.reads(), trust) {
            (_, Some(Trust::Page)) => {
                "the login proxy may set: a browser on this machine has sent them for a page of \
                 another site; identity.trusted_hosts says which names are the app's own"
            }
            (_, Some(Trust::Itself)) => {
                "the login proxy may set: the peer has this sidecar's own address, from which the \
                 proxy of a service mesh hands every caller on, so identity.trusted_peers can't say \
                 who the login proxy is; let it show a secret \
                 (identity.secret_header), or, if it runs on this machine, name its address alone"
            }
            (Reads::App(_), _) => {
                "the app may set, in its responses: with identity.source = \"app\" no request names \
                 the user"
            }
            (_, Some(Trust::NoSecret(_))) => {
                "the login proxy may set, and this peer has not shown its secret: have the \
                 login proxy send VELT_SIDECAR_IDENTITY__SECRET in the header identity.secret_header"
            }
            _ => {
                "the login proxy may set, and only beside the user whom it names; \
                 identity.trusted_peers says who that is"
            }
        }
    }

    /// Counts the end of a question to the app about a user, and logs the `problem` now and then.
    pub fn tell_answer(&self, result: AppAnswerResult, problem: Option<&dyn Display>) {
        self.metrics.answers.increment(result);
        let Some(problem) = problem else { return };
        let Some(count) = self.answers.raise(result, 1) else { return };
        if result == AppAnswerResult::OtherUser {
            error!(
                count,
                "the app answered a question about one user with the details of another user; the \
                 answer was dropped and there is no token: have the app answer for the user in \
                 X-Velt-User, and for no other user that its session may name"
            );
        } else {
            warn!(%problem, count, "the app gave no details of a user, so there is no token");
        }
    }

    /// Counts and logs the parts of a user's description that could not be used.
    pub(super) fn tell_flaws(&self, flaws: Flaws, peer: Option<IpAddr>) {
        for (attribute, flaw) in flaws.iter() {
            match attribute {
                Attribute::User => self.tell_placeholder(peer),
                Attribute::Grants => self.tell_no_grants(flaw, peer),
                _ => self.tell_dropped(attribute, flaw, peer),
            }
        }
    }

    fn tell_placeholder(&self, peer: Option<IpAddr>) {
        let kind = RefusalKind::Placeholder;
        let header = match self.reads() {
            Reads::Header(header) | Reads::App(header) => header,
            // Placeholders are looked for in headers only.
            Reads::Assertion(places) => places.header().unwrap_or(&COOKIE),
        };
        self.metrics.refusals.increment(kind);
        self.metrics.recent.ambiguous(kind, header, peer);
        if let Some(count) = self.refusals.raise(kind, 1) {
            let (reason, peer) = (kind.reason(), peer.map(display));
            warn!(
                %header,
                reason,
                count,
                peer,
                "a placeholder stands in the place of the user, so the request is anonymous: correct \
                 the program that sets it, or take it out of identity.placeholders"
            );
        }
    }

    fn tell_no_grants(&self, flaw: Flaw, peer: Option<IpAddr>) {
        self.metrics.attributes_dropped.increment(flaw);
        if let Some(count) = self.flaws.raise(Flaw::NoGrants, 1) {
            let (reason, peer) = (flaw.reason(), peer.map(display));
            warn!(
                reason,
                count,
                peer,
                "the grants of a user can't be used, so the user has no token: have the program that                  sets identity.grants_header or identity.assertion.grants_claim write Velt's list of                  resources, and [] for a user without grants"
            );
        }
    }

    fn tell_dropped(&self, attribute: Attribute, flaw: Flaw, peer: Option<IpAddr>) {
        self.metrics.attributes_dropped.increment(flaw);
        let Some(count) = self.flaws.raise(flaw, 1) else { return };
        let (attribute, reason, peer) = (attribute.as_str(), flaw.reason(), peer.map(display));
        // Log for information only: users without an email are normal.
        if flaw == Flaw::Empty {
            info!(attribute, reason, count, peer, "an attribute of a user was left out");
        } else {
            warn!(
                attribute,
                reason,
                count,
                peer,
                "an attribute of a user was left out; the request went on without it"
            );
        }
    }
}
