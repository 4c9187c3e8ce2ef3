//! The token domain: the request for a mint, its result, and the time for which a token may be served.
//!
//! No request of a client reaches this crate. Of a user it has what a mint sends: the id, the details in
//! [`Details`] and the rights in [`Rights`]. Only [`velt`] calls Velt. Freshness is a pure function of `now`,
//! so that expiry is tested in virtual time (`tests/it/token_cache.rs`).

#![forbid(unsafe_code)]

pub mod admission;
pub mod announce;
pub mod audit;
mod breaker;
pub mod cache;
pub mod trial;
mod canonical;
mod lifetime;
pub mod demand;
mod limit;
mod pace;
mod refusals;
mod request;
pub mod resilience;
mod rights;
mod value;
pub mod velt;

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use self::cache::Fingerprint;
pub use self::demand::{Demand, Stage, Unfinished};
pub use self::lifetime::{Freshness, Moment, Token};
pub use self::request::{Details, Issuer, MintPlan, MintRequest, Resource, Unplanned};
pub use self::rights::{End, GrantedBy, Right, Rights, is_viewer_alone};
pub use self::value::TokenValue;

/// Result of a mint: a token and its whole life.
#[derive(Clone, Debug)]
pub struct Minted {
    pub value: TokenValue,
    /// Life from the time of the mint on.
    pub life: Duration,
    pub origin: Origin,
}

/// Mint from which a token has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Velt has minted the token just now.
    Velt,
    /// Another replica has had it minted.
    Replica {
        /// Time since the mint.
        age: Duration,
        /// Whether the token was minted with other credentials than those in force here.
        superseded: bool,
    },
}

impl Minted {
    /// Makes the result of a call to Velt.
    pub fn now(value: TokenValue, life: Duration) -> Self {
        Self { value, life, origin: Origin::Velt }
    }

    /// Returns the time since the mint.
    pub fn age(&self) -> Duration {
        match self.origin {
            Origin::Velt => Duration::ZERO,
            Origin::Replica { age, .. } => age,
        }
    }
}

/// The future of a [`Mint`].
pub type MintFuture<'a> = Pin<Box<dyn Future<Output = Result<Minted, MintError>> + Send + 'a>>;

/// The only interface between the cache and Velt.
pub trait Mint: Send + Sync + 'static {
    /// Asks for one token. `demand` says how urgently the token is wanted, and is told how far the mint
    /// has come.
    fn mint<'a>(&'a self, request: &'a MintRequest, demand: &'a Arc<Demand>) -> MintFuture<'a>;
}

impl<M: Mint + ?Sized> Mint for Arc<M> {
    fn mint<'a>(&'a self, request: &'a MintRequest, demand: &'a Arc<Demand>) -> MintFuture<'a> {
        (**self).mint(request, demand)
    }
}

/// Reason why there is no token. `Clone`, because every caller that waited for the same mint gets the error.
#[derive(Clone, Debug)]
pub enum MintError {
    /// Velt refuses, and would refuse again, the credentials or the data that the sidecar sent for this user.
    Refused {
        /// Velt's own word for the refusal, if it was one of the documented ones.
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
    /// The call was sent, and no answer came in time.
    Timeout,
    /// The name of Velt's host could not be looked up, or not in time: a fault of the network.
    LookUp { timed_out: bool, source: Arc<dyn Error + Send + Sync> },
    /// No connection to Velt could be opened, or not in time: a fault of the network or of Velt.
    Connect { timed_out: bool, source: Arc<dyn Error + Send + Sync> },
    /// No call was made: other users' mints took all calls that may run at once, until no client asked
    /// for this token any more. A bound of the sidecar's own.
    Queued,
    /// The answer has no usable token. The fault of Velt, or of a proxy in between.
    Malformed { reason: MalformedReason },
    /// Velt's token names another user than the sidecar asked for. The token is dropped, and worth an alarm.
    Mismatch,
    /// No call was made, because the last calls failed; the next probe is due in `retry_after`.
    Suspended { retry_after: Duration, suspended: SuspendedFor },
    /// The mint's task panicked. The sidecar's own fault.
    Panicked,
}

/// Reason for a suspension of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuspendedFor {
    /// Velt, or the way to it, is down.
    Outage,
    /// Velt refuses the tokens of this organization, or of all organizations.
    Refusals,
}

/// Statuses that Velt documents for a permanent refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedStatus {
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    NotFound,
    FailedPrecondition,
    /// The refusal is known by the HTTP status alone.
    Unnamed,
}

/// Fault of an answer that should have held a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedReason {
    /// The answer is over 64 KiB.
    TooLarge,
    NotJson,
    /// An error status with a body that is not Velt's, such as the page of a firewall or proxy.
    NotVelt {
        http_status: u16,
    },
    /// A compressed body, which the sidecar did not ask for: a proxy on the way has compressed it.
    Encoded,
    NoToken,
    /// The token is empty, too long, or has bytes that no JWT has.
    UnusableToken,
    /// The token's `exp` has passed.
    AlreadyExpired,
    /// The token carries no user claim although `velt.verify_user = "require"` asks for one.
    NoUserClaim,
    /// A redirect, which is never followed with credentials in hand.
    Redirect,
}

impl MintError {
    /// Whether the same call may succeed in a moment.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. }
                | Self::Unavailable { .. }
                | Self::Timeout
                | Self::LookUp { .. }
                | Self::Connect { .. }
        )
    }

    /// Whether Velt has not answered at all.
    pub(crate) fn is_silence(&self) -> bool {
        matches!(self, Self::Timeout | Self::Unavailable { http_status: None, .. })
    }

    /// Returns the wait that Velt asked for, or that the sidecar has decided on.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Unavailable { retry_after, .. } => {
                *retry_after
            }
            Self::Suspended { retry_after, .. } => Some(*retry_after),
            Self::Refused { .. }
            | Self::Timeout
            | Self::LookUp { .. }
            | Self::Connect { .. }
            | Self::Queued
            | Self::Malformed { .. }
            | Self::Mismatch
            | Self::Panicked => None,
        }
    }

    /// Copy of the error `elapsed` later, with a wait shorter by `elapsed`.
    pub fn after(mut self, elapsed: Duration) -> Self {
        match &mut self {
            Self::RateLimited { retry_after: Some(wait) }
            | Self::Unavailable { retry_after: Some(wait), .. }
            | Self::Suspended { retry_after: wait, .. } => *wait = wait.saturating_sub(elapsed),
            _ => {}
        }
        self
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
            Self::Timeout => {
                formatter.write_str("Velt did not answer in time (velt.attempt_timeout)")
            }
            Self::LookUp { timed_out: true, .. } => formatter.write_str(
                "the name of Velt's host was not looked up in time (velt.connect_timeout): check \
                 the pod's DNS",
            ),
            Self::LookUp { timed_out: false, .. } => formatter.write_str(
                "the name of Velt's host could not be looked up: check velt.endpoint and the pod's \
                 DNS",
            ),
            Self::Connect { timed_out: true, .. } => formatter.write_str(
                "no connection to Velt was opened in time (velt.connect_timeout): check egress \
                 rules and the proxy settings of the environment",
            ),
            Self::Connect { timed_out: false, .. } => {
                formatter.write_str("no connection to Velt could be opened")
            }
            Self::Queued => formatter.write_str(
                "the token had no turn among the sidecar's own calls to Velt \
                 (velt.max_concurrent); Velt was not asked",
            ),
            Self::Malformed { reason: MalformedReason::NotVelt { http_status } } => write!(
                formatter,
                "another server in Velt's place, such as a firewall or a proxy, answered HTTP \
                 {http_status}: check velt.endpoint, egress rules and the proxy settings of the \
                 environment"
            ),
            Self::Malformed { reason } => write!(formatter, "Velt's answer is unusable: {reason}"),
            Self::Mismatch => formatter.write_str(
                "Velt's token names another user than the sidecar asked for; the token was \
                 dropped",
            ),
            Self::Suspended { suspended: SuspendedFor::Outage, .. } => {
                formatter.write_str("calls to Velt are suspended after repeated failures")
            }
            Self::Suspended { suspended: SuspendedFor::Refusals, .. } => formatter.write_str(
                "Velt has refused the last tokens of this organization, so the sidecar asks for \
                 its tokens only now and then: check the API key, the auth token and the \
                 organization",
            ),
            Self::Panicked => formatter.write_str("the mint failed by a bug in the sidecar"),
        }
    }
}

impl Error for MintError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unavailable { source: Some(source), .. }
            | Self::LookUp { source, .. }
            | Self::Connect { source, .. } => Some(source.as_ref()),
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
            Self::NotJson => "not JSON, so another server answered in Velt's place",
            Self::NotVelt { .. } => "not Velt's",
            Self::Encoded => {
                "compressed, which the sidecar did not ask for: a proxy on the way did it"
            }
            Self::NoToken => "no result.data.token",
            Self::UnusableToken => "the token is empty, too long or not visible ASCII",
            Self::AlreadyExpired => "the token has already expired",
            Self::NoUserClaim => "the token carries no user claim to verify",
            Self::Redirect => "a redirect, which is not followed",
        })
    }
}
