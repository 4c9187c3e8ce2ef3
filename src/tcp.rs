//! How every TCP connection is set up, the clients' and the app's.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// A quiet peer is asked whether it is still there after this time, and again after each pause:
/// one that is gone without a word is found within two minutes, however quiet its stream may be.
const QUIET: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(15);
const ASKED: u32 = 4;

/// Sends small messages at once, and finds out when the peer is gone. Best effort: without it,
/// messages are slow and dead connections stay, but nothing is wrong.
pub fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(QUIET).with_interval(PAUSE).with_retries(ASKED);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_tuned_connection_asks_after_its_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stream = TcpStream::connect(address).await.expect("it listens");
        tune(&stream);
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), QUIET);
        assert!(stream.nodelay().expect("an option"));
    }
}
