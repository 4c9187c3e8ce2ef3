//! Calls that the sidecar makes of its own accord: to Velt, and to whoever publishes the keys of
//! assertions. One place decides whom they trust, and that they follow nobody elsewhere.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Response, Url};
use tokio::time::timeout;

use crate::tls::Roots;

/// TLS could not be set up: whoever should vouch for servers can't be read.
#[derive(Debug)]
pub struct TlsError(Box<dyn Error + Send + Sync>);

impl fmt::Display for TlsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TLS for outgoing calls could not be set up")
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// A client for `url` and what is below it, which trusts whom `roots` vouch for: with the proxy
/// settings of the environment and a connection pool of its own.
///
/// # Errors
///
/// See [`TlsError`].
pub fn client(url: &Url, roots: &Roots, connect_timeout: Duration) -> Result<Client, TlsError> {
    Recipe::new(url, roots, connect_timeout)?.client()
}

/// Settings from which clients are made. Each client opens connections of its own.
pub struct Recipe {
    tls: rustls::ClientConfig,
    encrypted: bool,
    connect_timeout: Duration,
}

impl Recipe {
    /// Recipe for requests to `url` and below it. Looking up the host's name may take
    /// `connect_timeout`; opening the connection, up to the end of the TLS handshake, may take the rest
    /// of it.
    ///
    /// # Errors
    ///
    /// See [`TlsError`].
    pub fn new(url: &Url, roots: &Roots, connect_timeout: Duration) -> Result<Self, TlsError> {
        let trusted = match (url.scheme(), roots) {
            // An operator who has named a file is told if it can't be read, even where no TLS is used.
            ("https", _) | (_, Roots::File(_)) => roots,
            // Plain text checks no certificate, so the system's roots are not read: reading them costs
            // time and memory.
            _ => &Roots::Bundled,
        };
        let tls = trusted.client_config().map_err(|error| TlsError(error.into()))?;
        Ok(Self { tls, encrypted: url.scheme() == "https", connect_timeout })
    }

    /// Makes a client, which has no connection yet.
    ///
    /// # Errors
    ///
    /// See [`TlsError`].
    pub fn client(&self) -> Result<Client, TlsError> {
        let http = Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .user_agent(concat!("velt-sidecar/", env!("CARGO_PKG_VERSION")))
            // A redirect could carry credentials to another host, or fetch keys from there.
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(LookUp { limit: self.connect_timeout })
            .connect_timeout(self.connect_timeout + self.connect_timeout / AFTER_LOOK_UP)
            .pool_idle_timeout(Duration::from_secs(60));
        let http = if self.encrypted {
            http.https_only(true)
        } else {
            // Plain text is for a stand-in on the same host or near it, never through a forward proxy.
            http.no_proxy()
        };
        http.build().map_err(|error| TlsError(error.into()))
    }
}

/// Part of the connect timeout that is added for the connection, so that a slow look-up is reported as
/// a failed look-up and not as a failed connection.
const AFTER_LOOK_UP: u32 = 8;

/// Look-up of names by the system, with a time limit.
struct LookUp {
    limit: Duration,
}

/// Reason why a name was not looked up, found in the sources of a client's error.
#[derive(Debug)]
pub enum LookUpError {
    /// The system gave no answer within the limit.
    TimedOut,
    /// The system answered that there is no such name, or no name server.
    Failed(io::Error),
}

impl LookUpError {
    /// Finds the look-up error among the sources of `error`, if the look-up failed.
    pub fn among<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut source = Some(error);
        while let Some(error) = source {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            source = error.source();
        }
        None
    }
}

impl fmt::Display for LookUpError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TimedOut => "the name was not looked up in time",
            Self::Failed(_) => "the name could not be looked up",
        })
    }
}

impl Error for LookUpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TimedOut => None,
            Self::Failed(source) => Some(source),
        }
    }
}

impl Resolve for LookUp {
    fn resolve(&self, name: Name) -> Resolving {
        let limit = self.limit;
        Box::pin(async move {
            let looking_up = tokio::net::lookup_host((name.as_str(), 0));
            match timeout(limit, looking_up).await {
                Ok(Ok(found)) => Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs),
                Ok(Err(error)) => Err(LookUpError::Failed(error).into()),
                Err(_) => Err(LookUpError::TimedOut.into()),
            }
        })
    }
}

/// The body of `answer`; `None` if it is over `limit` bytes, of which no more are read.
///
/// # Errors
///
/// What the transport says.
pub async fn read_capped(mut answer: Response, limit: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}
