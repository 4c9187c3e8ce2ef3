//! Real Redis servers, each on a free port of loopback, with its files in a folder of its own. A server ends, and its
//! folder goes, when its value is dropped.
//!
//! Tests administer a server as the user `overseer`, who may do all, through a unix socket that every server has. The
//! sidecar's own rights and port do not matter for that.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use redis::{Client, RedisResult, Value};
use shared::store::{Address, Place};
use tempfile::TempDir;

use crate::certificates::{Authority, VALID};
use crate::neighbour::{LOOPBACK, PORTS_TO_TRY, Process, eventually, tool};

/// Name under which Sentinel knows the primary.
pub const PRIMARY: &str = "tokens";

/// One past the last slot of a cluster.
const SLOTS: usize = 16_384;

/// Quiet time after which a Sentinel, or a node of a cluster, takes another server for down, in milliseconds.
const DOWN_AFTER: &str = "500";

/// Differences from a server that listens on TCP and asks for no password.
#[derive(Default)]
pub struct Options<'a> {
    /// Words on the command line, such as `--maxmemory 2mb`.
    pub settings: &'a [&'a str],
    /// Speaks TLS only, with a certificate of this authority for `localhost` and 127.0.0.1.
    pub tls: Option<&'a Authority>,
    /// Asks for a user: their rules as in `ACL SETUSER`, beginning with their name. The user `default` is off.
    pub user: Option<&'a str>,
    /// Asks every client for this password.
    pub password: Option<&'a str>,
}

/// A running server.
pub struct RedisServer {
    pub port: u16,
    process: Process,
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
        let mut common = options.settings.iter().map(ToString::to_string).collect::<Vec<_>>();
        common.extend(access(options));
        if let Some(authority) = options.tls {
            common.extend(write_certificate(&folder, authority));
        }
        let listening =
            if options.tls.is_some() { ["--port", "0", "--tls-port"] } else { ["", "", "--port"] };
        let mut arguments = Vec::new();
        let command = |port: u16| {
            arguments = basics(&folder);
            arguments
                .extend(listening.iter().filter(|word| !word.is_empty()).map(ToString::to_string));
            arguments.push(port.to_string());
            // A port that was free a moment ago.
            if options.settings.contains(&"--cluster-enabled") {
                arguments.extend(["--cluster-port".to_owned(), free_port().to_string()]);
            }
            arguments.extend(common.iter().cloned());
            redis(&arguments)
        };
        let ready = async |_| answers(&folder).await;
        let (process, address) = Process::start_on_free_port(command, ready).await;
        Self { port: address.port(), process, arguments, folder }
    }

    /// Returns the address of the server on TCP.
    pub fn address(&self) -> Address {
        Address::Tcp { host: "127.0.0.1".to_owned(), port: self.port }
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
        self.process = Process::start(&mut redis(&self.arguments));
        eventually("Redis to be back", async || answers(&self.folder).await).await;
    }
}

/// A primary with a replica, and three Sentinels that watch them.
pub struct SentinelGroup {
    pub servers: [RedisServer; 2],
    sentinels: Vec<(Process, u16)>,
    _folder: TempDir,
}

impl SentinelGroup {
    /// Starts the group; the first server is the primary.
    pub async fn start() -> Self {
        Self::start_with(&Options::default()).await
    }

    /// Starts the group with more settings for its servers, which must not speak TLS or ask for a password.
    pub async fn start_with(options: &Options<'_>) -> Self {
        let primary = RedisServer::start_with(options).await;
        let port = primary.port.to_string();
        let follow = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
        let settings = [options.settings, &follow].concat();
        let replica =
            RedisServer::start_with(&Options { settings: &settings, ..Options::default() }).await;
        eventually("the replica to follow", async || {
            let state = replica.info("master_link_status").await;
            if state.as_deref() == Some("up") { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await;
        let servers = [primary, replica];
        for _ in 0..PORTS_TO_TRY {
            let folder = TempDir::new().expect("a folder for Sentinels");
            if let Some(sentinels) = start_sentinels(&folder, &servers).await {
                return Self { servers, sentinels, _folder: folder };
            }
        }
        panic!("Sentinels ended at once, {PORTS_TO_TRY} times")
    }

    pub fn place(&self) -> Place {
        let sentinels = self.sentinels.iter();
        let sentinels =
            sentinels.map(|&(_, port)| Address::Tcp { host: "127.0.0.1".to_owned(), port });
        Place::Sentinel { sentinels: sentinels.collect(), primary: PRIMARY.to_owned() }
    }

    /// Stops the Sentinels of these indexes for good.
    pub fn kill_sentinels(&mut self, indexes: std::ops::Range<usize>) {
        for (process, _) in &mut self.sentinels[indexes] {
            process.signal("KILL");
            process.wait();
        }
    }

    /// Has the Sentinels make the replica the primary, without a fault.
    pub async fn fail_over(&self) {
        let command = ["SENTINEL", "FAILOVER", PRIMARY];
        let url = format!("redis://127.0.0.1:{}/", self.sentinels[0].1);
        eventually("a failover to begin", async || {
            ask_at(&url, &command).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// Waits until this server is the primary.
    pub async fn is_primary(&self, index: usize) {
        eventually("a server to be the primary", async || {
            let role = self.servers[index].info("role").await;
            if role.as_deref() == Some("master") { Ok(()) } else { Err(format!("{role:?}")) }
        })
        .await;
    }
}

/// A cluster of three nodes, each with a third of the slots, and without replicas.
pub struct Cluster {
    pub nodes: Vec<RedisServer>,
}

impl Cluster {
    /// Starts a cluster, which takes about 2 s: a node of a new cluster refuses commands for so long.
    pub async fn start() -> Self {
        Self::start_with(&Options::default()).await
    }

    /// Starts a cluster with more settings for its nodes.
    pub async fn start_with(options: &Options<'_>) -> Self {
        // Slots of living nodes are served while another node is down.
        let own = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            DOWN_AFTER,
            "--cluster-require-full-coverage",
            "no",
        ];
        let settings = [options.settings, &own].concat();
        let options = Options { settings: &settings, ..*options };
        let (first, second, third) = tokio::join!(
            RedisServer::start_with(&options),
            RedisServer::start_with(&options),
            RedisServer::start_with(&options)
        );
        let cluster = Self { nodes: vec![first, second, third] };
        cluster.share_slots().await;
        cluster
    }

    async fn share_slots(&self) {
        let count = self.nodes.len();
        for (index, node) in self.nodes.iter().enumerate() {
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await;
            let (first, end) = (SLOTS * index / count, SLOTS * (index + 1) / count);
            let range = [first.to_string(), (end - 1).to_string()];
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).await;
        }
        for other in &self.nodes[1..] {
            let bus = other.arguments.iter().skip_while(|word| *word != "--cluster-port").nth(1);
            let bus = bus.expect("a node has one");
            let port = other.port.to_string();
            self.nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
        }
        for node in &self.nodes {
            eventually("a cluster that serves", async || {
                let answer = ask(&node.folder, &["CLUSTER", "INFO"]).await;
                let text = format!("{answer:?}");
                let known = format!("cluster_known_nodes:{count}");
                let serves = text.contains("cluster_state:ok") && text.contains(&known);
                if serves && text.contains("cluster_slots_ok:16384") { Ok(()) } else { Err(text) }
            })
            .await;
        }
    }

    pub fn place(&self) -> Place {
        Place::Cluster(self.nodes.iter().map(RedisServer::address).collect())
    }

    /// Moves a slot without keys from its node to another, as an operator who scales out does.
    pub async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let id = format!("{:?}", self.nodes[to].ask(&["CLUSTER", "MYID"]).await);
        let id = id.split(|sign: char| !sign.is_ascii_hexdigit()).find(|word| word.len() == 40);
        let id = id.expect("40 digits");
        // The new owner first, so that no node sends clients to a node that does not know of its luck.
        for node in [to, from] {
            self.nodes[node].ask(&["CLUSTER", "SETSLOT", &slot, "NODE", id]).await;
        }
    }
}

/// Starts three Sentinels that know each other from the start, or returns `None` if a port was taken.
async fn start_sentinels(
    folder: &TempDir,
    servers: &[RedisServer; 2],
) -> Option<Vec<(Process, u16)>> {
    let ports: Vec<u16> = free_ports(3);
    let id = |index: usize| format!("{:040x}", index + 1);
    let [primary, replica] = servers.each_ref().map(|server| server.port);
    let mut sentinels = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let mut text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel myid {}\n\
             sentinel monitor {PRIMARY} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {PRIMARY} {DOWN_AFTER}\n\
             sentinel failover-timeout {PRIMARY} 3000\n\
             sentinel known-replica {PRIMARY} 127.0.0.1 {replica}\n",
            id(index)
        );
        for (other, port) in ports.iter().enumerate().filter(|&(other, _)| other != index) {
            let known =
                format!("sentinel known-sentinel {PRIMARY} 127.0.0.1 {port} {}\n", id(other));
            text.push_str(&known);
        }
        let path = folder.path().join(format!("sentinel-{index}.conf"));
        std::fs::write(&path, text).expect("written");
        let mut command = Command::new(tool("redis-sentinel"));
        command.arg(&path).current_dir(folder.path()).stdout(Stdio::null());
        sentinels.push((Process::start(&mut command), *port));
    }
    for (process, port) in &mut sentinels {
        let url = format!("redis://127.0.0.1:{port}/");
        let started = eventually("a Sentinel that sees the others", async || {
            if process.has_ended() {
                return Ok(false);
            }
            let answer = ask_at(&url, &["SENTINEL", "CKQUORUM", PRIMARY]).await;
            answer.map(|_| true).map_err(|error| error.to_string())
        });
        if !started.await {
            return None;
        }
    }
    Some(sentinels)
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
fn basics(folder: &TempDir) -> Vec<String> {
    let path = folder.path().to_str().expect("a plain path");
    let socket = socket_of(folder);
    let words = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", path];
    let socket = ["--unixsocket", socket.to_str().expect("a plain path")];
    let overseer = ["--user", "overseer", "on", "nopass", "~*", "&*", "+@all"];
    let quiet = ["--loglevel", "warning", "--enable-debug-command", "yes"];
    let words = words.iter().chain(&socket).chain(&overseer).chain(&quiet);
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

fn write_certificate(folder: &TempDir, authority: &Authority) -> Vec<String> {
    let leaf = authority.issue(&["localhost", "127.0.0.1"], VALID);
    let write = |name: &str, text: &str| {
        let path: PathBuf = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a plain path").to_owned()
    };
    let files = [
        ("--tls-cert-file", write("tls.crt", &leaf.certificate)),
        ("--tls-key-file", write("tls.key", &leaf.key)),
        ("--tls-ca-cert-file", write("ca.crt", &authority.pem())),
        ("--tls-auth-clients", "no".to_owned()),
    ];
    files.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

fn redis(arguments: &[String]) -> Command {
    let mut command = Command::new(tool("redis-server"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
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
    let url = format!("redis+unix://{}?user=overseer&pass=any", socket.display());
    ask_at(&url, command).await
}

async fn ask_at(url: &str, command: &[&str]) -> RedisResult<Value> {
    let mut connection = Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut words = redis::cmd(command[0]);
    words.arg(&command[1..]);
    words.query_async(&mut connection).await
}
