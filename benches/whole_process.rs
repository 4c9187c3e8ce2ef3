//! Cost of a request in the whole sidecar, next to nginx without tokens.
//!
//! Real processes on loopback: nginx as the app, the sidecar's own emulator in the place of Velt, and two
//! proxies before the app: the sidecar and, for comparison, nginx. `wrk` is the load. The proxies run alone
//! on core 0, and all other processes share core 1. Rounds visit every case in random order, so that a slow
//! minute of the machine touches all cases alike.
//!
//! `benches/README.md` says how to run this and what the numbers mean.

#[allow(dead_code, reason = "other benches use the rest")]
mod support;

use std::fmt::Write as _;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tempfile::TempDir;

use self::support::{BROWSER, Result, Running, free_addresses};

/// Users for whom the header job asks in turn.
const USERS: usize = 1_000;

/// Keep-alive connections of the load.
const CONNECTIONS: usize = 64;

/// Core of the proxies.
const PROXY_CORE: &str = "0";

/// Core of all other processes.
const OTHER_CORE: &str = "1";

/// Clock ticks per second in `/proc/PID/stat`: 100 on every Linux that Rust supports
/// (`USER_HZ`, part of the kernel's interface).
const TICKS_PER_SECOND: f64 = 100.0;

/// Time that a process may take until it accepts connections.
const START_PATIENCE: Duration = Duration::from_secs(5);

const SMALL: usize = 1024;
const LARGE: usize = 100 * 1024;

fn main() -> ExitCode {
    // `cargo test --all-targets` runs benches too, as a check that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("whole_process measures only when it is run by `cargo bench`");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whole_process: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    for (tool, flag) in [("wrk", "-v"), ("nginx", "-v"), ("taskset", "-V")] {
        check_tool(tool, flag)?;
    }
    if std::thread::available_parallelism()?.get() < 2 {
        return Err("two cores are needed: one for the proxy, one for the rest".into());
    }
    let bench = Bench::start(&arguments)?;
    bench.verify()?;

    let cases: Vec<Case> = Case::ALL
        .into_iter()
        .filter(|case| arguments.large || case.body_bytes() == SMALL)
        .collect();
    // Not counted: this round opens connections to the app and fills all caches.
    for case in &cases {
        bench.measure(*case, 1)?;
    }
    let mut rounds = Vec::new();
    let random = RandomState::new();
    for round in 1..=arguments.rounds {
        eprintln!("round {round} of {}", arguments.rounds);
        let mut order = cases.clone();
        order.sort_by_cached_key(|case| random.hash_one((round, *case as usize)));
        let mut figures: Vec<(Case, Figures)> = Vec::new();
        for case in order {
            figures.push((case, bench.measure(case, arguments.seconds)?));
        }
        rounds.push(figures);
    }
    print!("{}", report(&cases, &rounds));
    Ok(())
}

struct Arguments {
    rounds: usize,
    seconds: u32,
    large: bool,
    sidecar: PathBuf,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let sidecar = PathBuf::from(env!("CARGO_BIN_EXE_velt-sidecar"));
        let mut parsed = Self { rounds: 7, seconds: 2, large: false, sidecar };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => {}
                "--quick" => (parsed.rounds, parsed.seconds) = (3, 1),
                "--large" => parsed.large = true,
                "--rounds" => parsed.rounds = value()?.parse()?,
                "--seconds" => parsed.seconds = value()?.parse()?,
                "--sidecar" => parsed.sidecar = value()?.into(),
                _ => {
                    let usage = "--quick, --large, --rounds N, --seconds N, --sidecar FILE";
                    return Err(format!("{argument} is none of {usage}").into());
                }
            }
        }
        if parsed.rounds == 0 || parsed.seconds == 0 {
            return Err("rounds and seconds are counted from 1".into());
        }
        Ok(parsed)
    }
}

fn check_tool(tool: &str, flag: &str) -> Result<()> {
    let found = Command::new(tool).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.map_err(|error| {
        format!("{tool} can't be run ({error}): apt-get install wrk nginx-light util-linux")
    })?;
    Ok(())
}

/// Request of a measurement, and the proxy that gets it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    /// No token work: the cost of a proxy.
    Nginx,
    /// The sidecar, without a signed-in user.
    Anonymous,
    /// The sidecar, with a token in the header of every answer.
    HeaderJob,
    /// The sidecar's token route; the sidecar does not ask the app.
    RouteJob,
    NginxLarge,
    HeaderJobLarge,
}

impl Case {
    const ALL: [Self; 6] = [
        Self::Nginx,
        Self::Anonymous,
        Self::HeaderJob,
        Self::RouteJob,
        Self::NginxLarge,
        Self::HeaderJobLarge,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx proxy_pass",
            Self::Anonymous => "sidecar anonymous",
            Self::HeaderJob => "sidecar header job",
            Self::RouteJob => "sidecar route job",
            Self::NginxLarge => "nginx proxy_pass, 100 KiB",
            Self::HeaderJobLarge => "sidecar header job, 100 KiB",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Nginx | Self::Anonymous | Self::HeaderJob => "/api/small",
            Self::RouteJob => "/api/velt/token",
            Self::NginxLarge | Self::HeaderJobLarge => "/api/large",
        }
    }

    fn is_signed_in(self) -> bool {
        // nginx gets the same requests as the job with which it is compared.
        self != Self::Anonymous
    }

    fn is_nginx(self) -> bool {
        matches!(self, Self::Nginx | Self::NginxLarge)
    }

    fn body_bytes(self) -> usize {
        if self.path() == "/api/large" { LARGE } else { SMALL }
    }

    /// Returns the sidecar's counter that must rise with each request of this case.
    fn counter(self) -> Option<&'static str> {
        match self {
            Self::Nginx | Self::NginxLarge => None,
            Self::Anonymous => Some(r#"velt_sidecar_header_deliveries_total{result="anonymous"}"#),
            Self::HeaderJob | Self::HeaderJobLarge => {
                Some(r#"velt_sidecar_header_deliveries_total{result="injected"}"#)
            }
            Self::RouteJob => Some(r#"velt_sidecar_requests_total{outcome="token_served"}"#),
        }
    }
}

/// Figures of one measurement of one case.
#[derive(Clone, Copy)]
struct Figures {
    cpu_micros: f64,
    requests_per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
}

/// Processes of the bench, alive until this value is dropped.
struct Bench {
    nginx: Running,
    sidecar: Running,
    nginx_address: SocketAddr,
    sidecar_address: SocketAddr,
    admin_address: SocketAddr,
    directory: TempDir,
    _others: [Running; 2],
}

impl Bench {
    fn start(arguments: &Arguments) -> Result<Self> {
        let directory = TempDir::with_prefix("velt-sidecar-bench-")?;
        let [app_address, nginx_address, emulator_address, sidecar_address, admin_address] =
            free_addresses()?;

        let mut app = nginx(directory.path(), "app", OTHER_CORE, &app_server(app_address))?;
        let proxy = nginx_proxy_server(nginx_address, app_address);
        let mut nginx = nginx(directory.path(), "proxy", PROXY_CORE, &proxy)?;

        let mut emulator =
            Running::emulator(pinned(OTHER_CORE, &arguments.sidecar), emulator_address)?;

        let config = directory.path().join("sidecar.toml");
        fs::write(
            &config,
            format!(
                "listen.address = \"{sidecar_address}\"\n\
                 admin.address = \"{admin_address}\"\n\
                 app.address = \"{app_address}\"\n\
                 log.level = \"warn\"\n\
                 [velt]\n\
                 endpoint = \"http://{emulator_address}/\"\n\
                 api_key = \"bench\"\n"
            ),
        )?;
        let mut sidecar = pinned(PROXY_CORE, &arguments.sidecar);
        sidecar
            .arg("--config")
            .arg(&config)
            .env("VELT_AUTH_TOKEN", "bench")
            .env("VELT_SIDECAR_RUNTIME__WORKERS", "1");
        let mut sidecar = Running::spawn("the sidecar", &mut sidecar)?;

        app.wait_for(app_address, START_PATIENCE)?;
        emulator.wait_for(emulator_address, START_PATIENCE)?;
        nginx.wait_for(nginx_address, START_PATIENCE)?;
        sidecar.wait_for(sidecar_address, START_PATIENCE)?;
        Ok(Self {
            nginx,
            sidecar,
            nginx_address,
            sidecar_address,
            admin_address,
            directory,
            _others: [app, emulator],
        })
    }

    fn address(&self, case: Case) -> SocketAddr {
        if case.is_nginx() { self.nginx_address } else { self.sidecar_address }
    }

    /// Asks once as each user, before the first measurement: the token must be the user's, and the body the
    /// app's.
    fn verify(&self) -> Result<()> {
        let mut direct = Client::connect(self.nginx_address)?;
        let mut client = Client::connect(self.sidecar_address)?;
        for case in [Case::Nginx, Case::NginxLarge] {
            let body_bytes = direct.get(case.path(), None)?.body.len();
            if body_bytes != case.body_bytes() {
                return Err(format!("{}: a body of {body_bytes} bytes", case.name()).into());
            }
        }
        for user in (1..=USERS).map(user_name) {
            for case in [Case::HeaderJob, Case::HeaderJobLarge] {
                let answer = client.get(case.path(), Some(&user))?;
                let token = answer.header("x-velt-token").ok_or("an answer without a token")?;
                if user_in(token)? != user || answer.body.len() != case.body_bytes() {
                    return Err(format!("{} is wrong for {user}", case.name()).into());
                }
            }
            let answer = client.get(Case::RouteJob.path(), Some(&user))?;
            let json: Value = serde_json::from_slice(&answer.body)?;
            if user_in(json["token"].as_str().ok_or("no token in the answer")?)? != user {
                return Err(format!("the token route is wrong for {user}").into());
            }
        }
        let answer = client.get(Case::Anonymous.path(), None)?;
        if answer.header("x-velt-token").is_some() || answer.body.len() != SMALL {
            return Err("the answer to nobody is wrong".into());
        }
        Ok(())
    }

    fn measure(&self, case: Case, seconds: u32) -> Result<Figures> {
        let script = self.directory.path().join("load.lua");
        fs::write(&script, load_script(case))?;
        let process = if case.is_nginx() { &self.nginx } else { &self.sidecar };
        let mut wrk = pinned(OTHER_CORE, "wrk");
        wrk.args(["-t1", "-c", &CONNECTIONS.to_string(), "-d", &format!("{seconds}s"), "-s"])
            .arg(&script)
            .arg(format!("http://{}{}", self.address(case), case.path()));

        let counted_before = self.counted(case)?;
        let cpu_before = cpu_seconds(process)?;
        let output = wrk.output()?;
        let cpu = cpu_seconds(process)? - cpu_before;
        let counted = self.counted(case)? - counted_before;

        let load = Load::parse(&String::from_utf8(output.stdout)?)
            .map_err(|problem| format!("{}: {problem}", case.name()))?;
        // wrk ends without counting the requests under way, at most one per connection.
        let expected = load.requests..=load.requests + CONNECTIONS as f64;
        if case.counter().is_some() && !expected.contains(&counted) {
            return Err(format!(
                "{}: wrk counted {} answers, the sidecar {counted} of that kind",
                case.name(),
                load.requests,
            )
            .into());
        }
        Ok(Figures {
            cpu_micros: cpu / load.requests * 1e6,
            requests_per_second: load.requests / load.seconds,
            p50_micros: load.p50_micros,
            p99_micros: load.p99_micros,
        })
    }

    fn counted(&self, case: Case) -> Result<f64> {
        let Some(counter) = case.counter() else { return Ok(0.0) };
        let page = Client::connect(self.admin_address)?.get("/metrics", None)?;
        let page = String::from_utf8(page.body)?;
        let value = page.lines().find_map(|line| line.strip_prefix(counter));
        Ok(value.ok_or(format!("{counter} is not exported"))?.trim().parse()?)
    }
}

fn user_name(number: usize) -> String {
    format!("user-{number}@example.com")
}

/// Returns the user whom a JWT names.
fn user_in(token: &str) -> Result<String> {
    let payload = token.split('.').nth(1).ok_or("not a JWT")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
    Ok(claims["userId"].as_str().ok_or("a token without userId")?.to_owned())
}

/// Returns wrk's script for a case: requests with a browser's headers, and a last line for [`Load`].
fn load_script(case: Case) -> String {
    let users = if case.is_signed_in() { USERS } else { 1 };
    let user_header = if case.is_signed_in() {
        "wrk.headers['X-Forwarded-User'] = 'user-' .. number .. '@example.com'"
    } else {
        ""
    };
    let browser = BROWSER.map(|(name, value)| format!("wrk.headers['{name}'] = '{value}'"));
    let browser = browser.join("\n");
    format!(
        r"
        {browser}

        local requests, last = {{}}, 0
        function init(arguments)
           for number = 1, {users} do
              {user_header}
              requests[number] = wrk.format()
           end
        end
        function request()
           last = last % {users} + 1
           return requests[last]
        end
        function done(summary, latency)
           local errors = summary.errors
           print(string.format('figures %d %d %d %d %d', summary.requests, summary.duration,
              errors.connect + errors.read + errors.write + errors.status + errors.timeout,
              latency:percentile(50), latency:percentile(99)))
        end
        "
    )
}

/// Figures that wrk prints by the `done` of [`load_script`].
struct Load {
    requests: f64,
    seconds: f64,
    p50_micros: f64,
    p99_micros: f64,
}

impl Load {
    fn parse(output: &str) -> Result<Self> {
        let line = output.lines().find_map(|line| line.strip_prefix("figures "));
        let line = line.ok_or(format!("wrk failed: {output}"))?;
        let numbers: Vec<f64> =
            line.split(' ').map(str::parse).collect::<std::result::Result<_, _>>()?;
        let [requests, micros, errors, p50_micros, p99_micros] = numbers[..] else {
            return Err(format!("not five figures: {line}").into());
        };
        if errors > 0.0 || requests < 1.0 {
            return Err(format!("{errors} errors in {requests} requests: {output}").into());
        }
        Ok(Self { requests, seconds: micros / 1e6, p50_micros, p99_micros })
    }
}

/// Starts an nginx of one process.
fn nginx(directory: &Path, name: &'static str, core: &str, server: &str) -> Result<Running> {
    let prefix = directory.join(name);
    fs::create_dir(&prefix)?;
    // nginx's default folders are writable only for some users.
    let temporary = "client_body_temp_path client; proxy_temp_path proxy; \
                     fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;";
    let config = format!(
        "daemon off;\n\
         master_process off;\n\
         pid nginx.pid;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         access_log off;\n\
         keepalive_requests 1000000000;\n\
         {temporary}\n\
         {server}\n\
         }}\n"
    );
    let file = prefix.join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = pinned(core, "nginx");
    command.args(["-e", "stderr", "-p"]).arg(&prefix).arg("-c").arg(&file);
    Running::spawn("nginx", &mut command)
}

/// Returns an app with bodies of 1 KiB and 100 KiB, which nginx takes from its configuration and so from
/// memory.
fn app_server(address: SocketAddr) -> String {
    let small = "x".repeat(SMALL);
    let large = "$kib".repeat(LARGE / SMALL);
    format!(
        "server {{\n\
         listen {address};\n\
         default_type application/json;\n\
         set $kib \"{small}\";\n\
         location /api/small {{ return 200 \"$kib\"; }}\n\
         location /api/large {{ return 200 \"{large}\"; }}\n\
         }}"
    )
}

/// Returns a proxy that does the sidecar's work of one hop: keeps connections to the app, and adds the
/// client's address.
fn nginx_proxy_server(address: SocketAddr, app: SocketAddr) -> String {
    format!(
        "upstream app {{ server {app}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{\n\
         listen {address};\n\
         location / {{\n\
         proxy_pass http://app;\n\
         proxy_http_version 1.1;\n\
         proxy_max_temp_file_size 0;\n\
         proxy_set_header Connection \"\";\n\
         proxy_set_header Host $http_host;\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         }}\n\
         }}"
    )
}

/// Runs `program` on one core. `taskset` replaces itself by the program, so that the child is the program.
fn pinned(core: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program).stdin(Stdio::null());
    command
}

/// Returns the user and system time of all the process's threads so far.
fn cpu_seconds(process: &Running) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.child.id()))?;
    // The second field is the name in parentheses, which may hold spaces and parentheses; utime and stime are
    // the 14th and 15th fields.
    let (_, fields) = stat.rsplit_once(')').ok_or("an unreadable /proc/PID/stat")?;
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks = times.map(str::parse::<f64>).sum::<std::result::Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

/// A kept-alive connection. Reads only the forms of HTTP with which nginx and the sidecar answer here.
struct Client {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

struct Answer {
    head: Vec<String>,
    body: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream: BufReader::new(stream), host: address })
    }

    fn get(&mut self, path: &str, user: Option<&str>) -> Result<Answer> {
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if let Some(user) = user {
            write!(request, "X-Forwarded-User: {user}\r\n")?;
        }
        request.push_str("\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;

        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let mut answer = Answer { head, body: Vec::new() };
        if !answer.head.first().is_some_and(|line| line.starts_with("HTTP/1.1 200 ")) {
            return Err(format!("GET {path}: {:?}", answer.head).into());
        }
        let length = answer.header("content-length").ok_or("an answer without Content-Length")?;
        answer.body.resize(length.parse()?, 0);
        self.stream.read_exact(&mut answer.body)?;
        Ok(answer)
    }
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.iter().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

/// Formats a table of medians with their extremes, in Markdown.
fn report(cases: &[Case], rounds: &[Vec<(Case, Figures)>]) -> String {
    let mut text = String::from(
        "| case | CPU us/request | against nginx | requests/s | p50 us | p99 us |\n\
         |---|---|---|---|---|---|\n",
    );
    let in_round = |round: &[(Case, Figures)], case| {
        round.iter().find(|(other, _)| *other == case).map(|(_, figures)| *figures)
    };
    for case in cases {
        let nginx = if case.body_bytes() == LARGE { Case::NginxLarge } else { Case::Nginx };
        let of_each = |value: &dyn Fn(&Figures) -> f64, digits| {
            let figures = rounds.iter().filter_map(|round| in_round(round, *case));
            spread(figures.map(|figures| value(&figures)).collect(), digits)
        };
        let ratios = rounds.iter().filter_map(|round| {
            Some(in_round(round, *case)?.cpu_micros / in_round(round, nginx)?.cpu_micros)
        });
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            case.name(),
            of_each(&|figures| figures.cpu_micros, 1),
            spread(ratios.collect(), 2),
            of_each(&|figures| figures.requests_per_second, 0),
            of_each(&|figures| figures.p50_micros, 0),
            of_each(&|figures| figures.p99_micros, 0),
        );
    }
    text
}

/// Formats `median (least–most)`.
fn spread(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    let median = values[values.len() / 2];
    format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
}
