//! The token domain: what a mint asks for, what comes back, and how long it may be served.
//!
//! Nothing here knows HTTP or Velt. Freshness is a pure function of `now`, so that expiry is
//! tested in virtual time.

pub mod breaker;
pub mod cache;
pub mod resilience;
pub mod velt;

use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use tokio::time::Instant;

/// Share of a token's life after which it is refreshed, before jitter.
///
/// Three quarters of the documented 48 h leave half a day for Velt to come back.
const REFRESH_AFTER: f64 = 0.75;

/// Width of the jitter around [`REFRESH_AFTER`], as a share of life, so that users who signed in
/// together do not refresh together.
const REFRESH_JITTER: f64 = 0.10;

/// A token is given up this long before its end, since it must still work when the page uses it.
const EXPIRY_MARGIN: Duration = Duration::from_secs(60);

/// Everything that is sent to Velt for one token, and therefore the cache's key.
///
/// Equality is structural over typed fields: equal requests share a token, unequal ones never do,
/// and no separator can be forged because nothing is glued together.
#[derive(Clone, PartialEq, Eq)]
pub struct MintRequest {
    /// Nearly always the same for all, and then the same in memory.
    pub issuer: Arc<Issuer>,
    pub subject: Subject,
}

/// By whom it is for alone: the issuer is hardly ever another one.
impl Hash for MintRequest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.subject.hash(state);
    }
}

/// Who mints, and with which rights: the part of a request that the configuration fixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Two APIs may be called at the same URL, and mint tokens of different rights.
    pub api: velt::Api,
    pub endpoint: Arc<str>,
    /// Counts up whenever the credentials change, so that no token outlives its credentials.
    pub credentials_generation: u64,
    /// Grants beyond the organization itself.
    pub resources: Arc<[Resource]>,
}

/// A grant that a v2 token carries
/// (docs.velt.dev, REST API v2, "Generate Token", `permissions.resources`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: ResourceKind,
    pub id: String,
    /// The organization that a folder or document belongs to; the user's own when `None`.
    pub organization: Option<String>,
    pub role: Option<AccessRole>,
    /// How long the grant lasts, counted from the mint.
    pub expires_in: Option<Duration>,
}

/// What a [`Resource`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    Organization,
    Folder,
    Document,
}

/// What a [`Resource`] may be used for. Velt's default is editor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessRole {
    Viewer,
    Editor,
}

/// For whom a token is minted. Absent fields are not sent: Velt refuses empty strings.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    pub user: Box<str>,
    pub organization: Option<Box<str>>,
    pub email: Option<Box<str>>,
    pub name: Option<Box<str>>,
    pub is_admin: Option<bool>,
}

/// Turns a subject into a mint request: the part that the configuration fixes.
#[derive(Clone, Debug)]
pub struct MintPlan {
    pub issuer: Arc<Issuer>,
    /// For subjects that come without one.
    pub organization: Option<Box<str>>,
    /// Whether Velt's API can do without one.
    pub needs_organization: bool,
}

impl MintPlan {
    /// `None` if an organization is needed and there is none.
    pub fn request(&self, mut subject: Subject) -> Option<MintRequest> {
        if subject.organization.is_none() {
            subject.organization.clone_from(&self.organization);
        }
        if self.needs_organization && subject.organization.is_none() {
            return None;
        }
        Some(MintRequest { issuer: Arc::clone(&self.issuer), subject })
    }
}

impl MintRequest {
    /// A number between 0 and 1 that is the same for equal requests within this process.
    fn fraction(&self) -> f64 {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(self);
        // The upper 53 bits fill an f64's mantissa exactly.
        (hash >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Bytes of the strings that this request owns, for the cache's accounting.
    fn owned_bytes(&self) -> usize {
        let Subject { user, organization, email, name, is_admin: _ } = &self.subject;
        let optional = [organization, email, name];
        user.len() + optional.into_iter().flatten().map(|text| text.len()).sum::<usize>()
    }
}

impl fmt::Debug for MintRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MintRequest(..)")
    }
}

/// A JWT as it travels: visible ASCII that is a valid header value. It cannot print itself.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenValue(HeaderValue);

impl TokenValue {
    /// The longest token accepted, in bytes: what fits a response head that common proxies pass
    /// on (ALB takes 32 KiB of response headers, HTTP/2 peers announce 16 KiB by default).
    pub const MAX_BYTES: usize = 12 * 1024;

    /// `None` unless `text` is 1 to [`Self::MAX_BYTES`] bytes of visible ASCII that need no
    /// escaping in a JSON string, which every JWT is (RFC 7515 section 7.1).
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        if text.is_empty() || text.len() > Self::MAX_BYTES || !text.bytes().all(legal) {
            return None;
        }
        let mut value = HeaderValue::from_str(text).ok()?;
        // Keeps it out of `Debug` and out of HPACK's dynamic table.
        value.set_sensitive(true);
        Some(Self(value))
    }

    /// As a header value, marked sensitive. Cloning shares the bytes.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// As text, for the body of a token route.
    pub fn expose(&self) -> &str {
        self.0.to_str().expect("visible ASCII by construction")
    }
}

impl fmt::Debug for TokenValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenValue(..)")
    }
}

/// What a mint yields: a token and how long it lives from now on.
#[derive(Clone, Debug)]
pub struct Minted {
    pub value: TokenValue,
    pub life: Duration,
}

/// A moment by two clocks. The steady one never steps, but stands still while the machine is
/// suspended; the wall clock knows of that, but is set back and forth.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub steady: Instant,
    pub wall: SystemTime,
}

impl Moment {
    /// What both clocks say.
    pub fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// The time since `earlier` by the clock that counts more of it, so that neither a suspended
    /// machine nor a clock that is set back makes anything younger.
    pub fn since(self, earlier: Self) -> Duration {
        let steady = self.steady.saturating_duration_since(earlier.steady);
        // An error says that the wall clock was set back.
        steady.max(self.wall.duration_since(earlier.wall).unwrap_or_default())
    }
}

/// A token with its place in time.
#[derive(Clone, Debug)]
pub struct Token {
    value: TokenValue,
    minted_at: Moment,
    refresh_after: Duration,
    life: Duration,
}

/// What may be done with a token now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it, and refresh it once in the background.
    Due,
    /// Never serve it again.
    Expired,
}

impl Token {
    /// Dates a minted token. `request` spreads the refreshes of different users.
    pub fn new(minted: Minted, request: &MintRequest, now: Moment) -> Self {
        // A tenth for tokens so short that the margin would eat them.
        let life = minted.life.saturating_sub(EXPIRY_MARGIN.min(minted.life / 10));
        let share = REFRESH_AFTER + REFRESH_JITTER * (request.fraction() - 0.5);
        let refresh_after = life.mul_f64(share);
        Self { value: minted.value, minted_at: now, refresh_after, life }
    }

    /// What may be done with this token at `now`.
    pub fn freshness(&self, now: Moment) -> Freshness {
        let age = now.since(self.minted_at);
        if age >= self.life {
            Freshness::Expired
        } else if age >= self.refresh_after {
            Freshness::Due
        } else {
            Freshness::Fresh
        }
    }

    /// How much longer it may be served.
    pub fn remaining(&self, now: Moment) -> Duration {
        self.life.saturating_sub(now.since(self.minted_at))
    }

    /// The token itself.
    pub fn value(&self) -> &TokenValue {
        &self.value
    }
}

/// The future of a [`Mint`].
pub type MintFuture<'a> = Pin<Box<dyn Future<Output = Result<Minted, MintError>> + Send + 'a>>;

/// The one seam between the cache and Velt.
pub trait Mint: Send + Sync + 'static {
    /// Asks for one token.
    fn mint<'a>(&'a self, request: &'a MintRequest) -> MintFuture<'a>;
}

/// Why there is no token. Clone, because everybody who waited for the same mint gets it.
#[derive(Clone, Debug)]
pub enum MintError {
    /// Velt says no, and would say no again: the credentials, or what we sent for this user.
    Refused {
        /// Velt's own word for it, if it was one of the documented ones.
        status: RefusedStatus,
        http_status: u16,
    },
    /// Velt asks for patience.
    RateLimited { retry_after: Option<Duration> },
    /// Velt, or the way to it, is down.
    Unavailable {
        /// `None` when there was no HTTP answer at all.
        http_status: Option<u16>,
        retry_after: Option<Duration>,
        source: Option<Arc<dyn Error + Send + Sync>>,
    },
    /// No answer in time.
    Timeout,
    /// An answer without a usable token. Velt's fault, or somebody's in between.
    Malformed { reason: MalformedReason },
    /// Velt's token names another user than we asked for. Dropped, and worth an alarm.
    Mismatch,
    /// No call was made, because the last ones failed; the next probe is due in `retry_after`.
    Suspended { retry_after: Duration },
    /// Our own fault: the mint's task panicked.
    Panicked,
}

/// The statuses that Velt documents for a permanent refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedStatus {
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    NotFound,
    FailedPrecondition,
    /// Told by the HTTP status alone.
    Unnamed,
}

/// What was wrong with an answer that should have held a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedReason {
    /// Over 64 KiB.
    TooLarge,
    NotJson,
    NoToken,
    /// Empty, too long, or bytes that no JWT has.
    UnusableToken,
    /// Its `exp` has passed.
    AlreadyExpired,
    /// It carries no user claim although `velt.verify_user = "require"` asks for one.
    NoUserClaim,
    /// A redirect, which is never followed with credentials in hand.
    Redirect,
}

impl MintError {
    /// Whether the same call may succeed in a moment.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Unavailable { .. } | Self::Timeout)
    }

    /// How long Velt asked us to wait, or how long we have decided to.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Unavailable { retry_after, .. } => {
                *retry_after
            }
            Self::Suspended { retry_after } => Some(*retry_after),
            Self::Refused { .. }
            | Self::Timeout
            | Self::Malformed { .. }
            | Self::Mismatch
            | Self::Panicked => None,
        }
    }
}

impl fmt::Display for MintError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status, http_status } => write!(
                formatter,
                "Velt refused to mint ({status}, HTTP {http_status}): check the API key and auth \
                 token, and what is sent for this user"
            ),
            Self::RateLimited { .. } => {
                formatter.write_str("Velt's rate limit for this API key is reached")
            }
            Self::Unavailable { http_status: Some(status), .. } => {
                write!(formatter, "Velt answered HTTP {status}")
            }
            Self::Unavailable { http_status: None, .. } => {
                formatter.write_str("Velt could not be reached")
            }
            Self::Timeout => formatter.write_str("Velt did not answer in time"),
            Self::Malformed { reason } => write!(formatter, "Velt's answer is unusable: {reason}"),
            Self::Mismatch => {
                formatter.write_str("Velt's token names another user than was asked for; dropped")
            }
            Self::Suspended { .. } => {
                formatter.write_str("calls to Velt are suspended after repeated failures")
            }
            Self::Panicked => formatter.write_str("the mint failed by a bug in the sidecar"),
        }
    }
}

impl Error for MintError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unavailable { source: Some(source), .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl fmt::Display for RefusedStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::NotFound => "NOT_FOUND",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Unnamed => "no documented status",
        })
    }
}

impl fmt::Display for MalformedReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TooLarge => "over 64 KiB",
            Self::NotJson => "not JSON",
            Self::NoToken => "no result.data.token",
            Self::UnusableToken => "the token is empty, too long or not visible ASCII",
            Self::AlreadyExpired => "the token has already expired",
            Self::NoUserClaim => "the token carries no user claim to verify",
            Self::Redirect => "a redirect, which is not followed",
        })
    }
}
