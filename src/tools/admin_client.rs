//! Client of the admin calls, for people and scripts in an image that has no shell or curl.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use ground::outgoing::{self, TlsError, read_capped};
use ground::tls::Roots;
use server::explain::{Asked, Report};
use token::announce::Subject;

/// Time limits for a connection and for an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Client of a running sidecar's admin port.
pub struct Client {
    http: reqwest::Client,
    url: Url,
    token: Option<SecretString>,
}

/// Reason why a call failed.
#[derive(Debug)]
pub enum ClientError {
    /// Value of `--admin` that is no URL of an admin port, in a form without secrets.
    Url(String),
    TokenFile {
        name: String,
        source: std::io::Error,
    },
    /// The token has bytes that no header can carry, or there is none.
    Token,
    Tls(TlsError),
    Unreachable {
        url: String,
        source: reqwest::Error,
    },
    /// The sidecar does not allow the call.
    Denied(String),
    /// The sidecar refuses the call for another reason.
    Refused(String),
    /// The answer comes from no sidecar, or from another version.
    Odd(StatusCode),
}

impl fmt::Display for ClientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => {
                write!(formatter, "--admin {url} is no URL: write http://127.0.0.1:9901")
            }
            Self::TokenFile { name, .. } => write!(
                formatter,
                "the token can't be read from {name}: name the file that admin.token_file names"
            ),
            Self::Token => formatter.write_str(
                "the admin token is empty, or has bytes that no header can carry: copy it again",
            ),
            Self::Tls(error) => error.fmt(formatter),
            Self::Unreachable { url, .. } => write!(
                formatter,
                "no sidecar answers at {url}: is it running, and is that its admin.address?"
            ),
            Self::Denied(text) | Self::Refused(text) => formatter.write_str(text),
            Self::Odd(status) => write!(
                formatter,
                "the answer ({status}) is not from an admin port of this version of velt-sidecar: \
                 check the URL and the versions"
            ),
        }
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TokenFile { source, .. } => Some(source),
            Self::Tls(error) => error.source(),
            Self::Unreachable { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Client {
    /// Makes a client for the admin port at `url`. The token is in `file`, else in `variable`, if either is
    /// given.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn new(
        url: &str,
        file: Option<&Path>,
        variable: Option<String>,
    ) -> Result<Self, ClientError> {
        let bad_url = || ClientError::Url(super::shown_url(url));
        let url = Url::parse(url).map_err(|_| bad_url())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(bad_url());
        }
        let token = match file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|source| {
                ClientError::TokenFile { name: path.display().to_string(), source }
            })?),
            None => variable,
        };
        let token = token.map(|token| SecretString::from(token.trim_end_matches(['\r', '\n'])));
        let http =
            outgoing::client(&url, &Roots::Auto, CONNECT_TIMEOUT).map_err(ClientError::Tls)?;
        Ok(Self { http, url, token })
    }

    /// Asks the sidecar what would become of a request.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn explain(&self, asked: &Asked) -> Result<Report, ClientError> {
        let asked = serde_json::to_value(asked).expect("string keys");
        let answer = self.call(Method::POST, "/explain", Some(&asked)).await?;
        serde_json::from_str(&answer).map_err(|_| ClientError::Odd(StatusCode::OK))
    }

    /// Tells the sidecar to forget these tokens, and the details of their users.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn invalidate(&self, subject: &Subject) -> Result<String, ClientError> {
        let body = match subject {
            Subject::User(user) => json!({ "user": user.as_str() }),
            Subject::Organization(organization) => json!({ "organization": organization }),
            Subject::Everything => json!({ "everything": true }),
        };
        self.call(Method::POST, "/cache/invalidate", Some(&body)).await
    }

    /// Returns the log's level, after setting it to `level` if one is given.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn log_level(&self, level: Option<&str>) -> Result<String, ClientError> {
        match level {
            Some(level) => {
                self.call(Method::PUT, "/log/level", Some(&json!({ "level": level }))).await
            }
            None => self.call(Method::GET, "/log/level", None).await,
        }
    }

    /// Returns the configuration in force, without secrets.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn config(&self) -> Result<String, ClientError> {
        self.call(Method::GET, "/config", None).await
    }

    /// Tells the sidecar to start its drain: see `POST /drain`. Only a restart undoes the call.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn drain(&self) -> Result<(), ClientError> {
        self.call(Method::POST, "/drain", Some(&json!({}))).await.map(|_| ())
    }

    /// Returns recent refusals, and their totals by kind.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn refusals(&self) -> Result<String, ClientError> {
        self.call(Method::GET, "/refusals", None).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<String, ClientError> {
        let mut url = self.url.clone();
        url.set_path(path);
        let mut request = self.http.request(method, url).timeout(ANSWER_TIMEOUT);
        if let Some(token) = &self.token {
            let mut bearer =
                http::HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                    .map_err(|_| ClientError::Token)?;
            bearer.set_sensitive(true);
            request = request.header(http::header::AUTHORIZATION, bearer);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let unreachable = |source: reqwest::Error| ClientError::Unreachable {
            // The origin has no user, password or query, any of which may be secret.
            url: self.url.origin().ascii_serialization(),
            source: source.without_url(),
        };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let text = read_capped(answer, MAX_ANSWER).await.map_err(unreachable)?;
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or(ClientError::Odd(status))?;
        if status == StatusCode::OK {
            return Ok(text);
        }
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        let said = said["error"].as_str().ok_or(ClientError::Odd(status))?.to_owned();
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ClientError::Denied(said),
            _ => ClientError::Refused(said),
        })
    }
}
