//! The log on standard error: a reader that stalls holds up no request.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::support::binary::{CREDENTIALS, PORTS};
use crate::support::client::Client;
use crate::support::raw::Wire;

/// Sidecar at `debug` whose standard error is read up to the line that says where it listens.
struct Unread {
    child: Child,
    traffic: SocketAddr,
    admin: SocketAddr,
    _stderr: BufReader<std::process::ChildStderr>,
}

impl Unread {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_velt-sidecar"));
        command.arg("run").current_dir("/").env_clear().envs(CREDENTIALS).envs(PORTS);
        command.env("VELT_SIDECAR_LOG__LEVEL", "debug").env("VELT_SIDECAR_SHUTDOWN__GRACE", "0s");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("velt-sidecar is listening") {
            line.clear();
            assert!(stderr.read_line(&mut line).expect("text") > 0, "it ended");
        }
        let address = |name: &str| {
            let (_, rest) = line.split_once(name).expect("an address");
            rest.split_whitespace().next().expect("an end").parse().expect("an address")
        };
        let (traffic, admin) = (address("traffic="), address("admin="));
        Self { child, traffic, admin, _stderr: stderr }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // An error says that the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn stalled_reader_of_the_log_holds_up_nothing() {
    let mut sidecar = Unread::start();
    // Lines of some 130 bytes each: together twice what the pipe and the reader's buffer hold.
    for _ in 0..1100 {
        let mut wrong = Wire::to(sidecar.traffic).await;
        wrong.send("GET / HTTP/9.9\r\n\r\n").await;
        assert!(wrong.rest().await.starts_with("HTTP/1.1 400"));
    }
    let probe = Client::to(sidecar.admin).get("/healthz/live").send();
    let answer = timeout(Duration::from_secs(1), probe).await;
    assert_eq!(answer.expect("a probe in time").status(), 200);
    let route = Client::to(sidecar.traffic).get("/api/velt/token").send();
    let answer = timeout(Duration::from_secs(1), route).await;
    assert_eq!(answer.expect("an answer in time").status(), 401);

    // The end of the process waits for the reader of the log for a second at most.
    let term = Command::new("kill").arg(sidecar.child.id().to_string()).status();
    assert!(term.expect("kill is installed").success());
    let told = Instant::now();
    while sidecar.child.try_wait().expect("a child").is_none() {
        assert!(told.elapsed() < Duration::from_secs(10), "it does not end");
        // `std`'s child has no end to await, so the test looks again and again.
        sleep(Duration::from_millis(20)).await;
    }
}
