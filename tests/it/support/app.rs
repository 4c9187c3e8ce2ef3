//! A stand-in of the app over real HTTP: answers as told, and keeps a journal of what arrived.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::PATIENCE;

pub type AppBody = BoxBody<Bytes, std::io::Error>;
type Answering = Pin<Box<dyn Future<Output = Response<AppBody>> + Send>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn boxed<F, R>(handler: F) -> Handler
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<AppBody>> + Send + 'static,
{
    Arc::new(move |request| Box::pin(handler(request)))
}

/// The head of a request as it arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub method: Method,
    /// The target as the app saw it.
    pub target: String,
    pub version: Version,
    pub headers: HeaderMap,
}

impl Arrived {
    /// Returns the only value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} arrived twice");
        Some(value.to_str().expect("visible ASCII"))
    }
}

pub struct FakeApp {
    pub address: SocketAddr,
    journal: Arc<Mutex<Vec<Arrived>>>,
    arrived: watch::Sender<usize>,
    connections: Arc<Mutex<usize>>,
    dying: Arc<Notify>,
    accepting: JoinHandle<()>,
}

impl FakeApp {
    /// Starts an app that answers all requests with 200 and a few bytes.
    pub async fn start() -> Self {
        Self::answering(|_| plain("hello from the app")).await
    }

    /// Answers every request alike, without looking at its body.
    pub async fn answering<F>(handler: F) -> Self
    where
        F: Fn(&Arrived) -> Response<AppBody> + Send + Sync + 'static,
    {
        Self::serving(move |request| {
            let response = handler(&head(&request));
            async move { response }
        })
        .await
    }

    /// Answers when the gate opens.
    pub async fn gated() -> (watch::Sender<bool>, Self) {
        let gate = watch::Sender::new(false);
        let opened = gate.subscribe();
        let app = Self::serving(move |_| {
            let mut opened = opened.clone();
            async move {
                opened.wait_for(|open| *open).await.expect("the gate outlives the test");
                plain("late")
            }
        })
        .await;
        (gate, app)
    }

    /// Answers over HTTP/1.1 by `handler`.
    pub async fn serving<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<AppBody>> + Send + 'static,
    {
        Self::bind(ANY_PORT, boxed(handler), false).await
    }

    /// Answers over HTTP/2 with prior knowledge by `handler`.
    pub async fn serving_h2c<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<AppBody>> + Send + 'static,
    {
        Self::bind(ANY_PORT, boxed(handler), true).await
    }

    /// Answers all requests with 200 at `address`, where another app has been before.
    pub async fn restart(address: SocketAddr, h2c: bool) -> Self {
        Self::bind(address, boxed(|_| async { plain("hello from the app") }), h2c).await
    }

    /// Ends the app, and its connections with it.
    pub async fn die(&mut self) {
        self.dying.notify_one();
        (&mut self.accepting).await.expect("no panic");
    }

    async fn bind(address: SocketAddr, handler: Handler, h2c: bool) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (journal, arrived) = (Arc::<Mutex<Vec<_>>>::default(), watch::Sender::new(0));
        let connections = Arc::<Mutex<usize>>::default();
        let (journaled, counted) = (Arc::clone(&journal), Arc::clone(&connections));
        let arriving = arrived.clone();
        let dying = Arc::new(Notify::new());
        let death = Arc::clone(&dying);
        let accepting = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted.expect("accept"),
                    () = death.notified() => break,
                };
                *counted.lock().expect("no panic") += 1;
                let (journal, arrived) = (Arc::clone(&journaled), arriving.clone());
                let handler = Arc::clone(&handler);
                serving.spawn(serve(stream, h2c, move |request| {
                    journal.lock().expect("no panic").push(head(&request));
                    arrived.send_modify(|arrived| *arrived += 1);
                    handler(request)
                }));
                while serving.try_join_next().is_some() {}
            }
            drop(listener);
            serving.shutdown().await;
        });
        Self { address, journal, arrived, connections, dying, accepting }
    }

    pub fn journal(&self) -> Vec<Arrived> {
        self.journal.lock().expect("no panic").clone()
    }

    /// The only request that has arrived.
    pub fn only(&self) -> Arrived {
        let mut journal = self.journal();
        assert_eq!(journal.len(), 1, "requests at the app");
        journal.remove(0)
    }

    pub fn connection_count(&self) -> usize {
        *self.connections.lock().expect("no panic")
    }

    /// Waits until this many requests have arrived.
    pub async fn requests_reach(&self, count: usize) {
        let mut arrived = self.arrived.subscribe();
        let reached = timeout(PATIENCE, arrived.wait_for(|arrived| *arrived >= count)).await;
        assert!(reached.is_ok(), "{} requests and not {count}", self.journal().len());
    }
}

async fn serve<F>(stream: TcpStream, h2c: bool, handler: F)
where
    F: Fn(Request<Incoming>) -> Answering + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    let service = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(handler(request).await) }
    });
    let io = TokioIo::new(stream);
    // Some tests are about a connection that breaks.
    let _ = if h2c {
        http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        http1::Builder::new().serve_connection(io, service).with_upgrades().await
    };
}

fn head<B>(request: &Request<B>) -> Arrived {
    Arrived {
        method: request.method().clone(),
        target: request.uri().to_string(),
        version: request.version(),
        headers: request.headers().clone(),
    }
}

pub fn plain(text: &'static str) -> Response<AppBody> {
    let mut response = Response::new(full(text));
    let headers = response.headers_mut();
    headers.insert("content-type", "text/plain".parse().expect("a value"));
    headers.insert("x-app-header", "1".parse().expect("a value"));
    response
}

pub fn full(bytes: impl Into<Bytes>) -> AppBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}
