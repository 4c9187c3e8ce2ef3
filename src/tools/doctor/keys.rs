//! Checks the keys of assertions and of logout tokens: whether the server that publishes the keys can be reached,
//! and whether a key fits.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Check, Finding, Findings, Surroundings};
use ground::tls::Roots;
use identity::Source;
use identity::assertion::Algorithm;
use identity::keys::{Fetch as _, FetchError, HttpFetch, KeyLocation, KeySet, KeySetError};

/// Keys that are published somewhere, and what they are for.
struct Published<'a> {
    location: &'a KeyLocation,
    roots: &'a Roots,
    algorithms: &'a [Algorithm],
    /// Setting that names the place.
    setting: &'static str,
    algorithms_setting: &'static str,
    /// Effect of keys that can't be fetched.
    effect: &'static str,
}

pub(super) async fn check(around: Arc<Surroundings>) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Keys);
    let of_assertions = match &around.config.identity.source {
        // A secret needs no keys.
        Source::Assertion(source) => source.keys.as_ref().map(|location| Published {
            location,
            roots: &source.roots,
            algorithms: &source.policy.algorithms,
            setting: location.setting(),
            algorithms_setting: "identity.assertion.algorithms",
            effect: "no assertion can be checked, and no user gets a token",
        }),
        _ => None,
    };
    let oidc = around.config.logout.as_ref().and_then(|logout| logout.oidc.as_ref());
    let of_logouts = oidc.map(|(_, source)| Published {
        location: &source.keys,
        roots: &source.roots,
        algorithms: &source.algorithms,
        setting: "logout.oidc.jwks_url",
        algorithms_setting: "logout.oidc.algorithms",
        effect: "no logout token can be checked, and logouts count for nothing",
    });
    for published in of_assertions.into_iter().chain(of_logouts) {
        look_at(&published, &mut findings).await;
    }
    findings.all()
}

async fn look_at(published: &Published<'_>, findings: &mut Findings) {
    let Published { location, roots, setting, .. } = *published;
    let url = location.url();
    let fetch = match HttpFetch::new(url, roots) {
        Ok(fetch) => fetch,
        Err(error) => return findings.no_roots(&error),
    };
    let began = Instant::now();
    let fetched = fetch.fetch(url).await;
    let took = began.elapsed();
    let when = format!("fetched after {took:.1?}");
    match (location, fetched) {
        (KeyLocation::Set(_), Ok(fetched)) => {
            look_at_set(published, KeySet::from_jwks(&fetched.document), &when, findings);
        }
        (KeyLocation::Certificates(_), Ok(fetched)) => {
            look_at_set(published, KeySet::from_certificates(&fetched.document), &when, findings);
        }
        // Without a key's id, which only an assertion brings, the server has no key to send.
        (KeyLocation::Each(_), Ok(_) | Err(FetchError::NotFound)) => findings.ok(
            setting,
            format!("reached after {took:.1?}; each key is fetched when an assertion names it"),
        ),
        (_, Err(error)) => unavailable(published, error, findings),
    }
}

fn look_at_set(
    published: &Published<'_>,
    keys: Result<KeySet, KeySetError>,
    fetched: &str,
    findings: &mut Findings,
) {
    let Published { location, setting: place, .. } = *published;
    let keys = match keys {
        Ok(keys) => keys,
        Err(error) => {
            let what = match error {
                KeySetError::Malformed if matches!(location, KeyLocation::Set(_)) => {
                    "the document there is no JWK set"
                }
                KeySetError::Malformed => "the document there has no certificates by key id",
                KeySetError::TooMany => "the document there has more keys than a set may have",
                KeySetError::NoneUsable => "no key in the document there can check a signature",
            };
            let remedy = "write the URL that the issuer's .well-known/openid-configuration gives \
                          as jwks_uri";
            findings.problem(place, format!("{fetched}; {what}"), remedy);
            return;
        }
    };
    let fitting = keys.count_fitting(published.algorithms);
    let mut kinds: Vec<&str> = keys.kinds().collect();
    kinds.sort_unstable();
    kinds.dedup();
    let what = format!("{fetched}: {} keys ({})", keys.len(), kinds.join(", "));
    if fitting == 0 {
        findings.problem(
            published.algorithms_setting,
            format!("{what}, none of which is for an algorithm that is allowed"),
            "allow the algorithm that the issuer signs with",
        );
    } else {
        findings.ok(place, format!("{what}, {fitting} of them for an algorithm that is allowed"));
    }
}

fn unavailable(published: &Published<'_>, error: FetchError, findings: &mut Findings) {
    let what = match error {
        FetchError::Unreachable => "it can't be reached, or its certificate is not trusted",
        FetchError::Timeout => "it did not answer in time",
        FetchError::NotFound => "there is no such document (HTTP 404 or 403)",
        FetchError::Status => "it answered with an error",
        FetchError::Redirect => "it redirects elsewhere, which is not followed",
        FetchError::TooLarge => "the document there is too large for a set of keys",
        FetchError::Encoded | FetchError::Malformed => "the document there holds no keys",
    };
    findings.problem(
        published.setting,
        format!("{what}: {}", published.effect),
        "check the URL, and that the pod may reach it (NetworkPolicy, HTTPS_PROXY, \
         outgoing.ca_file)",
    );
}
