//! Real apps that take `X_Forwarded_User` for `X-Forwarded-User`, as WSGI, CGI and PHP do, behind a sidecar.
//! An app sees no identity, in any spelling, that the sidecar does not use (oauth2-proxy CVE-2025-64484,
//! Caddy CVE-2026-52845).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::neighbour::{
    PATIENCE, Process, Sidecar, claims_of, eventually, lines_of, tool, versioned_tool,
};
use crate::program::APPS;

const USER: &str = "x-forwarded-user";

/// Identity headers. Some names do not begin with `x-forwarded-`, since the sidecar removes all such headers
/// of an untrusted peer.
const IDENTITY: [&str; 5] = [
    USER,
    "x-forwarded-email",
    "x-auth-request-name",
    "x-auth-request-org",
    "x-auth-request-groups",
];

/// Headers of the sidecar, which no client may set on a request.
const TOKEN: [&str; 2] = ["x-velt-token", "x-velt-token-status"];

/// Words of which each variable that an app could make of the headers above has one.
const TELLING: [&str; 4] = ["USER", "EMAIL", "AUTH", "VELT"];

/// Settings under which every header that can carry identity does so.
const SETTINGS: [(&str, &str); 7] = [
    ("VELT_SIDECAR_VELT__API", "v2"),
    ("VELT_SIDECAR_VELT__ORGANIZATION", "acme"),
    ("VELT_SIDECAR_IDENTITY__EMAIL_HEADER", "X-Forwarded-Email"),
    ("VELT_SIDECAR_IDENTITY__NAME_HEADER", "X-Auth-Request-Name"),
    ("VELT_SIDECAR_IDENTITY__ORGANIZATION_HEADER", "X-Auth-Request-Org"),
    ("VELT_SIDECAR_IDENTITY__GROUPS_HEADER", "X-Auth-Request-Groups"),
    ("VELT_SIDECAR_IDENTITY__ADMIN_GROUPS", "admins"),
];

const DROP: (&str, &str) = ("VELT_SIDECAR_IDENTITY__ON_AMBIGUOUS", "drop");

/// Setting under which no peer from loopback is trusted.
const UNTRUSTED: (&str, &str) = ("VELT_SIDECAR_IDENTITY__TRUSTED_PEERS", "10.0.0.0/8");

/// Spellings that PHP would fold too, but that are not header names (RFC 9110, section 5.1).
const NO_NAMES: [&str; 4] =
    ["x forwarded user", "x-forwarded user", "x-forwarded-user ", "x-forwarded-user[0]"];

/// Returns every other spelling of `name` with these characters for its dashes, in three cases each.
fn aliases(name: &str, dashes: &[char]) -> Vec<String> {
    let mut spellings = vec![String::new()];
    for character in name.chars() {
        let choices = if character == '-' { dashes } else { &[character] };
        let longer = |spelling: &String| {
            choices.iter().map(|choice| format!("{spelling}{choice}")).collect::<Vec<_>>()
        };
        spellings = spellings.iter().flat_map(longer).collect();
    }
    spellings.retain(|spelling| spelling != name);
    spellings.into_iter().flat_map(|name| [name.to_uppercase(), mixed_case(&name), name]).collect()
}

fn mixed_case(name: &str) -> String {
    let change = |(at, character): (usize, char)| {
        if at % 2 == 0 { character.to_ascii_uppercase() } else { character }
    };
    name.chars().enumerate().map(change).collect()
}

/// Request as the app has read it, or the sidecar's refusal.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    /// User of the token that came with the answer.
    user: Option<String>,
    /// Variables of the app that name the user.
    variables: BTreeMap<String, String>,
}

impl Answer {
    /// Answer of the app to an anonymous request.
    fn anonymous() -> Self {
        Self { status: 200, user: None, variables: BTreeMap::new() }
    }

    fn refused(status: u16) -> Self {
        Self { status, ..Self::anonymous() }
    }
}

/// Sends a request whose headers are spelt exactly as given.
async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let headers = lines.collect::<Vec<_>>().concat();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
    let mut answer = Vec::new();
    let asking = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    timeout(PATIENCE, asking).await.expect("an answer in time").expect("an answer");
    let answer = String::from_utf8(answer).expect("JSON at most");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
    let token = head.lines().find_map(|line| line.strip_prefix("x-velt-token: "));
    let user = token.map(|token| claims_of(token)["userId"].as_str().expect("a user").to_owned());
    let mut variables = BTreeMap::new();
    if status == 200 {
        variables = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
        variables.retain(|name: &String, _| TELLING.iter().any(|part| name.contains(part)));
    }
    Answer { status, user, variables }
}

/// An app server on a unix socket that folds spellings of header names.
struct FoldingApp {
    /// Processes in the order in which they are ended.
    processes: Vec<Process>,
    /// Target of each request that the app has received.
    targets: mpsc::UnboundedReceiver<String>,
    /// Characters that the app takes for a dash.
    dashes: &'static [char],
    folder: TempDir,
}

impl FoldingApp {
    async fn gunicorn() -> Self {
        let folder = new_folder();
        let mut gunicorn = Command::new(tool("gunicorn"));
        gunicorn.args(["--chdir", APPS, "--bind"]);
        gunicorn.arg(format!("unix:{}", socket_in(&folder).display()));
        gunicorn.arg("--config").arg(Path::new(APPS).join("environ_gunicorn.py"));
        gunicorn.arg("environ:application").env("PYTHONDONTWRITEBYTECODE", "1");
        Self::start(gunicorn, vec![], &['-', '_'], folder).await
    }

    /// Starts PHP behind nginx, since PHP serves no HTTP here: nginx speaks to it over `FastCGI`.
    async fn php() -> Self {
        let folder = new_folder();
        let mut fpm = Command::new(versioned_tool("php-fpm"));
        // No `php.ini`; allowed to run as root, since root may run the tests.
        fpm.args(["--no-php-ini", "--allow-to-run-as-root", "--fpm-config"]);
        fpm.arg(configuration("environ_fpm.conf", &folder)).stdin(Stdio::null());
        let fpm = Process::start(&mut fpm);
        listening(&folder.path().join("php.sock")).await;
        let mut nginx = Command::new(tool("nginx"));
        nginx.arg("-p").arg(folder.path()).args(["-e", "error.log", "-c"]);
        nginx.arg(configuration("environ_nginx.conf", &folder));
        Self::start(nginx, vec![fpm], &['-', '_', '.'], folder).await
    }

    /// Starts the program that accepts HTTP, in front of the other `processes`.
    async fn start(
        mut server: Command,
        mut processes: Vec<Process>,
        dashes: &'static [char],
        folder: TempDir,
    ) -> Self {
        let mut server = Process::start(server.stdin(Stdio::null()).stdout(Stdio::piped()));
        let targets = lines_of(server.child().stdout.take().expect("a pipe"));
        listening(&socket_in(&folder)).await;
        processes.insert(0, server);
        Self { processes, targets, dashes, folder }
    }

    async fn sidecar(&self, settings: &[(&str, &str)]) -> Sidecar {
        let app = format!("unix:{}", socket_in(&self.folder).display());
        Sidecar::start_with(app, &[&SETTINGS, settings].concat()).await
    }

    /// Sends a request to the app without the sidecar.
    async fn ask_directly(&mut self, headers: &[(&str, &str)]) -> BTreeMap<String, String> {
        let stream = UnixStream::connect(socket_in(&self.folder)).await.expect("it listens");
        let answer = ask(stream, "/directly", headers).await;
        assert_eq!(answer.status, 200, "{headers:?}");
        assert_eq!(self.next_target().await, "/directly");
        answer.variables
    }

    /// Returns the target of the next request that the app has received.
    async fn next_target(&mut self) -> String {
        let target = timeout(PATIENCE, self.targets.recv()).await.expect("a request in time");
        target.expect("it has not ended")
    }

    /// Returns every spelling of every identity header that the app would take for the header.
    fn identity_aliases(&self) -> Vec<(&'static str, String)> {
        let of = |name| aliases(name, self.dashes).into_iter().map(move |alias| (name, alias));
        IDENTITY.into_iter().flat_map(of).collect()
    }
}

impl Drop for FoldingApp {
    /// Asks the processes to end, since they have workers to end too.
    fn drop(&mut self) {
        for process in &mut self.processes {
            process.terminate();
            process.wait();
        }
    }
}

fn new_folder() -> TempDir {
    TempDir::new().expect("a folder for the app")
}

fn socket_in(folder: &TempDir) -> PathBuf {
    folder.path().join("app.sock")
}

async fn listening(socket: &Path) {
    eventually("the app to listen", async || {
        UnixStream::connect(socket).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

/// Fills in the file `name` of `apps/`, and writes it into the folder.
fn configuration(name: &str, folder: &TempDir) -> PathBuf {
    let text = std::fs::read_to_string(Path::new(APPS).join(name)).expect("it is there");
    let text = text.replace("FOLDER", folder.path().to_str().expect("a plain path"));
    let file = folder.path().join(name);
    std::fs::write(&file, text.replace("SCRIPT;", &format!("{APPS}/environ.php;")))
        .expect("a file in the folder");
    file
}

/// Returns the variable that WSGI, CGI and PHP make of a header (RFC 3875, section 4.1.18).
fn variable(name: &str) -> String {
    format!("HTTP_{}", name.to_uppercase().replace('-', "_"))
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| (variable(name), (*value).to_owned())).collect()
}

async fn ask_sidecar(sidecar: &Sidecar, path: &str, headers: &[(&str, &str)]) -> Answer {
    let stream = TcpStream::connect(sidecar.addresses.traffic).await.expect("it listens");
    ask(stream, path, headers).await
}

/// Proves that the app would be deceived without the sidecar: the app takes the alias for the header.
async fn app_folds(app: &mut FoldingApp) {
    for (name, alias) in app.identity_aliases() {
        let alone = app.ask_directly(&[(&alias, "eve")]).await;
        assert_eq!(alone, variables(&[(name, "eve")]), "{alias}");
        // gunicorn joins both headers. PHP takes the last of two with dashes and underscores, but the first
        // if there are dots.
        let last = app.ask_directly(&[(name, "ada"), (&alias, "eve")]).await;
        let first = app.ask_directly(&[(&alias, "eve"), (name, "ada")]).await;
        let forged = [&last, &first].map(|seen| seen[&variable(name)].contains("eve"));
        assert!(forged.contains(&true), "{alias}: {last:?}, {first:?}");
        assert_eq!((last.len(), first.len()), (1, 1), "{alias}: {last:?}, {first:?}");
    }
}

/// Asserts that each alias gets this answer, alone and beside the headers of a correct request, and that the
/// app has received only the requests that it has answered.
async fn aliases_get(app: &mut FoldingApp, sidecar: &Sidecar, expected: &Answer) {
    for (_, alias) in app.identity_aliases() {
        for headers in [&[(USER, "ada"), (&*alias, "eve")][..], &[(&*alias, "eve")]] {
            let answer = ask_sidecar(sidecar, "/alias", headers).await;
            assert_eq!(answer, *expected, "{headers:?}");
            if expected.status == 200 {
                assert_eq!(app.next_target().await, "/alias");
            }
        }
    }
    for name in NO_NAMES {
        let answer = ask_sidecar(sidecar, "/no-name", &[(USER, "ada"), (name, "eve")]).await;
        assert_eq!(answer, Answer::refused(400), "{name:?}");
    }
    assert_eq!(ask_sidecar(sidecar, "/last", &[]).await, Answer::anonymous());
    assert_eq!(app.next_target().await, "/last", "the app has had a request that was refused");
}

/// Asserts that the sidecar removes the token's headers in every spelling, and refuses no request for them.
async fn token_headers_are_stripped(app: &mut FoldingApp, sidecar: &Sidecar, trusted: bool) {
    let dashes = app.dashes;
    let own = TOKEN.iter().flat_map(|name| aliases(name, dashes));
    for name in own.chain(TOKEN.map(str::to_owned)) {
        let answer = ask_sidecar(sidecar, "/token", &[(USER, "ada"), (&name, "eve")]).await;
        assert_eq!(answer, plain(trusted), "{name}");
        assert_eq!(app.next_target().await, "/token");
    }
}

/// Returns the answer to a request of `ada` without any alias.
fn plain(trusted: bool) -> Answer {
    if !trusted {
        return Answer::anonymous();
    }
    Answer { user: Some("ada".to_owned()), variables: variables(&[(USER, "ada")]), status: 200 }
}

async fn no_alias_passes_to(mut app: FoldingApp) {
    app_folds(&mut app).await;
    for (settings, expected, trusted) in [
        (&[][..], Answer::refused(400), true),
        (&[DROP], Answer::anonymous(), true),
        (&[UNTRUSTED], Answer::anonymous(), false),
        (&[UNTRUSTED, DROP], Answer::anonymous(), false),
    ] {
        let sidecar = app.sidecar(settings).await;
        assert_eq!(ask_sidecar(&sidecar, "/plain", &[(USER, "ada")]).await, plain(trusted));
        assert_eq!(app.next_target().await, "/plain");
        let every = IDENTITY.map(|name| (name, if name == USER { "ada" } else { "hers" }));
        let seen = ask_sidecar(&sidecar, "/every", &every).await.variables;
        assert_eq!(seen, variables(if trusted { &every } else { &[] }));
        assert_eq!(app.next_target().await, "/every");
        aliases_get(&mut app, &sidecar, &expected).await;
        token_headers_are_stripped(&mut app, &sidecar, trusted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_a_wsgi_app_sees_no_identity_but_the_one_that_is_believed() {
    no_alias_passes_to(FoldingApp::gunicorn().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t01_a_php_app_sees_no_identity_but_the_one_that_is_believed() {
    no_alias_passes_to(FoldingApp::php().await).await;
}
