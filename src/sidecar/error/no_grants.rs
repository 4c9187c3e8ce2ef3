//! Rights that are not known, so that there is no token.

use std::fmt;

use ground::grants::GrantsError;

/// Reason why the rights that a token would carry are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoGrants {
    /// The source of the identity gives no grants that can be used.
    Unusable(GrantsError),
    /// The source of the identity gives groups that can't be used.
    Groups,
    /// The user's grants and the configuration's resources contradict each other.
    Contradiction,
    /// The app gives grants, and the chosen API sends none.
    Unsent,
}

/// Text for the answer to the request.
impl fmt::Display for NoGrants {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(error) => write!(
                formatter,
                "The user's grants can't be used: {error}. Have the program that names the user \
                 write Velt's list of resources into identity.grants_header or \
                 identity.assertion.grants_claim, and [] for a user without grants."
            ),
            Self::Groups => formatter.write_str(
                "The user's groups, on which resources of the token depend, can't be used: they \
                 contain bytes that are not UTF-8 text, or are not a list of strings. See \
                 identity.groups_header and identity.assertion.groups_claim.",
            ),
            Self::Contradiction => formatter.write_str(
                "The token would name a resource twice, with different roles or ends: compare the \
                 user's grants and groups with [[velt.resource]].",
            ),
            Self::Unsent => formatter.write_str(
                "The app's answer has resources, and the chosen velt.api does not send them, so the \
                 token would give more than the app says: write api = \"v2\" in [velt], or leave \
                 resources out of the answer.",
            ),
        }
    }
}
