//! An app that speaks HTTP/2, and what one request of a connection does to the other requests.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, SETTINGS, STATUS_200, frame,
};
use crate::support::client::Client;
use crate::support::raw::{RawApp, Wire};
use crate::support::velt::FakeVelt;
use crate::support::{ONE_WORKER, PATIENCE, TestSidecar};

/// A sidecar with one thread in front of an app that speaks h2c.
async fn before(app: SocketAddr, app_toml: &str) -> TestSidecar {
    let velt = FakeVelt::start().await;
    let toml = format!("{ONE_WORKER}[app]\nprotocol = \"h2c\"\n{app_toml}");
    TestSidecar::start(&app.to_string(), velt.address, &toml)
}

/// App built on h2, with a task for each request.
struct H2App {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    open: watch::Sender<usize>,
}

impl H2App {
    async fn serving<F, R>(builder: Builder, answer: F) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::serving_each(builder, move |_, request, respond| answer(request, respond)).await
    }

    /// Serves each request with `answer`, which gets a counter of the request's connection.
    async fn serving_each<F, R>(builder: Builder, answer: F) -> Self
    where
        F: Fn(Arc<AtomicUsize>, Request<RecvStream>, SendResponse<Bytes>) -> R
            + Send
            + Sync
            + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::<AtomicUsize>::default();
        let (counted, answer) = (Arc::clone(&connections), Arc::new(answer));
        let open = watch::Sender::new(0);
        let opened = open.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accept");
                counted.fetch_add(1, Ordering::SeqCst);
                opened.send_modify(|open| *open += 1);
                let (builder, answer, opened) =
                    (builder.clone(), Arc::clone(&answer), opened.clone());
                tokio::spawn(async move {
                    let own = Arc::<AtomicUsize>::default();
                    if let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await {
                        while let Some(Ok((request, respond))) = connection.accept().await {
                            tokio::spawn(answer(Arc::clone(&own), request, respond));
                        }
                    }
                    opened.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { address, connections, open }
    }

    fn connection_count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn begin(mut respond: SendResponse<Bytes>) -> SendStream<Bytes> {
    respond.send_response(Response::new(()), false).expect("the stream is open")
}

/// Sends all of `bytes`, as fast as the windows allow. Returns whether they were taken.
async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> bool {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let Some(Ok(room)) = room else { return false };
        let piece = bytes.split_to(room.min(bytes.len()));
        if stream.send_data(piece, false).is_err() {
            return false;
        }
    }
    true
}

/// Ends a body.
fn end(stream: &mut SendStream<Bytes>) {
    let _ = stream.send_data(Bytes::new(), true);
}

async fn answer_in_full(respond: SendResponse<Bytes>, body: impl Into<Bytes>) {
    let mut stream = begin(respond);
    if send(&mut stream, body.into()).await {
        end(&mut stream);
    }
}

/// A client that has the head of its answer, and reads nothing of the body.
async fn unread(sidecar: &TestSidecar, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("an option");
    let mut stream = socket.connect(sidecar.addresses.traffic).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: app.example\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut status = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut status)).await.expect("in time").expect("a head");
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

#[tokio::test]
async fn unread_answers_leave_other_answers_whole() {
    const LONG: usize = 10_000_000;
    let long = Bytes::from(vec![b'x'; LONG]);
    let app =
        H2App::serving(Builder::new(), move |_, respond| answer_in_full(respond, long.clone()))
            .await;
    let sidecar = before(app.address, "").await;
    let mut stalled = Vec::new();
    for _ in 0..107 {
        stalled.push(unread(&sidecar, "/").await);
    }
    let client = Client::to(sidecar.addresses.traffic);
    for http2 in [false, true] {
        let sending = client.get("/");
        let answer = if http2 { sending.send_http2().await } else { sending.send().await };
        assert_eq!(answer.body().len(), LONG, "HTTP/2: {http2}");
    }
    assert!(app.connection_count() <= 3, "{} connections", app.connection_count());
    // The client that has waited still gets its whole answer.
    let mut last = stalled.pop().expect("one of them");
    let mut rest = vec![0; LONG];
    timeout(PATIENCE, last.read_exact(&mut rest)).await.expect("in time").expect("all of it");
}

#[tokio::test]
async fn event_streams_leave_room_for_requests() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(7);
    let app = H2App::serving(builder, |request, respond| async move {
        let mut stream = begin(respond);
        if request.uri().path() == "/events" {
            send(&mut stream, Bytes::from_static(b"data: first\n\n")).await;
            let _ = std::future::poll_fn(|context| stream.poll_reset(context)).await;
        } else {
            send(&mut stream, Bytes::from_static(b"quick")).await;
            end(&mut stream);
        }
    })
    .await;
    let toml = "response_timeout = \"5s\"\nidle_timeout = \"1s\"";
    let sidecar = before(app.address, toml).await;
    let client = Client::to(sidecar.addresses.traffic);
    // All requests come at once, before the app has said how many it takes.
    let opening: JoinSet<_> = (0..20).map(|_| client.get("/events").begin()).collect();
    let streams = opening.join_all().await;
    let quick: JoinSet<_> = (0..4).map(|_| client.get("/").send()).collect();
    for answer in quick.join_all().await {
        assert_eq!((answer.status(), answer.text().as_str()), (200, "quick"));
    }
    assert!((3..=4).contains(&app.connection_count()), "{}", app.connection_count());

    // The sidecar closes connections without requests, but keeps one.
    drop(streams);
    let mut open = app.open.subscribe();
    let closed = timeout(PATIENCE, open.wait_for(|open| *open == 1)).await;
    closed.expect("in time").expect("the app lives");
    assert_eq!(client.get("/").send().await.text(), "quick");
}

#[tokio::test]
async fn app_that_takes_no_streams_gets_few_connections() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(0);
    let app = H2App::serving(builder, |_, respond| answer_in_full(respond, "never")).await;
    let sidecar = before(app.address, "response_timeout = \"1300ms\"").await;
    let client = Client::to(sidecar.addresses.traffic);
    let asking: JoinSet<_> = (0..9).map(|_| client.get("/").send()).collect();
    for answer in asking.join_all().await {
        assert_eq!((answer.status(), &*answer.code()), (504, "app_timeout"));
    }
    assert!(app.connection_count() <= 3, "{} connections", app.connection_count());
}

#[tokio::test]
async fn long_heads_and_trailers_pass_over_http2() {
    let app = H2App::serving(Builder::new(), |request, mut respond| async move {
        let bytes: usize = request.uri().path()[1..].parse().expect("a number");
        let long = HeaderValue::from_bytes(&vec![b'x'; bytes]).expect("a value");
        let mut response = Response::new(());
        response.headers_mut().insert("x-app-long", long.clone());
        let mut stream = respond.send_response(response, false).expect("the stream is open");
        send(&mut stream, Bytes::from_static(b"body")).await;
        let _ = stream.send_trailers(HeaderMap::from_iter([("x-app-long".parse().unwrap(), long)]));
    })
    .await;
    let sidecar = before(app.address, "").await;
    let client = Client::to(sidecar.addresses.traffic);
    let answer = client.get("/102400").header("te", "trailers").send().await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "body"));
    assert_eq!(answer.header("x-app-long").map(str::len), Some(102_400));
    // A head that is too long is an error of its own request only.
    let mut beside = client.get("/1").begin().await.into_body();
    let refused = client.get("/300000").send().await;
    assert_eq!((refused.status(), &*refused.code()), (502, "app_broken"));
    let frame = timeout(PATIENCE, beside.frame()).await.expect("in time");
    assert_eq!(frame.expect("a frame").expect("no error").into_data().expect("data"), "body");
    assert_eq!(app.connection_count(), 1);
}

#[tokio::test]
async fn unread_small_messages_leave_other_streams_alone() {
    let told = Arc::new(Notify::new());
    let waiting = Arc::clone(&told);
    let app = H2App::serving(Builder::new(), move |request, respond| {
        let told = Arc::clone(&waiting);
        async move {
            let mut stream = begin(respond);
            if request.uri().path() == "/beside" {
                send(&mut stream, Bytes::from_static(b"first")).await;
                told.notified().await;
                send(&mut stream, Bytes::from_static(b"last")).await;
                return end(&mut stream);
            }
            while send(&mut stream, Bytes::from_static(b"0123456789")).await {}
        }
    })
    .await;
    let sidecar = before(app.address, "").await;
    let client = Client::to(sidecar.addresses.traffic);
    let beside = client.get("/beside").begin().await;
    let mut stalled = Vec::new();
    for _ in 0..13 {
        stalled.push(unread(&sidecar, "/").await);
    }
    // Requests until the last connection has filled its window.
    for _ in 0..11 {
        client.get("/beside").begin().await;
    }
    told.notify_waiters();
    let rest = timeout(PATIENCE, beside.into_body().collect()).await.expect("in time");
    assert_eq!(rest.expect("whole").to_bytes(), "firstlast");
    assert_eq!(app.connection_count(), 1);
}

#[tokio::test]
async fn unread_upload_leaves_other_uploads_alone() {
    const LONG: usize = 300_000;
    let app = H2App::serving(Builder::new(), |request, respond| async move {
        if request.uri().path() == "/unread" {
            return std::future::pending().await;
        }
        let (mut body, mut bytes) = (request.into_body(), 0);
        while let Some(Ok(data)) = body.data().await {
            bytes += data.len();
            let _ = body.flow_control().release_capacity(data.len());
        }
        answer_in_full(respond, bytes.to_string()).await;
    })
    .await;
    let sidecar = before(app.address, "").await;
    let client = Client::to(sidecar.addresses.traffic);
    let mut stalled = JoinSet::new();
    // Uploads that use up the app's window for a connection one at a time, by a few, or by many.
    for bytes in [LONG, LONG, 60_000, 60_000, 23_000, 23_000, 23_000, 23_000, 1_000, 1_000] {
        stalled.spawn(client.post("/unread", vec![b'x'; bytes]).begin());
    }
    for _ in 0..3 {
        for (http2, bytes) in [(false, LONG), (true, LONG), (false, 11), (true, 11)] {
            let sending = client.post("/", vec![b'x'; bytes]);
            let answer = if http2 { sending.send_http2().await } else { sending.send().await };
            assert_eq!(answer.text(), bytes.to_string());
        }
    }
    assert!(app.connection_count() <= 9, "{} connections", app.connection_count());
}

#[tokio::test]
async fn rotation_by_goaway_loses_no_post() {
    const EACH: usize = 23;
    const ALL: usize = 407;
    let app = RawApp::serving(|mut wire, _| async move {
        wire.read_to("SM\r\n\r\n").await;
        wire.send(frame(SETTINGS, 0, 0, &[])).await;
        let (mut answered, mut last, mut open) = (0, 0, BTreeSet::new());
        while let Some(Frame { kind, flags, stream, payload }) = wire.next_frame().await {
            match kind {
                SETTINGS if flags & ACK == 0 => wire.send(frame(SETTINGS, ACK, 0, &[])).await,
                PING if flags & ACK == 0 => wire.send(frame(PING, ACK, 0, &payload)).await,
                HEADERS if answered < EACH => {
                    open.insert(stream);
                    last = stream;
                }
                _ => {}
            }
            if flags & END_STREAM != 0 && matches!(kind, HEADERS | DATA) && open.remove(&stream) {
                wire.send(frame(HEADERS, END_STREAM | END_HEADERS, stream, &[STATUS_200])).await;
                answered += 1;
                if answered == EACH {
                    let goaway = [&last.to_be_bytes()[..], &[0; 4]].concat();
                    wire.send(frame(GOAWAY, 0, 0, &goaway)).await;
                }
            }
            // The app does not process requests after the last that it has taken.
            if answered >= EACH && open.is_empty() {
                return;
            }
        }
    })
    .await;
    let sidecar = before(app.address, "").await;
    let client = Client::to(sidecar.addresses.traffic);
    let mut failed = Vec::new();
    for round in 0..ALL.div_ceil(8) {
        let posts: JoinSet<_> = (0..8)
            .map(|nth| client.post("/", vec![b'x'; 100 * (nth + round % 7)]).send())
            .collect();
        let answers = posts.join_all().await;
        failed.extend(answers.into_iter().filter(|answer| answer.status() != 200));
    }
    assert!(failed.is_empty(), "{} of {ALL} have failed: {:?}", failed.len(), failed[0]);
}

#[tokio::test]
async fn refused_post_is_sent_again_with_its_body() {
    let tries = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&tries);
    let app = H2App::serving(Builder::new(), move |request, mut respond| {
        let nth = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let body = request.into_body().data().await.expect("a body").expect("data");
            if nth < 2 {
                return respond.send_reset(Reason::REFUSED_STREAM);
            }
            answer_in_full(respond, body).await;
        }
    })
    .await;
    let sidecar = before(app.address, "").await;
    let client = Client::to(sidecar.addresses.traffic);
    let answer = client.post("/", "as it was").send().await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "as it was"));
    assert_eq!(tries.load(Ordering::SeqCst), 3);
    // Each try was counted.
    assert!(sidecar.metric("app_retries_total").await >= 2.0);
}

#[tokio::test]
async fn app_over_http2_decides_when_the_client_sends_its_body() {
    let app = H2App::serving(Builder::new(), |request, mut respond| async move {
        assert_eq!(request.headers()["expect"], "100-continue");
        if request.uri().path() == "/no" {
            let denied = Response::builder().status(403).body(()).expect("a head");
            let _ = respond.send_response(denied, true);
            return;
        }
        let go_on = Response::builder().status(100).body(()).expect("a head");
        respond.send_informational(go_on).expect("the stream is open");
        let body = request.into_body().data().await.expect("a body").expect("data");
        answer_in_full(respond, body).await;
    })
    .await;
    let sidecar = before(app.address, "").await;
    for (path, said) in [("/yes", "HTTP/1.1 100 "), ("/no", "HTTP/1.1 403 ")] {
        let mut wire = Wire::to(sidecar.addresses.traffic).await;
        let head = "host: app.example\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
        let begun = Instant::now();
        wire.send(format!("POST {path} HTTP/1.1\r\n{head}")).await;
        let first = wire.head().await;
        assert!(first.starts_with(said), "{first}");
        assert!(begun.elapsed() < Duration::from_millis(900), "it was the app that said so");
        if path == "/yes" {
            wire.send("body").await;
            assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
            assert!(wire.read_to("body").await.ends_with("body"));
        }
    }
}

#[tokio::test]
async fn client_over_http2_that_waits_for_100_is_answered() {
    let app = H2App::serving(Builder::new(), |request, mut respond| async move {
        let go_on = Response::builder().status(100).body(()).expect("a head");
        respond.send_informational(go_on).expect("the stream is open");
        let body = request.into_body().data().await.expect("a body").expect("data");
        answer_in_full(respond, body).await;
    })
    .await;
    let sidecar = before(app.address, "").await;
    let stream = TcpStream::connect(sidecar.addresses.traffic).await.expect("it listens");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let head = || {
        let request = Request::post("http://app.example/").header("expect", "100-continue");
        request.body(()).expect("a request")
    };
    // A client that sends its body without `100 Continue`, as most do after a second.
    let (response, mut body) = client.send_request(head(), false).expect("it is sent");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    body.send_data(Bytes::from_static(b"body"), true).expect("it is sent");
    let response = timeout(PATIENCE, response).await.expect("in time").expect("an answer");
    assert_eq!(response.status(), 200);
    let (response, _body) = client.send_request(head(), false).expect("it is sent");
    let response = timeout(Duration::from_secs(6), response).await.expect("in time");
    assert_eq!(response.expect("an answer").status(), 417);
}

#[tokio::test]
async fn request_refused_by_a_full_session_goes_to_another() {
    let big = Bytes::from(vec![b'x'; 3_000_000]);
    let app = H2App::serving_each(Builder::new(), move |unread, request, mut respond| {
        let big = big.clone();
        async move {
            // Refused as Node.js does when unread data fill the memory of a session.
            if unread.load(Ordering::SeqCst) > 0 {
                return respond.send_reset(Reason::ENHANCE_YOUR_CALM);
            }
            if request.uri().path() == "/big" {
                unread.fetch_add(1, Ordering::SeqCst);
                answer_in_full(respond, big).await;
                unread.fetch_sub(1, Ordering::SeqCst);
            } else {
                answer_in_full(respond, "quick").await;
            }
        }
    })
    .await;
    let sidecar = before(app.address, "").await;
    let client = Client::to(sidecar.addresses.traffic);
    let mut stalled = Vec::new();
    for _ in 0..7 {
        stalled.push(unread(&sidecar, "/big").await);
        assert_eq!(client.get("/").send().await.text(), "quick");
    }
    assert!(app.connection_count() <= 8, "{} connections", app.connection_count());
}
