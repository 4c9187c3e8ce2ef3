//! A connection to a server over one of two protocols, for bodies that a test sends and reads by hand.

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

/// Protocol of a client or an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    H2c,
}

impl fmt::Display for Protocol {
    /// Writes the name of the protocol in `app.protocol`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Http1 => "http1",
            Self::H2c => "h2c",
        })
    }
}

/// Sends a request on a new connection, which ends with the task. The head may be answered before the body
/// has ended.
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
                // An error of the connection is also an error of the request.
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
