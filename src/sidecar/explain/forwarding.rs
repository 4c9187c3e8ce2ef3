//! The step `forwarding`: whether a front's word on client, scheme and host is kept or replaced.

use http::{HeaderMap, HeaderName};

use super::Step;
use super::words::step;
use ground::peer::Peer;
use hop::proxy::headers::{claimed, said};
use identity::Believed;

/// Returns the step for the headers in which the peer speaks of client, scheme and host. `None` if there are
/// no such headers.
pub(super) fn of_forwarding(peer: &Peer, believed: Believed, headers: &HeaderMap) -> Option<Step> {
    let address = peer.address().to_canonical();
    let (verdict, names, why, setting) = match believed {
        Believed::AsEverybody => (
            "kept",
            listed(said(headers)),
            "no plain header names a user here, so the X-Forwarded-* headers of every peer are \
             kept"
                .to_owned(),
            "identity.source",
        ),
        Believed::AsTrusted => (
            "kept",
            listed(said(headers)),
            "from a trusted peer".to_owned(),
            "identity.trusted_peers",
        ),
        Believed::In(range) => (
            "kept",
            listed(said(headers)),
            format!("{address} is in {range}"),
            "identity.trusted_proxies",
        ),
        Believed::NotTrusted => (
            "replaced",
            listed(claimed(headers)),
            format!("{address} is not trusted; identity.trusted_proxies can name others"),
            "identity.trusted_peers",
        ),
        Believed::InNone => (
            "replaced",
            listed(claimed(headers)),
            format!("{address} is in none of the ranges"),
            "identity.trusted_proxies",
        ),
    };
    let names = names?;
    let settings = [setting, "app.forwarded_for"];
    let settings = if believed.is_kept() { &settings[..] } else { &settings[..1] };
    Some(step("forwarding", verdict, format!("{names}: {why}"), settings))
}

fn listed<'a>(names: impl Iterator<Item = &'a HeaderName>) -> Option<String> {
    let names: Vec<&str> = names.map(HeaderName::as_str).collect();
    (!names.is_empty()).then(|| names.join(", "))
}
