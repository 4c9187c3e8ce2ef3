//! Routes of requests, and the checks of a request before anything is asked for it.

use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{Method, Request, Version};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use tokio::time::timeout;

use super::Rules;
use super::error::{NoToken, RequestError};
use super::logout::Teller;
use super::resolver::Resolver;
use crate::inject::{Coverage, Injection, PathPattern, TokenRoute};
use hop::proxy::RequestBody;
use identity::{Caller, User};
use token::Fingerprint;

/// Time that a route of the sidecar's own waits for a request body.
const ROUTE_BODY_PATIENCE: Duration = Duration::from_secs(10);

/// Purpose of a request, unless [`Route::logout`] says that it tells of a logout, or [`Route::is_check`] that a gateway
/// asks about a request. The request line alone decides
/// whether the sidecar or the app answers.
pub(super) enum Route<'a> {
    /// One of the paths at which the sidecar itself answers with the caller's token.
    Own(Own<'a>),
    /// The path at which the sidecar publishes the keys of tokens for resolvers.
    Keys(&'a Resolver),
    /// Any other path, which the app answers.
    Forward {
        /// Whether the response could carry a token.
        coverage: Coverage<'a>,
        /// Pattern by which the app itself is given the token, in headers of the request.
        to_app: Option<&'a PathPattern>,
    },
}

/// A token that the sidecar itself answers with.
pub(super) enum Own<'a> {
    /// A token of Velt's.
    Token(&'a TokenRoute),
    /// A token for resolvers.
    Resolver(&'a Resolver),
}

impl<'a> Route<'a> {
    pub(super) fn of<B>(request: &Request<B>, rules: &'a Rules) -> Self {
        let injection = &*rules.injection;
        let uri = request.uri();
        if is_plain(request) {
            if let Some(route) = injection.route(uri.path()) {
                return Self::Own(Own::Token(route));
            }
            match rules.resolver.as_deref() {
                Some(resolver) if resolver.answers(uri.path()) => {
                    return Self::Own(Own::Resolver(resolver));
                }
                Some(resolver) if resolver.publishes(uri.path()) => {
                    return Self::Keys(resolver);
                }
                _ => {}
            }
        }
        let (method, headers) = (request.method(), request.headers());
        Self::Forward {
            coverage: injection.coverage(method, uri.path(), headers),
            to_app: injection.app_header().covering(method, uri.path(), headers),
        }
    }

    /// Whether a gateway asks about a request of one of its clients.
    pub(super) fn is_check<B>(request: &Request<B>, rules: &Rules) -> bool {
        is_plain(request) && rules.injection.check().covers(request.uri().path())
    }

    /// Returns the way in which a request tells of a logout; `None` if its path is no logout path.
    pub(super) fn logout<B>(request: &Request<B>, rules: &'a Rules) -> Option<Teller<'a>> {
        let logout = rules.logout.as_deref()?;
        is_plain(request).then(|| logout.teller(request.uri().path()))?
    }
}

/// Whether the target has the one spelling that the sidecar answers: without an authority, except over HTTP/2,
/// where every target has an authority.
fn is_plain<B>(request: &Request<B>) -> bool {
    request.uri().authority().is_none() || request.version() == Version::HTTP_2
}

/// Refuses a caller without a user where one is required.
pub(super) fn check_required<B>(
    rules: &Rules,
    caller: &Caller,
    request: &Request<B>,
) -> Result<(), RequestError> {
    if rules.required_on.covers(request.uri().path()) {
        known_user(caller)?;
    }
    Ok(())
}

/// Returns the caller's user, or the reason why there is none.
pub(super) fn known_user(caller: &Caller) -> Result<&User, NoToken> {
    match caller {
        Caller::Known(user) => Ok(user),
        Caller::Anonymous => Err(NoToken::Anonymous),
        Caller::Unverified => Err(NoToken::Unverified),
        Caller::Unnamed => Err(NoToken::Unnamed),
    }
}

/// Checks that a token route may be asked like this, before the app or Velt is asked.
/// A cookie is sent along with requests of other sites' pages too, without the knowledge of the user.
pub(super) fn check_asking<B>(
    injection: &Injection,
    request: &Request<B>,
    caller: &Caller,
    by_cookie: bool,
) -> Result<(), RequestError> {
    let headers = request.headers();
    if !injection.may_ask(headers) {
        return Err(RequestError::CrossOrigin);
    }
    // Over HTTP/2 the target has the host.
    let authority = request.uri().authority().map(Authority::as_str);
    let may_ask = match caller {
        // The app, which finds the user by cookies, is yet to be asked.
        Caller::Unnamed => injection.may_ask_through_app(authority, headers),
        _ => !by_cookie || injection.may_ask_by_cookie(authority, headers),
    };
    if !may_ask {
        return Err(RequestError::CookieAlone);
    }
    match *request.method() {
        Method::GET | Method::HEAD | Method::POST => Ok(()),
        _ => Err(RequestError::MethodNotAllowed),
    }
}

/// Reads the body of a request for a token: see [`parse_posted`].
pub(super) async fn read_posted(
    body: &mut RequestBody,
    limit: usize,
    user: &User,
) -> Result<Option<Fingerprint>, RequestError> {
    parse_posted(&read_body(body, limit).await?, user)
}

/// Reads a request body of at most `limit` bytes; waits at most [`ROUTE_BODY_PATIENCE`].
pub(super) async fn read_body(body: &mut RequestBody, limit: usize) -> Result<Bytes, RequestError> {
    let reading = Limited::new(body, limit).collect();
    let read = timeout(ROUTE_BODY_PATIENCE, reading).await.map_err(|_| RequestError::SlowBody)?;
    let body = read.map_err(|error| {
        if error.is::<LengthLimitError>() {
            RequestError::BodyTooLarge(limit)
        } else {
            RequestError::BrokenBody
        }
    })?;
    Ok(body.to_bytes())
}

/// Parses a body, and returns the token that Velt has refused, according to the page. Any body will do, and most
/// say nothing of a user or a refused token.
///
/// A body that names another user is refused: the author of the page believes that the posted id decides, or
/// another user has signed in since the page was loaded.
pub(super) fn parse_posted(body: &[u8], user: &User) -> Result<Option<Fingerprint>, RequestError> {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let same = match json.get("userId") {
        None | Some(Value::Null) => true,
        Some(Value::String(id)) => **id == *user.id,
        Some(Value::Number(id)) => id.to_string() == *user.id,
        Some(_) => false,
    };
    if !same {
        return Err(RequestError::UserMismatch);
    }
    match json.get("refused") {
        None | Some(Value::Null) => Ok(None),
        Some(refused) => {
            let fingerprint = refused.as_str().and_then(Fingerprint::parse);
            fingerprint.ok_or(RequestError::BadFingerprint).map(Some)
        }
    }
}
