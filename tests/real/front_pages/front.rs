//! A front as a program: started from a block of its page, and asked as a client asks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use http::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use super::page::Page;
use super::site::{SECRET, Site};
use super::visitor::PASSWORD;
use crate::neighbour::{Process, claims_of, http_client, tool};

/// A running front.
pub struct Front {
    pub address: SocketAddr,
    pub folder: TempDir,
    _process: Process,
}

impl Front {
    /// Starts the command that `command` makes for a folder and a free port.
    pub async fn start(command: impl Fn(&Path, u16) -> Command) -> Self {
        let folder = TempDir::new().expect("a folder for the front");
        let http = http_client();
        let ready = async |address: SocketAddr| {
            let answer = http.get(format!("http://{address}/")).send().await;
            answer.map(|_| ()).map_err(|error| error.to_string())
        };
        let command = |port: u16| {
            let mut command = command(folder.path(), port);
            command.env("SIDECAR_SECRET", SECRET).stdin(Stdio::null());
            command
        };
        let (process, address) = Process::start_on_free_port(command, ready).await;
        Self { address, folder, _process: process }
    }

    /// Sends a request with these headers. Returns status, token, and the headers that the app has seen.
    pub async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask(self.address, method, path, headers).await
    }
}

/// Answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub token: Option<String>,
    /// Target of a redirect.
    pub location: Option<String>,
    /// Headers that the app has got, or the answer of a route.
    pub body: Value,
}

impl Answer {
    pub fn user(&self) -> Value {
        let token = self.token.as_deref().unwrap_or_else(|| panic!("no token: {self:?}"));
        claims_of(token)["userId"].take()
    }
}

pub async fn ask(at: SocketAddr, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = http_client().request(method, format!("http://{at}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.expect("an answer");
    let status = answer.status();
    let header = answer.headers().get("x-velt-token").cloned();
    let location = answer.headers().get("location").cloned();
    let location = location.map(|url| url.to_str().expect("visible ASCII").to_owned());
    let body = answer.bytes().await.expect("to its end");
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let header = header.map(|token| token.to_str().expect("visible ASCII").to_owned());
    let token = header.or_else(|| body["token"].as_str().map(str::to_owned));
    Answer { status, token, location, body }
}

pub fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, text).expect("a file in the front's folder");
    file
}

/// Starts an nginx with the block number `number` of its page.
pub async fn nginx(page: &Page, number: usize, site: &Site, more: &[(&str, &str)]) -> Front {
    let sidecar = format!("http://{}", site.sidecar);
    Front::start(|folder, port| {
        let (listen, own) = (format!("listen 127.0.0.1:{port};"), format!("{}/", folder.display()));
        let mut filled = vec![
            ("listen 8000;", &*listen),
            ("http://my-app:8080", &*sidecar),
            (
                "http {",
                "http {\naccess_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\n\
                fastcgi_temp_path f;\nuwsgi_temp_path u;\nscgi_temp_path s;\n",
            ),
        ];
        filled.extend(more);
        // Comes last, since the comment with the file's name holds this text too.
        filled.push(("/etc/nginx/", &*own));
        let file = written(folder, "nginx.conf", &page.filled("nginx", number, &filled));
        written(folder, "users", &format!("ada:{{PLAIN}}{PASSWORD}\n"));
        nginx_of(folder, &file)
    })
    .await
}

/// Returns the command of an nginx with this configuration, and writes the secret into the file that pages name.
pub fn nginx_of(folder: &Path, file: &Path) -> Command {
    let secret = format!("proxy_set_header X-Sidecar-Secret \"{SECRET}\";\n");
    written(folder, "sidecar-secret.conf", &secret);
    let mut nginx = Command::new(tool("nginx"));
    nginx.arg("-p").arg(folder).arg("-c").arg(file).args(["-e", "error.log", "-g"]);
    // One process, which ends with the test. Only an nginx started by root changes its user.
    nginx.arg("daemon off; master_process off; pid nginx.pid; user root root;");
    nginx
}

/// Starts a Caddy with the block number `number` of the page.
pub async fn caddy(page: &Page, number: usize, site: &Site, own: &[(&str, &str)]) -> Front {
    let sidecar = site.sidecar.to_string();
    Front::start(|folder, port| {
        let listen = format!("http://127.0.0.1:{port}");
        let mut filled = vec![(":8000", &*listen), ("my-app:8080", &*sidecar)];
        filled.extend(own);
        let text = page.filled("caddyfile", number, &filled);
        let text = format!("{{\n\tadmin off\n\tpersist_config off\n}}\n{text}\n");
        let file = written(folder, "Caddyfile", &text);
        let mut caddy = Command::new(tool("caddy"));
        caddy.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
        caddy.env("HOME", folder).stderr(Stdio::null());
        caddy
    })
    .await
}
