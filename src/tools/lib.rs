//! The command line: each command reads its arguments, calls one module, prints the result and returns an
//! exit code.
//!
//! The commands `run` and `demo` start a sidecar, by [`server::Server`]; the others do not. No crate of the request
//! path uses this one (`request_path_uses_no_tools` in `tests/it/architecture.rs`).

#![forbid(unsafe_code)]

pub mod admin_client;
mod arguments;
mod caution;
mod check;
pub mod demo;
pub mod doctor;
pub mod emulator;
pub mod explain;
mod kubelet;
mod mesh;
pub mod probe;
mod run;
pub mod service_manager;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::process::{ExitCode, exit};
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use ground::logging;
use hop::listener::Phase;
use server::config::{ADMIN_TOKEN_VARIABLE, Config, Origin, Secrets, Unchecked, schema};
use server::explain::{QuestionError, Report};
use token::announce::Subject;
use tokio::sync::watch;

use self::admin_client::{Client, ClientError};
use self::arguments::{
    AdminArguments, AdminCall, AdminPort, Arguments, Command, DemoArguments, DoctorArguments,
    EmulatorArguments, ExplainArguments, Explainer,
};
use self::demo::{Demo, OwnApp};
use self::doctor::{Canary, Examination, Tolerated};
use self::emulator::{Behaviour, Credentials, Emulator};
use self::explain::{Flags, Unexplained};
use self::run::{report, run, run_until, runtime, signals};

/// sysexits.h: the command line was wrong.
const EX_USAGE: u8 = 64;
/// sysexits.h: something that is needed is not available.
const EX_UNAVAILABLE: u8 = 69;
/// sysexits.h: an error while the result was written.
const EX_IOERR: u8 = 74;
/// sysexits.h: not allowed.
const EX_NOPERM: u8 = 77;
/// sysexits.h: the configuration was wrong.
const EX_CONFIG: u8 = 78;

/// Returns the description of the command line, from which completions and manual pages are made. The binary has
/// neither: they would make it 214 KB larger.
pub fn command_line() -> clap::Command {
    Arguments::command()
}

/// Runs the command of the command line, and returns the exit code of the process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Printing fails only if no reader is left.
            let _ = error.print();
            if let Some(tip) = arguments::tip(&error) {
                eprintln!("    -> {tip}");
            }
            return if error.use_stderr() { EX_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let file = arguments.config.as_deref();
    if let Some(refused) = arguments.refused() {
        let _ = refused.print();
        return EX_USAGE.into();
    }
    match arguments.command.unwrap_or(Command::Run) {
        Command::Run => with_config(file, run),
        Command::Check(arguments) => check::check(file, &arguments),
        Command::Schema => {
            print_out(&schema());
            ExitCode::SUCCESS
        }
        Command::Doctor(arguments) => doctor(arguments, file),
        Command::Demo(arguments) => demo(arguments),
        Command::Emulator(arguments) => emulator(arguments),
        Command::Explain(arguments) => explain(file, arguments),
        Command::Admin(arguments) => admin(file, arguments),
        Command::Health(arguments) => kubelet::health(file, arguments),
        Command::Drain(arguments) => kubelet::drain(file, arguments),
        Command::Version => {
            print_out(concat!("velt-sidecar ", env!("CARGO_PKG_VERSION"), "\n"));
            ExitCode::SUCCESS
        }
    }
}

fn with_config(file: Option<&Path>, go_on: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    with_origin(&Origin::new(file, environment()), go_on)
}

fn with_origin(origin: &Origin, go_on: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match origin.load() {
        Ok(config) => go_on(config),
        Err(error) => {
            eprintln!("velt-sidecar: {error}");
            EX_CONFIG.into()
        }
    }
}

/// Writes the result of a command to standard output. A reader that has left, such as `head`, wants no more of it. If the
/// text can't be written for another reason, such as a full disk, the process ends.
fn print_out(text: &str) {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("velt-sidecar: can't write the result to standard output: {error}");
            exit(EX_IOERR.into());
        }
        _ => {}
    }
}

fn environment() -> BTreeMap<String, String> {
    // Read variables that are not text too, so that the configuration can complain of them.
    let text = |text: OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

fn doctor(arguments: DoctorArguments, file: Option<&Path>) -> ExitCode {
    let DoctorArguments { json, user, organization, no_mint, init, timeout, strict } = arguments;
    let (file, text) = Origin::new(file, environment()).text_for_start();
    let examination = Examination {
        file,
        text,
        environment: environment(),
        canary: (!no_mint && !init).then_some(Canary { user, organization }),
        tolerated: match (init, no_mint) {
            (true, _) => Tolerated::Everything,
            (false, true) => Tolerated::Velt,
            (false, false) => Tolerated::Nothing,
        },
        patience: timeout,
        root: "/".into(),
    };
    let runtime = runtime();
    let report = runtime.block_on(examination.run());
    // The process does not wait for the thread of a look-up or of a file that hangs.
    runtime.shutdown_background();
    print_out(&if json { report.json(strict) } else { report.text() });
    report.exit_code(strict).into()
}

fn explain(file: Option<&Path>, arguments: ExplainArguments) -> ExitCode {
    let (whom, line) = arguments.explainer_and_line();
    let ExplainArguments { json, port, without_secrets, .. } = arguments;
    let flags = Flags {
        headers: arguments.header,
        peer: arguments.peer,
        peer_names: arguments.peer_names,
        http2: arguments.http2,
        data: arguments.data,
        response_headers: arguments.response_header,
        response_status: arguments.response_status,
        line,
        curl_words: arguments.words,
        curl_line: arguments.curl,
    };
    let (asked, notes) = match flags.into_asked() {
        Ok(asked) => asked,
        Err(error) => return invalid_question(&error),
    };
    let print = |mut report: Report| {
        report.notes = notes;
        let json = json.then(|| serde_json::to_string_pretty(&report).expect("string keys") + "\n");
        print_out(&json.unwrap_or_else(|| report.to_string()));
        ExitCode::SUCCESS
    };
    let url = match whom {
        Explainer::Configuration => None,
        Explainer::Configured => Some(kubelet::url(file, None)),
        Explainer::At(url) => Some(Ok(url)),
    };
    if let Some(url) = url {
        let url = match url {
            Ok(url) => url,
            Err(code) => return code,
        };
        return calling(&url, &port, async |client| client.explain(&asked).await.map(print));
    }
    let secrets = if without_secrets { Secrets::MayBeAbsent } else { Secrets::Needed };
    let origin = Origin::new(file, environment()).with_secrets(secrets);
    with_origin(&origin, |config| {
        // A stand-in fits no request: without the note, the verdict would say that the caller's secret is wrong.
        let judged = |key: &str| key.starts_with("identity.") || key.starts_with("logout.");
        for Unchecked { key, place } in config.unchecked.iter().filter(|it| judged(&it.key)) {
            eprintln!(
                "note: {key}: {place} is not here, and a stand-in counts: a request with the right secret or \
                 signature is explained as one with a wrong one"
            );
        }
        let explained = runtime().block_on(explain::by_config(&config, asked));
        match explained {
            Ok(report) => print(report),
            Err(Unexplained::Question(error)) => invalid_question(&error),
            Err(Unexplained::Tls(error)) => report(&error),
            Err(Unexplained::Resolver(error)) => report(&error),
        }
    })
}

fn invalid_question(error: &QuestionError) -> ExitCode {
    eprintln!("velt-sidecar: {error}");
    EX_USAGE.into()
}

fn admin(file: Option<&Path>, arguments: AdminArguments) -> ExitCode {
    let AdminArguments { call, admin, port } = arguments;
    let url = match kubelet::url(file, admin) {
        Ok(url) => url,
        Err(code) => return code,
    };
    calling(&url, &port, async |client| {
        let answer = match &call {
            AdminCall::Invalidate { user: Some(user), .. } => {
                client.invalidate(&Subject::User(user.as_str().into())).await
            }
            AdminCall::Invalidate { organization: Some(organization), .. } => {
                client.invalidate(&Subject::Organization(organization.as_str().into())).await
            }
            AdminCall::Invalidate { .. } => client.invalidate(&Subject::Everything).await,
            AdminCall::LogLevel { level } => client.log_level(level.as_deref()).await,
            AdminCall::Config => client.config().await,
            AdminCall::Refusals => client.refusals().await,
        };
        print_out(&answer?);
        Ok(ExitCode::SUCCESS)
    })
}

/// Makes a call to the admin port at `url`.
fn calling(
    url: &str,
    port: &AdminPort,
    call: impl AsyncFnOnce(&Client) -> Result<ExitCode, ClientError>,
) -> ExitCode {
    let variable = std::env::var(ADMIN_TOKEN_VARIABLE).ok();
    let calling = async {
        let client = Client::new(url, port.admin_token_file.as_deref(), variable)?;
        call(&client).await
    };
    let code = runtime().block_on(calling);
    code.unwrap_or_else(|error| {
        eprintln!("velt-sidecar: {}", logging::Chain(&error));
        match error {
            ClientError::Denied(_) => EX_NOPERM,
            ClientError::Unreachable { .. } | ClientError::Odd(_) | ClientError::Tls(_) => {
                EX_UNAVAILABLE
            }
            _ => EX_USAGE,
        }
        .into()
    })
}

fn demo(arguments: DemoArguments) -> ExitCode {
    let DemoArguments { listen, app } = arguments;
    runtime().block_on(async {
        let (first, second) = signals();
        let demo = match Demo::bind_around(listen, app.clone()) {
            Ok(demo) => demo,
            Err(error) => return report(&error),
        };
        print!("{}", demo.introduction());
        if let Some(app) = app {
            tokio::spawn(tell_when_up(app));
        }
        let told = async {
            first.await;
            println!("The demo ends. A second Ctrl-C ends it at once.");
        };
        run_until(second, demo.run(told)).await;
        ExitCode::SUCCESS
    })
}

/// Tells the reader that nothing answers at the address of their app, and when that has changed.
async fn tell_when_up(app: OwnApp) {
    if app.is_up().await {
        return;
    }
    println!("\nNothing answers at http://{app} yet. Start your app: the demo goes on trying.");
    app.until_up().await;
    println!("Your app at http://{app} answers.");
}

fn emulator(arguments: EmulatorArguments) -> ExitCode {
    let EmulatorArguments { listen, api_key, auth_token, token_life, latency, failure } = arguments;
    let credentials = api_key.zip(auth_token);
    let settings = emulator::Settings {
        address: listen,
        credentials: credentials.map(|(api_key, auth_token)| Credentials { api_key, auth_token }),
        token_life: Duration::from_secs(token_life),
        behaviour: Behaviour { failure, latency_ms: latency },
    };
    runtime().block_on(async {
        let (first, _) = signals();
        let emulator = match Emulator::bind(settings) {
            Ok(emulator) => emulator,
            Err(error) => {
                eprintln!("velt-sidecar: can't listen on {listen}: {error}; choose --listen");
                return EX_UNAVAILABLE.into();
            }
        };
        println!(
            "Velt emulator: velt.endpoint = \"http://{}/\" (legacy), \".../v1/auth/token/get\" (v1) \
             or \".../v2/auth/generate_token\" (v2)",
            emulator.address()
        );
        let (phase, watched) = watch::channel(Phase::Serving);
        let running = tokio::spawn(emulator.run(watched));
        first.await;
        phase.send_replace(Phase::Stopped);
        running.abort();
        ExitCode::SUCCESS
    })
}

/// Returns the URL of a command line for a message, left out if a password may be in the URL.
fn shown_url(url: &str) -> String {
    if url.contains(['@', '?']) {
        "(not repeated here, since a password may be in it)".into()
    } else {
        format!("{url:?}")
    }
}
