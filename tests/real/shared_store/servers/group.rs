//! Servers that Sentinels watch.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use shared::store::{Address, Place};
use tempfile::TempDir;

use super::{DOWN_AFTER, Options, RedisServer, ask_at, certify, free_ports, program_of, redis};
use crate::neighbour::{PORTS_TO_TRY, Process, eventually};

/// Name under which Sentinel knows the primary.
pub const PRIMARY: &str = "tokens";

/// A primary with a replica, and three Sentinels that watch them.
pub struct SentinelGroup {
    pub servers: [RedisServer; 2],
    sentinels: Vec<(Process, u16)>,
    folder: TempDir,
}

impl SentinelGroup {
    /// Starts the group; the first server is the primary.
    pub async fn start() -> Self {
        Self::start_with(&Options::default()).await
    }

    /// Starts the group with more settings for its servers, which must not ask for a password.
    pub async fn start_with(options: &Options<'_>) -> Self {
        let mut settings = options.settings.to_vec();
        if options.tls.is_some() {
            settings.extend(["--tls-replication", "yes"]);
        }
        let primary = RedisServer::start_with(&Options { settings: &settings, ..*options }).await;
        let port = primary.port.to_string();
        settings.extend(["--replicaof", options.host(), &port, "--repl-diskless-sync-delay", "0"]);
        let replica = RedisServer::start_with(&Options { settings: &settings, ..*options }).await;
        eventually("the replica to follow", async || {
            let state = replica.info("master_link_status").await;
            if state.as_deref() == Some("up") { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await;
        let servers = [primary, replica];
        for _ in 0..PORTS_TO_TRY {
            let folder = TempDir::new().expect("a folder for Sentinels");
            if let Some(sentinels) = start_sentinels(&folder, &servers, options).await {
                return Self { servers, sentinels, folder };
            }
        }
        panic!("Sentinels ended at once, {PORTS_TO_TRY} times")
    }

    pub fn place(&self) -> Place {
        let sentinels = self.sentinels.iter();
        let sentinels =
            sentinels.map(|&(_, port)| Address::Tcp { host: self.servers[0].host.clone(), port });
        Place::Sentinel { sentinels: sentinels.collect(), primary: PRIMARY.to_owned() }
    }

    /// Stops the Sentinels of these indexes for good.
    pub fn kill_sentinels(&mut self, indexes: std::ops::Range<usize>) {
        for (process, _) in &mut self.sentinels[indexes] {
            process.signal("KILL");
            process.wait();
        }
    }

    /// Has each Sentinel do a command.
    pub async fn ask_sentinels(&self, command: &[&str]) {
        for index in 0..self.sentinels.len() {
            let answer = ask_at(&socket_of(self.folder.path(), index), command).await;
            answer.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        }
    }

    /// Has the Sentinels make the replica the primary, without a fault.
    pub async fn fail_over(&self) {
        let command = ["SENTINEL", "FAILOVER", PRIMARY];
        let socket = socket_of(self.folder.path(), 0);
        eventually("a failover to begin", async || {
            ask_at(&socket, &command).await.map(drop).map_err(|error| error.to_string())
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

/// Starts three Sentinels that know each other from the start, or returns `None` if a port was taken.
async fn start_sentinels(
    folder: &TempDir,
    servers: &[RedisServer; 2],
    options: &Options<'_>,
) -> Option<Vec<(Process, u16)>> {
    let folder = folder.path();
    let ports: Vec<u16> = free_ports(3);
    let common = common_lines(folder, servers, options);
    let mut sentinels = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = write_settings(folder, index, &ports, options, &common);
        let path = path.to_str().expect("a plain path").to_owned();
        let mut command = redis(&program_of(options), &[path, "--sentinel".to_owned()]);
        command.current_dir(folder).stdout(Stdio::null());
        sentinels.push((Process::start(&mut command), *port));
    }
    for (index, (process, _)) in sentinels.iter_mut().enumerate() {
        let started = eventually("a Sentinel that sees the others", async || {
            if process.has_ended() {
                return Ok(false);
            }
            let asked = ask_at(&socket_of(folder, index), &["SENTINEL", "CKQUORUM", PRIMARY]).await;
            asked.map(|_| true).map_err(|error| error.to_string())
        });
        if !started.await {
            return None;
        }
    }
    Some(sentinels)
}

/// Lines that are the same in the settings of each Sentinel.
fn common_lines(folder: &Path, servers: &[RedisServer; 2], options: &Options<'_>) -> String {
    let host = options.host();
    let [primary, replica] = servers.each_ref().map(|server| server.port);
    let mut text = format!(
        "bind {host}\n\
         sentinel resolve-hostnames yes\n\
         sentinel announce-hostnames yes\n\
         sentinel monitor {PRIMARY} {host} {primary} 2\n\
         sentinel down-after-milliseconds {PRIMARY} {DOWN_AFTER}\n\
         sentinel failover-timeout {PRIMARY} 3000\n\
         sentinel known-replica {PRIMARY} {host} {replica}\n"
    );
    if let Some(tls) = options.tls {
        text.push_str("port 0\ntls-replication yes\n");
        text.extend(certify(folder, &tls).map(|(key, value)| format!("{key} {value}\n")));
    }
    text
}

/// Writes the settings of a Sentinel, which knows the others, and returns their path.
fn write_settings(
    folder: &Path,
    index: usize,
    ports: &[u16],
    options: &Options<'_>,
    common: &str,
) -> PathBuf {
    let id = |index: usize| format!("{:040x}", index + 1);
    let (host, socket) = (options.host(), socket_of(folder, index));
    let port = if options.tls.is_some() { "tls-port" } else { "port" };
    let mut text = format!(
        "{common}{port} {}\nunixsocket {socket}\nsentinel myid {}\n",
        ports[index],
        id(index)
    );
    let others = ports.iter().enumerate().filter(|&(other, _)| other != index);
    text.extend(others.map(|(other, port)| {
        format!("sentinel known-sentinel {PRIMARY} {host} {port} {}\n", id(other))
    }));
    let path = folder.join(format!("sentinel-{index}.conf"));
    std::fs::write(&path, text).expect("written");
    path
}

fn socket_of(folder: &Path, index: usize) -> String {
    folder.join(format!("sentinel-{index}.sock")).to_str().expect("a plain path").to_owned()
}
