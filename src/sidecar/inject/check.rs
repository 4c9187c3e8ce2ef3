//! Answers to a gateway that asks about a request of one of its clients: the token, or the reason why there is none, in
//! headers that the gateway copies.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

use super::{Injection, TokenOrStatus, own_answer};

/// The check: nginx's `auth_request`, Traefik's `ForwardAuth`, Caddy's `forward_auth`, Envoy's `ext_authz`.
#[derive(Clone, Debug)]
pub struct CheckSettings {
    /// Path at which gateways ask; `None` if none asks.
    pub path: Option<String>,
    /// Longest time that the gateway's answer is held back for a token that is still being minted.
    pub max_wait: Duration,
    /// Whether a client without a user is refused.
    pub require_user: bool,
}

impl CheckSettings {
    /// Whether a gateway asks at this path. Envoy appends the path of its client's request, and for `OPTIONS *` the
    /// star.
    pub fn covers(&self, path: &str) -> bool {
        let own = self.path.as_deref();
        let rest = own.and_then(|own| path.strip_prefix(own));
        rest.is_some_and(|rest| rest.is_empty() || rest == "*" || rest.starts_with('/'))
    }
}

impl Injection {
    /// The settings of the check.
    pub fn check(&self) -> &CheckSettings {
        &self.settings.check
    }

    /// Makes the answer to a gateway. Its `Cache-Control` may stand in the response to the client.
    pub fn checked(&self, told: TokenOrStatus<'_>) -> Response<Bytes> {
        let mut answer = own_answer(StatusCode::OK, String::new());
        let (headers, settings) = (answer.headers_mut(), self.header());
        headers.remove(CONTENT_TYPE);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        match told {
            Ok(token) => headers.insert(settings.name.clone(), token.header()),
            Err(status) => {
                let status = HeaderValue::from_static(status.as_str());
                headers.insert(settings.status_name.clone(), status)
            }
        };
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_covers_its_path_and_all_below() {
        let check = |path: Option<&str>| CheckSettings {
            path: path.map(str::to_owned),
            max_wait: Duration::ZERO,
            require_user: false,
        };
        let on = check(Some("/velt/check"));
        for (path, covered) in [
            ("/velt/check", true),
            ("/velt/check/", true),
            ("/velt/check/api/me", true),
            ("/velt/check//api/../me", true),
            ("/velt/check*", true),
            ("/velt/checks", false),
            ("/velt/check*x", false),
            ("/velt", false),
            ("/Velt/check", false),
            ("//velt/check", false),
        ] {
            assert_eq!(on.covers(path), covered, "{path}");
            assert!(!check(None).covers(path), "{path}");
        }
    }
}
