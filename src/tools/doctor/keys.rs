//! Checks the keys of assertions: whether the server that publishes the keys can be reached, and whether a
//! key fits.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Check, Finding, Findings, Surroundings};
use identity::keys::{Fetch as _, FetchError, HttpFetch, KeyLocation, KeySet, KeySetError};
use identity::{AssertionSource, Source};

pub(super) async fn check(around: Arc<Surroundings>) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Keys);
    let Source::Assertion(source) = &around.config.identity.source else { return Vec::new() };
    // A secret needs no keys.
    let Some(location) = &source.keys else { return Vec::new() };
    let url = location.url();
    let fetch = match HttpFetch::new(url, &source.roots) {
        Ok(fetch) => fetch,
        Err(error) => {
            findings.no_roots(&error);
            return findings.all();
        }
    };
    let began = Instant::now();
    let fetched = fetch.fetch(url).await;
    let took = began.elapsed();
    let when = format!("fetched after {took:.1?}");
    match (location, fetched) {
        (KeyLocation::Set(_), Ok(fetched)) => {
            let keys = KeySet::from_jwks(&fetched.document);
            look_at_set(source, location, keys, &when, &mut findings);
        }
        (KeyLocation::Certificates(_), Ok(fetched)) => {
            let keys = KeySet::from_certificates(&fetched.document);
            look_at_set(source, location, keys, &when, &mut findings);
        }
        // Without a key's id, which only an assertion brings, the server has no key to send.
        (KeyLocation::Each(_), Ok(_) | Err(FetchError::NotFound)) => findings.ok(
            "identity.assertion.key_url",
            format!("reached after {took:.1?}; each key is fetched when an assertion names it"),
        ),
        (location, Err(error)) => {
            unavailable(location.setting(), error, &mut findings);
        }
    }
    findings.all()
}

fn look_at_set(
    source: &AssertionSource,
    location: &KeyLocation,
    keys: Result<KeySet, KeySetError>,
    fetched: &str,
    findings: &mut Findings,
) {
    let place = location.setting();
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
    let fitting = keys.count_fitting(&source.policy.algorithms);
    let mut kinds: Vec<&str> = keys.kinds().collect();
    kinds.sort_unstable();
    kinds.dedup();
    let what = format!("{fetched}: {} keys ({})", keys.len(), kinds.join(", "));
    if fitting == 0 {
        findings.problem(
            "identity.assertion.algorithms",
            format!("{what}, none of which is for an algorithm that is allowed"),
            "allow the algorithm that the issuer signs with",
        );
    } else {
        findings.ok(place, format!("{what}, {fitting} of them for an algorithm that is allowed"));
    }
}

fn unavailable(place: &str, error: FetchError, findings: &mut Findings) {
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
        place,
        format!("{what}: no assertion can be checked, and no user gets a token"),
        "check the URL, and that the pod may reach it (NetworkPolicy, HTTPS_PROXY, \
         outgoing.ca_file)",
    );
}
