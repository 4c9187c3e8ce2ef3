//! Words of every label: a closed set for each label.

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value, in the order of the enum's discriminants.
    const ALL: &'static [Self];
    /// The value as exported.
    fn as_str(self) -> &'static str;
    /// The position of this value in [`Label::ALL`].
    fn index(self) -> usize;
}

/// Declares a label enum: its Rust names beside its exported words.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident, $label:literal, { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label!(
    /// End of a request, as counted and logged: one word for each way to end.
    Outcome, "outcome", {
    /// The app answered and its answer went out.
    Forwarded = "forwarded",
    /// The app accepted a WebSocket; a tunnel carries it now.
    Upgraded = "upgraded",
    /// A token route answered with a token.
    TokenServed = "token_served",
    /// The client left before there was a response head.
    ClientGone = "client_gone",
    /// A malformed or refused message: see `docs/proxying.md`.
    BadRequest = "bad_request",
    /// A gateway's check was answered, with a token or a status.
    CheckAnswered = "check_answered",
    /// A token for resolvers, or the keys of such tokens, were served.
    ResolverServed = "resolver_served",
    /// A logout was carried out, or had been before.
    LogoutDone = "logout_done",
    /// A logout was not carried out: `logout_calls_total` says why.
    LogoutRefused = "logout_refused",
    /// The identity headers were ambiguous.
    IdentityRefused = "identity_refused",
    /// A token route was asked by a caller without a user.
    NoIdentity = "no_identity",
    /// An assertion that is not valid, where the settings say to refuse it.
    InvalidAssertion = "invalid_assertion",
    /// A token was needed and the caller's assertion could not be checked: there are no keys.
    IdentityUnverified = "identity_unverified",
    /// A token was needed by a user who was signed out, and has not signed in again.
    SignedOut = "signed_out",
    /// The organization that Velt's API needs was not in the request.
    NoOrganization = "no_organization",
    /// A token was needed, and the app gave no details of the user that can be used.
    NoDetails = "no_details",
    /// A token was needed and the rights that it would carry are not known, or contradict each other.
    NoGrants = "no_grants",
    /// A token route was asked with a `userId` that is not the signed-in user's.
    UserMismatch = "user_mismatch",
    /// A page said again that Velt refused its token, within a minute after a mint for that reason.
    RenewedRecently = "renewed_recently",
    /// A token route was asked by a page of another origin.
    CrossOrigin = "cross_origin",
    /// A token route was asked with a method that it does not have.
    MethodNotAllowed = "method_not_allowed",
    /// A token route was sent a longer body than it reads.
    BodyTooLarge = "body_too_large",
    /// Nothing moved for `app.stream_idle_timeout` while a request's body was being sent.
    StreamIdle = "stream_idle",
    /// A token was needed and Velt refused it.
    TokenRefused = "token_refused",
    /// A token was needed and Velt's rate limit did not allow it.
    TokenRateLimited = "token_rate_limited",
    /// A token was needed and Velt could not be reached, or calls are suspended.
    TokenUnavailable = "token_unavailable",
    /// A token was needed and Velt took too long.
    TokenTimeout = "token_timeout",
    /// A token was needed and had no turn yet among the sidecar's own calls to Velt.
    TokenQueued = "token_queued",
    /// A token was needed and Velt's answer held no token that can be used.
    TokenMalformed = "token_malformed",
    /// A path of the app's was asked for, and no app is behind the sidecar.
    NoApp = "no_app",
    /// The app could not be connected to.
    AppUnreachable = "app_unreachable",
    /// The app took longer than `app.response_timeout` to begin its answer.
    AppTimeout = "app_timeout",
    /// The app broke the connection off or answered with something that is not HTTP.
    AppBroken = "app_broken",
    /// The request's code panicked: a bug of the sidecar.
    Panicked = "panicked",
});

label!(
    /// Result of a TLS handshake.
    HandshakeResult, "result", {
    Completed = "completed",
    /// The handshake failed, for example for want of a common version or for a certificate that is not
    /// accepted.
    Failed = "failed",
    /// The client spoke something else, such as plain HTTP.
    NotTls = "not_tls",
    /// The client left before the handshake had begun.
    ClientGone = "client_gone",
    /// The handshake took longer than `listen.tls.handshake_timeout`, with the wait for a turn.
    Timeout = "timeout",
});

label!(
    /// Settings or files that are read again while the sidecar runs.
    ReloadPart, "part", {
    /// `sidecar.toml` and the files of secrets that it names.
    Config = "config",
    /// The listener's certificate, its key, and the authorities that sign clients' certificates.
    ListenTls = "listen_tls",
    /// The authorities that sign the app's certificate.
    AppTls = "app_tls",
});

label!(
    /// A certificate that expires.
    Certificate, "certificate", {
    /// The certificate of the listener's chain with the earliest end of validity.
    Listen = "listen",
    /// The authority of clients' certificates with the earliest end of validity.
    ClientCa = "client_ca",
});

label!(
    /// Result of a token look-up.
    LookupResult, "result", {
    Fresh = "fresh",
    /// A token was served that is due for a refresh in the background.
    Due = "due",
    /// Nothing valid was held; this look-up started a mint.
    Started = "started",
    /// Nothing valid was held; this look-up joined the mint in flight.
    Joined = "joined",
    /// The last mint failed a moment ago; its error was answered from memory.
    FailedRecently = "failed_recently",
});

label!(
    /// Answer to a page's report that Velt has refused a token.
    RefusedTokenResult, "result", {
    /// The refused token was the held one, and a mint was started.
    Renewed = "renewed",
    /// The refused token was the held one, and a mint was under way already.
    Joined = "joined",
    /// The sidecar holds another token for this user, or none.
    NotHeld = "not_held",
    /// The user's token was renewed less than a minute ago.
    TooSoon = "too_soon",
    /// The last mint failed a moment ago; its error was answered from memory.
    Failed = "failed",
});

label!(
    /// End of a mint, with all of its attempts.
    MintOutcome, "outcome", {
    Minted = "minted",
    Refused = "refused",
    RateLimited = "rate_limited",
    Unavailable = "unavailable",
    /// A call was sent, and no answer came in time.
    Timeout = "timeout",
    /// The name of Velt's host was not looked up, or not in time.
    LookUpFailed = "lookup_failed",
    /// No connection to Velt was opened, or not in time.
    ConnectFailed = "connect_failed",
    /// No call was made: other mints had all turns until no client asked for this one any more.
    Queued = "queued",
    Malformed = "malformed",
    /// Velt's token named another user and was dropped. An alarm.
    Mismatch = "mismatch",
    /// No call was made: calls are suspended since Velt is down.
    Suspended = "suspended",
    /// No call was made: Velt has refused the last tokens of the organization, or of all.
    SuspendedRefused = "suspended_refused",
    /// The mint's task panicked: a bug of the sidecar.
    Panicked = "panicked",
});

label!(
    /// Reason why an identity was refused, or was not taken for an identity.
    RefusalKind, "kind", {
    Repeated = "repeated",
    List = "list",
    Alias = "alias",
    ConnectionNominated = "connection_nominated",
    Trailer = "trailer",
    TooLong = "too_long",
    BadBytes = "bad_bytes",
    /// A placeholder in the place of a user: the request went on as anonymous.
    Placeholder = "placeholder",
    /// The cookie of a session, or a piece of it, came twice.
    CookieTwice = "cookie_twice",
    /// Two assertions of one request name different users.
    Disagreement = "disagreement",
});

impl RefusalKind {
    /// Returns the reason in words, for the answer to the request.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Repeated => "it is there more than once",
            Self::List => "it holds a comma, so it may be several values joined",
            Self::Alias => "another header differs from it only in its punctuation",
            Self::ConnectionNominated => "the Connection header names it",
            Self::Trailer => "it is announced as a trailer",
            Self::TooLong => "it is over 256 bytes",
            Self::BadBytes => {
                "it holds control characters, outer spaces or bytes that are not UTF-8"
            }
            Self::Placeholder => {
                "it holds a placeholder (identity.placeholders) or a template that was not filled in"
            }
            Self::CookieTwice => {
                "a cookie of its name came twice, and a page of another subdomain may have set one"
            }
            Self::Disagreement => "another assertion of the request names another user",
        }
    }
}

label!(
    /// Reason why an attribute of a user was left out.
    Flaw, "reason", {
    Empty = "empty",
    /// A placeholder in the place of a value.
    Placeholder = "placeholder",
    TooLong = "too_long",
    BadBytes = "bad_bytes",
    /// A claim that is no text, such as a list of addresses.
    WrongType = "wrong_type",
    /// An email that is no address.
    NoAddress = "no_address",
    /// An address that its issuer has not verified.
    Unverified = "unverified",
    /// Grants that are not in Velt's schema, or contradict each other. They cost the token.
    NoGrants = "no_grants",
});

impl Flaw {
    /// Returns the reason in words, for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Empty => "it is empty",
            Self::Placeholder => RefusalKind::Placeholder.reason(),
            Self::TooLong => RefusalKind::TooLong.reason(),
            Self::BadBytes => RefusalKind::BadBytes.reason(),
            Self::WrongType => "it is not text",
            Self::NoAddress => "it is not an email address",
            Self::Unverified => "its issuer says that it is not verified",
            Self::NoGrants => "it is no list of resources in Velt's schema without contradictions",
        }
    }
}

label!(
    /// Kind of header that was removed because only the login proxy or the sidecar may set it.
    SpoofKind, "kind", {
    /// An identity header from a peer that may not set it, or beside which no user is named.
    IdentityHeader = "identity_header",
    /// An alias of an identity header from such a peer: the same name with other punctuation.
    Alias = "alias",
    /// A token header on a request, or an alias of a token header or of the secret's header.
    TokenHeader = "token_header",
    /// The secret's header with something else than the secret in it.
    Secret = "secret",
    /// An identity or token header among the trailers of a request.
    Trailer = "trailer",
});

label!(
    /// Result of the check of an assertion.
    AssertionResult, "result", {
    /// The assertion's signature and claims were checked.
    Verified = "verified",
    /// The assertion was checked a moment ago.
    Cached = "cached",
    /// The assertion is valid but names no user, as assertions of machines do.
    NoUser = "no_user",
    Malformed = "malformed",
    /// The cookie has the id of a session in a database, and no claims.
    SessionId = "session_id",
    /// Cookies of several names fit the pattern of the configuration.
    SeveralCookies = "several_cookies",
    Algorithm = "algorithm",
    UnknownKey = "unknown_key",
    Signature = "signature",
    Signer = "signer",
    Issuer = "issuer",
    Audience = "audience",
    Expired = "expired",
    NotYetValid = "not_yet_valid",
    /// A claim that is needed is missing, or a claim holds a value that is not allowed.
    Claims = "claims",
    /// There were no keys to check the assertion with.
    KeysUnavailable = "keys_unavailable",
});

label!(
    /// Result of an attempt to fetch the keys of assertions.
    KeyFetchResult, "result", {
    Fetched = "fetched",
    /// The publisher has no such key. Only where each key has a URL of its own.
    NotFound = "not_found",
    Unreachable = "unreachable",
    Timeout = "timeout",
    Status = "status",
    Redirect = "redirect",
    TooLarge = "too_large",
    Malformed = "malformed",
});

label!(
    /// Result of the delivery of the token header on a response of the app.
    HeaderDelivery, "result", {
    Injected = "injected",
    Anonymous = "anonymous",
    /// The caller's assertion could not be checked: there are no keys.
    Unverified = "unverified",
    /// The user was signed out, and has not signed in again.
    SignedOut = "signed_out",
    /// The mint had not ended within `max_wait`.
    Pending = "pending",
    /// There is no token: the mint failed, the organization is missing, or the app's word is ambiguous.
    Failed = "failed",
    /// There is no token: the app gave no details of the user that can be used.
    NoDetails = "no_details",
    /// The rights that the token would carry are not known, or contradict each other.
    NoGrants = "no_grants",
    /// The app marked the response storable; a token must not be stored with it.
    Storable = "storable",
    /// Scripts that are not the app's own may read the timings of the document, the token's place.
    Shared = "shared",
    /// The response is an error, a redirect, a fragment or a switch of protocols, which carry no token.
    NotEligible = "not_eligible",
});

label!(
    /// Result of a question to the app about a user, which the app answers in JSON.
    AppAnswerResult, "result", {
    /// The answer was used.
    Used = "used",
    /// The app had nothing to add: 204.
    Empty = "empty",
    /// The app gives this user no token: 401, 403 or 404.
    Refused = "refused",
    /// The answer had another form than the one that is read.
    Unusable = "unusable",
    /// The answer named another user than the question, and was dropped. An alarm.
    OtherUser = "other_user",
    /// The app answered with another status, or broke off.
    Failed = "failed",
    /// The answer had not ended within `identity.details_timeout`.
    Timeout = "timeout",
    /// The app could not be connected to.
    Unreachable = "unreachable",
    /// The question was not asked: too many others were under way.
    Crowded = "crowded",
    /// The question was not asked: the request named its host in too many bytes.
    LongHost = "long_host",
});

label!(
    /// Protocol of a client's connection.
    Protocol, "protocol", {
    Http1 = "http1",
    Http2 = "http2",
});

label!(
    /// Reason why the sidecar itself closed a client's connection.
    CloseReason, "reason", {
    /// The client sent no request for `listen.idle_timeout`.
    Idle = "idle",
    /// A request's head took longer than `listen.header_timeout`.
    SlowHead = "slow_head",
    /// The client read nothing of its response for `listen.write_timeout`.
    Stalled = "stalled",
    /// The client sent bytes that are no unambiguous HTTP/1.1; answered 400.
    BadRequest = "bad_request",
    /// A head, target or number of headers over the limits; answered 431 or 414. HTTP/1.1.
    TooLarge = "too_large",
    /// The client broke the rules of HTTP/2 (GOAWAY with another error than `ENHANCE_YOUR_CALM`).
    Http2Error = "http2_error",
    /// The client overdid what HTTP/2 allows: resets, CONTINUATION or small frames, header lists (GOAWAY with
    /// `ENHANCE_YOUR_CALM`).
    Http2Flood = "http2_flood",
    /// The client did not answer a ping. HTTP/2.
    Unresponsive = "unresponsive",
    /// The connection held most of the memory, without moving, when memory was nearly used up.
    Memory = "memory",
});

label!(
    /// Result of an attempt to connect to the app.
    ConnectResult, "result", {
    Connected = "connected",
    Failed = "failed",
    Timeout = "timeout",
});

label!(
    /// Side that ended a response before it was complete.
    AbortedBy, "by", {
    Client = "client",
    App = "app",
    /// The sidecar: nothing had moved for `app.stream_idle_timeout`.
    Idle = "idle",
});

label!(
    /// End of a WebSocket tunnel.
    TunnelEnd, "end", {
    /// Both sides had closed their half.
    Closed = "closed",
    /// One side broke off.
    Broken = "broken",
    /// Nothing had moved for `app.stream_idle_timeout`.
    Idle = "idle",
    /// The sidecar shut down: the client was told, and both sides closed.
    Told = "told",
    /// The sidecar shut down: the tunnel was still open at `shutdown.deadline`.
    Cut = "cut",
    /// The tunnel's user was signed out (`logout.end_websockets`).
    SignedOut = "signed_out",
});

label!(
    /// Result of the export of a span.
    SpanResult, "result", {
    Exported = "exported",
    /// The queue was full.
    Dropped = "dropped",
    /// The collector refused the span, by the status or the content of its answer.
    Refused = "refused",
    /// The collector gave no answer.
    Unreachable = "unreachable",
});

label!(
    /// Sender from which a logout was heard.
    LogoutSource, "source", {
    /// A logout token of the identity provider (OpenID Connect Back-Channel Logout).
    Oidc = "oidc",
    Webhook = "webhook",
    /// Another replica, through the shared store.
    Replica = "replica",
});

label!(
    /// Result of a call of one of the logout paths.
    LogoutResult, "result", {
    /// The user was signed out, or tokens were forgotten.
    Done = "done",
    /// The call had been carried out before.
    Replayed = "replayed",
    /// No POST, or a body that is too long, too slow, or has another form than it should have.
    Malformed = "malformed",
    /// The signature is wrong, or made in a way that is not allowed.
    Signature = "signature",
    /// The logout token is another issuer's, for another app, or lacks what makes it a logout token.
    Claims = "claims",
    /// The call is too old, or from the future.
    Time = "time",
    /// The logout token names no user, or the user in a way that can't be read.
    User = "user",
    /// There were no keys to check the logout token with.
    KeysUnavailable = "keys_unavailable",
    /// The user was signed out here, and the shared store did not take the news for the other replicas.
    NotAnnounced = "not_announced",
});

label!(
    /// Result of a call to the admin port that changes or reveals something.
    AdminCall, "result", {
    Answered = "answered",
    /// The caller may not make the call: see `docs/reference/admin-calls.md`.
    Denied = "denied",
    /// The call could not be understood or carried out.
    Failed = "failed",
});

label!(
    /// End of a call to the store of shared tokens.
    StoreCallResult, "result", {
    Ok = "ok",
    /// No answer came in the time that the call had.
    Timeout = "timeout",
    /// The connection broke, or the answer was no answer of such a store.
    Broken = "broken",
    /// The server answered with an error of another kind.
    Failed = "failed",
    /// The server asked for another password, or for rights that the user lacks.
    Denied = "denied",
    /// The server's memory is full.
    Full = "full",
    /// The server is a replica.
    ReadOnly = "read_only",
    /// The call was not sent: there is no connection.
    NotConnected = "not_connected",
    /// The call was not sent: the last calls had failed.
    Suspended = "suspended",
    /// The call was not sent: too many others were under way.
    Busy = "busy",
});

label!(
    /// End of an attempt to connect to a server of the store of shared tokens.
    StoreConnectResult, "result", {
    Connected = "connected",
    /// The server could not be reached, or broke the connection off.
    Unreachable = "unreachable",
    Timeout = "timeout",
    /// The certificate of the server is not accepted, or the server speaks no TLS.
    Untrusted = "untrusted",
    /// The server asked for another password, or for rights that the user lacks.
    Denied = "denied",
    /// The server is a replica, or the Sentinels know no primary.
    NoPrimary = "no_primary",
    /// The server is loading its data, or answered with an error of another kind.
    NotReady = "not_ready",
});

mod shared;

pub use self::shared::*;
