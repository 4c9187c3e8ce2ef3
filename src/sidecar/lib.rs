//! The request path. Start reading at [`Sidecar::handle`], which answers every request, and go on with
//! `Sidecar::respond`, which takes a request through these steps:
//!
//! 1. Identify the caller, and remove the headers that only the login proxy or the sidecar may set.
//! 2. Choose the route. The sidecar itself answers a token route; the app answers every other request.
//! 3. Read the token cache, where `identity.details_path` is set by what the app has told of the user. A missing
//!    token is minted in a task of its own, while the app works.
//! 4. Ask the app. On the paths of `delivery.app_header` it gets the token with the request, which waits for it.
//! 5. Insert into the head of the app's response the token, or a status that says why there is none.
//!
//! Two settings change the order. `on_failure = "refuse"` puts the wait for the token before step 4.
//! `identity.source = "app"` puts step 3 after step 4, because the app's response names the caller.
//!
//! Cost of a request whose token is cached, beside the exchange with the app: a check of its headers, one
//! cache read and one inserted header. Velt is not called. While Velt is down, a cached token is served for
//! as long as it lives. Without a cached token, the app's response is held back for at most
//! `delivery.header.max_wait` and goes out without a token; a token route answers with an error.

#![forbid(unsafe_code)]

pub mod access_log;
mod ask_app;
mod check;
pub mod details;
mod error;
pub mod explain;
mod forgets;
mod guard;
mod hand_over;
pub mod inject;
pub mod logout;
mod record;
pub mod required;
pub mod resolver;
mod route;
mod serve;
mod token_state;

use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tracing::error;

use self::details::AppDetails;
use self::error::{NoGrants, NoToken, RequestError, is_page_load};
pub use self::forgets::{Applied, Forgets};
use self::guard::{RequestGuard, ResponseBody};
use self::hand_over::HandedOver;
use self::logout::{Logout, Logouts};
use self::record::Record;
use self::required::RequiredOn;
use self::resolver::Resolver;
use self::route::{Own, Route, check_asking, check_required, known_user};
use self::serve::serve_resolver;
use self::token_state::TokenState;
use crate::access_log::AccessLog;
use crate::inject::{Eligibility, Injection, OnMintFailure, Place, without_content};
use ground::client_connection::ClientConnection;
use ground::metrics::{HeaderDelivery, Outcome, RequestMetrics};
use ground::peer::Peer;
use ground::trace::Tracing;
use hop::proxy::headers::{is_websocket, name_host, validate};
use hop::proxy::{Body, Client, RequestBody, Scheme, Upstream};
use identity::{Caller, Groups, Identified, Identity, Organization, SignedIn, User};
use token::admission::Admission;
use token::cache::{Lookup, TokenCache};
use token::velt::Api;
use token::{Details, Freshness, MintPlan, MintRequest, Moment, Rights, Token, Unplanned};

/// Parts that decide about a request. The same rules decide about a request from its head to its end, even if
/// a reload replaces them meanwhile.
#[derive(Clone)]
pub struct Rules {
    pub identity: Arc<Identity>,
    pub plan: MintPlan,
    pub injection: Arc<Injection>,
    /// Paths of the app that only known callers may ask.
    pub required_on: Arc<RequiredOn>,
    /// Tokens of the sidecar's own, for the resolvers of teams that keep Velt's data themselves.
    pub resolver: Option<Arc<Resolver>>,
    /// Logouts by the word of others; `None` if none are taken.
    pub logout: Option<Arc<Logout>>,
    /// Details of users that the app tells; `None` if it is not asked for any.
    pub details: Option<Arc<AppDetails>>,
    /// Whether an app is behind the sidecar. Else a gateway has the app, and the sidecar forwards no request.
    pub has_app: bool,
}

/// All parts that a request passes through. Each thread that serves has one `Sidecar`: its connections to the
/// app are its own, the other parts are shared by all threads.
pub struct Sidecar {
    /// Rules in force. A reload replaces the rules and leaves tokens, connections and counts alone.
    pub rules: Arc<ArcSwap<Rules>>,
    pub tokens: TokenCache,
    /// Queue between the cache and Velt. The sidecar only explains the queue and updates its gauges.
    pub admission: Arc<ArcSwap<Admission>>,
    /// Queue of tokens to forget, and the way to the other replicas.
    pub forgets: Arc<Forgets>,
    pub logouts: Arc<Logouts>,
    /// Way to the app; `None` with `app.address = "none"`.
    pub upstream: Option<Upstream>,
    pub metrics: Arc<RequestMetrics>,
    pub access_log: AccessLog,
    pub tracing: Tracing,
}

impl Sidecar {
    /// Answers a request in every case: an error becomes its answer, a panic a 500, and a client that leaves
    /// is counted.
    pub fn handle(
        self: Arc<Self>,
        peer: Peer,
        connection: Arc<ClientConnection>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send {
        let mut request = request.map(RequestBody::from);
        request.body_mut().comes_over(&connection);
        if request.version() == Version::HTTP_2 {
            request.body_mut().linger();
        }
        // Not an async function, which would have room for its arguments twice.
        async move { self.answer(&peer, &connection, &mut request).await }
    }

    async fn answer(
        self: &Arc<Self>,
        peer: &Peer,
        connection: &Arc<ClientConnection>,
        request: &mut Request<RequestBody>,
    ) -> Response<ResponseBody> {
        name_host(request);
        let mut guard = RequestGuard::begin(self, peer, request);
        let (version, handshake) = (request.version(), is_websocket(request));
        let is_head = request.method() == Method::HEAD;
        let holds_body = version < Version::HTTP_2 && holds_body(request);
        let loads_page = is_page_load(request)
            && matches!(Route::of(request, &self.rules.load()), Route::Forward { .. });
        let responded = {
            // Over HTTP/2 several requests share a connection, so no request has it to itself.
            let connection = Some(connection).filter(|_| version < Version::HTTP_2);
            let responding = pin!(self.respond(peer, connection, request, &mut guard.record));
            catch_panic(responding).await.unwrap_or(Err(RequestError::Panicked))
        };
        let (mut response, outcome) = match responded {
            Ok(responded) => responded,
            Err(error) => {
                error.log();
                (own(error.answer(loads_page), is_head), error.outcome())
            }
        };
        // The sender of an ambiguous message may have sent more of them.
        let ambiguous = matches!(outcome, Outcome::BadRequest | Outcome::IdentityRefused);
        // Bytes after a failed handshake were meant for the tunnel; as a request they could be anything (RFC
        // 9931).
        let refused = handshake && outcome != Outcome::Upgraded;
        // The client may send its next request or the body that it has held back, and can't know which is awaited.
        let unread = holds_body && !request.body().is_end_stream();
        if version < Version::HTTP_2 && (ambiguous || refused || unread) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        guard.finish(response, outcome)
    }

    /// Takes a request through the steps above. `explain` repeats their order by hand: change both.
    async fn respond(
        self: &Arc<Self>,
        peer: &Peer,
        connection: Option<&Arc<ClientConnection>>,
        request: &mut Request<RequestBody>,
        record: &mut Record,
    ) -> Result<(Response<Body>, Outcome), RequestError> {
        let rules = &self.rules.load_full();
        // A logout is told by a program, not by a user, and nothing of the request reaches the app.
        if let Some(teller) = Route::logout(request, rules) {
            validate(request)?;
            record.routed(request.uri().path());
            // Boxed, because this way is rare and the future would grow.
            let (response, outcome) = Box::pin(self.serve_logout(teller, peer, request)).await;
            return Ok((own(response, request.method() == Method::HEAD), outcome));
        }
        if Route::is_check(request, rules) {
            // Boxed, so that other requests do not pay for the size of this future.
            let serving = self.serve_check(rules, (peer, connection), request, record);
            let (response, outcome) = Box::pin(serving).await?;
            return Ok((own(response, request.method() == Method::HEAD), outcome));
        }
        // Identity comes first: the steps after it remove headers, and a removed header must never count as
        // an absent header.
        let Identified { caller, lacks_secret, unbelieved, believed, by_cookie, signed_in, .. } =
            rules.identity.identify(peer, request.headers_mut()).await?;
        record.identified(&caller);
        validate(request)?;

        let (address, trusted) = (peer.address(), believed.is_kept());
        let client = Client { address, trusted, scheme: scheme_of(peer) };
        let is_head = request.method() == Method::HEAD;
        let (place, to_app) = match Route::of(request, rules) {
            Route::Forward { coverage, to_app } => (coverage.place(), to_app.is_some()),
            Route::Keys(resolver) => {
                return Ok((own(resolver.published(), is_head), Outcome::ResolverServed));
            }
            Route::Own(route) => {
                record.routed(request.uri().path());
                check_asking(&rules.injection, request, &caller, by_cookie)?;
                let caller = match caller {
                    // Boxed, because this way is rare and the future would grow.
                    Caller::Unnamed => {
                        Box::pin(self.ask_app(rules, request, &client, connection)).await?
                    }
                    named => named,
                };
                record.identified(&caller);
                self.admit(rules, &caller, signed_in)?;
                let served = match route {
                    Own::Token(route) => {
                        let served =
                            self.serve_token(rules, route, &caller, request, &client, record).await;
                        served.map(|response| (response, Outcome::TokenServed))
                    }
                    Own::Resolver(resolver) => serve_resolver(resolver, &caller),
                };
                let (response, outcome) =
                    served.map_err(|error| error.for_want_of(lacks_secret, unbelieved))?;
                // A logout may have come while the token was waited for.
                self.admit(rules, &caller, signed_in)?;
                return Ok((own(response, is_head), outcome));
            }
        };
        let Some(upstream) = &self.upstream else { return Err(RequestError::NoApp) };
        check_required(rules, &caller, request)
            .map_err(|error| error.for_want_of(lacks_secret, unbelieved))?;

        // From here on the app is asked, and the token is looked up at the same time: a miss hides behind the
        // app's own time.
        let wants_token = place.is_some() || to_app;
        let mut token = wants_token.then(|| match self.admit(rules, &caller, signed_in) {
            Ok(()) => self.seek(rules, &caller, request, &client, record),
            Err(absent) => TokenState::Absent(absent),
        });
        let mut handed_over = HandedOver::Nothing;
        if let Some(token) = &mut token {
            if place == Some(Place::Header)
                && rules.injection.header().on_failure == OnMintFailure::Refuse
            {
                self.insist(rules, token, record).await?;
            }
            if to_app {
                let whence = (&client, connection);
                // Boxed, because few requests are for a page.
                handed_over =
                    Box::pin(self.hand_over(rules, &caller, request, whence, token, record)).await;
            }
        }
        let recaller = self.recallable(rules, &caller, request);
        let asked = record.app_asked();
        let forwarded = upstream.forward(request, &client, connection, asked).await;
        let answered = Moment::now();
        record.app_answered(&forwarded, answered.steady);
        let mut response = forwarded?;

        // The client has seen nothing yet. Only the token may still be missing, and the response waits for
        // the token no longer than it must.
        rules.injection.strip(response.headers_mut());
        let caller = match rules.identity.word_of_app(response.headers_mut()) {
            Some(said) => {
                said.inspect(|caller| record.identified(caller)).map_err(NoToken::AppWord)
            }
            None => Ok(caller),
        };
        if let (Some(recaller), Ok(caller)) = (recaller, &caller) {
            self.ends_with_logout(caller, recaller);
        }
        if let (Some(token), Some(place)) = (token, place) {
            let caller = caller.map(|caller| (caller, signed_in));
            let delivered =
                self.deliver(rules, (token, place), &mut response, caller, record, answered).await;
            record.delivered(delivered);
        }
        let status = response.status();
        handed_over.guard(&rules.injection, status, response.headers_mut());
        let upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
        Ok((response, if upgraded { Outcome::Upgraded } else { Outcome::Forwarded }))
    }

    /// Looks up the caller's token before the app is asked, unless only the app can name the caller, or the
    /// app has to tell details of the caller first.
    fn seek<B>(
        self: &Arc<Self>,
        rules: &Arc<Rules>,
        caller: &Caller,
        request: &Request<B>,
        client: &Client,
        record: &Record,
    ) -> TokenState {
        if let Some(details) = &rules.details {
            return self.seek_detailed((rules, details), caller, request, client, record);
        }
        match caller {
            Caller::Unnamed => TokenState::AfterApp(None),
            named => self.look_up(rules, named, record, Moment::now()).into(),
        }
    }

    /// Waits for the token before the app is asked: see [`TokenState::insist`].
    async fn insist(
        &self,
        rules: &Rules,
        token: &mut TokenState,
        record: &Record,
    ) -> Result<(), NoToken> {
        let mut patience = rules.injection.header().max_wait;
        if let TokenState::Asking(_) = token {
            // Boxed, because few requests find no kept details.
            patience = Box::pin(self.settle(rules, token, record, patience)).await;
        }
        token.insist(patience).await
    }

    /// Looks up the token of a known caller. Never waits: the token is cached, a mint is under way, or the
    /// error says why there is none.
    fn look_up(
        &self,
        rules: &Rules,
        caller: &Caller,
        record: &Record,
        now: Moment,
    ) -> Result<Lookup, NoToken> {
        Ok(self.tokens.get_for(mint_request(&rules.plan, caller)?, record.recording(), now))
    }

    /// Looks up the token of this user, like [`Self::look_up`].
    fn look_up_user(
        &self,
        rules: &Rules,
        user: &User,
        record: &Record,
        now: Moment,
    ) -> Result<Lookup, NoToken> {
        Ok(self.tokens.get_for(user_request(&rules.plan, user)?, record.recording(), now))
    }

    /// Puts the token into the app's response, or the reason why there is none.
    async fn deliver(
        self: &Arc<Self>,
        rules: &Arc<Rules>,
        (token, place): (TokenState, Place),
        response: &mut Response<Body>,
        caller: Result<(Caller, SignedIn), NoToken>,
        record: &Record,
        now: Moment,
    ) -> HeaderDelivery {
        let (status, headers) = (response.status(), response.headers_mut());
        let delivered = match rules.injection.eligibility(place, status, headers, now.wall) {
            Eligibility::NotEligible => HeaderDelivery::NotEligible,
            Eligibility::Storable => HeaderDelivery::Storable,
            Eligibility::Shared => HeaderDelivery::Shared,
            Eligibility::Eligible => {
                let patience = rules.injection.max_wait(place);
                match self.await_token(rules, caller, token, patience, record, now).await {
                    Ok(token) => {
                        rules.injection.apply(place, headers, token.value());
                        HeaderDelivery::Injected
                    }
                    Err(absent) => {
                        rules.injection.explain(place, headers, absent.status());
                        absent.delivery()
                    }
                }
            }
        };
        match place {
            Place::Header => &self.metrics.header_deliveries,
            Place::Timing => &self.metrics.document_deliveries,
        }
        .increment(delivered);
        delivered
    }

    /// Returns the token of the caller, who is known by now or refused.
    async fn await_token(
        self: &Arc<Self>,
        rules: &Arc<Rules>,
        caller: Result<(Caller, SignedIn), NoToken>,
        token: TokenState,
        patience: Duration,
        record: &Record,
        now: Moment,
    ) -> Result<Token, NoToken> {
        let (caller, signed_in) = caller?;
        // The app may have named the caller in its response only.
        self.admit(rules, &caller, signed_in)?;
        let token = self.await_admitted(rules, &caller, token, patience, record, now).await?;
        // A logout may have come while the token was waited for.
        self.admit(rules, &caller, signed_in)?;
        Ok(token)
    }

    async fn await_admitted(
        self: &Arc<Self>,
        rules: &Arc<Rules>,
        caller: &Caller,
        token: TokenState,
        patience: Duration,
        record: &Record,
        now: Moment,
    ) -> Result<Token, NoToken> {
        if let Some(details) = &rules.details {
            // Boxed, so that requests without details do not pay for the size of this future.
            let waiting =
                self.await_detailed((rules, details), caller, token, patience, record, now);
            return Box::pin(waiting).await;
        }
        let look_up = || TokenState::from(self.look_up(rules, caller, record, now));
        let token = if let TokenState::AfterApp(_) = token { look_up() } else { token };
        let token = token.within(patience).await?;
        // A token that has arrived since is younger than `now`.
        if token.freshness(now) != Freshness::Expired {
            return Ok(token);
        }
        // The app took longer than the token had left to live.
        look_up().within(patience).await
    }
}

/// Makes an answer of the sidecar's own. HEAD gets the head of the answer to GET, without the content.
fn own(answer: Response<Bytes>, is_head: bool) -> Response<Body> {
    let answer = if is_head { without_content(answer) } else { answer };
    answer.map(Body::own)
}

/// Returns the request to Velt for the caller's token.
fn mint_request(plan: &MintPlan, caller: &Caller) -> Result<MintRequest, NoToken> {
    user_request(plan, known_user(caller)?)
}

/// Returns the request to Velt for this user's token.
fn user_request(plan: &MintPlan, user: &User) -> Result<MintRequest, NoToken> {
    if user.organization == Organization::Unusable {
        return Err(NoToken::NoOrganization);
    }
    if plan.issuer().api != Api::V2 && user.grants.grants().is_some() {
        return Err(NoToken::NoGrants(NoGrants::Unsent));
    }
    let request = plan.request_with(user.id.clone(), details(user), rights(user)?);
    request.map_err(|unplanned| match unplanned {
        Unplanned::NoOrganization => NoToken::NoOrganization,
        Unplanned::Contradiction => NoToken::NoGrants(NoGrants::Contradiction),
    })
}

/// Returns the rights of the caller. Where rights were to be had and are not known, there is no token: a token
/// with fewer rights could lock the user out, and a token with others could let the user in.
fn rights(user: &User) -> Result<Rights, NoToken> {
    let Groups::In(groups) = user.groups else {
        return Err(NoToken::NoGrants(NoGrants::Groups));
    };
    match user.grants.error() {
        Some(error) => Err(NoToken::NoGrants(NoGrants::Unusable(error))),
        None => Ok(Rights::new(groups, user.grants.grants())),
    }
}

/// Whether the client holds the body back until the sidecar asks for it (RFC 9110, 10.1.1).
fn holds_body<B>(request: &Request<B>) -> bool {
    let expected = request.headers().get(EXPECT);
    expected.is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Returns the scheme in which a peer speaks to the sidecar.
fn scheme_of(peer: &Peer) -> Scheme {
    if peer.encrypted { Scheme::Https } else { Scheme::Http }
}

/// Returns the details of the caller for the token. The configuration decides which of the fields are known.
fn details(user: &User) -> Details {
    Details {
        organization: user.organization.name().map(Box::from),
        email: user.email.clone(),
        name: user.name.clone(),
        is_admin: user.is_admin,
    }
}

/// Runs `future`; `None` if it panicked, so that a bug in one request stays in this request. The caller pins
/// the future, because an argument that is pinned within would take its space twice.
async fn catch_panic<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    std::future::poll_fn(|context| {
        let polling = AssertUnwindSafe(|| future.as_mut().poll(context));
        std::panic::catch_unwind(polling).map_or_else(
            |_| {
                // The panic hook has logged the place.
                error!("a request panicked; it was answered with 500");
                Poll::Ready(None)
            },
            |poll| poll.map(Some),
        )
    })
    .await
}
