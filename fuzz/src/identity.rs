//! User that a request's headers name, and the headers that are left for the app.
//!
//! First line: any of the letters `t` (a trusted peer), `d` (drop ambiguous headers), `s` (strip identity
//! headers before the app), `u` (configured names with underscores). Then headers.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use futures_util::FutureExt as _;
use ground::groups::KnownGroups;
use ground::metrics::Metrics;
use ground::peer::Peer;
use http::{HeaderMap, HeaderName, HeaderValue};
use identity::{
    Caller, ForwardIdentity, GroupsLines, HeaderSource, Identified, Identity, MAX_VALUE_BYTES,
    OnAmbiguous, Organization, Placeholder, Placeholders, Refusal, Settings, Source,
};

use super::lines;

/// # Panics
///
/// Panics if the request is taken for another user's, or if the app could read another user from it.
pub fn check(input: &[u8]) {
    let (options, rest) = lines::first_line(input);
    let [trusted, drop, strip, underscored] =
        [b't', b'd', b's', b'u'].map(|o| options.contains(&o));
    let case = Case::new(drop, strip, underscored);
    let said = lines::headers(rest);

    let mut trailers = said.clone();
    case.identity.sanitize_trailers(&mut trailers);
    let rest = lines::without(&said, |name| case.guards(name) || is_token(name));
    assert_eq!(trailers, rest, "trailers keep what is no identity, and nothing else");

    let mut left = said.clone();
    let outcome = case.identify(trusted, &mut left);
    let others = lines::without(&said, |name| case.guards(name) || is_token(name));
    let all = lines::without(&said, is_token);
    if !trusted {
        assert!(matches!(outcome, Ok(Caller::Anonymous)), "a stranger is anonymous");
        assert_eq!(left, others, "a stranger's word does not reach the app");
        return;
    }
    match (outcome, case.is_clear(&said)) {
        (Ok(Caller::Known(user)), true) => {
            case.assert_is(&user, &said);
            assert_eq!(left, if strip { others } else { all });
        }
        (Ok(Caller::Anonymous), true) => {
            let named = said.get_all(&case.source.user);
            assert!(named.iter().all(|value| kind(value) == Kind::Blank), "a user is named");
            let leftover = |name: &HeaderName| case.is_leftover(name, &said) || is_token(name);
            assert_eq!(left, if strip { others } else { lines::without(&said, leftover) });
        }
        (Ok(Caller::Anonymous), false) => {
            assert!(drop, "anonymous although the settings say to refuse");
            assert_eq!(left, others, "what was dropped does not reach the app");
        }
        (Err(Refusal::Ambiguous { header, .. }), false) => {
            assert!(!drop, "refused although the settings say to drop");
            assert!(case.names.contains(&header) || is_token(&header));
        }
        (Ok(Caller::Unverified | Caller::Unnamed) | Err(Refusal::Invalid(_)), _) => {
            panic!("nothing is signed here, nor the app's to say")
        }
        (Ok(Caller::Known(_)), false) => panic!("an ambiguous request has a user: {said:?}"),
        (Err(refusal), true) => panic!("refused without need: {refusal:?} {said:?}"),
    }
}

struct Case {
    identity: Identity,
    source: HeaderSource,
    names: Vec<HeaderName>,
    folded: HashSet<String>,
}

impl Case {
    fn new(drop: bool, strip: bool, underscored: bool) -> Self {
        let name = |name: &str| {
            let name = if underscored { name.replace('-', "_") } else { name.to_owned() };
            HeaderName::from_bytes(name.as_bytes()).expect("a name")
        };
        let source = HeaderSource {
            user: name("x-forwarded-user"),
            email: Some(name("x-forwarded-email")),
            name: Some(name("x-name")),
            organization: Some(name("x-org")),
            groups: Some(name("x-groups")),
            groups_separator: ',',
            groups_lines: GroupsLines::One,
            admin_groups: vec!["admins".into()],
            known_groups: KnownGroups::default(),
            grants: None,
            placeholders: Placeholders::new(
                PLACEHOLDERS.iter().filter_map(|word| Placeholder::parse(word)),
            ),
        };
        let settings = Settings {
            source: Source::Header(Box::new(source.clone())),
            details: None,
            guarded: Vec::new(),
            trusted_peers: vec![IpAddr::from(TRUSTED).into()],
            trusted_names: Vec::new(),
            secret: None,
            trusted_hosts: Vec::new(),
            trusted_proxies: None,
            ambiguous: if drop { OnAmbiguous::Drop } else { OnAmbiguous::Refuse },
            forward: if strip { ForwardIdentity::Strip } else { ForwardIdentity::Keep },
            token_headers: TOKEN_HEADERS.to_vec(),
        };
        let optional = [&source.email, &source.name, &source.organization, &source.groups];
        let names = optional.into_iter().flatten().chain([&source.user]).cloned();
        let names: Vec<HeaderName> = names.collect();
        Self {
            identity: Identity::new(settings, METRICS.identity.clone()).expect("no TLS needed"),
            folded: names.iter().map(folded).collect(),
            names,
            source,
        }
    }

    fn identify(&self, trusted: bool, headers: &mut HeaderMap) -> Result<Caller, Refusal> {
        let address = IpAddr::from(if trusted { TRUSTED } else { Ipv4Addr::BROADCAST });
        let identified = self.identity.identify(&Peer::at(address), headers).now_or_never();
        let Identified { caller, trusted: as_expected, .. } = identified.expect("read at once")?;
        assert_eq!(as_expected, trusted);
        Ok(caller)
    }

    /// Whether an app might read `name` as identity.
    fn guards(&self, name: &HeaderName) -> bool {
        self.folded.contains(&folded(name))
    }

    /// Whether these headers mean the same to every reader.
    fn is_clear(&self, said: &HeaderMap) -> bool {
        let aliased = said.keys().any(|name| self.guards(name) && !self.names.contains(name));
        let names: Vec<&HeaderName> = self.names.iter().chain(&TOKEN_HEADERS).collect();
        let nominated = ["connection", "trailer"].iter().any(|list| {
            let elements = lines::elements(said, list);
            elements
                .iter()
                .any(|element| names.iter().any(|name| name.as_str().as_bytes() == element))
        });
        let HeaderSource { user, email, name, organization, groups, .. } = &self.source;
        let fields = || {
            [(email, false), (name, true), (organization, false)].into_iter().all(
                |(field, commas)| {
                    let field = field.as_ref().expect("configured");
                    !said.contains_key(field) || is_single(said, field, commas)
                },
            ) && said.get_all(groups.as_ref().expect("configured")).iter().count() <= 1
        };
        let is_named = || match said.get(user).map(kind) {
            None | Some(Kind::Blank) => false,
            Some(Kind::Unusable | Kind::Text) => true,
        };
        let usable = || said.get(user).is_some_and(|user| kind(user) == Kind::Text);
        !aliased
            && !nominated
            && (!said.contains_key(user)
                || is_single(said, user, false) && (!is_named() || usable() && fields()))
    }

    /// Whether `name` carries a fact about a user although the request names no user.
    fn is_leftover(&self, name: &HeaderName, said: &HeaderMap) -> bool {
        self.guards(name)
            && *name != self.source.user
            && said.get_all(name).iter().any(|value| kind(value) != Kind::Blank)
    }

    fn assert_is(&self, user: &identity::User, said: &HeaderMap) {
        let value = |name: &Option<HeaderName>| {
            let value = said.get(name.as_ref().expect("configured"));
            value.filter(|value| kind(value) == Kind::Text).map(|value| value.as_bytes().to_vec())
        };
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        assert_eq!(user.id.as_bytes(), said[&self.source.user].as_bytes(), "byte for byte");
        let email = value(&self.source.email).filter(|email| is_address(email));
        assert_eq!(bytes(user.email.as_deref()), email);
        assert_eq!(bytes(user.name.as_deref()), value(&self.source.name));
        let organization = self.source.organization.as_ref().expect("configured");
        match &user.organization {
            Organization::Named(name) => {
                assert_eq!(name.as_bytes(), said[organization].as_bytes(), "byte for byte");
            }
            Organization::Unnamed => {
                assert!(said.get(organization).is_none_or(|value| kind(value) == Kind::Blank));
            }
            Organization::Unusable => assert!(kind(&said[organization]) == Kind::Unusable),
        }
        let groups = said.get(self.source.groups.as_ref().expect("configured"));
        let is_admin = groups.is_some_and(|line| {
            let mut groups = line.as_bytes().split(|byte| *byte == b',');
            groups.any(|group| String::from_utf8_lossy(group).trim_matches(' ') == "admins")
        });
        assert_eq!(user.is_admin, Some(is_admin));
    }
}

/// Kind of a header value, as a careful reader sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blank,
    Unusable,
    Text,
}

/// Values that mean an absent user.
const PLACEHOLDERS: [&str; 2] = ["(null)", "-"];

fn kind(value: &HeaderValue) -> Kind {
    let Ok(text) = std::str::from_utf8(value.as_bytes()) else { return Kind::Unusable };
    let of_no_width = [
        '\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{2060}',
        '\u{feff}',
    ];
    let is_blank = text.chars().all(|sign| sign.is_whitespace() || of_no_width.contains(&sign));
    let is_placeholder = |word: &&str| {
        text.strip_prefix(*word).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
    };
    if is_blank || PLACEHOLDERS.iter().any(is_placeholder) {
        Kind::Blank
    } else if text.len() > MAX_VALUE_BYTES
        || text.chars().any(char::is_control)
        || text.trim() != text
    {
        Kind::Unusable
    } else {
        Kind::Text
    }
}

/// Whether `email`, which is text, has a mailbox and a domain.
fn is_address(email: &[u8]) -> bool {
    let email = String::from_utf8_lossy(email);
    let at = email.rfind('@');
    at.is_some_and(|at| at > 0 && at + 1 < email.len()) && !email.contains(char::is_whitespace)
}

static TOKEN_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-velt-token"), HeaderName::from_static("x-velt-token-status")];

const TRUSTED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);

/// Shared, because a registry takes long to make.
static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Whether an app could read `name` as a token header.
fn is_token(name: &HeaderName) -> bool {
    TOKEN_HEADERS.iter().any(|own| folded(own) == folded(name))
}

/// Returns `name` as an app reads it that turns all characters but letters and digits into one character.
fn folded(name: &HeaderName) -> String {
    name.as_str().replace(|letter: char| !letter.is_ascii_alphanumeric(), "-")
}

/// Whether `name` has one value that is not a list of usable values.
fn is_single(said: &HeaderMap, name: &HeaderName, commas: bool) -> bool {
    let values: Vec<&HeaderValue> = said.get_all(name).iter().collect();
    let [value] = values[..] else { return false };
    commas || kind(value) != Kind::Text || !value.as_bytes().contains(&b',')
}
