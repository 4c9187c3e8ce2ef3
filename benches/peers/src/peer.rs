//! Proxies that are compared, each started from its files in this folder.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::app;
use crate::process::{self, Tree};
use crate::tokens;

/// Time that a proxy may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    Sidecar,
    NginxLua,
    NginxNjs,
    HaproxyMap,
    Nginx,
    Haproxy,
    Express,
    /// No proxy: added latency is counted from this peer's.
    Direct,
}

impl Peer {
    pub const PROXIES: [Self; 7] = [
        Self::Sidecar,
        Self::NginxLua,
        Self::NginxNjs,
        Self::HaproxyMap,
        Self::Nginx,
        Self::Haproxy,
        Self::Express,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "velt-sidecar",
            Self::NginxLua => "nginx + Lua",
            Self::NginxNjs => "nginx + njs",
            Self::HaproxyMap => "HAProxy + map",
            Self::Nginx => "nginx, no tokens",
            Self::Haproxy => "HAProxy, no tokens",
            Self::Express => "Express",
            Self::Direct => "no proxy",
        }
    }

    /// Whether the peer puts tokens into answers.
    pub fn has_tokens(self) -> bool {
        !matches!(self, Self::Nginx | Self::Haproxy | Self::Direct)
    }
}

/// Addresses and files of a run, and the part of the machine that a proxy gets.
#[derive(Clone)]
pub struct Setting {
    /// `benches/peers` of the checkout.
    pub files: PathBuf,
    /// Working directory of this run.
    pub work: PathBuf,
    /// Binary of the sidecar.
    pub sidecar: PathBuf,
    /// Directory of nginx's modules.
    pub modules: PathBuf,
    pub app: SocketAddr,
    pub api: SocketAddr,
    pub cores: Vec<usize>,
    pub workers: usize,
    /// Tokens that caches with a bound must hold.
    pub capacity: usize,
    /// Time for which the sidecar may hold an answer of the app until the token comes.
    pub max_wait: &'static str,
}

/// A proxy that has started and answers.
pub struct Running {
    pub peer: Peer,
    pub http1: SocketAddr,
    pub h2c: SocketAddr,
    pub tree: Tree,
    /// Time from the proxy's start to its first right answer.
    pub started_in: Duration,
}

impl Running {
    pub fn start(peer: Peer, setting: &Setting) -> Result<Self> {
        let [http1, h2c, admin] = free_addresses()?;
        let work = setting.work.join(format!("{peer:?}"));
        // Removes the files of an earlier proxy of this kind, such as a cache.
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(&work)?;
        let files = Files { setting, work: &work, http1, h2c, admin };
        let mut command = files.command(peer)?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let started = Instant::now();
        let mut tree = Tree::spawn(&mut command, &setting.cores)?;
        wait_for(peer, http1, &mut tree)?;
        let started_in = started.elapsed();
        tree.look_for_members()?;
        // The sidecar serves both protocols on one port.
        let h2c = if peer == Peer::Sidecar { http1 } else { h2c };
        Ok(Self { peer, http1, h2c, tree, started_in })
    }

    /// Asks once as each of some users, before the first measurement. Each user must get their own token, and
    /// an anonymous client must get neither a token nor the app's forged token.
    pub fn verify(&self, users: usize) -> Result<()> {
        let wrong = |what: &str| format!("{} {what}", self.peer.name());
        for number in 0..users {
            let user = tokens::user(number);
            let token = tokens::token_of(&user);
            for (path, length) in [("/api/small", app::SMALL), ("/api/large", app::LARGE)] {
                let answer = ask(self.http1, path, Some(&user))?;
                if answer.body.len() != length {
                    return Err(wrong("answers with another body than the app's").into());
                }
                if self.peer.has_tokens() && answer.header("x-velt-token") != Some(&token) {
                    return Err(wrong(&format!("has not {user}'s token on {path}")).into());
                }
            }
            if self.peer.has_tokens() {
                let answer = ask(self.http1, "/api/velt/token", Some(&user))?;
                if answer.body != format!(r#"{{"token":"{token}"}}"#).as_bytes() {
                    return Err(wrong(&format!("has not {user}'s token on its route")).into());
                }
            }
        }
        if self.peer.has_tokens() {
            let answer = ask(self.http1, "/api/small", None)?;
            if !answer.is_ok() || answer.header("x-velt-token").is_some() {
                return Err(wrong("has a token for nobody, or lets the app's pass").into());
            }
            if ask(self.http1, "/api/velt/token", None)?.is_ok() {
                return Err(wrong("answers nobody on its route").into());
            }
        }
        Ok(())
    }
}

/// Values for `@NAMES@` in a peer's files.
struct Files<'a> {
    setting: &'a Setting,
    work: &'a Path,
    http1: SocketAddr,
    h2c: SocketAddr,
    admin: SocketAddr,
}

impl Files<'_> {
    fn command(&self, peer: Peer) -> Result<Command> {
        match peer {
            Peer::Sidecar => self.sidecar(),
            Peer::NginxLua => self.nginx("lua.conf"),
            Peer::NginxNjs => self.nginx("njs.conf"),
            Peer::Nginx => self.nginx("plain.conf"),
            Peer::HaproxyMap => self.haproxy("map.cfg"),
            Peer::Haproxy => self.haproxy("plain.cfg"),
            Peer::Express => Ok(self.express()),
            Peer::Direct => Err("there is no proxy to start".into()),
        }
    }

    fn sidecar(&self) -> Result<Command> {
        let config = self.render("sidecar.toml", "sidecar.toml")?;
        let mut command = Command::new(&self.setting.sidecar);
        command.arg("--config").arg(config).env("VELT_AUTH_TOKEN", "peers");
        Ok(command)
    }

    fn nginx(&self, file: &str) -> Result<Command> {
        self.render("nginx/common.conf", "common.conf")?;
        let config = self.render(&format!("nginx/{file}"), "nginx.conf")?;
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-p"]).arg(self.work.join("")).arg("-c").arg(config);
        Ok(command)
    }

    fn haproxy(&self, file: &str) -> Result<Command> {
        fs::write(self.work.join("tokens.map"), "")?;
        let config = self.render(&format!("haproxy/{file}"), "haproxy.cfg")?;
        let mut command = Command::new("haproxy");
        command.args(["-q", "-db", "-f"]).arg(config);
        Ok(command)
    }

    fn express(&self) -> Command {
        let mut command = Command::new("node");
        command
            .arg(self.setting.files.join("express/server.js"))
            .env("NODE_ENV", "production")
            .env("LISTEN", self.http1.to_string())
            .env("APP", format!("http://{}", self.setting.app))
            .env("VELT", format!("http://{}/", self.setting.api));
        command
    }

    fn render(&self, template: &str, name: &str) -> Result<PathBuf> {
        let setting = self.setting;
        // Bytes of a token (900), its user, and the dictionary's overhead for both.
        let dictionary = format!("{}m", 64 + setting.capacity * 1_500 / 1_000_000);
        let user = Command::new("id").arg("-un").output()?;
        let mut text = fs::read_to_string(setting.files.join(template))?;
        for (name, value) in [
            ("@LISTEN@", self.http1.to_string()),
            ("@LISTEN_H2C@", self.h2c.to_string()),
            ("@ADMIN@", self.admin.to_string()),
            ("@APP@", setting.app.to_string()),
            ("@API@", setting.api.to_string()),
            ("@WORK@", self.work.display().to_string()),
            ("@CONF@", setting.files.display().to_string()),
            ("@MODULES@", setting.modules.display().to_string()),
            ("@WORKERS@", setting.workers.to_string()),
            ("@CONNECTIONS@", (process::most_connections() + 50).to_string()),
            ("@CAPACITY@", setting.capacity.to_string()),
            ("@MAX_WAIT@", setting.max_wait.to_owned()),
            ("@DICTIONARY@", dictionary),
            ("@USER@", String::from_utf8(user.stdout)?.trim().to_owned()),
        ] {
            text = text.replace(name, &value);
        }
        let file = self.work.join(name);
        fs::write(&file, text)?;
        Ok(file)
    }
}

fn wait_for(peer: Peer, address: SocketAddr, tree: &mut Tree) -> Result<()> {
    let deadline = Instant::now() + START_PATIENCE;
    while !ask(address, "/api/small", None).is_ok_and(|answer| answer.is_ok()) {
        if let Some(status) = tree.ended()? {
            return Err(format!("{} ended at once: {status}", peer.name()).into());
        }
        if Instant::now() > deadline {
            return Err(format!("{} does not answer on {address}", peer.name()).into());
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Returns addresses on which no process listened a moment ago, each with another port.
fn free_addresses<const COUNT: usize>() -> Result<[SocketAddr; COUNT]> {
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

/// An answer on a new connection.
pub struct Answer {
    head: Vec<u8>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn is_ok(&self) -> bool {
        self.head.starts_with(b"HTTP/1.1 200 ")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        app::header(&self.head, name).and_then(|value| str::from_utf8(value).ok())
    }
}

/// Sends a GET on a new connection, and reads the answer.
pub fn ask(address: SocketAddr, path: &str, user: Option<&str>) -> Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let user = user.map_or(String::new(), |user| format!("X-Forwarded-User: {user}\r\n"));
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n{user}\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = app::head_end(&answer).ok_or_else(|| format!("no answer to {path}"))?;
    let body = answer.split_off(end);
    Ok(Answer { head: answer, body })
}
