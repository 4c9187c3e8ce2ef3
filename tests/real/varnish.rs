//! A real Varnish in front of a sidecar, as the login proxy, and as careless as Varnish's own rules allow: it
//! removes the cookie, by which it would have kept users apart.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use http::Method;
use reqwest::Client;
use tempfile::TempDir;

use crate::neighbour::{Process, http_client, is_in_front_of, tool};
use crate::nginx::session_of;

/// No rules of the test: Varnish's own rules follow, unless a rule returns.
pub const BUILT_IN: &str = "";

/// Rules that ignore all caching headers of an answer.
pub const NO_RULES: &str = "return (deliver);";

/// A Varnish in front of a sidecar.
pub struct Varnish {
    pub address: SocketAddr,
    http: Client,
    _process: Process,
    _folder: TempDir,
}

impl Varnish {
    /// Starts a Varnish. `rules` end the treatment of each answer.
    pub async fn start(sidecar: SocketAddr, rules: &str) -> Self {
        let folder = TempDir::new().expect("a folder for Varnish");
        let file = folder.path().join("sidecar.vcl");
        std::fs::write(&file, configuration(sidecar, rules)).expect("a file in it");
        let command = |port: u16| {
            let mut varnish = Command::new(tool("varnishd"));
            varnish.args(["-F", "-j", "none", "-s", "malloc,32m", "-T", "none"]);
            varnish.arg("-a").arg(format!("127.0.0.1:{port}")).arg("-f").arg(&file);
            varnish.arg("-n").arg(folder.path().join(port.to_string()));
            varnish.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            varnish
        };
        let http = http_client();
        let ready = async |address| is_in_front_of(&http, address, sidecar).await;
        let (process, address) = Process::start_on_free_port(command, ready).await;
        Self { address, http, _process: process, _folder: folder }
    }

    /// Returns a request of `user`'s browser.
    pub fn request(&self, method: Method, path: &str, user: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.http.request(method, url).headers(session_of(user))
    }
}

fn configuration(sidecar: SocketAddr, rules: &str) -> String {
    let (host, port) = (sidecar.ip(), sidecar.port());
    format!(
        r#"
        vcl 4.1;
        backend default {{ .host = "{host}"; .port = "{port}"; }}
        sub vcl_recv {{
            if (req.url == "/whose") {{ return (synth(200)); }}
            unset req.http.X-Forwarded-User;
            if (req.http.Cookie ~ "session=of-ada") {{ set req.http.X-Forwarded-User = "ada"; }}
            if (req.http.Cookie ~ "session=of-grace") {{ set req.http.X-Forwarded-User = "grace"; }}
            unset req.http.Cookie;
            if (req.method == "GET") {{ return (hash); }}
            return (pass);
        }}
        sub vcl_synth {{ synthetic("{sidecar}"); return (deliver); }}
        sub vcl_backend_response {{
            set beresp.grace = 0s;
            # Kept beyond its life, to be asked for again with its ETag.
            set beresp.keep = 10m;
            {rules}
        }}
        sub vcl_deliver {{
            if (obj.hits > 0) {{ set resp.http.X-Cache = "HIT"; }}
            else {{ set resp.http.X-Cache = "MISS"; }}
        }}
        "#
    )
}
