//! Asks an app that alone knows the user of a request.

use std::sync::Arc;
use std::time::Duration;

use http::header::{COOKIE, HOST};
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;

use super::error::{NoToken, RequestError};
use super::{Rules, Sidecar};
use ground::client_connection::ClientConnection;
use hop::proxy::{Client, RequestBody};
use identity::Caller;

/// Bounds for the body of an answer, in bytes and in time. The body is read so that its connection can be
/// used again; its content does not matter.
const MAX_ANSWER: usize = 64 * 1024;
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

impl Sidecar {
    /// Asks the app at `identity.app_path` to which user the cookies of `request` belong, and believes the
    /// header in the app's answer. The question has the cookies, `Host`, and the front's headers on client,
    /// scheme and host (`Upstream::ask`), and nothing else of the client's request.
    pub(super) async fn ask_app(
        &self,
        rules: &Rules,
        request: &Request<RequestBody>,
        client: &Client,
        connection: Option<&Arc<ClientConnection>>,
    ) -> Result<Caller, RequestError> {
        let Some(path) = rules.identity.app_path() else { return Ok(Caller::Unnamed) };
        let mut question = Request::new(());
        *question.uri_mut() = Uri::from(path.clone());
        let headers = question.headers_mut();
        // Over HTTP/2 the target has the host.
        let authority = request.uri().authority();
        let host = authority.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        if let Some(host) = host.as_ref().or(request.headers().get(HOST)) {
            headers.insert(HOST, host.clone());
        }
        for cookie in request.headers().get_all(COOKIE) {
            headers.append(COOKIE, cookie.clone());
        }
        let mut response =
            self.upstream.ask(question, request.headers(), client, connection).await?;
        let said = rules.identity.word_of_app(response.headers_mut());
        let status = response.status();
        let reading = Limited::new(response.into_body(), MAX_ANSWER).collect();
        // Ignore how the reading ends: the headers have said all that matters.
        let _ = timeout(ANSWER_PATIENCE, reading).await;
        if status.is_server_error() {
            return Err(RequestError::AppFailed(status));
        }
        match said {
            Some(Err(refusal)) if status.is_success() => Err(NoToken::AppWord(refusal).into()),
            Some(Ok(caller @ Caller::Known(_))) if status.is_success() => Ok(caller),
            _ => Err(NoToken::UnnamedBy(status).into()),
        }
    }
}
