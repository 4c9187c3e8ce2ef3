//! Copies of requests, from which a request is sent once more if its connection turns out to be dead. Kept
//! for nearly every request and needed for nearly none.

use std::io::{self, IoSlice};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body::Body as _;
use tokio::task::coop::has_budget_remaining;

use super::old_version::Seen;
use super::request_body::RequestBody;
use ground::tcp::Watcher;

/// Whether a request may be sent twice: it is idempotent (RFC 9110 section 9.2.2), and has no body,
/// which would be gone once it has been sent.
fn may_go_twice(request: &Request<RequestBody>) -> bool {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    );
    idempotent && request.body().is_end_stream()
}

/// Head of a request over HTTP/2, copied before the request is sent.
pub(super) struct HeadCopy {
    head: Request<()>,
    may_go_twice: bool,
}

impl HeadCopy {
    /// Takes the head out of a request.
    pub(super) fn of(request: &mut Request<RequestBody>) -> Self {
        let may_go_twice = may_go_twice(request);
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = mem::take(request.uri_mut());
        *head.version_mut() = request.version();
        *head.headers_mut() = mem::take(request.headers_mut());
        Self { head, may_go_twice }
    }

    /// Whether the request may be sent again although the app may have acted on it.
    pub(super) fn may_go_twice(&self) -> bool {
        self.may_go_twice
    }

    /// Head for one of several tries.
    pub(super) fn head(&self) -> Request<()> {
        let mut head = Request::new(());
        *head.method_mut() = self.head.method().clone();
        *head.uri_mut() = self.head.uri().clone();
        *head.version_mut() = self.head.version();
        *head.headers_mut() = self.head.headers().clone();
        head
    }
}

/// The request under way on an HTTP/1.1 connection, as it went out: a single copy of its bytes costs less
/// than a copy of each header.
#[derive(Default)]
pub(super) struct RequestInFlight {
    wanted: AtomicBool,
    /// Whether the app takes what is written: [`TAKES`], [`FULL`] or [`SEEN_FULL`].
    room: AtomicU8,
    /// Bytes of the body that hyper has taken since the last write.
    unwritten: AtomicUsize,
    /// Task that waits for a write.
    writing: Mutex<Option<Waker>>,
    head: Mutex<Head>,
    /// Version of the answer to the request.
    answer: Seen,
}

/// Limit of the bytes of a body that hyper may hold unwritten and still get more. One frame of HTTP/2
/// reaches the limit.
const UNWRITTEN: usize = 16 * 1024;

/// The app took the last write.
const TAKES: u8 = 0;
/// The app had no room for the last write.
const FULL: u8 = 1;
/// The app had no room for the last write, and [`RequestInFlight::stands_still`] has reported it.
const SEEN_FULL: u8 = 2;

/// Head of a request while it is written. A request that may be sent twice has no body.
#[derive(Default)]
struct Head {
    bytes: Vec<u8>,
    /// Number of bytes that the socket has taken. The other bytes are offered to it again, with what follows.
    taken: usize,
}

/// Room for most heads. The room for a longer head is not kept for the next request, on each of many
/// connections.
const USUAL_BYTES: usize = 4096;

impl RequestInFlight {
    /// Notes that `request` goes out from here on. The request is kept only if its connection is `reused`: a
    /// connection that lay idle may have died meanwhile.
    pub(super) fn begin(&self, request: &Request<RequestBody>, reused: bool) {
        self.answer.begin();
        let wanted = reused && may_go_twice(request);
        self.wanted.store(wanted, Ordering::Relaxed);
        if wanted {
            let mut head = self.head();
            head.taken = 0;
            head.bytes.clear();
            head.bytes.shrink_to(USUAL_BYTES);
        }
    }

    /// Notes that the bytes that go out from here on are no request.
    pub(super) fn end(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }

    /// Returns the request again, if it may be sent twice and has been written.
    pub(super) fn request(&self) -> Option<Request<RequestBody>> {
        self.wanted.load(Ordering::Relaxed).then(|| read(&self.head().bytes))?
    }

    /// Whether the connection ends with the answer that has these `headers`, because the answer is of
    /// HTTP/1.0.
    pub(super) fn ends_with_answer(&self, headers: &HeaderMap) -> bool {
        self.answer.ends_with(headers)
    }

    /// Waits until the socket has taken the bytes of the body that hyper holds. Without this, hyper would
    /// hold as much of the body as its buffer's limit allows, which is meant for responses.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.has_room() {
            *self.writing() = Some(context.waker().clone());
            // Look again: a write may have looked for the waker before the waker was stored.
            if !self.has_room() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// Notes that hyper has taken `bytes` bytes of the body.
    pub(super) fn took(&self, bytes: usize) {
        self.unwritten.fetch_add(bytes, Ordering::Relaxed);
    }

    fn has_room(&self) -> bool {
        let takes = self.room.load(Ordering::Acquire) == TAKES;
        takes && self.unwritten.load(Ordering::Acquire) < UNWRITTEN
    }

    /// Notes that the socket takes what is written.
    fn takes(&self) {
        let had_room = self.has_room();
        self.unwritten.store(0, Ordering::Release);
        self.room.store(TAKES, Ordering::Release);
        if !had_room && let Some(writing) = mem::take(&mut *self.writing()) {
            writing.wake();
        }
    }

    /// Whether the app has taken nothing since the last call, though bytes were waiting.
    pub(super) fn stands_still(&self) -> bool {
        let relaxed = Ordering::Relaxed;
        self.room.compare_exchange(FULL, SEEN_FULL, relaxed, relaxed) == Err(SEEN_FULL)
    }

    /// Notes whether the app takes what is written, and hides from hyper that the app has closed its end: the
    /// app's answer may have arrived before that, and hyper would not read it. If the app has closed without
    /// an answer, the read finds out.
    fn note(&self, offered: &[IoSlice<'_>], written: &mut Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Err(error)) if is_closed_by_peer(error) => {
                let bytes = offered.iter().map(|slice| slice.len()).sum();
                *written = Poll::Ready(Ok(bytes));
                self.takes();
            }
            Poll::Ready(_) => self.takes(),
            // tokio returns `Pending` too when the task's budget is used up, although the app reads.
            Poll::Pending if !has_budget_remaining() => {}
            Poll::Pending if self.room.load(Ordering::Relaxed) == TAKES => {
                self.room.store(FULL, Ordering::Relaxed);
            }
            Poll::Pending => {}
        }
    }

    fn writing(&self) -> MutexGuard<'_, Option<Waker>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher for RequestInFlight {
    fn received(&self, bytes: &mut [u8]) {
        self.answer.pass(bytes);
    }

    fn wrote(&self, offered: &[IoSlice<'_>], written: &mut Poll<io::Result<usize>>) {
        self.note(offered, written);
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        let mut head = self.head();
        let Head { bytes, taken } = &mut *head;
        bytes.truncate(*taken);
        for slice in offered {
            bytes.extend_from_slice(slice);
        }
        if let Poll::Ready(Ok(written)) = written {
            *taken += *written;
        }
    }
}

/// Whether a write failed because the peer has closed the connection.
fn is_closed_by_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

/// Parses a head as hyper writes it: a colon and one space after a name, and nothing in a value that could
/// end a line.
fn read(head: &[u8]) -> Option<Request<RequestBody>> {
    let text = head.strip_suffix(b"\r\n\r\n")?;
    let lines = text.split(|byte| *byte == b'\n');
    let mut lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.splitn(3, |byte| *byte == b' ');
    let mut request = Request::new(RequestBody::default());
    *request.method_mut() = Method::from_bytes(words.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(words.next()?).ok()?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line.get(colon + 2..)?).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use http::Version;

    use super::*;

    fn request(method: &str) -> Request<RequestBody> {
        let request = Request::builder().method(method).body(RequestBody::default());
        request.expect("a request")
    }

    /// Writes a head as hyper writes it.
    fn written(target: &str, headers: &HeaderMap) -> Vec<u8> {
        let mut head = format!("GET {target} HTTP/1.1\r\n").into_bytes();
        for (name, value) in headers {
            head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        [&*head, b"\r\n"].concat()
    }

    /// Offers `bytes` to a socket that takes `takes` bytes, or has no room.
    fn offer(in_flight: &RequestInFlight, bytes: &[u8], takes: Option<usize>) {
        let mut written = takes.map_or(Poll::Pending, |bytes| Poll::Ready(Ok(bytes)));
        in_flight.wrote(&[IoSlice::new(bytes)], &mut written);
    }

    #[test]
    fn only_requests_that_may_be_sent_twice_are_kept() {
        let in_flight = RequestInFlight::default();
        let is_kept = |method: &str, reused| {
            in_flight.begin(&request(method), reused);
            offer(&in_flight, &written("/", &HeaderMap::new()), Some(1));
            let copy = HeadCopy::of(&mut request(method));
            assert_eq!(copy.may_go_twice() && reused, in_flight.request().is_some());
            in_flight.request().is_some()
        };
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            assert!(is_kept(method, true), "{method}");
            assert!(!is_kept(method, false), "{method} on a new connection");
        }
        for method in ["POST", "PATCH", "LOCK"] {
            assert!(!is_kept(method, true), "{method}");
        }
    }

    /// Counts the wake-ups of a task.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn body_waits_until_hyper_has_written_its_frames() {
        let (in_flight, woken) = (RequestInFlight::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let waits = || in_flight.poll_room(&mut Context::from_waker(&waker)).is_pending();
        let times_woken = || woken.0.swap(0, Ordering::Relaxed);
        in_flight.took(UNWRITTEN - 1);
        assert!(!waits());
        in_flight.took(1);
        assert!(waits(), "a frame is unwritten");
        offer(&in_flight, b"a frame", None);
        assert!(waits() && times_woken() == 0, "and stays unwritten");
        offer(&in_flight, b"a frame", Some(7));
        assert_eq!(times_woken(), 1);
        assert!(!waits(), "it is written");
        offer(&in_flight, b"another", None);
        assert!(waits(), "the app has no room");
        let mut closed = Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        in_flight.wrote(&[IoSlice::new(b"another")], &mut closed);
        assert!(times_woken() == 1 && !waits(), "the app has closed");
        offer(&in_flight, b"a third", Some(7));
        assert_eq!(times_woken(), 0, "no task waits");
    }

    #[test]
    fn partial_request_is_not_sent_again() {
        let in_flight = RequestInFlight::default();
        in_flight.begin(&request("GET"), true);
        assert!(in_flight.request().is_none(), "not a byte was written");
        offer(&in_flight, b"GET / HTTP/1.1\r\nhost: a\r\n", Some(5));
        assert!(in_flight.request().is_none(), "its end was not");

        in_flight.begin(&request("GET"), true);
        offer(&in_flight, &written("/first", &HeaderMap::new()), Some(10));
        in_flight.begin(&request("GET"), true);
        assert!(in_flight.request().is_none(), "the one before");
        offer(&in_flight, &written("/second", &HeaderMap::new()), None);
        assert_eq!(in_flight.request().expect("offered").uri(), "/second");

        in_flight.end();
        offer(&in_flight, b"a WebSocket's", Some(13));
        assert!(in_flight.request().is_none());
    }

    #[test]
    fn closed_connection_takes_all_until_its_answer_is_read() {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, OutOfMemory};
        let in_flight = RequestInFlight::default();
        let slices = [IoSlice::new(b"12345"), IoSlice::new(b"678")];
        for kind in [BrokenPipe, ConnectionReset] {
            let mut written = Poll::Ready(Err(kind.into()));
            in_flight.wrote(&slices, &mut written);
            assert!(matches!(written, Poll::Ready(Ok(8))), "{kind:?}");
        }
        let mut written = Poll::Ready(Err(OutOfMemory.into()));
        in_flight.wrote(&slices, &mut written);
        assert!(matches!(written, Poll::Ready(Err(_))), "other errors reach the caller");
    }

    #[test]
    fn app_stands_still_if_it_takes_nothing_between_two_looks() {
        let in_flight = RequestInFlight::default();
        let look = || in_flight.stands_still();
        assert!(!look() && !look(), "nothing was written");
        offer(&in_flight, b"x", None);
        assert!(!look(), "the first standstill may have just begun");
        offer(&in_flight, b"x", None);
        assert!(look() && look());
        offer(&in_flight, b"x", Some(1));
        assert!(!look() && !look());
        offer(&in_flight, b"x", None);
        assert!(!look());
        offer(&in_flight, b"x", Some(1));
        offer(&in_flight, b"x", None);
        assert!(!look(), "the app has taken bytes since");
    }

    #[test]
    fn long_head_leaves_no_large_buffer_behind() {
        let in_flight = RequestInFlight::default();
        in_flight.begin(&request("GET"), true);
        offer(&in_flight, &vec![b'x'; 100 * USUAL_BYTES], Some(7));
        in_flight.begin(&request("GET"), true);
        assert!(in_flight.head().bytes.capacity() <= USUAL_BYTES);
    }

    #[test]
    fn copy_equals_the_first_request() {
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        let request = Request::get("http://app.example/a%2Fb?q=%41").version(Version::HTTP_2);
        let request = request.header("authorization", secret).body(RequestBody::default());
        let mut request = request.expect("a request");
        let (method, uri, headers) =
            (Method::GET, request.uri().clone(), request.headers().clone());
        let again = HeadCopy::of(&mut request).head();
        assert_eq!((again.method(), again.uri()), (&method, &uri));
        assert_eq!((again.version(), again.headers()), (Version::HTTP_2, &headers));
        assert!(again.headers()["authorization"].is_sensitive(), "and is not to be indexed");
    }

    proptest! {
        #[test]
        fn request_read_back_from_partial_writes_is_the_same(
            target in "/[!$-;=?-Z_a-z~]{0,30}",
            lines in vec(("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", vec(any::<u8>(), 0..40)), 0..30),
            takes in vec(0_usize..80, 0..60),
        ) {
            let mut headers = HeaderMap::new();
            for (name, value) in &lines {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.append(name, value);
                }
            }
            let head = written(&target, &headers);
            let in_flight = RequestInFlight::default();
            in_flight.begin(&request("GET"), true);
            // The socket takes ever more of the head, and is offered the rest again; then the connection
            // dies.
            let mut rest = &*head;
            for take in takes {
                offer(&in_flight, rest, Some(take).filter(|take| *take > 0).map(|take| take.min(rest.len())));
                rest = &rest[take.min(rest.len())..];
            }
            in_flight.wrote(&[IoSlice::new(rest)], &mut Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())));
            let again = in_flight.request().expect("it is whole");
            prop_assert_eq!(again.uri(), &*target);
            prop_assert_eq!(again.headers(), &headers);
        }
    }
}
