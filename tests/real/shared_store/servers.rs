//! Real Redis servers, each on a free port of loopback, with its files in a folder of its own. A server ends, and its
//! folder goes, when its value is dropped.
//!
//! Tests administer a server as the user `overseer`, who may do all, through a unix socket that every server has. The
//! sidecar's own rights and port do not matter for that.

mod cluster;
mod group;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use redis::{Client, RedisResult, Value};
use shared::store::{Address, Place};
use tempfile::TempDir;

use crate::certificates::{Authority, VALID};
use crate::neighbour::{LOOPBACK, Process, eventually, tool};

pub use self::cluster::Cluster;
pub use self::group::SentinelGroup;

/// Quiet time after which a Sentinel, or a node of a cluster, takes another server for down, in milliseconds.
const DOWN_AFTER: &str = "500";

/// Versions of Redis that the tests start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The version of Debian's package.
    Debian,
    /// 6.2, the oldest version that the sidecar supports.
    Oldest,
}

/// Certificate of a server.
#[derive(Clone, Copy)]
pub struct Tls<'a> {
    pub authority: &'a Authority,
    pub names: &'a [&'a str],
}

impl<'a> Tls<'a> {
    /// Returns a certificate for this machine.
    pub fn of(authority: &'a Authority) -> Self {
        Self { authority, names: &["localhost", "127.0.0.1", "::1"] }
    }
}

/// Differences from a server that listens on TCP and asks for no password.
pub struct Options<'a> {
    pub version: Version,
    /// Words on the command line, such as `--maxmemory 2mb`.
    pub settings: &'a [&'a str],
    /// IP address at which the server listens, 127.0.0.1 by default.
    pub host: Option<&'a str>,
    /// Network namespace in which the server runs.
    pub namespace: Option<&'a str>,
    /// Speaks TLS only, with this certificate.
    pub tls: Option<Tls<'a>>,
    /// Asks for a user: their rules as in `ACL SETUSER`, beginning with their name. The user `default` is off.
    pub user: Option<&'a str>,
    /// Asks every client for this password.
    pub password: Option<&'a str>,
}

impl Options<'_> {
    pub const DEFAULT: Self = Self {
        version: Version::Debian,
        settings: &[],
        host: None,
        namespace: None,
        tls: None,
        user: None,
        password: None,
    };

    fn host(&self) -> &str {
        self.host.unwrap_or("127.0.0.1")
    }
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A running server.
pub struct RedisServer {
    pub port: u16,
    host: String,
    process: Process,
    program: Vec<String>,
    arguments: Vec<String>,
    folder: TempDir,
}

impl RedisServer {
    /// Starts a server that asks for no password.
    pub async fn start() -> Self {
        Self::start_with(&Options::default()).await
    }

    /// Starts a server with more settings.
    pub async fn start_with(options: &Options<'_>) -> Self {
        let folder = TempDir::new().expect("a folder for Redis");
        let program = program_of(options);
        let mut common = options.settings.iter().map(ToString::to_string).collect::<Vec<_>>();
        common.extend(access(options));
        if let Some(tls) = options.tls {
            common.extend(
                certify(folder.path(), &tls)
                    .into_iter()
                    .flat_map(|(key, value)| [format!("--{key}"), value]),
            );
        }
        let listening: &[&str] =
            if options.tls.is_some() { &["--port", "0", "--tls-port"] } else { &["--port"] };
        let mut arguments = Vec::new();
        let command = |port: u16| {
            arguments = basics(&folder, options);
            arguments.extend(listening.iter().map(ToString::to_string));
            arguments.push(port.to_string());
            // A port that was free a moment ago. Before 7.0, a node adds 10,000 to its other port.
            if options.settings.contains(&"--cluster-enabled") && options.version != Version::Oldest
            {
                arguments.extend(["--cluster-port".to_owned(), free_port().to_string()]);
            }
            arguments.extend(common.iter().cloned());
            redis(&program, &arguments)
        };
        let ready = async |_| answers(&folder).await;
        let (process, address) = Process::start_on_free_port(command, ready).await;
        let (host, port) = (options.host().to_owned(), address.port());
        Self { port, host, process, program, arguments, folder }
    }

    /// Returns the address of the server on TCP.
    pub fn address(&self) -> Address {
        Address::Tcp { host: self.host.clone(), port: self.port }
    }

    /// Returns the address of the server's unix socket.
    pub fn socket(&self) -> Address {
        Address::Unix(socket_of(&self.folder))
    }

    pub fn place(&self) -> Place {
        Place::Server(self.address())
    }

    /// Has the server do a command, and returns its answer.
    pub async fn ask(&self, command: &[&str]) -> Value {
        let answer = ask(&self.folder, command).await;
        answer.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Returns the value of `field` in the server's `INFO`.
    pub async fn info(&self, field: &str) -> Option<String> {
        info(&self.folder, field).await
    }

    /// Returns the count that `field` has in the server's `INFO`.
    pub async fn count(&self, field: &str) -> u32 {
        let count = self.info(field).await.expect("a field");
        count.trim().parse().expect("a number")
    }

    /// Has the server use another certificate, for new connections and, since it closes them, for all others.
    pub async fn present(&self, tls: &Tls<'_>) {
        let [certificate, ..] = certify(self.folder.path(), tls);
        // The server then reads the key again too.
        self.ask(&["CONFIG", "SET", certificate.0, &certificate.1]).await;
        self.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    }

    /// Lets the server fail to save its data, so that it takes no writes: a folder has the name of its file.
    pub async fn fail_to_save(&self) {
        std::fs::create_dir_all(self.folder.path().join("dump.rdb/full")).expect("a folder");
        self.ask(&["CONFIG", "SET", "save", "3600 1"]).await;
        self.ask(&["BGSAVE"]).await;
        eventually("a failure to save", async || {
            let status = self.info("rdb_last_bgsave_status").await;
            if status.as_deref() == Some("err") { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }

    /// Stops the server's process without a word to its clients: their connections stay, and are not answered.
    pub fn stall(&self) {
        self.process.signal("STOP");
    }

    /// Lets a stalled server go on.
    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    /// Kills the server's process.
    pub fn kill(&mut self) {
        self.process.signal("KILL");
        self.process.wait();
    }

    /// Starts a killed server again on the same port, without its data.
    pub async fn restart(&mut self) {
        // A killed server leaves its socket behind; that another server answers is not to be read from it.
        let _ = std::fs::remove_file(socket_of(&self.folder));
        self.process = Process::start(&mut redis(&self.program, &self.arguments));
        eventually("Redis to be back", async || answers(&self.folder).await).await;
    }
}

/// Returns ports that are free now, and different.
fn free_ports(count: usize) -> Vec<u16> {
    let bound: Vec<_> =
        (0..count).map(|_| TcpListener::bind(LOOPBACK).expect("a free port")).collect();
    let port =
        |listener: &TcpListener| listener.local_addr().map(|address: SocketAddr| address.port());
    bound.iter().map(|listener| port(listener).expect("it is bound")).collect()
}

fn free_port() -> u16 {
    free_ports(1)[0]
}

/// Arguments of every server: in memory alone, and a socket and a user for the test itself.
fn basics(folder: &TempDir, options: &Options<'_>) -> Vec<String> {
    let path = folder.path().to_str().expect("a plain path");
    let socket = socket_of(folder);
    let words = ["--bind", options.host(), "--save", "", "--appendonly", "no", "--dir", path];
    let socket = ["--unixsocket", socket.to_str().expect("a plain path")];
    let overseer = ["--user", "overseer", "on", "nopass", "~*", "&*", "+@all"];
    // Before 7.0, a server has `DEBUG` without a setting.
    let debug: &[&str] = match options.version {
        Version::Debian => &["--enable-debug-command", "yes"],
        Version::Oldest => &[],
    };
    let quiet = ["--loglevel", "warning"];
    let words = words.iter().chain(&socket).chain(&overseer).chain(&quiet).chain(debug);
    words.map(ToString::to_string).collect()
}

fn access(options: &Options<'_>) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    if let Some(rules) = options.user {
        words.extend(["--user", "default", "off"].map(str::to_owned));
        words.push("--user".to_owned());
        words.extend(rules.split(' ').map(str::to_owned));
    }
    if let Some(password) = options.password {
        words.extend(["--requirepass".to_owned(), password.to_owned()]);
    }
    words
}

/// Writes a certificate into `folder`, and returns the settings that name it.
fn certify(folder: &Path, tls: &Tls<'_>) -> [(&'static str, String); 4] {
    let leaf = tls.authority.issue(tls.names, VALID);
    let write = |name: &str, text: &str| {
        let path: PathBuf = folder.join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a plain path").to_owned()
    };
    [
        ("tls-cert-file", write("tls.crt", &leaf.certificate)),
        ("tls-key-file", write("tls.key", &leaf.key)),
        ("tls-ca-cert-file", write("ca.crt", &tls.authority.pem())),
        ("tls-auth-clients", "no".to_owned()),
    ]
}

/// Returns the words that start a server's program.
fn program_of(options: &Options<'_>) -> Vec<String> {
    let server = match options.version {
        Version::Debian => tool("redis-server"),
        Version::Oldest => tool("redis-server-6.2"),
    };
    let server = server.to_str().expect("a plain path").to_owned();
    let inside = options.namespace.into_iter().flat_map(|name| {
        let ip = tool("ip").to_str().expect("a plain path").to_owned();
        [ip, "netns".to_owned(), "exec".to_owned(), name.to_owned()]
    });
    inside.chain([server]).collect()
}

fn redis(program: &[String], arguments: &[String]) -> Command {
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn socket_of(folder: &TempDir) -> PathBuf {
    folder.path().join("redis.sock")
}

async fn answers(folder: &TempDir) -> Result<(), String> {
    ask(folder, &["PING"]).await.map(drop).map_err(|error| error.to_string())
}

async fn info(folder: &TempDir, field: &str) -> Option<String> {
    let answer: String = redis::from_redis_value(ask(folder, &["INFO"]).await.ok()?).ok()?;
    let mut fields = answer.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(name, _)| *name == field).map(|(_, value)| value.to_owned())
}

async fn ask(folder: &TempDir, command: &[&str]) -> RedisResult<Value> {
    let socket = socket_of(folder);
    ask_at(&format!("{}?user=overseer&pass=any", socket.display()), command).await
}

/// Asks the server at a unix socket.
async fn ask_at(socket: &str, command: &[&str]) -> RedisResult<Value> {
    let mut connection =
        Client::open(format!("redis+unix://{socket}"))?.get_multiplexed_async_connection().await?;
    let mut words = redis::cmd(command[0]);
    words.arg(&command[1..]);
    words.query_async(&mut connection).await
}
