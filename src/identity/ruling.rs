//! Rules on the caller of a request. A ruling changes nothing: it says which headers the request has to lose.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::COOKIE;

use super::assertion::{Assertions, Presentation, Presented, Verdict};
use super::guard::{Removal, Seen};
use super::user::{Flaws, Said, SignedIn};
use super::{
    Asking, Caller, Conclusion, ForwardIdentity, GroupsLines, HeaderSource, Identity, OnAmbiguous,
    Reader, Refusal,
};
use ground::metrics::RefusalKind;

/// Conclusion on the caller of a request, and the identity headers that the app may not see.
pub(super) struct Ruling<'a> {
    pub(super) conclusion: Conclusion,
    /// Parts of the user's description that were left out.
    pub(super) flaws: Flaws,
    /// Headers of a sender who may not set them. Their removal counts as a spoof attempt.
    pub(super) forged: Removal<'a>,
    /// Headers that the settings, or the conclusion, keep from the app. Removed after `forged`.
    pub(super) hidden: Removal<'a>,
    /// Whether a cookie has the assertion that decided. Browsers send cookies along with the requests of other
    /// sites' pages.
    pub(super) by_cookie: bool,
    /// Times at which the user has signed in, if an assertion tells them.
    pub(super) signed_in: SignedIn,
}

impl<'a> Ruling<'a> {
    fn new(conclusion: Conclusion, flaws: Flaws, forged: Removal<'a>) -> Self {
        let (hidden, signed_in) = (Removal::Nothing, SignedIn::default());
        Self { conclusion, flaws, forged, hidden, by_cookie: false, signed_in }
    }

    fn caller(caller: Caller, flaws: Flaws, forged: Removal<'a>) -> Self {
        Self::new(Conclusion::Caller(caller), flaws, forged)
    }

    fn hiding(self, hidden: Removal<'a>) -> Self {
        Self { hidden, ..self }
    }
}

impl Identity {
    /// Rules on the caller. `headers` must be without the sidecar's own headers. Only the check of an
    /// assertion has effects: the check counts, and may fetch keys.
    pub(super) async fn rule(
        &self,
        asking: Asking,
        trusted: bool,
        headers: &HeaderMap,
        seen: &Seen,
    ) -> Ruling<'_> {
        let ruling = match &self.reader {
            Reader::Header(source) => self.rule_by_headers(source, trusted, headers, seen),
            // Forged even from the login proxy, which does not speak for the app.
            Reader::App(_) => Ruling::caller(Caller::Unnamed, Flaws::default(), Removal::All),
            Reader::Assertion(assertions) => {
                let mut by_cookie = false;
                let verdict = match self.presented(assertions, trusted, headers, seen) {
                    Ok(Presented::Assertions(first, further)) => {
                        by_cookie = first.by_cookie;
                        let verdict = verify_assertion(asking, assertions, &first).await;
                        if further.is_empty() {
                            Ok(verdict)
                        } else {
                            // Boxed, since it is rare and would make every request's future larger.
                            let first = (verdict, first.by_cookie);
                            let agreed = agreed(asking, assertions, first, &further);
                            Box::pin(agreed).await.map(|(verdict, is_cookies)| {
                                by_cookie = is_cookies;
                                verdict
                            })
                        }
                    }
                    Ok(Presented::Nothing(flaws)) => Ok(Verdict::Absent(flaws)),
                    Err(refusal) => Err(refusal),
                };
                let ruling = self.rule_by_verdict(assertions, verdict, trusted, headers);
                Ruling { by_cookie, ..ruling }
            }
        };
        let is_refused = matches!(ruling.conclusion, Conclusion::Refused(_));
        if self.forward == ForwardIdentity::Strip && !is_refused {
            return ruling.hiding(Removal::All);
        }
        ruling
    }

    /// Rules by plain headers, which count only from the login proxy.
    fn rule_by_headers<'a>(
        &self,
        source: &'a HeaderSource,
        trusted: bool,
        headers: &HeaderMap,
        seen: &Seen,
    ) -> Ruling<'a> {
        if !trusted {
            return Ruling::caller(Caller::Anonymous, Flaws::default(), Removal::All);
        }
        match self.read(source, headers, seen) {
            Ok(Said { user: Some(user), flaws, .. }) => {
                Ruling::caller(Caller::Known(user), flaws, Removal::Nothing)
            }
            // The front names no user, so the user's attributes come from the client of the front.
            Ok(Said { user: None, flaws, .. }) => {
                let placeholders = &source.placeholders;
                let leftovers = Removal::Leftovers { kept: Some(&source.user), placeholders };
                Ruling::caller(Caller::Anonymous, flaws, leftovers)
            }
            Err(refusal) => self.rule_ambiguous(refusal, Removal::Nothing),
        }
    }

    /// Reads plain headers of the login proxy.
    fn read(
        &self,
        source: &HeaderSource,
        headers: &HeaderMap,
        seen: &Seen,
    ) -> Result<Said, Refusal> {
        self.guard.unambiguous(Removal::Nothing, headers, seen)?;
        let said = source.read(headers)?;
        // `source` has looked at the lines of the headers that it reads, but not at other guarded headers.
        if said.user.is_some() && source.groups_lines == GroupsLines::One {
            self.guard.unrepeated(Removal::Nothing, headers)?;
        }
        Ok(said)
    }

    /// Finds the assertion of a request. Headers that are forged anyway make no request ambiguous.
    fn presented<'h>(
        &self,
        assertions: &'h Assertions,
        trusted: bool,
        headers: &'h HeaderMap,
        seen: &Seen,
    ) -> Result<Presented<'h>, Refusal> {
        self.guard.unambiguous(beside_user(assertions, trusted), headers, seen)?;
        assertions.find(headers)
    }

    /// Rules by the verdict on the request's assertion, or by the ambiguity for which there is no verdict.
    fn rule_by_verdict<'a>(
        &self,
        assertions: &'a Assertions,
        verdict: Result<Verdict, Refusal>,
        trusted: bool,
        headers: &HeaderMap,
    ) -> Ruling<'a> {
        let (none, beside_user) = (Flaws::default(), beside_user(assertions, trusted));
        let beside_no_user = if trusted {
            let (kept, placeholders) = (assertions.places().header(), assertions.placeholders());
            Removal::Leftovers { kept, placeholders }
        } else {
            beside_user
        };
        match verdict {
            Ok(Verdict::Valid(Said { user: Some(user), flaws, signed_in })) => {
                match self.guard.unrepeated(beside_user, headers) {
                    Ok(()) => {
                        let ruling = Ruling::caller(Caller::Known(user), flaws, beside_user);
                        Ruling { signed_in, ..ruling }
                    }
                    Err(refusal) => self.rule_ambiguous(refusal, beside_user),
                }
            }
            Ok(Verdict::Valid(Said { user: None, flaws, .. }) | Verdict::Absent(flaws)) => {
                Ruling::caller(Caller::Anonymous, flaws, beside_no_user)
            }
            Ok(Verdict::OtherScheme) => Ruling::caller(Caller::Anonymous, none, beside_no_user),
            Ok(Verdict::Unavailable) => {
                let ruling = Ruling::caller(Caller::Unverified, none, beside_user);
                if trusted { ruling } else { ruling.hiding(assertions.removal()) }
            }
            Ok(Verdict::Invalid(invalid)) if assertions.refuses() => {
                Ruling::new(Conclusion::Refused(Refusal::Invalid(invalid)), none, beside_user)
            }
            Ok(Verdict::Invalid(invalid)) => {
                let ignored = Conclusion::Ignored(Refusal::Invalid(invalid));
                Ruling::new(ignored, none, assertions.plain_headers()).hiding(assertions.removal())
            }
            Err(refusal) => self.rule_ambiguous(refusal, beside_user),
        }
    }

    /// Rules on an ambiguous request as `identity.on_ambiguous` says.
    fn rule_ambiguous<'a>(&self, refusal: Refusal, forged: Removal<'a>) -> Ruling<'a> {
        match self.ambiguous {
            OnAmbiguous::Refuse => {
                Ruling::new(Conclusion::Refused(refusal), Flaws::default(), forged)
            }
            OnAmbiguous::Drop => {
                let ignored = Conclusion::Ignored(refusal);
                Ruling::new(ignored, Flaws::default(), forged).hiding(Removal::All)
            }
        }
    }
}

/// Returns the plain headers that count as forged beside a user whom an assertion names. The login proxy may
/// add plain headers to the assertion, another peer may not.
fn beside_user(assertions: &Assertions, trusted: bool) -> Removal<'_> {
    if trusted { Removal::Nothing } else { assertions.plain_headers() }
}

/// Verifies an assertion: by memory, by its signature, or without effects for an explanation.
async fn verify_assertion(
    asking: Asking,
    assertions: &Assertions,
    assertion: &Presentation<'_>,
) -> Verdict {
    let now = unix_now();
    if asking == Asking::ToExplain {
        return assertions.examine(assertion, now);
    }
    if let Some(verdict) = assertions.recall(assertion, now) {
        return verdict;
    }
    // Boxed, since it is rare and would make every request's future larger.
    Box::pin(assertions.verify(assertion, now)).await
}

/// Returns the first verdict, and whether it is a cookie's, unless a further assertion that is valid names another
/// user: the app might read that one. A further assertion that is not valid does not count, such as an old cookie
/// beside a new header. Credentials of the app's own are no assertion, so the next one is the first.
async fn agreed(
    asking: Asking,
    assertions: &Assertions,
    mut first: (Verdict, bool),
    further: &[Presentation<'_>],
) -> Result<(Verdict, bool), Refusal> {
    for assertion in further {
        let user = match &first.0 {
            Verdict::OtherScheme => None,
            Verdict::Valid(Said { user: Some(user), .. }) => Some(user),
            _ => break,
        };
        let verdict = verify_assertion(asking, assertions, assertion).await;
        match (user, verdict) {
            (None, verdict) => first = (verdict, assertion.by_cookie),
            (Some(user), Verdict::Valid(Said { user: Some(other), .. })) if other.id != user.id => {
                let header = assertions.places().header().filter(|_| !assertion.by_cookie);
                let header = header.unwrap_or(&COOKIE);
                return Err(Refusal::ambiguous(RefusalKind::Disagreement, header));
            }
            _ => {}
        }
    }
    Ok(first)
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
