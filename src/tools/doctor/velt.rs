//! Checks whether Velt can be reached from here, through the proxy settings in force, and whether Velt's
//! clock and this machine's agree. Sends no credentials, because any answer will do.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::DATE;
use http::{HeaderMap, StatusCode};
use reqwest::Url;
use tokio::time::Instant;

use super::certificate::days;
use super::route::{Route, Way, route_to};
use super::{Check, Finding, Findings, Surroundings};
use ground::logging::Chain;
use ground::outgoing;

/// Time left at which a certificate should have been renewed.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// Difference up to which two clocks agree: `Date` has whole seconds.
const CLOCK_DRIFTS: Duration = Duration::from_secs(5);

/// Difference from which a clock is wrong: more than any leeway for the times in a token.
const CLOCK_WRONG: Duration = Duration::from_secs(60);

pub(super) async fn check(around: Arc<Surroundings>) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Velt);
    let settings = &around.config.velt;
    let route = route_to(&settings.endpoint, &around);
    let place = format!("velt.endpoint {}", authority(&settings.endpoint));
    let client = outgoing::client(&settings.endpoint, &settings.roots, settings.connect_timeout);
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            findings.no_roots(&error);
            return findings.all();
        }
    };
    let way = match Way::go(settings, &route).await {
        Ok(way) => way,
        Err(obstacle) => {
            obstacle.report(place, &route, &mut findings);
            return findings.all();
        }
    };
    let (began, wall) = (Instant::now(), SystemTime::now());
    match client.get(settings.endpoint.clone()).send().await {
        Ok(answer) => {
            let took = began.elapsed();
            answered(answer.status(), &way, place, &route, took, &mut findings);
            let mut findings = findings.all();
            findings.extend(look_at_clock(answer.headers(), wall, took));
            findings
        }
        Err(error) => {
            // Leave out the URL, which is the operator's own and could hold anything.
            let error = error.without_url();
            findings.problem(
                place,
                format!("no answer {}: {}", route.said, Chain(&error)),
                "wait for Velt to come back, or ask the operator of the proxy or firewall",
            );
            findings.all()
        }
    }
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    format!("{host}:{}", url.port_or_known_default().unwrap_or_default())
}

fn answered(
    status: StatusCode,
    way: &Way,
    place: String,
    route: &Route,
    took: Duration,
    findings: &mut Findings,
) {
    let tls = way.tls_time.map(|time| format!("TLS after {time:.1?} more, "));
    let what = format!(
        "reached {}: TCP after {:.1?}, {}an answer (HTTP {}) after {took:.1?}",
        route.said,
        way.tcp_time,
        tls.unwrap_or_default(),
        status.as_u16()
    );
    if status.is_redirection() {
        let remedy = "write the URL that it leads to: redirects are not followed with credentials";
        findings.problem(place.clone(), format!("{what}, which is a redirect"), remedy);
    } else {
        findings.ok(place.clone(), what);
    }
    let Some(facts) = &way.certificate else { return };
    let left = facts.valid_to.duration_since(SystemTime::now()).unwrap_or_default();
    let what =
        format!("its certificate is by {:?} and valid for {} more", facts.issuer, days(left));
    if left < SOON {
        let remedy = "if it is the certificate of a proxy that decrypts TLS, tell the operator of \
                      the proxy; Velt renews its own";
        findings.note(place, what, remedy);
    } else {
        findings.ok(place, what);
    }
}

/// Compares the clocks by the answer's `Date` (RFC 9110 section 6.6.1), which Velt wrote about half-way
/// between request and answer.
fn look_at_clock(headers: &HeaderMap, sent: SystemTime, took: Duration) -> Vec<Finding> {
    let mut findings = Findings::of(Check::Clock);
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        findings.note(
            "velt.endpoint",
            "it sends no Date, so the clocks can't be compared",
            "make sure that the node keeps its time by NTP",
        );
        return findings.all();
    };
    let ours = sent + took / 2;
    // `Date` is a whole second, of which on average half had passed.
    let theirs = theirs + Duration::from_millis(500);
    let (apart, which) = match ours.duration_since(theirs) {
        Ok(apart) => (apart, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let what = format!("this machine's clock is {} s {which} Velt's", apart.as_secs());
    let remedy = "set the node's clock by NTP: the times in tokens and assertions are judged by it";
    if apart > CLOCK_WRONG {
        findings.problem("this node", what, remedy);
    } else if apart > CLOCK_DRIFTS {
        findings.warning("this node", what, remedy);
    } else {
        findings.ok("this node", "this machine's clock and Velt's agree to within 5 s");
    }
    findings.all()
}
