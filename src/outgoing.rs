//! Calls that the sidecar makes of its own accord: to Velt, and to whoever publishes the keys of
//! assertions. One place decides whom they trust, and that they follow nobody elsewhere.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Response, Url};
use rustls::RootCertStore;

/// TLS could not be set up. The machine's fault.
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

/// A client for `url` and what is below it: TLS roots, proxy settings of the environment,
/// connection pool.
///
/// # Errors
///
/// See [`TlsError`].
pub fn client(url: &Url, connect_timeout: Duration) -> Result<Client, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls_config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(error.into()))?
        .with_root_certificates(roots())
        .with_no_client_auth();
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

/// The machine's roots (or `SSL_CERT_FILE`); compiled-in ones where an image has none.
fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}
