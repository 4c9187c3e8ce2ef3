//! A connection to a server over one of the two protocols, for bodies that are sent and read by hand.

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::neighbour::{PATIENCE, Task};

/// What a client or an app speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    H2c,
}

impl fmt::Display for Protocol {
    /// As `app.protocol` has it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Http1 => "http1",
            Self::H2c => "h2c",
        })
    }
}

/// Sends one request on a connection of its own, which ends with the task: its head may be answered
/// before its body is at its end.
pub async fn send<B>(
    server: SocketAddr,
    protocol: Protocol,
    request: Request<B>,
) -> (Response<Incoming>, Task)
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(server).await.expect("it listens");
    stream.set_nodelay(true).expect("it is open");
    let io = TokioIo::new(stream);
    let (mut head, body) = request.into_parts();
    let sending = async {
        match protocol {
            Protocol::Http1 => {
                head.headers.insert("host", "app.example".parse().expect("a value"));
                let (mut sender, connection) = http1::handshake(io).await?;
                // Its error, if any, is the request's too.
                let task = Task::spawn(async { drop(connection.await) });
                Ok((sender.send_request(Request::from_parts(head, body)).await?, task))
            }
            Protocol::H2c => {
                head.version = Version::HTTP_2;
                head.uri = format!("http://app.example{}", head.uri).parse().expect("a URI");
                let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                let task = Task::spawn(async { drop(connection.await) });
                Ok((sender.send_request(Request::from_parts(head, body)).await?, task))
            }
        }
    };
    let sent: Result<_, hyper::Error> =
        timeout(PATIENCE, sending).await.expect("an answer in time");
    sent.expect("an answer")
}
