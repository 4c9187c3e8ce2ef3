//! Checks the listener's certificate, as a client will see it, and the authorities that sign clients'
//! certificates.

use std::time::{Duration, SystemTime};

use super::{Check, Finding, Findings, Surroundings};
use ground::tls::{Anchor, ChainFacts, FileError, Order, ServerSettings, ServerTls};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Time left at which a certificate should have been renewed: certificates of 90 days are renewed after 60.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Time left that hardly suffices to notice a failing renewal.
const NOW: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) fn check(around: &Surroundings) -> Vec<Finding> {
    let Some(settings) = &around.config.tls else { return Vec::new() };
    let mut findings = Findings::of(Check::Certificate);
    // The sidecar's start and `check` load the certificate in the same way.
    let loaded = ServerTls::load(settings.clone());
    match loaded.and_then(|server| Ok((server, ChainFacts::read(settings)?))) {
        Ok((server, facts)) => {
            look_at_chain(&facts, settings, &mut findings);
            look_at_time(&facts, settings, &mut findings);
            if let Some(valid_to) = server.client_ca_valid_to() {
                look_at_authority(valid_to, settings, &mut findings);
            }
        }
        Err(error) => unusable(&error, &mut findings),
    }
    findings.all()
}

fn unusable(error: &FileError, findings: &mut Findings) {
    findings.fatal(
        "[listen.tls]",
        format!("the sidecar will not start: {error}"),
        "mount a Secret of type kubernetes.io/tls with a certificate and its own key",
    );
}

fn look_at_chain(facts: &ChainFacts, settings: &ServerSettings, findings: &mut Findings) {
    let place = || format!("listen.tls.certificate_file {}", settings.certificate.display());
    let ChainFacts { leaf, length, order, .. } = facts;
    if leaf.names.is_empty() {
        findings.problem(
            place(),
            "the certificate has no names (subjectAltName), so no client accepts it",
            "have one issued for the host name that the front calls the sidecar by",
        );
    }
    match order {
        Order::Right => {}
        Order::Wrong => findings.warning(
            place(),
            format!("the {length} certificates in it are not in order, which some clients refuse"),
            "write the sidecar's own first, then each one's issuer",
        ),
        Order::Unrelated => findings.warning(
            place(),
            format!("of the {length} certificates in it, one signs none of the others"),
            "keep the sidecar's own certificate and the intermediate certificates up to its root, \
             and nothing else",
        ),
    }
    look_at_anchor(facts, place(), findings);
}

fn look_at_anchor(facts: &ChainFacts, place: String, findings: &mut Findings) {
    let (length, names) = (facts.length, facts.leaf.names.join(", "));
    match &facts.anchor {
        Anchor::System => findings.ok(
            place,
            format!("{length} in the chain, for {names}; it leads to a root of this system"),
        ),
        Anchor::Own => findings.ok(
            place,
            format!("{length} in the chain, for {names}; it leads to the root at its end"),
        ),
        Anchor::SelfSigned => findings.note(
            place,
            format!("for {names}; it has signed itself"),
            "have the front, and any other client, trust this very certificate",
        ),
        Anchor::Unknown { issuer } => findings.note(
            place,
            format!(
                "{length} in the chain, for {names}; it ends at {issuer:?}, which is not among \
                 this system's roots"
            ),
            "if that is a private root, clients have to know it; if it is an intermediate \
             certificate, add it to the file, or clients can't follow the chain",
        ),
        Anchor::Broken { reason } => findings.problem(
            place,
            format!("{length} in the chain, for {names}; no client can follow it: {reason}"),
            "have the certificate issued anew, as one for servers",
        ),
    }
}

fn look_at_time(facts: &ChainFacts, settings: &ServerSettings, findings: &mut Findings) {
    let place = format!("listen.tls.certificate_file {}", settings.certificate.display());
    let now = SystemTime::now();
    if now < facts.valid_from {
        let from = httpdate::fmt_http_date(facts.valid_from);
        let remedy = "wait until then, or set this machine's clock right";
        findings.problem(place, format!("it is not valid before {from}"), remedy);
        return;
    }
    let to = httpdate::fmt_http_date(facts.valid_to);
    let renew = "renew it now, and find out why it was not renewed automatically";
    match facts.valid_to.duration_since(now) {
        Err(_) => findings.problem(place, format!("it has expired, on {to}"), renew),
        Ok(left) if left < NOW => {
            findings.problem(place, format!("it expires in {}, on {to}", days(left)), renew);
        }
        Ok(left) if left < SOON => {
            findings.warning(place, format!("it expires in {}, on {to}", days(left)), renew);
        }
        Ok(left) => findings.ok(place, format!("valid for {} more, until {to}", days(left))),
    }
}

fn look_at_authority(valid_to: SystemTime, settings: &ServerSettings, findings: &mut Findings) {
    let path = settings.client_ca.as_deref().unwrap_or(settings.certificate.as_path());
    let place = format!("listen.tls.client_ca_file {}", path.display());
    let to = httpdate::fmt_http_date(valid_to);
    let renew = "add the next one to the file, have the front's certificate signed by it, then \
                 remove the old one";
    match valid_to.duration_since(SystemTime::now()) {
        Err(_) => findings.warning(
            place,
            format!(
                "one of them has expired, on {to}; certificates that it has signed are still \
                 accepted"
            ),
            renew,
        ),
        Ok(left) if left < SOON => {
            findings.warning(
                place,
                format!("one of them expires in {}, on {to}", days(left)),
                renew,
            );
        }
        Ok(left) => findings.ok(place, format!("valid for {} more, until {to}", days(left))),
    }
}

/// Writes a time in whole days, rounded down.
pub(super) fn days(time: Duration) -> String {
    match time.as_secs() / DAY.as_secs() {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}
