//! The words of every label, each a closed set.

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
    /// How a request ended, as counted and (later) logged. One word per way to end.
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
    /// The identity headers were ambiguous.
    IdentityRefused = "identity_refused",
    /// A token route was asked by nobody in particular.
    NoIdentity = "no_identity",
    /// An assertion that is not valid, where the settings say to refuse it.
    InvalidAssertion = "invalid_assertion",
    /// A token was needed and the caller's assertion could not be checked: there are no keys.
    IdentityUnverified = "identity_unverified",
    /// The organization that Velt's API needs was not in the request.
    NoOrganization = "no_organization",
    /// A token route was asked in the name of somebody else.
    UserMismatch = "user_mismatch",
    /// A token route was asked by a page of another origin.
    CrossOrigin = "cross_origin",
    /// A token route was asked with a method that it does not have.
    MethodNotAllowed = "method_not_allowed",
    /// A token route was sent more than it reads.
    BodyTooLarge = "body_too_large",
    /// Nothing moved for `app.stream_idle_timeout` while a request's body was being sent.
    StreamIdle = "stream_idle",
    /// A token was needed and Velt refused it.
    TokenRefused = "token_refused",
    /// A token was needed and Velt's rate limit stood in the way.
    TokenRateLimited = "token_rate_limited",
    /// A token was needed and Velt could not be reached, or calls are suspended.
    TokenUnavailable = "token_unavailable",
    /// A token was needed and Velt took too long.
    TokenTimeout = "token_timeout",
    /// A token was needed and had no turn yet among the sidecar's own calls to Velt.
    TokenQueued = "token_queued",
    /// A token was needed and Velt's answer held none that can be used.
    TokenMalformed = "token_malformed",
    /// The app could not be connected to.
    AppUnreachable = "app_unreachable",
    /// The app took longer than `app.response_timeout` to begin its answer.
    AppTimeout = "app_timeout",
    /// The app broke the connection off or answered with something that is not HTTP.
    AppBroken = "app_broken",
    /// A bug of ours: the request's code panicked.
    Panicked = "panicked",
});

label!(
    /// How a TLS handshake ended.
    HandshakeResult, "result", {
    Completed = "completed",
    /// No common ground, or a certificate that we don't take.
    Failed = "failed",
    /// The client spoke something else, such as plain HTTP.
    NotTls = "not_tls",
    /// The client left before it had begun.
    ClientGone = "client_gone",
    /// It took longer than `listen.tls.handshake_timeout`, its wait for a turn included.
    Timeout = "timeout",
});

label!(
    /// What is read again while the sidecar runs.
    ReloadPart, "part", {
    /// `sidecar.toml` and the files of secrets that it names.
    Config = "config",
    /// The listener's certificate, its key, and who signs clients' certificates.
    ListenTls = "listen_tls",
    /// Who vouches for the app's certificate.
    AppTls = "app_tls",
});

label!(
    /// A certificate that expires.
    Certificate, "certificate", {
    /// The listener's, or what links it to its root: whichever is first.
    Listen = "listen",
    /// Of those who sign clients' certificates, the first to expire.
    ClientCa = "client_ca",
});

label!(
    /// What a token look-up found.
    LookupResult, "result", {
    Fresh = "fresh",
    /// Served, and refreshed in the background.
    Due = "due",
    /// Nothing valid was held; this look-up started a mint.
    Started = "started",
    /// Nothing valid was held; this look-up joined the mint in flight.
    Joined = "joined",
    /// The last mint failed a moment ago; its error was answered from memory.
    FailedRecently = "failed_recently",
});

label!(
    /// How a mint (all of its attempts together) ended.
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
    /// A bug of ours: the mint's task panicked.
    Panicked = "panicked",
});

label!(
    /// Why an identity was refused, or not taken for one.
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
});

impl RefusalKind {
    /// In words, for the answer to the request.
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
        }
    }
}

label!(
    /// Why an attribute of a user was left out.
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
});

impl Flaw {
    /// Words for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Empty => "it is empty",
            Self::Placeholder => RefusalKind::Placeholder.reason(),
            Self::TooLong => RefusalKind::TooLong.reason(),
            Self::BadBytes => RefusalKind::BadBytes.reason(),
            Self::WrongType => "it is not text",
            Self::NoAddress => "it is not an email address",
            Self::Unverified => "its issuer says that it is not verified",
        }
    }
}

label!(
    /// What a client tried that only the front proxy may do.
    SpoofKind, "kind", {
    /// An identity header from a peer that is not trusted, or beside which no user is named.
    IdentityHeader = "identity_header",
    /// An underscore alias of an identity header from such a peer.
    Alias = "alias",
    /// A token header on a request, in whatever spelling.
    TokenHeader = "token_header",
    /// The shared secret's header with something else in it, or an alias of that header.
    Secret = "secret",
    /// An identity or token header among the trailers of a request.
    Trailer = "trailer",
});

label!(
    /// What came of an assertion.
    AssertionResult, "result", {
    /// Its signature and claims were checked.
    Verified = "verified",
    /// It was checked a moment ago.
    Cached = "cached",
    /// Valid, but it names no user, as those of machines do.
    NoUser = "no_user",
    Malformed = "malformed",
    Algorithm = "algorithm",
    UnknownKey = "unknown_key",
    Signature = "signature",
    Signer = "signer",
    Issuer = "issuer",
    Audience = "audience",
    Expired = "expired",
    NotYetValid = "not_yet_valid",
    /// A claim that is needed is missing, or holds what no user id and the like may hold.
    Claims = "claims",
    /// There were no keys to check it with.
    KeysUnavailable = "keys_unavailable",
});

label!(
    /// How an attempt to fetch the keys of assertions ended.
    KeyFetchResult, "result", {
    Fetched = "fetched",
    /// There is no such key. Only where each key has a URL of its own.
    NotFound = "not_found",
    Unreachable = "unreachable",
    Timeout = "timeout",
    Status = "status",
    Redirect = "redirect",
    TooLarge = "too_large",
    Malformed = "malformed",
});

label!(
    /// What the response header did on a response of the app.
    HeaderDelivery, "result", {
    Injected = "injected",
    Anonymous = "anonymous",
    /// The caller's assertion could not be checked: there are no keys.
    Unverified = "unverified",
    /// The mint had not ended within `max_wait`.
    Pending = "pending",
    /// The mint failed; the response went out without.
    Failed = "failed",
    /// The app marked the response storable; a token must not be stored with it.
    Storable = "storable",
    /// Not a response that a script can read, or not one that may carry a token.
    NotEligible = "not_eligible",
});

label!(
    /// Protocol of a client's connection.
    Protocol, "protocol", {
    Http1 = "http1",
    Http2 = "http2",
});

label!(
    /// Why the sidecar closed a client's connection of its own accord.
    CloseReason, "reason", {
    /// No request for `listen.idle_timeout`.
    Idle = "idle",
    /// A request's head took longer than `listen.header_timeout`.
    SlowHead = "slow_head",
    /// The client read nothing of its response for `listen.write_timeout`.
    Stalled = "stalled",
    /// What it sent is not HTTP/1.1 that can be read one way only; answered 400.
    BadRequest = "bad_request",
    /// A head, target or number of headers over the limits; answered 431 or 414. HTTP/1.1.
    TooLarge = "too_large",
    /// It broke the rules of HTTP/2 (GOAWAY with another error than the next).
    Http2Error = "http2_error",
    /// It overdid what HTTP/2 allows: resets, CONTINUATION or small frames, header lists
    /// (GOAWAY with `ENHANCE_YOUR_CALM`).
    Http2Flood = "http2_flood",
    /// It did not answer a ping. HTTP/2.
    Unresponsive = "unresponsive",
    /// The connection held most of the memory, without moving, when memory was nearly used up.
    Memory = "memory",
});

label!(
    /// How an attempt to connect to the app ended.
    ConnectResult, "result", {
    Connected = "connected",
    Failed = "failed",
    Timeout = "timeout",
});

label!(
    /// Who ended a response before its end.
    AbortedBy, "by", {
    Client = "client",
    App = "app",
    /// We did: nothing had moved for `app.stream_idle_timeout`.
    Idle = "idle",
});

label!(
    /// How a WebSocket tunnel ended.
    TunnelEnd, "end", {
    /// Both sides had closed their half.
    Closed = "closed",
    /// One side broke off.
    Broken = "broken",
    /// Nothing had moved for `app.stream_idle_timeout`.
    Idle = "idle",
    /// At the sidecar's end: the client was told, and both sides closed.
    Told = "told",
    /// At the sidecar's end: still open at `shutdown.deadline`.
    Cut = "cut",
});

label!(
    /// What became of a span that was to be exported.
    SpanResult, "result", {
    Exported = "exported",
    /// The queue was full.
    Dropped = "dropped",
    /// The collector did not take it, by its status or by its answer.
    Refused = "refused",
    /// The collector gave no answer.
    Unreachable = "unreachable",
});

label!(
    /// What came of a call to the admin port that changes or reveals something.
    AdminCall, "result", {
    Answered = "answered",
    /// The caller may not: see `docs/operations.md`.
    Denied = "denied",
    /// It could not be understood or carried out.
    Failed = "failed",
});
