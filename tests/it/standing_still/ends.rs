//! End of a request that stands still: when it comes, how each side hears of it, and that it ends no
//! other request of the same connection.

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};

use super::app::{drip, nothing, silence};
use super::client::{PROMPT, Speaks};
use super::{Case, Set, Stall, each, get, post};
use crate::frames::opening;
use crate::support::PATIENCE;

/// Limits of a case, longer than a busy machine takes to begin. All other limits keep their defaults,
/// which no test waits for.
const IDLE: Duration = Duration::from_millis(900);
const HEAD: Duration = Duration::from_millis(500);
const WRITE: Duration = Duration::from_millis(700);
const ANSWER: Duration = Duration::from_millis(800);
const STREAM: Duration = Duration::from_millis(600);

/// Time for which a slow peer goes on: longer than any limit here and a look or two of the sidecar's.
const LONG: Duration = Duration::from_millis(2_300);

fn setting(name: &str, limit: Duration) -> String {
    let (table, key) = name.split_once('.').expect("a table and a key");
    format!("[{table}]\n{key} = \"{}ms\"\n", limit.as_millis())
}

fn closed(reason: &str) -> String {
    format!("connections_closed_total{{reason=\"{reason}\"}}")
}

/// Runs the cases of a way to stand still, with one limit. Afterwards checks that other requests are
/// served over the same connection, if the connection has not ended.
async fn ends<F, R>(stall: Stall, clients: &[Speaks], limit: (&'static str, Duration), check: F)
where
    F: Fn(Case, Set, Instant) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Set> + Send + 'static,
{
    each(stall, clients, |case| {
        let check = check.clone();
        async move {
            let set = case.set(&setting(limit.0, limit.1)).await;
            let set = check(case, set, Instant::now()).await;
            set.others_are_served().await;
        }
    })
    .await;
}

fn not_before(limit: Duration, begun: Instant) {
    assert!(begun.elapsed() >= limit, "it has ended after {:?}", begun.elapsed());
}

/// Waits for the answer to a request that stands still.
async fn refused(set: &Set, request: http::Request<super::app::Body>) -> u16 {
    let answer = timeout(PATIENCE, set.client.begin(request)).await.expect("an answer in time");
    let answer = answer.expect("an answer of the sidecar's own");
    answer.status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_http1_download_ends_after_write_timeout() {
    let clients = [Speaks::Http1, Speaks::TlsHttp1];
    let limit = ("listen.write_timeout", WRITE);
    ends(Stall::ClientReadsNothing, &clients, limit, async |case, set, begun| {
        let _standing = set.stall(case.stall, 1).await;
        set.moved.given_up(1).await;
        not_before(WRITE, begun);
        set.stage.sidecar.metric_reaches(&closed("stalled"), 1.0).await;
        set
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_http2_connection_ends_after_write_timeout() {
    let clients = [Speaks::Http2, Speaks::TlsHttp2];
    let limit = ("listen.write_timeout", WRITE);
    ends(Stall::ClientReadsNoFrames, &clients, limit, async |case, set, begun| {
        let _standing = set.stall(case.stall, 1).await;
        set.moved.given_up(20).await;
        not_before(WRITE, begun);
        set.stage.sidecar.metric_reaches(&closed("stalled"), 1.0).await;
        set
    })
    .await;
}

/// Checks that the connection goes on, since it may carry the requests of many clients.
#[tokio::test(flavor = "multi_thread")]
async fn unread_http2_download_ends_after_write_timeout() {
    let clients = [Speaks::Http2, Speaks::TlsHttp2];
    let limit = ("listen.write_timeout", WRITE);
    ends(Stall::ClientReadsNothing, &clients, limit, async |case, set, begun| {
        let standing = set.stall(case.stall, 1).await;
        set.moved.given_up(1).await;
        not_before(WRITE, begun);
        for answer in standing.answers {
            let rest = timeout(PROMPT, answer.into_body().collect()).await.expect("its end");
            rest.expect_err("an answer that was broken off");
        }
        set
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_download_outlives_write_timeout() {
    let limit = ("listen.write_timeout", WRITE);
    ends(Stall::ClientReadsSlowly, &Speaks::ALL, limit, slow_download).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_download_outlives_stream_idle_timeout() {
    let limit = ("app.stream_idle_timeout", STREAM);
    ends(Stall::ClientReadsSlowly, &Speaks::ALL, limit, slow_download).await;
}

/// Reads an answer steadily, but far more slowly than the app could send it.
async fn slow_download(case: Case, set: Set, begun: Instant) -> Set {
    if case.client.is_http2() {
        let mut body = set.answered(get("/endless")).await.into_body();
        while begun.elapsed() < LONG {
            let frame = timeout(PROMPT, body.frame()).await.expect("more in time");
            let frame = frame.expect("it has no end").expect("it is not broken off");
            assert!(frame.is_data());
            // The client is slower than the app and faster than the limit.
            sleep(Duration::from_millis(40)).await;
        }
        return set;
    }
    // The frames are written by hand, because hyper's client reads ahead.
    let mut connection = set.client.connect().await;
    let request = b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n";
    connection.write_all(request).await.expect("it reads");
    connection.flush().await.expect("it reads");
    let mut buffer = [0; 16 * 1024];
    while begun.elapsed() < LONG {
        let read = timeout(PROMPT, connection.read(&mut buffer)).await.expect("more in time");
        assert_ne!(read.expect("it is not broken off"), 0, "it has no end");
        // The pause of the HTTP/2 client above: slower than the app, faster than the limit.
        sleep(Duration::from_millis(40)).await;
    }
    // The reads above would not show a break yet, since the kernel holds earlier bytes; the metric
    // would.
    assert_eq!(set.stage.metric(&closed("stalled")).await, 0.0);
    set
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connection_ends_as_idle() {
    let limit = ("listen.idle_timeout", IDLE);
    ends(Stall::ClientSendsNothing, &Speaks::ALL, limit, async |case, set, begun| {
        let mut connection = set.client.connect().await;
        if case.client.is_http2() {
            connection.write_all(&opening()).await.expect("it reads");
            connection.flush().await.expect("it reads");
        }
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, connection.read_to_end(&mut rest)).await;
        // A TLS connection that ends without `close_notify` counts as an end too.
        let _ = read.expect("its end in time");
        not_before(IDLE, begun);
        set.stage.sidecar.metric_reaches(&closed("idle"), 1.0).await;
        set
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_head_ends_after_header_timeout() {
    let clients = [Speaks::Http1, Speaks::TlsHttp1];
    let limit = ("listen.header_timeout", HEAD);
    ends(Stall::ClientSendsSlowly, &clients, limit, async |_, set, begun| {
        let mut connection = set.client.connect().await;
        connection.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").await.expect("it reads");
        let dripping = async {
            while connection.write_all(b"a").await.is_ok() && connection.flush().await.is_ok() {
                // Each byte comes in time, and the head never ends: only its time limit can end it.
                sleep(Duration::from_millis(30)).await;
            }
        };
        timeout(PATIENCE, dripping).await.expect("its end in time");
        not_before(HEAD, begun);
        set.stage.sidecar.metric_reaches(&closed("slow_head"), 1.0).await;
        set
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_upload_is_answered_408() {
    let limit = ("app.stream_idle_timeout", STREAM);
    ends(Stall::ClientSendsNothing, &Speaks::ALL, limit, async |_, set, begun| {
        assert_eq!(refused(&set, post("/count", silence())).await, 408);
        not_before(STREAM, begun);
        set
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_upload_outlives_every_limit() {
    let limit = ("app.stream_idle_timeout", STREAM);
    ends(Stall::ClientSendsSlowly, &Speaks::ALL, limit, async |_, set, _| {
        let pieces = 46;
        let pause = LONG / 46;
        let sending = set.client.begin(post("/count", drip(pieces, pause)));
        let answer = timeout(PATIENCE, sending).await.expect("in time").expect("an answer");
        assert_eq!(answer.status(), 200);
        let taken = answer.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(taken, (7 * pieces).to_string());
        set
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_unread_by_app_is_answered_408() {
    let limit = ("app.stream_idle_timeout", STREAM);
    ends(Stall::AppReadsNothing, &Speaks::ALL, limit, async |_, set, begun| {
        let upload = post("/hold", set.moved.endless_upload());
        assert_eq!(refused(&set, upload).await, 408);
        not_before(STREAM, begun);
        set
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_app_is_answered_for_with_504() {
    let limit = ("app.response_timeout", ANSWER);
    ends(Stall::AppAnswersNothing, &Speaks::ALL, limit, async |_, set, begun| {
        assert_eq!(refused(&set, get("/hold")).await, 504);
        not_before(ANSWER, begun);
        let upload = http::Request::post("/hold").body(nothing()).expect("a request");
        assert_eq!(refused(&set, upload).await, 504);
        set
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answer_broken_off_ends_at_once() {
    // A limit so long that it has no part in this test.
    let limit = ("app.stream_idle_timeout", PATIENCE);
    ends(Stall::AppCloses, &Speaks::ALL, limit, async |_, set, begun| {
        set.is_broken_off().await;
        assert!(begun.elapsed() < PATIENCE);
        set
    })
    .await;
}
