//! Answers of the token routes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response};

use crate::error::{NoToken, RequestError};
use crate::inject::TokenRoute;
use crate::record::Record;
use crate::resolver::Resolver;
use crate::route::{known_user, read_posted};
use crate::token_state::TokenState;
use crate::{Rules, Sidecar, user_request};
use ground::metrics::Outcome;
use hop::proxy::{Client, RequestBody};
use identity::{Caller, User};
use token::cache::{Lookup, Renewal};
use token::{Fingerprint, Freshness, Moment, Token};

/// Least remaining life of a served token while a refresh is under way: enough for the page to use the token without
/// asking again at once.
const LASTING: Duration = Duration::from_secs(300);

impl Sidecar {
    /// Answers a token route.
    pub(super) async fn serve_token(
        self: &Arc<Self>,
        rules: &Arc<Rules>,
        route: &TokenRoute,
        caller: &Caller,
        request: &mut Request<RequestBody>,
        client: &Client,
        record: &Record,
    ) -> Result<Response<Bytes>, RequestError> {
        // The mint, or the question for details, begins before the body has arrived.
        let mut token = self.seek(rules, caller, request, client, record);
        if let TokenState::Absent(absent) = token {
            return Err(absent.into());
        }
        let mut refused = None;
        if request.method() == Method::POST
            && let Caller::Known(user) = caller
        {
            let limit = rules.injection.max_body();
            // Boxed, because a page that fetches a token by POST is rare.
            refused = Box::pin(read_posted(request.body_mut(), limit, user)).await?;
        }
        let mut patience = route.max_wait;
        if let TokenState::Asking(_) = token {
            patience = Box::pin(self.settle(rules, &mut token, record, patience)).await;
        }
        let detailed = token.user();
        let user = match &detailed {
            Some(user) => user,
            None => known_user(caller)?,
        };
        let token = match refused {
            Some(refused) => {
                let renewing = self.renew(rules, user, token, refused, record)?;
                Box::pin(renewing.within(patience)).await?
            }
            None => token.within(patience).await?,
        };
        let now = Moment::now();
        if token.freshness(now) == Freshness::Fresh || token.remaining(now) >= LASTING {
            return Ok(route.answer(&token, now));
        }
        let token = Box::pin(self.lasting(rules, user, token, patience)).await?;
        Ok(route.answer(&token, Moment::now()))
    }

    /// Returns the state of the token that replaces `refused`, which Velt refused according to the page.
    fn renew(
        &self,
        rules: &Rules,
        user: &User,
        token: TokenState,
        refused: Fingerprint,
        record: &Record,
    ) -> Result<TokenState, RequestError> {
        if let TokenState::Absent(absent) = token {
            return Err(absent.into());
        }
        let (now, request) = (Moment::now(), user_request(&rules.plan, user)?);
        match self.tokens.renew(request, refused, record.recording(), now) {
            Renewal::Renewing(lookup) => Ok(Ok(lookup).into()),
            // Looked up anew: the token may have been replaced since `token` was found.
            Renewal::NotHeld => Ok(self.look_up_user(rules, user, record, now).into()),
            Renewal::TooSoon { retry_after } => Err(RequestError::RenewedRecently(retry_after)),
        }
    }

    /// Waits for the refresh of a token that has little time left. Returns the old token if the refresh fails or takes
    /// too long.
    async fn lasting(
        &self,
        rules: &Rules,
        user: &User,
        token: Token,
        patience: Duration,
    ) -> Result<Token, NoToken> {
        let Some(mint) = self.tokens.refresh_under_way(&user_request(&rules.plan, user)?) else {
            return Ok(token);
        };
        let refreshed = TokenState::from(Ok(Lookup::Pending(mint))).within(patience).await;
        match refreshed {
            Err(_) if token.freshness(Moment::now()) != Freshness::Expired => Ok(token),
            refreshed => refreshed,
        }
    }
}

/// Answers with a token for resolvers, which Velt is not asked for.
pub(super) fn serve_resolver(
    resolver: &Resolver,
    caller: &Caller,
) -> Result<(Response<Bytes>, Outcome), RequestError> {
    let user = known_user(caller)?;
    Ok((resolver.answer(&user.id, SystemTime::now()), Outcome::ResolverServed))
}
