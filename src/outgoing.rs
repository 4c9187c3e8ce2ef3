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

/// What a client is made of. Each client that it makes has new connections.
pub struct Recipe {
    tls: rustls::ClientConfig,
    encrypted: bool,
    connect_timeout: Duration,
}

impl Recipe {
    /// For `url` and what is below it. The look-up of a name may take `connect_timeout`, and so may
    /// what follows it up to the end of the TLS handshake, less what the look-up took.
    ///
    /// # Errors
    ///
    /// See [`TlsError`].
    pub fn new(url: &Url, roots: &Roots, connect_timeout: Duration) -> Result<Self, TlsError> {
        let trusted = match (url.scheme(), roots) {
            // Whoever has named a file is told if it can't be read, needed or not.
            ("https", _) | (_, Roots::File(_)) => roots,
            // In plain text nobody has to vouch for anybody, and to read the system's takes 2 ms
            // and leaves 400 KiB.
            _ => &Roots::Bundled,
        };
        let tls = trusted.client_config().map_err(|error| TlsError(error.into()))?;
        Ok(Self { tls, encrypted: url.scheme() == "https", connect_timeout })
    }

    /// A client without a connection.
    ///
    /// # Errors
    ///
    /// See [`TlsError`].
    pub fn client(&self) -> Result<Client, TlsError> {
        let http = Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .user_agent(concat!("velt-sidecar/", env!("CARGO_PKG_VERSION")))
            // A redirect could carry credentials to another host, or have keys come from there.
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(LookUp { limit: self.connect_timeout })
            .connect_timeout(self.connect_timeout + self.connect_timeout / AFTER_LOOK_UP)
            .pool_idle_timeout(Duration::from_secs(60));
        let http = if self.encrypted {
            http.https_only(true)
        } else {
            // Plain text is for a stand-in close by; a forward proxy has no business there.
            http.no_proxy()
        };
        http.build().map_err(|error| TlsError(error.into()))
    }
}

/// The part of the connect timeout that is added to it, so that a look-up that is too slow ends as
/// that, and not as a connection that was not opened.
const AFTER_LOOK_UP: u32 = 8;

/// The system's look-up of names, within a limit.
struct LookUp {
    limit: Duration,
}

/// Why a name was not looked up. Found in the sources of a client's error.
#[derive(Debug)]
pub enum LookUpError {
    /// The system gave no answer within the limit.
    TimedOut,
    /// The system's answer: no such name, or no name server.
    Failed(io::Error),
}

impl LookUpError {
    /// The one among the sources of `error`, if the look-up failed.
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
