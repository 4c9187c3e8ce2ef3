//! Client of Velt's REST API: its URLs, the JSON of requests and answers, and the meaning of each error. No
//! other module of the crate calls Velt.
//!
//! Sources: docs.velt.dev, REST API v2 "Generate Token" and v1 "Generate Token". The `legacy` endpoint is in
//! no current page, only in copies of an older page. Values that Velt does not document (live status codes,
//! claims, `exp`) are accepted where they are likely, and never required.

mod claims;
mod clock;
mod connections;
mod dated;
mod inspection;
mod wire;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Response, Url};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use self::claims::Claims;
pub use self::claims::TokenFacts;
use self::clock::Clock;
use self::connections::Connections;
use self::dated::{Dated, is_dated};
pub use self::inspection::Inspection;
use self::wire::{Content, body, classify};
use crate::{
    Demand, MalformedReason, Mint, MintError, MintFuture, MintRequest, Minted, Stage, TokenValue,
};
use ground::outgoing::{self, LookUpError, Recipe, TlsError};
use ground::tls::Roots;

/// Life of a Velt token ("48 hours", docs.velt.dev, "JWT Tokens" and both API pages).
pub const DOCUMENTED_LIFE: Duration = Duration::from_secs(48 * 3600);

/// Longest answer read. An answer holds one token; a longer answer is not Velt's.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Longest `Retry-After` believed. Velt documents no bound; Velt's messages speak of a minute.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Token API of Velt that the sidecar calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// `POST https://generateveltauthtoken.api.velt.dev`: user id and credentials in the body.
    Legacy,
    /// `POST https://api.velt.dev/v1/auth/token/get`: body of `Legacy`, plus user properties.
    V1,
    /// `POST https://api.velt.dev/v2/auth/generate_token`: credentials in headers, grants.
    V2,
}

impl Api {
    /// Returns the name of the API in `velt.api`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }

    /// Returns the documented URL.
    pub fn default_endpoint(self) -> &'static str {
        match self {
            Self::Legacy => "https://generateveltauthtoken.api.velt.dev",
            Self::V1 => "https://api.velt.dev/v1/auth/token/get",
            Self::V2 => "https://api.velt.dev/v2/auth/generate_token",
        }
    }
}

/// Check of a minted token's user claim against the user for whom the token was minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyUser {
    /// The sidecar compares where the token can be read and carries the claim.
    Auto,
    /// The sidecar compares as with `Auto`, and refuses tokens without the claim.
    Require,
    Off,
}

/// Address of Velt, and credentials for it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub api: Api,
    pub endpoint: Url,
    /// The public key of the workspace, which the browser uses too.
    pub api_key: SecretString,
    /// The server's secret.
    pub auth_token: SecretString,
    pub verify_user: VerifyUser,
    pub connect_timeout: Duration,
    /// Certificate authorities that vouch for Velt's servers.
    pub roots: Roots,
}

/// Client that calls Velt.
pub struct VeltClient {
    connections: Connections,
    settings: Settings,
    /// Credentials of v2, made once.
    headers: HeaderMap,
    clock: Clock,
}

/// An answer of Velt's, read to its end.
struct Answered {
    status: StatusCode,
    velt_now: Duration,
    retry_after: Option<Duration>,
    body: Content,
    /// Whether the clock that dated the request's grants was wrong.
    misdated: bool,
    /// Time from the call to the earliest end of a grant in the request.
    grants_life: Option<Duration>,
}

impl Answered {
    fn classify(&self) -> Result<TokenValue, MintError> {
        classify(self.status, self.retry_after, &self.body)
    }
}

/// Reason why no client could be built.
#[derive(Debug)]
pub enum BuildError {
    /// A credential holds bytes that no header can carry. The configuration is wrong.
    Credential { which: &'static str },
    /// The TLS setup of the machine is broken.
    Tls(TlsError),
}

impl std::fmt::Display for BuildError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Credential { which } => write!(
                formatter,
                "velt.{which} holds bytes that an HTTP header can't carry; \
                 copy it again from Velt's console"
            ),
            Self::Tls(error) => error.fmt(formatter),
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Credential { .. } => None,
            Self::Tls(error) => error.source(),
        }
    }
}

impl VeltClient {
    /// Builds the client: TLS roots, proxy settings of the environment, connection pool.
    ///
    /// # Errors
    ///
    /// See [`BuildError`].
    pub fn new(settings: Settings) -> Result<Self, BuildError> {
        let Settings { endpoint, roots, connect_timeout, .. } = &settings;
        let recipe = Recipe::new(endpoint, roots, *connect_timeout).map_err(BuildError::Tls)?;
        let connections = Connections::new(recipe).map_err(BuildError::Tls)?;
        let headers = credential_headers(&settings)?;
        Ok(Self { connections, settings, headers, clock: Clock::default() })
    }

    async fn call(&self, request: &MintRequest, demand: &Demand) -> Result<Minted, MintError> {
        let started = Instant::now();
        let answered = self.ask(request, demand).await?;
        let value = answered.classify()?;
        self.validate(value, request, &answered, started.elapsed())
    }

    /// Asks for a token. Asks once more if the answer shows that the request's grants were dated by a wrong
    /// clock: the grants would end too soon or too late, or Velt may have refused them as past.
    async fn ask(&self, request: &MintRequest, demand: &Demand) -> Result<Answered, MintError> {
        let answered = self.send(request, demand).await?;
        if answered.misdated && is_dated(request) {
            self.send(request, demand).await
        } else {
            Ok(answered)
        }
    }

    /// Makes one call and reads the answer. Leaves the status and the body for the caller to judge.
    async fn send(&self, request: &MintRequest, demand: &Demand) -> Result<Answered, MintError> {
        let dated = Dated::at(request, self.clock.now());
        let grants_life = dated.life;
        let body = body(&self.settings, request, dated);
        let connection = self.connections.lend();
        demand.reached(connection.stage());
        let mut call = connection.client().post(self.settings.endpoint.clone()).body(body);
        call = call.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.settings.api == Api::V2 {
            call = call.headers(self.headers.clone());
        }
        let answer = call.send().await.map_err(transport_error)?;
        connection.answered();
        demand.reached(Stage::Called);
        let status = answer.status();
        let misdated = self.clock.set_by(answer.headers());
        let velt_now = self.clock.now();
        let is_encoded = answer.headers().get(CONTENT_ENCODING).is_some_and(|it| it != "identity");
        let retry_after = retry_after(answer.headers(), velt_now);
        if status.is_redirection() {
            return Err(MintError::Malformed { reason: MalformedReason::Redirect });
        }
        let body = match read_capped(answer).await {
            // Velt's errors are short, so an error that exceeds the limit is not Velt's.
            Err(MintError::Malformed { .. }) if !status.is_success() => Content::Foreign,
            Ok(_) if is_encoded => Content::Encoded,
            body => Content::Plain(body?),
        };
        Ok(Answered { status, velt_now, retry_after, body, misdated, grants_life })
    }

    /// Checks that the token names the user, and computes its life.
    fn validate(
        &self,
        value: TokenValue,
        request: &MintRequest,
        answered: &Answered,
        spent: Duration,
    ) -> Result<Minted, MintError> {
        let claims = Claims::peek(value.expose()).unwrap_or_default();
        match (self.settings.verify_user, claims.names(&request.user)) {
            (VerifyUser::Off, _) | (_, Some(true)) | (VerifyUser::Auto, None) => {}
            (_, Some(false)) => return Err(MintError::Mismatch),
            (VerifyUser::Require, None) => {
                return Err(MintError::Malformed { reason: MalformedReason::NoUserClaim });
            }
        }
        let life = [Some(DOCUMENTED_LIFE), claims.life(answered.velt_now), answered.grants_life];
        let life = life.into_iter().flatten().min().expect("one is there").saturating_sub(spent);
        if life.is_zero() {
            return Err(MintError::Malformed { reason: MalformedReason::AlreadyExpired });
        }
        Ok(Minted::now(value, life))
    }
}

impl Mint for VeltClient {
    fn mint<'a>(&'a self, request: &'a MintRequest, demand: &'a Arc<Demand>) -> MintFuture<'a> {
        Box::pin(self.call(request, demand))
    }
}

fn credential_headers(settings: &Settings) -> Result<HeaderMap, BuildError> {
    let header = |secret: &SecretString, which| {
        let value = HeaderValue::from_str(secret.expose_secret());
        let mut value = value.map_err(|_| BuildError::Credential { which })?;
        value.set_sensitive(true);
        Ok(value)
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-velt-api-key", header(&settings.api_key, "api_key")?);
    headers.insert("x-velt-auth-token", header(&settings.auth_token, "auth_token")?);
    Ok(headers)
}

async fn read_capped(answer: Response) -> Result<Vec<u8>, MintError> {
    let body = outgoing::read_capped(answer, MAX_ANSWER_BYTES).await.map_err(transport_error)?;
    body.ok_or(MintError::Malformed { reason: MalformedReason::TooLarge })
}

fn transport_error(error: reqwest::Error) -> MintError {
    // The URL is the operator's own and may hold credentials; errors are logged.
    let error = error.without_url();
    let (timed_out, connecting) = (error.is_timeout(), error.is_connect());
    let look_up = LookUpError::among(&error).map(|why| matches!(why, LookUpError::TimedOut));
    let source: Arc<dyn Error + Send + Sync> = Arc::new(error);
    if let Some(timed_out) = look_up {
        return MintError::LookUp { timed_out, source };
    }
    if connecting {
        return MintError::Connect { timed_out, source };
    }
    if timed_out {
        return MintError::Timeout;
    }
    MintError::Unavailable { http_status: None, retry_after: None, source: Some(source) }
}

/// Returns `Retry-After`, given in seconds or as a date of Velt's clock (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap, velt_now: Duration) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = value.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(UNIX_EPOCH + velt_now).unwrap_or_default()
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}
