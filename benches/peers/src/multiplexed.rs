//! Load over HTTP/2 without TLS.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, StatusCode, Version};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::Result;
use crate::app;
use crate::load::{AT_A_TIME, BROWSER, Load, Progress};

const CONNECTIONS: usize = 8;

/// Opens the connections, and starts requests on all their streams.
pub async fn open(load: &Load, progress: &Rc<Progress>) -> Result<()> {
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(load.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        let shared = Rc::clone(progress);
        spawn_local(async move {
            if let Err(problem) = connection.await {
                shared.fail(format!("an HTTP/2 connection ended: {problem}"));
            }
        });
        for _ in 0..AT_A_TIME / CONNECTIONS {
            let (load, shared, sender) = (load.clone(), Rc::clone(progress), sender.clone());
            spawn_local(async move {
                if let Err(problem) = keep_asking(&load, sender, &shared).await {
                    shared.fail(problem.to_string());
                }
            });
        }
    }
    Ok(())
}

async fn keep_asking(load: &Load, sender: SendRequest<Bytes>, progress: &Progress) -> Result<()> {
    let mut sender = sender;
    while !progress.is_over() {
        let turn = progress.next_turn();
        let started = Instant::now();
        sender = sender.ready().await?;
        let request = load.users.with(turn, |user, _| request(load, user))?;
        let (answer, _) = sender.send_request(request, true)?;
        let answer = answer.await?;
        let (head, mut body) = answer.into_parts();
        let mut length = 0;
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            length += chunk.len();
            body.flow_control().release_capacity(chunk.len())?;
        }
        let token = head.headers.get("x-velt-token").map(http::HeaderValue::as_bytes);
        let has_token = load.users.with(turn, |_, right| token == Some(right.as_bytes()));
        if head.status != StatusCode::OK || length != app::SMALL || (load.with_token && !has_token)
        {
            return Err(format!("over HTTP/2: {}, or not the user's answer", head.status).into());
        }
        progress.record(started.elapsed());
    }
    Ok(())
}

fn request(load: &Load, user: &str) -> Result<Request<()>> {
    let mut request = Request::get(format!("http://app.example.com{}", load.job.path()))
        .version(Version::HTTP_2)
        .header("x-forwarded-user", user);
    for (name, value) in BROWSER {
        request = request.header(name, value);
    }
    Ok(request.body(())?)
}
