//! Processes that the benches start, their addresses, and the headers of the requests.

#![expect(clippy::disallowed_types, reason = "real time is what is waited for")]
#![expect(clippy::disallowed_methods, reason = "nothing else runs on the thread that sleeps")]

pub mod websocket;

use std::error::Error;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Result with any error, in which the benches fail.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Headers that a browser behind a login proxy sends, without the host and the user.
pub const BROWSER: [(&str, &str); 12] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101"),
    ("accept", "application/json"),
    ("accept-language", "en-GB,en;q=0.8,de;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://app.example.com/documents/4711"),
    ("cookie", "_session=4f1c2d7ab9e04c55a3a1d2f0b6c8e9d1; theme=dark"),
    ("sec-fetch-dest", "empty"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "same-origin"),
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "app.example.com"),
];

/// A child process that ends with its owner.
pub struct Running {
    name: &'static str,
    pub child: Child,
}

impl Running {
    pub fn spawn(name: &'static str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().map_err(|error| format!("{name} can't be run: {error}"))?;
        Ok(Self { name, child })
    }

    /// Starts the sidecar's emulator in the place of Velt. `sidecar` runs the sidecar.
    pub fn emulator(mut sidecar: Command, address: SocketAddr) -> Result<Self> {
        sidecar.args(["emulator", "--listen", &address.to_string()]).stdout(Stdio::null());
        Self::spawn("the emulator", &mut sidecar)
    }

    /// Ends the process with SIGTERM, so that it writes its counts.
    pub fn end(mut self) -> Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("{} ended: {status}", self.name).into()) }
    }

    /// Waits until the process accepts connections.
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
        // An error means that the process has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns addresses on which no process listened a moment ago, each with another port.
pub fn free_addresses<const COUNT: usize>() -> Result<[SocketAddr; COUNT]> {
    // All sockets are held until all addresses are known, so that no port comes twice.
    let mut sockets = Vec::new();
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); COUNT];
    for address in &mut addresses {
        let socket = TcpListener::bind(*address)?;
        *address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(addresses)
}
