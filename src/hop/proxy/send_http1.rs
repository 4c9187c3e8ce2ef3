//! One request over HTTP/1.1: the connection that it takes, and the rule by which it is sent again.

use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::login::{Asker, chain};
use super::pool::Lease;
use super::progress::Progress;
use super::request_body::RequestBody;
use super::{Upstream, UpstreamError, classify, taken};

/// Time that the sidecar waits until a client's own connection is ready again after its last response, which
/// the client has had already.
const SETTLING: Duration = Duration::from_secs(1);

impl Upstream {
    /// Sends on a kept-alive connection, or on a new one. The retry rule: once, and only on a new connection,
    /// if the kept-alive connection had died, and the request either never left on that connection or is
    /// idempotent (RFC 9110 section 9.2.2) and has no body.
    pub(super) async fn send_http1(
        &self,
        request: &mut Request<RequestBody>,
        progress: &mut Progress,
        asker: Asker<'_>,
    ) -> Result<(Response<Incoming>, Lease), UpstreamError> {
        // Rare paths are boxed, so that this future stays small.
        if asker.has_own() {
            return Box::pin(self.send_on_own(request, progress, asker)).await;
        }
        let Some(mut lease) = self.pool.reuse(progress.begun) else {
            return Box::pin(self.send_on_soonest(request, progress)).await;
        };
        lease.begin(request);
        let (sender, timer) = lease.sender_and_timer();
        let sending = pin!(sender.try_send_request(taken(request)));
        let error = match progress.bound(sending, timer, self.settings.response_timeout).await? {
            Ok(response) => return Ok((response, lease)),
            Err(error) => error,
        };
        *request = self.again(error, || lease.sent_request(), lease.is_reused())?;
        Box::pin(self.send_on_new(request, progress)).await
    }

    /// Sends on a new connection, or on one that becomes idle before the new one is open.
    async fn send_on_soonest(
        &self,
        request: &mut Request<RequestBody>,
        progress: &mut Progress,
    ) -> Result<(Response<Incoming>, Lease), UpstreamError> {
        let mut lease = self.pool.soonest().await?;
        progress.connected();
        lease.begin(request);
        let reused = lease.is_reused();
        match self.send_on(&mut lease, request, progress).await? {
            Ok(response) => return Ok((response, lease)),
            Err(error) => *request = self.again(error, || lease.sent_request(), reused)?,
        }
        self.send_on_new(request, progress).await
    }

    /// Sends on a new connection.
    async fn send_on_new(
        &self,
        request: &mut Request<RequestBody>,
        progress: &mut Progress,
    ) -> Result<(Response<Incoming>, Lease), UpstreamError> {
        let mut lease = self.pool.connect().await?;
        progress.connected();
        lease.begin(request);
        let response = self.send_on(&mut lease, request, progress).await?;
        Ok((response.map_err(classify)?, lease))
    }

    /// Sends on the connection on which the client has logged in, or begins a login on a new
    /// connection. A request that is part of a login is never sent again: on another connection the
    /// login would not hold.
    async fn send_on_own(
        &self,
        request: &mut Request<RequestBody>,
        progress: &mut Progress,
        asker: Asker<'_>,
    ) -> Result<(Response<Incoming>, Lease), UpstreamError> {
        let chain = chain(request.headers());
        if let Some(mut lease) = asker.take_own(&chain)
            && timeout(SETTLING, lease.sender_and_timer().0.ready())
                .await
                .is_ok_and(|it| it.is_ok())
        {
            lease.belong_to(asker.owner(chain.clone()));
            lease.begin(request);
            match self.send_on(&mut lease, request, progress).await? {
                Ok(response) => return Ok((response, lease)),
                Err(error) if asker.logs_in => return Err(classify(error)),
                Err(error) => *request = self.again(error, || lease.sent_request(), true)?,
            }
        }
        let (response, mut lease) = self.send_on_new(request, progress).await?;
        lease.belong_to(asker.owner(chain));
        Ok((response, lease))
    }

    async fn send_on(
        &self,
        lease: &mut Lease,
        request: &mut Request<RequestBody>,
        progress: &mut Progress,
    ) -> Result<Result<Response<Incoming>, SendError>, UpstreamError> {
        let reused = lease.is_reused();
        let (sender, timer) = lease.sender_and_timer();
        let sending = pin!(sender.try_send_request(taken(request)));
        let answered = progress.bound(sending, timer, self.settings.response_timeout);
        if reused {
            return answered.await;
        }
        tokio::select! {
            biased;
            answered = answered => answered,
            () = self.neighbours.make_room() => unreachable!("room is made until the answer"),
        }
    }
}

type SendError = hyper::client::conn::TrySendError<Request<RequestBody>>;
