//! Requests that share one HTTP/2 connection of a front, some of which stand still.

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::app::{AppBody, FakeApp, full};
use crate::support::{PATIENCE, Stage};

/// One HTTP/2 connection of a front that multiplexes.
struct Front {
    sender: SendRequest<Full<Bytes>>,
}

impl Front {
    async fn before(stage: &Stage) -> Self {
        let stream = TcpStream::connect(stage.sidecar.addresses.traffic).await;
        let io = TokioIo::new(stream.expect("the sidecar listens"));
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self { sender }
    }

    /// Posts `length` bytes as ada.
    fn post(&self, path: &str, length: usize) -> impl Future<Output = (u16, Bytes)> + use<> {
        let request = Request::post(format!("http://app.example{path}"))
            .header("x-forwarded-user", "ada")
            .body(Full::new(Bytes::from(vec![b' '; length])))
            .expect("a request");
        let mut sender = self.sender.clone();
        async move {
            let answer = timeout(PATIENCE, sender.send_request(request)).await;
            let answer = answer.expect("an answer in time").expect("an answer");
            let status = answer.status().as_u16();
            let body = timeout(PATIENCE, answer.into_body().collect()).await;
            (status, body.expect("a body in time").expect("a whole body").to_bytes())
        }
    }
}

/// Never reads uploads to `/stands-still`; answers other requests with the count of their bytes.
async fn reluctant(request: Request<Incoming>) -> Response<AppBody> {
    if request.uri().path() == "/stands-still" {
        // Holding the request keeps the connection open.
        let _request = request;
        pending::<()>().await;
        unreachable!("it never goes on");
    }
    let body = request.into_body().collect().await.expect("a whole body").to_bytes();
    Response::new(full(body.len().to_string()))
}

#[tokio::test]
async fn uploads_that_stand_still_leave_others_served() {
    const STANDING_STILL: usize = 97;
    let stage = Stage::with(FakeApp::serving(reluctant).await, "").await;
    let front = Front::before(&stage).await;
    for _ in 0..STANDING_STILL {
        let upload = front.post("/stands-still", 1_300_000);
        tokio::spawn(timeout(Duration::from_secs(60), upload));
    }
    stage.app.requests_reach(STANDING_STILL).await;
    for length in [700, 70_000, 1_300_000] {
        let (status, counted) = front.post("/reads", length).await;
        assert_eq!((status, &*counted), (200, length.to_string().as_bytes()));
    }
    let (status, token) = front.post("/api/velt/token", 3_000).await;
    assert_eq!(status, 200, "{token:?}");
}
