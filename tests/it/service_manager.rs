//! Messages of the sidecar to the service manager that has started it, as systemd would read them.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::support::PATIENCE;
use crate::support::binary::{CREDENTIALS, PORTS, Running, finished};
use crate::support::client::Client;

const SOCKET: &str = "NOTIFY_SOCKET";

/// The service manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        Self::reading(UnixDatagram::bind(path).expect("a free path"))
    }

    fn reading(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        Self(socket)
    }

    /// Waits for the next message.
    async fn next(&self) -> String {
        let socket = self.0.try_clone().expect("a descriptor");
        let reading = tokio::task::spawn_blocking(move || {
            let mut buffer = [0; 1024];
            let length = socket.recv(&mut buffer).expect("a message in time");
            String::from_utf8(buffer[..length].to_vec()).expect("text")
        });
        reading.await.expect("no panic")
    }

    fn assert_told_nothing_more(&self) {
        self.0.set_nonblocking(true).expect("a socket");
        let received = self.0.recv(&mut [0; 1024]).map_err(|error| error.kind());
        assert_eq!(received, Err(ErrorKind::WouldBlock));
    }
}

fn monotonic_microseconds() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

/// Returns the time in the message about the begin of a reload.
fn begin_of_reload(message: &str) -> i64 {
    let (first, second) = message.split_once('\n').expect("two lines");
    assert_eq!(first, "RELOADING=1");
    second.strip_prefix("MONOTONIC_USEC=").expect("a time").parse().expect("a number")
}

#[tokio::test]
async fn service_manager_is_told_of_start_reload_and_end_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let path = path.to_str().expect("a plain path");
    let (sidecar, traffic, admin) =
        Running::sidecar(&[(SOCKET, path), ("VELT_SIDECAR_SHUTDOWN__GRACE", "500ms")]).await;
    let told = manager.next().await;
    assert_eq!(told, format!("READY=1\nSTATUS=listening on {traffic}, admin port {admin}"));
    let ready = Client::to(admin).get("/healthz/ready").send().await;
    assert_eq!(ready.status(), 200, "the first probe after the message");

    for _ in 0..2 {
        let before = monotonic_microseconds();
        sidecar.signal("HUP");
        let begin = begin_of_reload(&manager.next().await);
        assert!((before..=monotonic_microseconds()).contains(&begin), "{before} {begin}");
        assert_eq!(manager.next().await, "READY=1", "the end of the reload");
    }

    sidecar.signal("TERM");
    assert_eq!(manager.next().await, "STOPPING=1\nSTATUS=draining");
    let ready = Client::to(admin).get("/healthz/ready").send().await;
    assert_eq!(ready.status(), 503, "the drain has begun");
    sidecar.signal("HUP");
    let (status, printed) = sidecar.ended().await;
    assert!(status.success(), "{printed}");
    manager.assert_told_nothing_more();
}

// Other systems have no abstract names.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn sidecar_finds_a_service_manager_by_its_abstract_name() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;

    let name = format!("velt-sidecar/tests/{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let manager = Manager::reading(UnixDatagram::bind_addr(&address).expect("a free name"));
    let (sidecar, _, _) = Running::sidecar(&[(SOCKET, &format!("@{name}"))]).await;
    assert!(manager.next().await.starts_with("READY=1\n"));
    drop(sidecar);
}

#[tokio::test]
async fn sidecar_that_cannot_bind_is_never_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = other.local_addr().expect("it is bound").to_string();
    let path = path.to_str().expect("a plain path");
    let mut environment = [&CREDENTIALS[..], &PORTS].concat();
    environment.extend([(SOCKET, path), ("VELT_SIDECAR_ADMIN__ADDRESS", &taken)]);
    // A variable that is given twice has its last value.
    let ended = finished(&["run"], &environment).await;
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    manager.assert_told_nothing_more();
}

#[tokio::test]
async fn sidecar_serves_where_the_service_manager_is_gone() {
    for (socket, said) in [
        ("/nonexistent/notify", "the service manager can't be told"),
        ("vsock:2:9999", "NOTIFY_SOCKET can't be used"),
    ] {
        let (mut sidecar, traffic, _) = Running::sidecar(&[(SOCKET, socket)]).await;
        sidecar.line_with(said).await;
        let answer = Client::to(traffic).post("/api/velt/token", "").send().await;
        assert_eq!(answer.status(), 401, "{socket}");
    }
}

#[tokio::test]
async fn service_manager_that_reads_nothing_delays_the_start_by_1_s() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = Manager::at(&path);
    let filling = UnixDatagram::unbound().expect("a socket");
    filling.set_nonblocking(true).expect("a socket");
    while filling.send_to(b"READY=0", &path).is_ok() {}
    let path = path.to_str().expect("a plain path");
    let (mut sidecar, traffic, _) = Running::sidecar(&[(SOCKET, path)]).await;
    let begun = tokio::time::Instant::now();
    sidecar.line_with("the service manager can't be told").await;
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(500), "the queue was not full: {waited:?}");
    let answer = Client::to(traffic).post("/api/velt/token", "").send().await;
    assert_eq!(answer.status(), 401);
    drop(manager);
}
