//! One request over HTTP/2: sent, sent again where that does no harm, and its answer begun.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use h2::Reason;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::sync::Notify;

use super::arriving::Arriving;
use super::pool::http2::{Inbound, Ticket};
use super::request_body::{RequestBody, RequestBodyError};
use super::resend::HeadCopy;
use super::upload::{Source, Upload};
use super::{Upstream, UpstreamError};

/// Most times that one request is sent. More tries would not help an app that always closes connections.
const TRIES: usize = 5;

/// Reason why a try has failed.
enum SendError {
    /// The client's body ended with an error.
    Client(hyper::Error),
    /// The connection or the stream ended with an error.
    App(Box<Lost>),
}

/// Request that has no answer, and what is needed to send it again.
struct Lost {
    error: h2::Error,
    source: Source,
    /// Whether the app has not processed the request.
    unseen: bool,
    /// Whether the app wants no more requests on the connection.
    calmed: bool,
}

impl Upstream {
    /// Sends on one of the HTTP/2 connections. The retry rule: again, up to [`TRIES`], if the app says
    /// that it has not processed the request (RFC 9113 sections 6.8 and 8.7), or the request never
    /// left; once if the connection was used before and has died, and the request is idempotent and has
    /// no body. A request of that kind is also sent again when the app wants no more requests on its
    /// connection. A reset for another reason is the app's answer. `asked` is notified when the app
    /// asks for the request's body.
    pub(super) async fn send_http2(
        &self,
        request: &mut Request<RequestBody>,
        asked: Option<Arc<Notify>>,
    ) -> Result<Response<Arriving>, UpstreamError> {
        say_length(request);
        let copy = HeadCopy::of(request);
        let mut source = Source::new(std::mem::take(request.body_mut()));
        let (mut tries, mut has_died) = (0, false);
        loop {
            tries += 1;
            let ticket = self.pool.place(source.load()).await?;
            let is_reused = ticket.is_reused();
            let failed = match attempt(ticket, copy.head(), source, asked.as_deref()).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let Lost { error, source: body, unseen, calmed } = match failed {
                SendError::Client(error) => return Err(UpstreamError::ClientGone(error)),
                SendError::App(lost) => *lost,
            };
            source = body;
            let died = is_reused && !has_died && !error.is_reset();
            let again = unseen || copy.may_go_twice() && (died || calmed);
            if tries == TRIES || !again || !source.rewind() {
                return Err(UpstreamError::BrokenStream(error));
            }
            has_died |= died && !unseen;
            self.metrics.retries.inc();
        }
    }
}

/// Sends a request on `ticket`'s connection, and waits for the head of the answer.
async fn attempt(
    mut ticket: Ticket,
    head: Request<()>,
    source: Source,
    asked: Option<&Notify>,
) -> Result<Response<Arriving>, SendError> {
    let written = ticket.written();
    let (mut response, stream) = match ticket.send(head, source.is_empty()) {
        Ok(sent) => sent,
        // The connection was about to end when it was taken.
        Err(error) => {
            let lost = Lost { error, source, unseen: true, calmed: false };
            return Err(SendError::App(Box::new(lost)));
        }
    };
    let ticket = Arc::new(ticket);
    let mut upload = Upload::new(source, stream, &ticket);
    let answered = poll_fn(|context| {
        if let Poll::Ready(Err(RequestBodyError::Client(error))) = upload.poll(context) {
            return Poll::Ready(Err(error));
        }
        if let Some(asked) = asked {
            while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(context) {
                if interim.status() == StatusCode::CONTINUE {
                    asked.notify_one();
                }
            }
        }
        Pin::new(&mut response).poll(context).map(Ok)
    });
    match answered.await {
        Err(error) => Err(SendError::Client(error)),
        Ok(Ok(response)) => Ok(begin(response, upload, ticket)),
        Ok(Err(error)) => {
            let reset = error.reason().filter(|_| error.is_reset() && error.is_remote());
            let unseen = reset == Some(Reason::REFUSED_STREAM)
                || error.is_go_away() && error.is_remote()
                || !error.is_reset() && ticket.written() == written;
            let calmed = reset == Some(Reason::ENHANCE_YOUR_CALM);
            if calmed {
                ticket.calm();
            }
            let source = upload.into_source();
            Err(SendError::App(Box::new(Lost { error, source, unseen, calmed })))
        }
    }
}

fn begin(
    response: Response<h2::RecvStream>,
    upload: Upload,
    ticket: Arc<Ticket>,
) -> Response<Arriving> {
    let length = response.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let uploading = (!upload.is_done()).then(|| upload.go_on());
    response.map(|stream| Arriving::http2(Inbound::new(stream, ticket, length), uploading))
}

/// States that there is no body, for methods where the app may expect one (RFC 9110 section 8.6).
fn say_length(request: &mut Request<RequestBody>) {
    let unexpected = [Method::GET, Method::HEAD, Method::DELETE, Method::CONNECT];
    if request.body().is_end_stream()
        && !unexpected.contains(request.method())
        && !request.headers().contains_key(CONTENT_LENGTH)
    {
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}
