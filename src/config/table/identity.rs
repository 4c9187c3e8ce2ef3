//! The table `identity`: who is asking, and whom to believe.

use http::HeaderName;
use ipnet::IpNet;

use super::super::reader::Section;
use crate::identity::{HeaderSource, Settings};

/// Headers that say something else than who is asking, and would break requests if they were
/// guarded as identity.
const NOT_IDENTITY: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
];

/// Reads the table `identity`.
pub fn read(section: &Section<'_, '_>, token_headers: Vec<HeaderName>) -> Settings {
    let source = HeaderSource {
        user: section.value("user_header", "X-Forwarded-User"),
        email: section.optional("email_header"),
        name: section.optional("name_header"),
        organization: section.optional("organization_header"),
        groups: section.optional("groups_header"),
        admin_groups: section.list("admin_groups", &[]),
    };
    if source.groups.is_some() == source.admin_groups.is_empty() {
        let (key, other) = match source.groups {
            Some(_) => ("groups_header", "admin_groups"),
            None => ("admin_groups", "groups_header"),
        };
        if section.has(key) {
            let remedy = format!("set identity.{other} as well, or remove {key}");
            section.complain_about(key, "it has no effect alone", &remedy);
        }
    }
    let named = [&source.email, &source.name, &source.organization, &source.groups];
    let named = named.into_iter().flatten().chain([&source.user]).chain(&token_headers);
    // Names that differ in - and _ only would be each other's aliases, which are refused.
    let mut taken: Vec<String> = named.map(|name| name.as_str().replace('_', "-")).collect();
    taken.sort_unstable();
    if taken.windows(2).any(|pair| pair[0] == pair[1]) {
        section.complain_about(
            "user_header",
            "two settings name the same header",
            "name a header of its own for each of user, email, name, organization, groups and \
             delivery.header",
        );
    }
    let reserved = taken.iter().find(|name| NOT_IDENTITY.contains(&name.as_str()));
    if let Some(name) = reserved {
        section.complain_about(
            "user_header",
            &format!("{name} has a meaning of its own in HTTP"),
            "name the header that the login proxy sets, such as \"X-Forwarded-User\"",
        );
    }
    let settings = Settings {
        source,
        trusted_peers: section.list("trusted_peers", &["127.0.0.0/8", "::1/128"]),
        ambiguous: section.value("on_ambiguous", "refuse"),
        forward: section.value("forward_headers", "keep"),
        token_headers,
    };
    let reckless: bool = section.value("dangerously_trust_every_peer", "false");
    check_trust(section, &settings.trusted_peers, reckless);
    settings
}

/// Refuses to believe nobody, and to believe everybody without being told so in plain words.
fn check_trust(section: &Section<'_, '_>, peers: &[IpNet], reckless: bool) {
    if peers.is_empty() {
        section.complain_about(
            "trusted_peers",
            "nobody is trusted, so there would never be an identity",
            "name the login proxy's addresses: trusted_peers = [\"127.0.0.0/8\", \"::1/128\"] if it \
             runs in the same pod",
        );
    }
    // No private network is larger than 10.0.0.0/8 and fc00::/7.
    let everyone = peers.iter().any(|range| match range {
        IpNet::V4(range) => range.prefix_len() < 8,
        IpNet::V6(range) => range.prefix_len() < 7,
    });
    if everyone && !reckless {
        section.complain_about(
            "trusted_peers",
            "whoever reaches this port could name any user and get his token",
            "name the login proxy's addresses, such as [\"10.42.0.0/16\"]; if a network policy \
             really lets nobody else in, write dangerously_trust_every_peer = true",
        );
    }
    if reckless && !everyone {
        section.complain_about(
            "dangerously_trust_every_peer",
            "it has no effect while trusted_peers names ranges",
            "remove it",
        );
    }
}
