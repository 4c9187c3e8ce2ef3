//! Calls that only Linux has, each with what other systems do in its place. No other module asks which system
//! it runs on: macOS, where people develop, goes without what saves memory or notices a dead peer sooner.
//!
//! Code that reads `/proc` is not here: it finds no file on macOS, and goes on without the figure.

use std::io;
use std::os::unix::net::SocketAddr;
use std::time::Duration;

use prometheus::Registry;
use socket2::SockRef;

#[cfg(target_os = "linux")]
pub use self::linux::{
    MOST_OPEN_FILES, abstract_name, bound_unacknowledged, bound_unsent, drop_connection_requests,
    export_process,
};
#[cfg(not(target_os = "linux"))]
pub use self::other::{
    MOST_OPEN_FILES, abstract_name, bound_unacknowledged, bound_unsent, drop_connection_requests,
    export_process,
};

#[cfg(target_os = "linux")]
mod linux {
    use std::os::linux::net::SocketAddrExt as _;

    use prometheus::process_collector::ProcessCollector;
    use socket2::SockFilter;

    use super::{Duration, Registry, SockRef, SocketAddr, io};

    /// Soft limit on open files where the hard limit is "unlimited": none.
    pub const MOST_OPEN_FILES: Option<u64> = None;

    /// Lets at most `bytes` wait in the kernel because the peer does not read (`TCP_NOTSENT_LOWAT`, tcp(7)).
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn bound_unsent(socket: &SockRef<'_>, bytes: u32) -> io::Result<()> {
        socket.set_tcp_notsent_lowat(bytes)
    }

    /// Ends the connection when the peer has acknowledged nothing for `time` (`TCP_USER_TIMEOUT`, tcp(7)).
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn bound_unacknowledged(socket: &SockRef<'_>, time: Duration) -> io::Result<()> {
        socket.set_tcp_user_timeout(Some(time))
    }

    /// Has the kernel drop each SYN that arrives at a listening socket.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn drop_connection_requests(socket: &SockRef<'_>) -> io::Result<()> {
        // Classic BPF over a segment's TCP header (kernel.org, "Linux Socket Filtering"): if the flags, byte
        // 13, contain SYN, take nothing of the segment, else take all of it.
        let drop_syn = [
            SockFilter::new(0x30, 0, 0, 13),       // A = byte at 13
            SockFilter::new(0x45, 0, 1, 0x02),     // if A & SYN go on, else skip one
            SockFilter::new(0x06, 0, 0, 0),        // return 0
            SockFilter::new(0x06, 0, 0, u32::MAX), // return all
        ];
        socket.attach_filter(&drop_syn)
    }

    /// Address of a Unix socket whose name is no file's (unix(7), "abstract").
    ///
    /// # Errors
    ///
    /// The name is too long.
    pub fn abstract_name(name: &[u8]) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(name)
    }

    /// Registers the figures of the process itself, under their conventional, unprefixed names.
    ///
    /// # Panics
    ///
    /// If `registry` has them already.
    pub fn export_process(registry: &Registry) {
        let process = ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("registered once");
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use super::{Duration, Registry, SockRef, SocketAddr, io};

    /// Soft limit on open files where the hard limit is "unlimited", which macOS refuses for the soft one: its
    /// `OPEN_MAX` (setrlimit(2) of macOS, "Compatibility").
    pub const MOST_OPEN_FILES: Option<u64> = Some(10_240);

    /// Leaves the kernel's bound on unsent bytes.
    ///
    /// # Errors
    ///
    /// None.
    pub fn bound_unsent(_: &SockRef<'_>, _: u32) -> io::Result<()> {
        Ok(())
    }

    /// Leaves the kernel's time limit.
    ///
    /// # Errors
    ///
    /// None.
    pub fn bound_unacknowledged(_: &SockRef<'_>, _: Duration) -> io::Result<()> {
        Ok(())
    }

    /// Leaves the socket open: a client that connects while the listener closes is reset.
    ///
    /// # Errors
    ///
    /// None.
    pub fn drop_connection_requests(_: &SockRef<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Refuses, since the system has no such names.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn abstract_name(_: &[u8]) -> io::Result<SocketAddr> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has names that begin with @"))
    }

    /// Registers nothing: the figures come from `/proc`.
    pub fn export_process(_: &Registry) {}
}
