//! Messages to the service manager that has started the process, in the protocol of systemd's `sd_notify(3)`.
//!
//! The service manager names a datagram socket in `NOTIFY_SOCKET`. Without that variable no message is sent.
//! A message that can't be sent is logged and given up: the sidecar serves without its service manager too.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ground::platform::abstract_name;
use rustix::time::{ClockId, clock_gettime};
use server::Addresses;
use tracing::warn;

/// Variable in which the service manager names its socket.
pub const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// Time limit of one message. A service manager that reads nothing holds the first thread for as long, once at
/// the start, twice at a reload and once at the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager, or none.
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Whether the end has been told. systemd would take a later message for a service that runs again.
    ending: AtomicBool,
}

impl ServiceManager {
    /// Finds the service manager whose socket has this name: a path, or `@` and an abstract name (Linux).
    pub fn at(name: Option<&OsStr>) -> Self {
        let name = name.filter(|name| !name.is_empty());
        let socket = name.and_then(|name| match open(name) {
            Ok(socket) => Some(socket),
            Err(error) => {
                warn!(
                    %error,
                    "{SOCKET_VARIABLE} can't be used, so the service manager hears of no start, reload \
                     or end: leave the variable to the service manager"
                );
                None
            }
        });
        Self { socket, ending: AtomicBool::new(false) }
    }

    /// Tells that the sidecar listens at both addresses.
    pub fn ready(&self, addresses: Addresses) {
        let Addresses { traffic, admin } = addresses;
        self.tell(&format!("READY=1\nSTATUS=listening on {traffic}, admin port {admin}"));
    }

    /// Tells of a reload, runs the reload, and tells of its end.
    pub async fn during_reload(&self, reload: impl Future<Output = ()>) {
        // systemd needs the time to tell this reload from one that began before its SIGHUP (Type=notify-reload).
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_microseconds()));
        reload.await;
        self.tell("READY=1");
    }

    /// Tells that the end has begun. No later message is sent.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
        self.ending.store(true, Ordering::Relaxed);
    }

    fn tell(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if self.ending.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            let first = message.lines().next();
            warn!(
                %error,
                message = first,
                "the service manager can't be told, and the sidecar goes on: check that it listens at the \
                 socket in {SOCKET_VARIABLE}"
            );
        }
    }
}

/// Opens a socket for messages, and reads the address that `name` stands for. The socket is not connected: a
/// service manager that was restarted listens at the same address on another socket.
fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        [b'@', name @ ..] => abstract_name(name)?,
        _ => {
            let kinds = "the value is neither a path nor @ and a name";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, kinds));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, address))
}

/// Returns the time of the clock by which systemd orders reloads.
fn monotonic_microseconds() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}
