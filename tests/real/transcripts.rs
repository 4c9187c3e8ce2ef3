//! Transcripts of documents that need curl, openssl or a Redis. The others are run by
//! `tests/it/documents/transcripts.rs`.

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};

use crate::neighbour::serve_app;
use session::all_sessions;

#[path = "../it/documents/session.rs"]
#[allow(dead_code, reason = "the tests without real programs use the rest")]
mod session;

/// Answers as an app.
fn hello(_: &Request<Incoming>) -> Response<Full<Bytes>> {
    Response::new(Full::from("hello"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transcripts_with_other_programs_are_what_is_printed() {
    let (_app, address) = serve_app(hello).await;
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut compared = 0;
    for session in all_sessions() {
        if !session.needs_other_programs() || session.is_forbidden() {
            continue;
        }
        let path = path.clone();
        let running = tokio::task::spawn_blocking(move || session.assert_prints(address, &path));
        if let Err(failed) = running.await {
            std::panic::resume_unwind(failed.into_panic());
        }
        compared += 1;
    }
    assert!(compared >= 3, "only {compared} transcripts");
}
