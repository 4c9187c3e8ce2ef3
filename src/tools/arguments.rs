//! Arguments of the command line.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::demo::OwnApp;
use crate::emulator::Failure;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser, Subcommand};
use server::config;

/// A reverse-proxy auth sidecar that mints, caches and delivers Velt JWTs.
#[derive(Parser)]
#[command(
    name = "velt-sidecar",
    version,
    after_help = "Exit codes: 1 (health) not healthy, 64 usage, 69 an address is in use, no \
                  sidecar answers, or (doctor) something does not work, 74 the result can't be written, \
                  77 an admin call is denied, 78 configuration or a file it names. Documentation: README.md"
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Configuration file, not for demo and emulator [default: sidecar.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Arguments {
    /// Returns the complaint about arguments that do not go together, such as `--config` with a command that
    /// reads no configuration.
    pub fn refused(&self) -> Option<clap::Error> {
        if let Some(Command::Demo(demo)) = &self.command
            && let Some(complaint) = demo.complaint()
        {
            return Some(Self::command().error(ErrorKind::ArgumentConflict, complaint));
        }
        let alone = match self.command.as_ref()? {
            Command::Demo(_) => "demo runs with settings of its own",
            Command::Emulator(_) => "emulator is configured by its own flags",
            Command::Schema => "the schema is the same for all files",
            Command::Version => "version has nothing to configure",
            _ => return None,
        };
        self.config.as_ref()?;
        let message = format!("{alone}, so --config would have no effect: leave it out");
        Some(Self::command().error(ErrorKind::ArgumentConflict, message))
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the sidecar (the default)
    Run,
    /// Check the configuration and print what is in force, secrets redacted
    Check(CheckArguments),
    /// Print the JSON schema of sidecar.toml, for editors
    Schema,
    /// Examine the whole set-up, Velt and the app included, and say what to do about what is wrong
    Doctor(DoctorArguments),
    /// Run a sidecar, an app and an emulator of Velt on loopback, and show them on a page
    Demo(DemoArguments),
    /// Emulate Velt's token APIs (legacy, v1, v2), for tests without an account
    Emulator(EmulatorArguments),
    /// Explain how a request would be answered, and which settings decide it
    Explain(ExplainArguments),
    /// Make an admin call to a running sidecar
    Admin(AdminArguments),
    /// Ask a running sidecar for its health; exits with 0 or 1
    Health(HealthArguments),
    /// Tell a running sidecar to drain: not ready, still accepting. For a preStop hook
    Drain(DrainArguments),
    /// Print the version
    Version,
}

/// Token for a running sidecar's admin calls.
#[derive(clap::Args)]
pub struct AdminPort {
    /// File with the admin token; without it, the token in `VELT_SIDECAR_ADMIN_TOKEN` counts [default: none]
    #[arg(long, global = true, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
}

#[derive(clap::Args)]
#[command(after_help = DEMO_HELP)]
pub struct DemoArguments {
    /// Address to open in the browser: the demo's login proxy listens here
    #[arg(long, default_value = "127.0.0.1:4180", value_parser = socket_address, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Put the demo's login, sidecar and emulator in front of this app, and a panel into its pages
    /// [default: a small app of the demo's own]
    #[arg(long, value_name = "URL")]
    pub app: Option<OwnApp>,
}

const DEMO_HELP: &str = "\
With --app, your app needs no change; start it before or after the demo. Your app gets the Host that your browser \
sends, so Host and Origin agree. If your app allows localhost only (Next.js), open \
http://localhost:4180/. Over ssh: ssh -L 4180:127.0.0.1:4180 HOST, then the same address. The demo answers \
/__velt-demo/ and sets the cookie velt_demo_user; the sidecar answers /api/velt/token and \
/generate-velt-jwt-token; your app answers everything else.";

impl DemoArguments {
    /// Returns why these arguments do not go together.
    fn complaint(&self) -> Option<String> {
        let app = self.app.as_ref()?;
        if !self.listen.ip().is_loopback() {
            return Some(
                "with --app, the demo listens on loopback only, since it would sign any caller in \
                 to your app: reach it by ssh -L 4180:127.0.0.1:4180 HOST"
                    .to_owned(),
            );
        }
        let itself = format!("{app} is the demo itself: choose another --listen 127.0.0.1:PORT");
        app.is_at(self.listen).then_some(itself)
    }
}

#[derive(clap::Args)]
pub struct ExplainArguments {
    /// `[METHOD] PATH`, or a URL
    #[arg(value_name = "REQUEST", num_args = 0..=2)]
    pub line: Vec<String>,
    /// A header of the request, such as "X-Forwarded-User: ada"; may be repeated
    #[arg(long, short = 'H', value_name = "HEADER")]
    pub header: Vec<String>,
    /// Address of the peer that sends the request: the login proxy, as a rule [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", value_parser = ip_address)]
    pub peer: Option<IpAddr>,
    /// A name in the certificate that the peer shows; may be repeated
    #[arg(long = "peer-name", value_name = "NAME")]
    pub peer_names: Vec<String>,
    /// Let the request come over HTTP/2
    #[arg(long)]
    pub http2: bool,
    /// Body of the request
    #[arg(long, value_name = "BODY")]
    pub data: Option<String>,
    /// A header of the app's response, such as "Cache-Control: no-store"; may be repeated
    #[arg(long, value_name = "HEADER")]
    pub response_header: Vec<String>,
    /// The status of the app's response [default: 200]
    #[arg(long, value_name = "STATUS")]
    pub response_status: Option<u16>,
    /// A curl command in one argument, as a browser copies it
    #[arg(long, value_name = "COMMAND")]
    pub curl: Option<String>,
    /// A curl command, pasted as it is
    #[arg(last = true, value_name = "curl ...")]
    pub words: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Explain on a machine without the secrets, by stand-ins for them
    #[arg(long, conflicts_with = "admin")]
    pub without_secrets: bool,
    /// Ask the running sidecar, which knows its cache: at this URL, or at admin.address of the configuration
    /// [default: by the configuration alone]
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    pub admin: Option<String>,
    #[command(flatten)]
    pub port: AdminPort,
}

/// Source of an explanation.
pub enum Explainer {
    /// No running sidecar: the configuration alone.
    Configuration,
    /// The sidecar at `admin.address` of the configuration.
    Configured,
    /// The sidecar at this URL.
    At(String),
}

impl ExplainArguments {
    /// Returns the source of the explanation, and the request's line. clap takes the word after a bare
    /// `--admin` for its value: a method or a path there is the first word of the line instead.
    pub fn explainer_and_line(&self) -> (Explainer, Vec<String>) {
        let is_method = |word: &str| word.bytes().all(|byte| byte.is_ascii_uppercase());
        let mut line = self.line.clone();
        let explainer = match self.admin.as_deref() {
            None => Explainer::Configuration,
            Some("") => Explainer::Configured,
            Some(word) if word.starts_with('/') || is_method(word) => {
                line.insert(0, word.to_owned());
                Explainer::Configured
            }
            Some(url) => Explainer::At(url.to_owned()),
        };
        (explainer, line)
    }
}

#[derive(clap::Args)]
pub struct AdminArguments {
    #[command(subcommand)]
    pub call: AdminCall,
    /// URL of the admin port [default: admin.address of the configuration, on this machine]
    #[arg(long, global = true, value_name = "URL")]
    pub admin: Option<String>,
    #[command(flatten)]
    pub port: AdminPort,
}

#[derive(Subcommand)]
pub enum AdminCall {
    /// Forget cached tokens, remembered failures and details of users, so that the next request mints anew
    #[command(group = clap::ArgGroup::new("whose").required(true))]
    Invalidate {
        /// Forget the tokens of this user id
        #[arg(long, group = "whose", value_name = "ID")]
        user: Option<String>,
        /// Forget the tokens of all users of this organization
        #[arg(long, group = "whose", value_name = "ID")]
        organization: Option<String>,
        /// Forget the tokens of all users
        #[arg(long, group = "whose")]
        everything: bool,
    },
    /// Show the log's level, or set it until the next start
    LogLevel {
        /// error, warn, info or debug
        #[arg(value_parser = ["error", "warn", "info", "debug"], hide_possible_values = true)]
        level: Option<String>,
    },
    /// Show the configuration in force, secrets redacted
    Config,
    /// Show what was refused lately, and how often
    Refusals,
}

#[derive(clap::Args)]
pub struct CheckArguments {
    /// Print the settings in force and complaints for people, or one JSON object for programs
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub format: CheckFormat,
    /// Check on a machine without the secrets, as in CI: name the secrets and files that are not there instead
    /// of failing
    #[arg(long)]
    pub without_secrets: bool,
}

/// Form in which `check` reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CheckFormat {
    Text,
    Json,
}

#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct DoctorArguments {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// User id for one mint, whose token is dropped
    #[arg(long, default_value = "velt-sidecar-doctor", value_name = "CANARY")]
    pub user: String,
    /// Organization of that user, where the configuration has none for all users
    #[arg(long, value_name = "ID")]
    pub organization: Option<String>,
    /// Mint nothing, and report an unreachable Velt as a warning
    #[arg(long)]
    pub no_mint: bool,
    /// Run as an init container: as --no-mint, and only what prevents the sidecar's start is a problem
    #[arg(long)]
    pub init: bool,
    /// Time limit for each check
    #[arg(long, default_value = "20s", value_parser = time, value_name = "TIME")]
    pub timeout: Duration,
    /// Let warnings count as problems
    #[arg(long)]
    pub strict: bool,
}

/// Returns what to write in place of an argument that the command does not have.
pub fn tip(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let is_unknown = error.kind() == ErrorKind::UnknownArgument;
    match argument.split('=').next().filter(|_| is_unknown)? {
        "--json" => Some("check has --format json".into()),
        "--listen" | "--port" | "--address" => Some(
            "write address = \"0.0.0.0:8080\" in [listen] of sidecar.toml, or set the variable \
             VELT_SIDECAR_LISTEN__ADDRESS"
                .into(),
        ),
        file if Path::new(file).extension().is_some_and(|it| it == "toml") => {
            Some(format!("name the file by --config {file}"))
        }
        _ => None,
    }
}

/// Reads an address to listen on. A port alone is no address: it could mean each of this machine's.
fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let port = text.rsplit(':').next().unwrap_or_default().parse::<u16>();
    let remedy = |_| {
        let port = port.map_or_else(|_| "4180".to_owned(), |port| port.to_string());
        format!("write an IP address and a port, such as 127.0.0.1:{port}")
    };
    text.parse().map_err(remedy)
}

fn ip_address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| "write an IP address without a port, such as 10.42.3.7")
}

fn whole_number(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "write a whole number without a unit, such as 250")
}

pub fn time(text: &str) -> Result<Duration, &'static str> {
    config::time(text).ok_or("write a time such as \"500ms\", \"20s\" or \"2m\"")
}

#[derive(clap::Args)]
pub struct EmulatorArguments {
    /// Address of the emulator
    #[arg(long, default_value = "127.0.0.1:4191", value_parser = socket_address, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Accept only this API key [default: any]
    #[arg(long, requires = "auth_token")]
    pub api_key: Option<String>,
    /// Accept only this auth token [default: any]
    #[arg(long, requires = "api_key")]
    pub auth_token: Option<String>,
    /// Seconds from a token's iat to its exp
    #[arg(long, default_value_t = 172_800, value_name = "SECONDS", value_parser = whole_number)]
    pub token_life: u64,
    /// Milliseconds that every mint takes
    #[arg(long, default_value_t = 0, value_name = "MILLISECONDS", value_parser = whole_number)]
    pub latency: u64,
    /// Failure with which every mint ends
    #[arg(long)]
    pub failure: Option<Failure>,
}

#[derive(clap::Args)]
pub struct HealthArguments {
    /// Ask whether the sidecar runs (the default)
    #[arg(long, group = "probe")]
    pub live: bool,
    /// Ask whether traffic should come to the sidecar
    #[arg(long, group = "probe")]
    pub ready: bool,
    /// Ask whether the sidecar has started
    #[arg(long, group = "probe")]
    pub startup: bool,
    /// URL of the admin port [default: admin.address of the configuration, on this machine]
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
}

#[derive(clap::Args)]
pub struct DrainArguments {
    /// URL of the admin port [default: admin.address of the configuration, on this machine]
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
    #[command(flatten)]
    pub port: AdminPort,
    /// End only after this time, such as 10s: the kubelet sends SIGTERM when the hook has ended
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0s")]
    pub wait: Duration,
}
