//! Notation of the settings' own types: addresses, paths, and the words of each enum.

use http::uri::PathAndQuery;
use reqwest::Url;
use rustls::pki_types::ServerName;

use super::Workers;
use super::schema::Form;
use super::setting::{Bytes, Setting};
use ground::grants::{AccessRole, ResourceKind};
use ground::logging;
use ground::memory;
use ground::tls::{ClientCertificate, Roots, name_kind};
use ground::trace::SampledBy;
use hop::proxy::{Address, AppProtocol, ForwardedFor};
use identity::assertion::{Algorithm, ClaimPath, CookieName, Format, OnInvalid, RequiredClaim};
use identity::{ForwardIdentity, GroupsLines, OnAmbiguous, Placeholder};
use shared::store;
use sidecar::access_log;
use sidecar::inject::{OnMintFailure, PathPattern};
use token::velt::{Api, VerifyUser};

/// Number of a database in the shared store. Redis has 16 of them by default.
pub(super) struct DatabaseNumber(pub(super) u32);

impl Setting for DatabaseNumber {
    const EXPECTED: &'static str = "a whole number from 0 on";
    const BARE: bool = true;
    fn form() -> Form {
        Form::Whole { least: 0, most: u32::MAX.into() }
    }
    fn parse(text: &str) -> Option<Self> {
        let number: u32 = text.parse().ok()?;
        (number.to_string() == text).then_some(Self(number))
    }
}

/// Text before each key in the shared store.
pub(super) struct StorePrefix(pub(super) String);

impl Setting for StorePrefix {
    const EXPECTED: &'static str = "1 to 64 letters, digits, or - . _ :";
    fn form() -> Form {
        Form::Text(r"^[A-Za-z0-9._:-]{1,64}$")
    }
    fn parse(text: &str) -> Option<Self> {
        // Braces would decide which node of a cluster has a key.
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(legal);
        fits.then(|| Self(text.to_owned()))
    }
}

impl Setting for store::Address {
    const EXPECTED: &'static str = "\"host:port\" or \"unix:/run/redis.sock\"";
    fn form() -> Form {
        Form::Text(r"^unix:/|^[^/@ ]+:\+?[0-9]+$")
    }
    fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return path.starts_with('/').then(|| Self::Unix(path.into()));
        }
        let (host, port) = text.rsplit_once(':')?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match inner {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            // A user, a path or a scheme belongs into other settings.
            None => !host.is_empty() && !host.contains([':', '/', '@', '[', ']', ' ']),
        };
        let port = port.parse().ok().filter(|port| *port > 0)?;
        is_host.then(|| Self::Tcp { host: inner.unwrap_or(host).to_owned(), port })
    }
}

/// The size of a request's head.
pub(super) struct HeaderBytes(pub(super) u32);

/// Pattern of a size from 8 KiB to 1 MiB.
const HEADER_BYTES: &str = r"^\+?0*(([89]|[1-9][0-9]{1,2}|10[01][0-9]|102[0-4])KiB|1MiB)$";

/// Pattern of a size from 1 KiB to 16 MiB.
const BODY_BYTES: &str = r"^\+?0*(([1-9][0-9]{0,3}|1[0-5][0-9]{3}|16[0-2][0-9]{2}|163[0-7][0-9]|1638[0-4])KiB|([1-9]|1[0-6])MiB)$";

/// Pattern of a size from 32 MiB on, and of some that are smaller.
const MEMORY: &str =
    r"^\+?0*([1-9][0-9]{4,}KiB|(3[2-9]|[4-9][0-9]|[1-9][0-9]{2,})MiB|[1-9][0-9]*GiB)$";

impl Setting for HeaderBytes {
    const EXPECTED: &'static str = "a size from \"8KiB\" to \"1MiB\"";
    fn form() -> Form {
        Form::Text(HEADER_BYTES)
    }
    fn parse(text: &str) -> Option<Self> {
        let bytes = u32::try_from(Bytes::parse(text)?.0).ok()?;
        (8 << 10..=1 << 20).contains(&bytes).then_some(Self(bytes))
    }
}

/// The size of a body that is read into memory.
pub(super) struct BodyBytes(pub(super) usize);

impl Setting for BodyBytes {
    const EXPECTED: &'static str = "a size from \"1KiB\" to \"16MiB\"";
    fn form() -> Form {
        Form::Text(BODY_BYTES)
    }
    fn parse(text: &str) -> Option<Self> {
        let bytes = usize::try_from(Bytes::parse(text)?.0).ok()?;
        (1 << 10..=16 << 20).contains(&bytes).then_some(Self(bytes))
    }
}

/// A limit of what one connection or request may have, from 1 to 10,000.
pub(super) struct Count(pub(super) u32);

impl Count {
    pub(super) fn size(self) -> usize {
        self.0 as usize
    }
}

impl Setting for Count {
    const EXPECTED: &'static str = "a whole number from 1 to 10000";
    const BARE: bool = true;
    fn form() -> Form {
        Form::Whole { least: 1, most: 10_000 }
    }
    fn parse(text: &str) -> Option<Self> {
        u32::try_from(u64::parse(text)?).ok().filter(|count| *count <= 10_000).map(Self)
    }
}

/// A path as it stands in a request line, in the one spelling that serves a token.
pub(super) struct RoutePath(pub(super) String);

/// Pattern of a path whose segments are neither empty nor dots.
const ROUTE_PATH: &str = r"^(/([A-Za-z0-9_~!$&'()*+,=:@-]|\.[A-Za-z0-9_~!$&'()*+,=:@-]|\.\.[A-Za-z0-9._~!$&'()*+,=:@-])[A-Za-z0-9._~!$&'()*+,=:@-]*)+$";

impl Setting for RoutePath {
    const EXPECTED: &'static str =
        "a plain path, such as \"/api/velt/token\": no query, escapes, empty or dot segments";
    fn form() -> Form {
        Form::Text(ROUTE_PATH)
    }
    fn parse(text: &str) -> Option<Self> {
        let segments = text.strip_prefix('/')?.split('/');
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte);
        let plain =
            |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(legal);
        segments.into_iter().all(plain).then(|| Self(text.to_owned()))
    }
}

impl Setting for PathAndQuery {
    const EXPECTED: &'static str = "a path of the app's, such as \"/api/me\"";
    fn form() -> Form {
        Form::Text("^/")
    }
    fn parse(text: &str) -> Option<Self> {
        Self::try_from(text).ok().filter(|path| path.as_str() == text && text.starts_with('/'))
    }
}

/// Source of the user's identity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceName {
    Header,
    Assertion,
    App,
}

impl Setting for Algorithm {
    const EXPECTED: &'static str = "one of \"RS256\", \"RS384\", \"RS512\", \"PS256\", \"PS384\", \
                                    \"PS512\", \"ES256\", \"ES384\" and \"EdDSA\", or \"HS256\" \
                                    with identity.assertion.secret";
    fn form() -> Form {
        Form::Words(Self::ALL.iter().map(|algorithm| algorithm.name()).collect())
    }
    fn parse(text: &str) -> Option<Self> {
        Self::from_name(text)
    }
}

impl Setting for CookieName {
    const EXPECTED: &'static str =
        "the name of a cookie, with at most one *, such as \"sb-*-auth-token\"";
    fn form() -> Form {
        Form::Text(r"^\S+$")
    }
    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

impl Setting for RequiredClaim {
    const EXPECTED: &'static str = "a claim and the value that it must have or not have, such as \"token_use=id\" or \"sts!=pending\"";
    fn form() -> Form {
        Form::Text("=")
    }
    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

/// One of the sorts of places of an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlaceName {
    Header,
    Cookie,
}

impl Setting for ClaimPath {
    const EXPECTED: &'static str = "a claim, such as \"sub\" or \"custom.user.id\", or a JSON pointer \
        where a name has a dot or slash in it: \"/https:~1~1example.com~1roles\"";
    fn form() -> Form {
        Form::Text(r"^[^./ ]+(\.[^./ ]+)*$|^(/([^/~]|~[01])+)+$")
    }
    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

/// The character between two items.
pub(super) struct Separator(pub(super) char);

impl Setting for Separator {
    const EXPECTED: &'static str = "one character, such as \",\" or \"|\"";
    fn form() -> Form {
        Form::Text("^[ -/:-@\\[-`{-~]$")
    }
    fn parse(text: &str) -> Option<Self> {
        let mut characters = text.chars();
        let (only, None) = (characters.next()?, characters.next()) else { return None };
        (only.is_ascii_punctuation() || only == ' ').then_some(Self(only))
    }
}

impl Setting for Placeholder {
    const EXPECTED: &'static str = "a word of at most 64 bytes that stands for no value, such as \
        \"(null)\", or the form of a template, such as \"{...}\"";
    fn form() -> Form {
        Form::Text(".")
    }
    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

pub(super) enum ShapeName {
    String,
    Object,
}

impl Setting for PathPattern {
    const EXPECTED: &'static str = "a path such as \"/api/me\", or a prefix such as \"/api/*\"";
    fn form() -> Form {
        Form::Text(r"^/[^*?# ]*\*?$")
    }
    fn parse(text: &str) -> Option<Self> {
        let path = text.strip_suffix('*').unwrap_or(text);
        if !path.starts_with('/') || path.contains(['*', '?', '#', ' ']) {
            return None;
        }
        let path_owned = path.to_owned();
        Some(if path.len() < text.len() {
            Self::Prefix(path_owned)
        } else {
            Self::Exact(path_owned)
        })
    }
}

/// The app's address, and whether the app speaks TLS; or no app.
pub(super) enum AppAddress {
    None,
    At { address: Address, tls: bool },
}

/// Pattern of the app's address.
const APP_ADDRESS: &str = r"^none$|^unix:/|^(https://)?[^@/]+:\+?0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";

impl Setting for AppAddress {
    const EXPECTED: &'static str = "the app's address, such as \"127.0.0.1:3000\", \
         \"https://127.0.0.1:3443\" or \"unix:/run/app.sock\"; or \"none\", if a gateway has the app";
    fn form() -> Form {
        Form::Text(APP_ADDRESS)
    }
    fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self::None);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let address = Address::Unix(path.into());
            return path.starts_with('/').then_some(Self::At { address, tls: false });
        }
        let (text, tls) = match text.strip_prefix("https://") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let authority: http::uri::Authority = text.parse().ok()?;
        let plain = authority.port_u16().is_some_and(|port| port > 0)
            && !authority.host().is_empty()
            && !text.contains('@');
        plain.then(|| Self::At { address: Address::Tcp(text.to_owned()), tls })
    }
    fn correction(text: &str) -> Option<String> {
        let (scheme, rest, port) = match text.strip_prefix("http://") {
            Some(rest) => ("", rest, 80),
            None => ("https://", text.strip_prefix("https://")?, 443),
        };
        let host = rest.split(['/', '?', '#']).next()?;
        let own_port = if Self::parse(host).is_some() { String::new() } else { format!(":{port}") };
        let address = format!("{scheme}{host}{own_port}");
        let without = if scheme.is_empty() { "without http:// and" } else { "without" };
        Self::parse(&address).map(|_| format!("{address:?}, {without} a path"))
    }
}

/// A name that a client's certificate may carry.
pub(super) struct CertificateName(pub(super) String);

impl Setting for CertificateName {
    const EXPECTED: &'static str = "a name from a client certificate's subject alternative names, \
         such as \"oauth2-proxy.auth.svc\" or \"spiffe://cluster.local/ns/auth/sa/proxy\"";
    fn form() -> Form {
        Form::Text(r"^[^*\s]\S*$")
    }
    fn parse(text: &str) -> Option<Self> {
        name_kind(text).map(|_| Self(text.to_owned()))
    }
}

/// A host as it stands in `Host`, without a port.
pub(super) struct HostName(pub(super) String);

impl Setting for HostName {
    const EXPECTED: &'static str = "the name of a host without a port, such as \"app.example\"";
    fn form() -> Form {
        Form::Text(r"^[^/@:?#\s]+$|^\[[^/@?#\s]+\]$")
    }
    fn parse(text: &str) -> Option<Self> {
        let authority: http::uri::Authority = text.parse().ok()?;
        (authority.host() == text).then(|| Self(text.to_owned()))
    }
}

impl Setting for ServerName<'static> {
    const EXPECTED: &'static str = "the name in the server's certificate, such as \"app.internal\"";
    fn form() -> Form {
        Form::Text(r"^\S+$")
    }
    fn parse(text: &str) -> Option<Self> {
        Self::try_from(text.to_owned()).ok()
    }
}

impl Setting for Url {
    const EXPECTED: &'static str = "an https:// URL without user, query or fragment";
    fn form() -> Form {
        Form::Text(r"^\s*[Hh][Tt][Tt][Pp][Ss]?:[/\\]*[^/\\?#]+[^?#]*$")
    }
    fn parse(text: &str) -> Option<Self> {
        let url: Self = Self::parse(text).ok()?;
        let plain = matches!(url.scheme(), "https" | "http")
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        plain.then_some(url)
    }
}

impl Setting for Workers {
    const EXPECTED: &'static str = "\"auto\" or a number of threads in quotes, such as \"4\"";
    fn form() -> Form {
        Form::OrWords(&["auto"], r"^\+?0*([1-9]|[1-5][0-9]|6[0-4])$")
    }
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            _ => text.parse().ok().filter(|count| (1..=64).contains(count)).map(Self::Exactly),
        }
    }
}

impl Setting for memory::Limit {
    const EXPECTED: &'static str =
        "\"auto\", \"off\" or a size from \"32MiB\" on, such as \"200MiB\"";
    fn form() -> Form {
        Form::OrWords(&["auto", "off"], MEMORY)
    }
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "off" => Some(Self::Off),
            _ => Bytes::parse(text).filter(|bytes| bytes.0 >= 32 << 20).map(|b| Self::Bytes(b.0)),
        }
    }
}

/// Declares how the values of an enum are written.
macro_rules! words {
    ($name:ty, $expected:literal, { $($word:literal => $value:expr),+ $(,)? }) => {
        impl Setting for $name {
            const EXPECTED: &'static str = $expected;
            fn form() -> Form {
                Form::Words(vec![$($word),+])
            }
            fn parse(text: &str) -> Option<Self> {
                match text { $($word => Some($value),)+ _ => None }
            }
        }
    };
}

words!(Api, "\"legacy\", \"v1\" or \"v2\"", {
    "legacy" => Self::Legacy, "v1" => Self::V1, "v2" => Self::V2,
});
words!(VerifyUser, "\"auto\", \"require\" or \"off\"", {
    "auto" => Self::Auto, "require" => Self::Require, "off" => Self::Off,
});
words!(AppProtocol, "\"http1\", \"h2c\" or \"h2\"", {
    "http1" => Self::Http1, "h2c" => Self::H2c, "h2" => Self::H2,
});
words!(ForwardedFor, "\"keep\" or \"append\"", { "keep" => Self::Keep, "append" => Self::Append });
words!(ClientCertificate, "\"required\" or \"optional\"", {
    "required" => Self::Required, "optional" => Self::Optional,
});
words!(Roots, "\"auto\", \"system\" or \"bundled\"", {
    "auto" => Self::Auto, "system" => Self::System, "bundled" => Self::Bundled,
});
words!(OnAmbiguous, "\"refuse\" or \"drop\"", { "refuse" => Self::Refuse, "drop" => Self::Drop });
words!(ForwardIdentity, "\"keep\" or \"strip\"", { "keep" => Self::Keep, "strip" => Self::Strip });
words!(GroupsLines, "\"one\" or \"several\"", {
    "one" => Self::One, "several" => Self::Several,
});
words!(SourceName, "\"header\", \"assertion\" or \"app\"", {
    "header" => Self::Header, "assertion" => Self::Assertion, "app" => Self::App,
});
words!(Format, "\"jwt\", \"supabase\", \"authjs\" or \"nextauth\"", {
    "jwt" => Self::Jwt, "supabase" => Self::Supabase,
    "authjs" => Self::Authjs, "nextauth" => Self::Nextauth,
});
words!(PlaceName, "\"header\" or \"cookie\"", { "header" => Self::Header, "cookie" => Self::Cookie });
words!(OnInvalid, "\"refuse\" or \"anonymous\"", {
    "refuse" => Self::Refuse, "anonymous" => Self::Anonymous,
});
words!(OnMintFailure, "\"omit\" or \"refuse\"", { "omit" => Self::Omit, "refuse" => Self::Refuse });
words!(SampledBy, "\"trusted_peers\" or \"anyone\"", {
    "trusted_peers" => Self::TrustedPeers, "anyone" => Self::Anyone,
});
words!(ShapeName, "\"object\" or \"string\"", { "object" => Self::Object, "string" => Self::String });
words!(ResourceKind, "\"organization\", \"folder\" or \"document\"", {
    "organization" => Self::Organization, "folder" => Self::Folder, "document" => Self::Document,
});
words!(AccessRole, "\"viewer\" or \"editor\"", { "viewer" => Self::Viewer, "editor" => Self::Editor });
words!(logging::Format, "\"text\" or \"json\"", {
    "text" => Self::Text, "json" => Self::Json,
});

words!(access_log::Format, "\"json\", \"text\" or \"off\"", {
    "json" => Self::Json, "text" => Self::Text, "off" => Self::Off,
});

impl Setting for logging::Level {
    const EXPECTED: &'static str = "\"error\", \"warn\", \"info\" or \"debug\"";
    fn form() -> Form {
        Form::Words(vec!["error", "warn", "info", "debug"])
    }
    fn parse(text: &str) -> Option<Self> {
        logging::level(text)
    }
}
