//! Calls that the sidecar makes of its own accord: to Velt, and to whoever publishes the keys of
//! assertions. One place decides whom they trust, and that they follow nobody elsewhere.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use reqwest::{Client, Response, Url};

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
    let trusted = match (url.scheme(), roots) {
        // Whoever has named a file is told if it can't be read, needed or not.
        ("https", _) | (_, Roots::File(_)) => roots,
        // In plain text nobody has to vouch for anybody, and to read the system's takes 2 ms
        // and leaves 400 KiB.
        _ => &Roots::Bundled,
    };
    let tls_config = trusted.client_config().map_err(|error| TlsError(error.into()))?;
    let http = Client::builder()
        .tls_backend_preconfigured(tls_config)
        .user_agent(concat!("velt-sidecar/", env!("CARGO_PKG_VERSION")))
        // A redirect could carry credentials to another host, or have keys come from there.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(connect_timeout)
        .pool_idle_timeout(Duration::from_secs(60));
    let http = match url.scheme() {
        "https" => http.https_only(true),
        // Plain text is for a stand-in close by; a forward proxy has no business there.
        _ => http.no_proxy(),
    };
    http.build().map_err(|error| TlsError(error.into()))
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
