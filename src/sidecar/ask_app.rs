//! Asks an app that alone knows the user of a request.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, COOKIE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::timeout;

use super::details::NoDetails;
use super::error::{NoToken, RequestError};
use super::{Rules, Sidecar};
use ground::client_connection::ClientConnection;
use hop::proxy::{Client, RequestBody};
use identity::{AnswerFault, Caller, MAX_ANSWER_BYTES};

/// Longest time to wait for the body of an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

impl Sidecar {
    /// Asks the app at `identity.app_path` to which user the cookies of `request` belong, and believes the
    /// header in the app's answer, or the `userId` of a JSON object. The question has the cookies, `Host`, and
    /// the front's headers on client, scheme and host (`Upstream::ask`), and nothing else of the client's
    /// request.
    pub(super) async fn ask_app(
        &self,
        rules: &Rules,
        request: &Request<RequestBody>,
        client: &Client,
        connection: Option<&Arc<ClientConnection>>,
    ) -> Result<Caller, RequestError> {
        let (Some(path), Some(upstream)) = (rules.identity.app_path(), &self.upstream) else {
            return Ok(Caller::Unnamed);
        };
        let question = question(path, request);
        let mut response = upstream.ask(question, request.headers(), client, connection).await?;
        let said = rules.identity.word_of_app(response.headers_mut());
        let (status, is_json) =
            (response.status(), is_of_type("application/json", response.headers()));
        // Read in every case, so that the connection can be used again.
        let reading = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect();
        let read = timeout(ANSWER_PATIENCE, reading).await;
        if status.is_server_error() {
            return Err(RequestError::AppFailed(status));
        }
        let unnamed = NoToken::UnnamedBy(status);
        let named = match said {
            _ if !status.is_success() => return Err(unnamed.into()),
            Some(Err(refusal)) => return Err(NoToken::AppWord(refusal).into()),
            Some(Ok(caller)) => caller,
            None => Caller::Unnamed,
        };
        let caller = match read {
            _ if !is_json => named,
            Ok(Ok(body)) => {
                let answer = rules.identity.user_in_answer(named, &body.to_bytes());
                answer.map_err(|fault| NoToken::NoDetails(NoDetails::Unusable(fault)))?
            }
            // The header has said who the user is, and a body that is no answer says no more.
            _ if matches!(named, Caller::Known(_)) => named,
            Ok(Err(error)) => return Err(NoToken::NoDetails(unread(&*error)).into()),
            Err(_) => return Err(NoToken::NoDetails(NoDetails::Timeout).into()),
        };
        if let Caller::Known(_) = caller { Ok(caller) } else { Err(unnamed.into()) }
    }
}

/// Says why the body of an answer could not be read.
pub(super) fn unread(error: &(dyn Error + Send + Sync + 'static)) -> NoDetails {
    if error.is::<LengthLimitError>() {
        NoDetails::Unusable(AnswerFault::TooLong)
    } else {
        NoDetails::Broken
    }
}

/// Whether an answer says that its content is of this media type, such as `application/json`.
pub(super) fn is_of_type(media_type: &str, headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(media_type.as_bytes())
    })
}

/// Makes a question to the app at `path`: with the cookies and the host of `request`, and nothing else.
pub(super) fn question<B>(path: &PathAndQuery, request: &Request<B>) -> Request<()> {
    let mut question = Request::new(());
    *question.uri_mut() = Uri::from(path.clone());
    let headers = question.headers_mut();
    if let Some(host) = host(request) {
        headers.insert(HOST, host);
    }
    for cookie in request.headers().get_all(COOKIE) {
        headers.append(COOKIE, cookie.clone());
    }
    question
}

/// Returns the host that a request asks for.
pub(super) fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    // Over HTTP/2 the target has the host.
    let authority = request.uri().authority();
    let host = authority.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    host.or_else(|| request.headers().get(HOST).cloned())
}
