//! Place of a mint request's token in the store, and the subjects whose forgets concern it.

use crate::seal::{Kind, Name, SealKeys};
use token::MintRequest;
use token::announce::Subject;

/// Names of a mint request.
pub struct Place {
    /// Names of the token, one by each seal key. The token is written under the first.
    entries: Vec<Name>,
    subjects: Vec<Subject>,
}

impl Place {
    /// Returns the place of `request`, whose token is minted with this API key.
    pub fn of(request: &MintRequest, api_key: &str, keys: &SealKeys) -> Self {
        let mut bytes = Vec::with_capacity(256);
        // The length of the API key comes first, so that no other key and request yield the same bytes.
        bytes.extend_from_slice(&(api_key.len() as u64).to_le_bytes());
        bytes.extend_from_slice(api_key.as_bytes());
        request.write_canonical(&mut bytes);
        let user = Subject::User(request.user.clone());
        let organizations = request.organizations().into_iter();
        let organizations = organizations.map(|name| Subject::Organization(name.into()));
        let subjects = [Subject::Everything, user].into_iter().chain(organizations).collect();
        Self { entries: keys.names(Kind::Entry, &bytes), subjects }
    }

    /// Returns the name under which the token is written.
    pub fn name(&self) -> Name {
        self.entries[0]
    }

    /// Returns each name under which a token may stand.
    pub fn names(&self) -> &[Name] {
        &self.entries
    }

    /// Returns the subjects whose forgets concern the token.
    pub fn subjects(&self) -> &[Subject] {
        &self.subjects
    }
}

/// Keys of the store. Each begins with the prefix of this app. The part of a key in braces decides which node of a
/// cluster has the key (Redis Cluster Specification, "Hash tags").
#[derive(Clone, Debug)]
pub struct StoreKeys {
    prefix: String,
}

impl StoreKeys {
    pub fn new(prefix: String) -> Self {
        Self { prefix }
    }

    /// Returns the key of a token.
    pub fn entry(&self, name: Name) -> String {
        format!("{}:t:{{{name}}}", self.prefix)
    }

    /// Returns the key of the lease for the mint of a token.
    pub fn lease(&self, name: Name) -> String {
        format!("{}:l:{{{name}}}", self.prefix)
    }

    /// Returns the key of the mark of a forget.
    pub fn mark(&self, name: Name) -> String {
        format!("{}:f:{name}", self.prefix)
    }

    /// Returns the key of a call that was carried out.
    pub fn call(&self, name: Name) -> String {
        format!("{}:c:{name}", self.prefix)
    }

    /// Returns the key of the stream of forgets.
    pub fn forgets(&self) -> String {
        format!("{{{}}}:forgets", self.prefix)
    }

    /// Returns the key of the stream of replaced tokens.
    pub fn replaced(&self) -> String {
        format!("{{{}}}:replaced", self.prefix)
    }

    /// Returns the key of the era: a random text, which shows by its absence or change that the store was flushed.
    pub fn era(&self) -> String {
        format!("{{{}}}:era", self.prefix)
    }
}
