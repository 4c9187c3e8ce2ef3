//! Calls that the sidecar makes of its own accord: to Velt, and to the publisher of an assertion's keys.
//! This is the one place that decides which servers the calls trust, and that they follow no redirect.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Response, Url};
use tokio::time::timeout;

use crate::tls::Roots;

/// Failure to set calls up: the roots that vouch for servers can't be read, or the forward proxy that the
/// environment names can't be used. The operator's fault.
#[derive(Debug)]
pub struct TlsError(Box<dyn Error + Send + Sync>);

impl fmt::Display for TlsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("calls of the sidecar's own could not be set up")
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// Variables with the forward proxy for `https://`, in the order in which reqwest looks at them. The second
/// pair counts where the first is not set, or empty.
const PROXY_VARIABLES: [[&str; 2]; 2] =
    [["HTTPS_PROXY", "https_proxy"], ["ALL_PROXY", "all_proxy"]];

const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// A proxy setting of the environment that reqwest would ignore. Leaves out the value, which may hold a
/// password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// The value is no URL of an HTTP proxy.
    Url { variable: &'static str },
    /// The value has quotes in it.
    Quotes { variable: &'static str },
}

impl fmt::Display for ProxyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { variable } => write!(
                formatter,
                "{variable} is no URL of an HTTP proxy, so calls would go past it: write \
                 http://proxy.example:3128, or unset it"
            ),
            Self::Quotes { variable } => write!(
                formatter,
                "{variable} has quotes in it, which count as part of it: write it without quotes"
            ),
        }
    }
}

impl Error for ProxyError {}

/// Checks the proxy settings in `environment`, because reqwest ignores in silence what it can't read.
///
/// # Errors
///
/// See [`ProxyError`].
pub fn check_proxy(environment: impl Fn(&str) -> Option<String>) -> Result<(), ProxyError> {
    let first = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| environment(name).map(|value| (name, value)))
    };
    let set = PROXY_VARIABLES.into_iter().filter_map(first);
    let Some((variable, value)) = set.into_iter().find(|(_, value)| !value.is_empty()) else {
        return Ok(());
    };
    if value.contains(QUOTES) {
        return Err(ProxyError::Quotes { variable });
    }
    let anywhere = http::Uri::from_static("https://velt.invalid/");
    let proxy = Matcher::builder().https(value).build().intercept(&anywhere);
    let speaks_http = |scheme: Option<&str>| matches!(scheme, Some("http" | "https"));
    if !proxy.is_some_and(|proxy| speaks_http(proxy.uri().scheme_str())) {
        return Err(ProxyError::Url { variable });
    }
    match first(NO_PROXY_VARIABLES) {
        Some((variable, value)) if value.contains(QUOTES) => Err(ProxyError::Quotes { variable }),
        _ => Ok(()),
    }
}

const QUOTES: [char; 2] = ['"', '\''];

/// Makes a client for `url` and the paths below it, which trusts the servers that `roots` vouch for. The
/// client has the proxy settings of the environment and a connection pool of its own.
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
    /// Makes a recipe for requests to `url` and below it. Looking up the host's name may take
    /// `connect_timeout`; opening the connection, up to the end of the TLS handshake, may take the rest of
    /// it.
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
        if url.scheme() == "https" {
            let variable = |name: &str| std::env::var(name).ok();
            check_proxy(variable).map_err(|error| TlsError(error.into()))?;
        }
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

/// Reads the body of `answer`; `None` if the body is over `limit` bytes, and then the rest is not read.
///
/// # Errors
///
/// The transport's error.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(variables: &[(&str, &str)]) -> Result<(), ProxyError> {
        check_proxy(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_proxy_setting_that_would_be_ignored_is_refused() {
        let url = |variable| Err(ProxyError::Url { variable });
        let quotes = |variable| Err(ProxyError::Quotes { variable });
        for (variables, expected) in [
            (&[][..], Ok(())),
            (&[("HTTPS_PROXY", "")], Ok(())),
            (&[("HTTPS_PROXY", "http://user:secret@proxy:3128")], Ok(())),
            (&[("https_proxy", "proxy:3128")], Ok(())),
            (&[("ALL_PROXY", "https://proxy/")], Ok(())),
            (&[("HTTPS_PROXY", "\"http://proxy:3128\"")], quotes("HTTPS_PROXY")),
            (&[("https_proxy", "'proxy:3128'")], quotes("https_proxy")),
            (&[("HTTPS_PROXY", " http://proxy:3128")], url("HTTPS_PROXY")),
            (&[("HTTPS_PROXY", "http://proxy:3128\n")], url("HTTPS_PROXY")),
            (&[("HTTPS_PROXY", "htp://proxy:3128")], url("HTTPS_PROXY")),
            (&[("HTTPS_PROXY", "${PROXY}")], url("HTTPS_PROXY")),
            (&[("HTTPS_PROXY", "socks5://proxy:1080")], url("HTTPS_PROXY")),
            (&[("HTTPS_PROXY", ""), ("all_proxy", "//")], url("all_proxy")),
            (&[("HTTPS_PROXY", "proxy:1"), ("ALL_PROXY", "//")], Ok(())),
            (&[("HTTPS_PROXY", "proxy:1"), ("NO_PROXY", "\"velt.dev\"")], quotes("NO_PROXY")),
            (&[("NO_PROXY", "\"velt.dev\"")], Ok(())),
        ] {
            assert_eq!(checked(variables), expected, "{variables:?}");
        }
    }
}
