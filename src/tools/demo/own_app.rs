//! The developer's own app, which `demo --app` puts behind the login proxy and the sidecar.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Pause between two attempts to reach an app that is not up yet.
const PAUSE: Duration = Duration::from_millis(500);

/// Longest time that one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Address of the developer's app: `http://HOST:PORT`, `HOST:PORT`, or the port of an app on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnApp {
    host: String,
    port: u16,
}

/// Reason why an argument is not the address of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnAppError {
    /// `https://`: the certificate of an app on the developer's machine is signed by no known authority.
    Tls,
    /// Another scheme than `http`.
    Scheme,
    /// Not `HOST:PORT`.
    Address,
    /// A path, which belongs in the browser's address bar.
    Path(String),
}

impl fmt::Display for OwnAppError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls => formatter.write_str(
                "the demo speaks plain HTTP with the app: start the app without TLS, and write \
                 --app http://HOST:PORT",
            ),
            Self::Scheme => formatter.write_str("the app's address must begin with http://"),
            Self::Address => {
                formatter.write_str("write the app's host and port, such as http://127.0.0.1:3000")
            }
            Self::Path(path) => write!(
                formatter,
                "leave out the path: the whole app is behind the demo, so open {path} there"
            ),
        }
    }
}

impl Error for OwnAppError {}

impl FromStr for OwnApp {
    type Err = OwnAppError;

    fn from_str(text: &str) -> Result<Self, OwnAppError> {
        // A port alone is what a developer knows by heart.
        if let Ok(port) = text.parse::<u16>() {
            return Ok(Self { host: "localhost".into(), port });
        }
        let address = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err(OwnAppError::Tls);
            }
            Some(_) => return Err(OwnAppError::Scheme),
            None => text,
        };
        let uri = Uri::try_from(format!("http://{address}")).map_err(|_| OwnAppError::Address)?;
        let authority = uri.authority().ok_or(OwnAppError::Address)?;
        let port = authority.port_u16();
        let host = authority.host();
        // A port that is no number, and the name of a user, show in the text alone.
        let read = port.map_or(host.to_owned(), |port| format!("{host}:{port}"));
        if host.is_empty() || read != authority.as_str() {
            return Err(OwnAppError::Address);
        }
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if target != "/" {
            return Err(OwnAppError::Path(target.to_owned()));
        }
        Ok(Self { host: host.to_owned(), port: port.unwrap_or(80) })
    }
}

impl fmt::Display for OwnApp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

impl OwnApp {
    /// Whether the app would be the demo itself, which listens at `front`.
    pub fn is_at(&self, front: SocketAddr) -> bool {
        let address = self.host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_loopback = address.map_or(self.host == "localhost", |address| address.is_loopback());
        is_loopback && self.port == front.port()
    }

    /// Whether the app accepts a connection now.
    pub async fn is_up(&self) -> bool {
        matches!(timeout(ATTEMPT, TcpStream::connect(self.to_string())).await, Ok(Ok(_)))
    }

    /// Waits until the app accepts a connection.
    pub async fn until_up(&self) {
        while !self.is_up().await {
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_is_named_by_host_and_port() {
        for (text, expected) in [
            ("http://127.0.0.1:3000", "127.0.0.1:3000"),
            ("http://localhost:5173/", "localhost:5173"),
            ("localhost:3000", "localhost:3000"),
            ("3000", "localhost:3000"),
            ("HTTP://[::1]:8000", "[::1]:8000"),
            ("http://app.internal", "app.internal:80"),
        ] {
            assert_eq!(text.parse::<OwnApp>().expect(text).to_string(), expected);
        }
    }

    #[test]
    fn invalid_addresses_are_refused_with_a_reason() {
        for (text, expected) in [
            ("https://127.0.0.1:3000", OwnAppError::Tls),
            ("unix:///run/app.sock", OwnAppError::Scheme),
            ("", OwnAppError::Address),
            ("http://:3000", OwnAppError::Address),
            ("http://user@localhost:3000", OwnAppError::Address),
            ("http://localhost:99999", OwnAppError::Address),
            ("http://local host", OwnAppError::Address),
            ("http://localhost:3000/admin?x=1", OwnAppError::Path("/admin?x=1".into())),
        ] {
            assert_eq!(text.parse::<OwnApp>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn address_of_the_demo_itself_is_recognized() {
        let front = SocketAddr::from(([127, 0, 0, 1], 4180));
        for (text, expected) in [
            ("localhost:4180", true),
            ("127.0.0.1:4180", true),
            ("[::1]:4180", true),
            ("127.0.0.1:4181", false),
            ("app.example:4180", false),
        ] {
            assert_eq!(text.parse::<OwnApp>().expect(text).is_at(front), expected, "{text}");
        }
    }
}
