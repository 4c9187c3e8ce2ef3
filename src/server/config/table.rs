//! The tables of `sidecar.toml` that need more than a few lines, one file each.

pub mod admin;
mod anchors;
pub mod app;
mod assertion;
mod trial;
pub mod delivery;
pub mod identity;
pub mod listen;
pub mod logout;
pub mod outgoing;
mod preset;
pub mod resolver;
mod resource;
pub mod shared;
pub mod tracing;
pub mod velt;

use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};

use super::reader::{Inline, Section};
use ground::logging::{self, Level};
use token::audit;

/// Least length of a secret that grants access, in bytes: 16 random bytes in hexadecimal.
pub const MIN_SECRET_BYTES: usize = 32;

/// Environment variable with the key of the audit log.
const AUDIT_KEY_VARIABLE: &str = "VELT_SIDECAR_AUDIT_LOG__KEY";

/// Separator of a user's groups, and the names of the groups of admins.
struct Groups {
    separator: char,
    admins: Vec<String>,
}

/// Complains about a secret of `section` that is too short.
fn check_length(section: &Section<'_, '_>, key: &str, secret: &SecretString) {
    if secret.expose_secret().len() < MIN_SECRET_BYTES {
        section.complain_about(
            key,
            &format!("it has fewer than {MIN_SECRET_BYTES} bytes, so it could be guessed"),
            "make one with: openssl rand -hex 32",
        );
    }
}

/// Complains about an http URL of `section` that leads to another machine, unless `allow_plaintext` is true,
/// and about `allow_plaintext` beside an https URL.
fn check_plaintext(section: &Section<'_, '_>, key: &str, url: &Url, problem: &str, stand_in: &str) {
    let allowed: bool = section.value("allow_plaintext", "false");
    let is_loopback = match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_matches(['[', ']']);
            host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        None => false,
    };
    if url.scheme() == "http" && !is_loopback && !allowed {
        let remedy = format!(
            "write an https:// URL; for {stand_in} in a test cluster, allow_plaintext = true"
        );
        section.complain_about(key, problem, &remedy);
    }
    if allowed && url.scheme() != "http" {
        let problem = format!("it has no effect on an https:// {key}");
        section.complain_of_no_effect("allow_plaintext", &problem, "remove it");
    }
}

/// Reads the table `audit_log`. `source` is the word in `identity.source`. `None` if there is no key, so that
/// nothing is written.
pub fn read_audit(
    section: &Section<'_, '_>,
    source: &'static str,
    log: &logging::Settings,
) -> Option<audit::Settings> {
    let key = section.optional_secret("key", AUDIT_KEY_VARIABLE, Inline::Refused)?;
    check_length(section, "key", &key);
    if log.level < Level::INFO {
        let problem = "its lines are of the level info, and log.level leaves them out";
        section.complain_about("key", problem, "write level = \"info\" in [log], or remove it");
    }
    Some(audit::Settings { key, source })
}
