//! The app's own word: it has a login of its own, and names the user in a header of its responses.

use http::HeaderMap;
use http::uri::PathAndQuery;

use super::guard::Guard;
use super::{Caller, HeaderSource, Refusal};

/// An app that says who is asking.
#[derive(Clone, Debug)]
pub struct AppSource {
    /// In its responses.
    pub headers: HeaderSource,
    /// Where it says so for a browser's cookies.
    pub path: PathAndQuery,
}

impl AppSource {
    /// Takes what the app says out of its response: it is meant for nobody else.
    pub(super) fn take(&self, guard: &Guard, headers: &mut HeaderMap) -> Result<Caller, Refusal> {
        let said = self.headers.read(headers);
        let seen = guard.look(headers);
        guard.strip(headers, &seen);
        said.map(|caller| match caller {
            Caller::Anonymous => Caller::Unnamed,
            named => named,
        })
    }
}
