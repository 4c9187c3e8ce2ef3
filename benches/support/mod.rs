//! The processes that benches start, and where they listen.

#![expect(clippy::disallowed_types, reason = "real time is what is waited for")]
#![expect(clippy::disallowed_methods, reason = "nothing else runs on the thread that sleeps")]

use std::error::Error;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// What the benches fail with.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// A child that ends with its owner.
pub struct Running {
    name: &'static str,
    pub child: Child,
}

impl Running {
    pub fn spawn(name: &'static str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().map_err(|error| format!("{name} can't be run: {error}"))?;
        Ok(Self { name, child })
    }

    /// Waits until it accepts connections.
    pub fn wait_for(&mut self, address: SocketAddr, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended at once: {status}", self.name).into());
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not listen on {address}", self.name).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Addresses that nobody listened on a moment ago, each of another port.
pub fn free_addresses<const COUNT: usize>() -> Result<[SocketAddr; COUNT]> {
    // All are held until all are known.
    let mut sockets = Vec::new();
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); COUNT];
    for address in &mut addresses {
        let socket = TcpListener::bind(*address)?;
        *address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(addresses)
}
