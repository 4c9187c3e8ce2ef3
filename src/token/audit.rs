//! The audit log: one line of the log for each token that is minted, with the rights in it and who gave each.
//!
//! Users stand in it as keyed hashes: a holder of the key can find the lines of one user, and a line alone
//! tells no user.

use std::sync::Arc;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tracing::info;

use super::rights::{End, GrantedBy, Right};
use super::{Demand, Mint, MintFuture, MintRequest};

/// Bytes of a user's hash that a line shows, in hexadecimal: enough to tell a billion users apart.
const SHOWN: usize = 16;

/// Settings of the audit log.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Key of the users' hashes.
    pub key: SecretString,
    /// Source of identities, by the word in `identity.source`.
    pub source: &'static str,
}

/// A [`Mint`] that writes a line for each token.
pub struct Audited<M> {
    mint: M,
    key: Key,
    source: &'static str,
}

impl<M: Mint> Audited<M> {
    /// Makes a mint that writes lines of what `mint` mints.
    pub fn new(mint: M, settings: &Settings) -> Self {
        let key = Key::new(HMAC_SHA256, settings.key.expose_secret().as_bytes());
        Self { mint, key, source: settings.source }
    }

    fn write(&self, request: &MintRequest) {
        let user = pseudonym(&self.key, request.user.as_str());
        let details = request.details();
        let resources: Value = request.rights().iter().map(written).collect();
        let resources = resources.to_string();
        info!(
            user,
            organization = request.organization().unwrap_or_default(),
            admin = details.is_admin.unwrap_or_default(),
            source = self.source,
            resources,
            "audit: a token was minted"
        );
    }
}

impl<M: Mint> Mint for Audited<M> {
    fn mint<'a>(&'a self, request: &'a MintRequest, demand: &'a Arc<Demand>) -> MintFuture<'a> {
        Box::pin(async move {
            let minted = self.mint.mint(request, demand).await?;
            self.write(request);
            Ok(minted)
        })
    }
}

/// Returns the keyed hash by which a user stands in the audit log: the first 16 bytes of HMAC-SHA-256
/// (RFC 2104) in hexadecimal.
pub fn pseudonym(key: &Key, user: &str) -> String {
    let hash = sign(key, user.as_bytes());
    hash.as_ref().iter().take(SHOWN).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Writes a right in Velt's schema, with the source that gave it.
fn written(right: &Right<'_>) -> Value {
    let mut json = json!({
        "type": right.kind.as_str(),
        "id": right.id,
        "by": match right.by {
            GrantedBy::Organization => "organization",
            GrantedBy::Configuration => "configuration",
            GrantedBy::User => "user",
        },
    });
    if let Some(organization) = right.organization {
        json["organizationId"] = organization.into();
    }
    if let Some(role) = right.role {
        json["accessRole"] = role.as_str().into();
    }
    match right.end {
        Some(End::At(seconds)) => json["expiresAt"] = seconds.into(),
        Some(End::In(life)) => json["expiresIn"] = life.as_secs().into(),
        None => {}
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudonym_depends_on_key_and_user() {
        let key = |text: &str| Key::new(HMAC_SHA256, text.as_bytes());
        let ada = pseudonym(&key("a key"), "ada");
        // printf ada | openssl dgst -sha256 -hmac 'a key'
        assert_eq!(ada, "8e96f535d36ac9bc788fe4d3dcb65f2e");
        assert_ne!(ada, pseudonym(&key("a key"), "eve"));
        assert_ne!(ada, pseudonym(&key("another"), "ada"));
    }
}
