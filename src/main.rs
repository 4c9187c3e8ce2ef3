//! The command line: reads arguments and signals, prints, exits. No logic.

#![forbid(unsafe_code)]

#[path = "main/arguments.rs"]
mod arguments;
#[path = "main/kubelet.rs"]
mod kubelet;

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use mimalloc::MiMalloc;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;
use velt_sidecar::admin::client::{Client, ClientError};
use velt_sidecar::app::{self, App, StartError};
use velt_sidecar::config::{ADMIN_TOKEN_VARIABLE, Config, Origin};
use velt_sidecar::demo::Demo;
use velt_sidecar::doctor::{Canary, Examination, Tolerated};
use velt_sidecar::emulator::{self, Behaviour, Credentials, Emulator};
use velt_sidecar::explain::{self, Asked, Flags, Report, Unclear, Unexplained};
use velt_sidecar::listener::{Phase, raise_descriptor_limit, spare_descriptors};
use velt_sidecar::logging::{self, Log};

use self::arguments::{
    AdminArguments, AdminCall, AdminPort, Arguments, Command, DoctorArguments, EmulatorArguments,
    ExplainArguments, Explainer,
};

/// sysexits.h: the command line was wrong.
const EX_USAGE: u8 = 64;
/// sysexits.h: something that is needed is not available.
const EX_UNAVAILABLE: u8 = 69;
/// sysexits.h: not allowed.
const EX_NOPERM: u8 = 77;
/// sysexits.h: the configuration was wrong.
const EX_CONFIG: u8 = 78;

/// Time that the process waits at its end for the reader of the log.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// A request allocates some twenty times, in sizes that come and go by the thousand: with this allocator a
/// request costs 5 % less CPU than with glibc's (docs/performance.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Printing fails only if no reader is left.
            let _ = error.print();
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
        Command::Check => with_config(file, |config| {
            if let Err(error) = app::check(&config) {
                return not_started(&error);
            }
            print!("{}", config.describe());
            ExitCode::SUCCESS
        }),
        Command::Doctor(arguments) => doctor(arguments, file),
        Command::Demo { listen } => demo(listen),
        Command::Emulator(arguments) => emulator(arguments),
        Command::Explain(arguments) => explain(file, arguments),
        Command::Admin(arguments) => admin(file, arguments),
        Command::Health(arguments) => kubelet::health(file, arguments),
        Command::Drain(arguments) => kubelet::drain(file, arguments),
        Command::Version => {
            println!("velt-sidecar {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

fn with_config(file: Option<&Path>, go_on: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Origin::new(file, environment()).load() {
        Ok(config) => go_on(config),
        Err(error) => {
            eprintln!("velt-sidecar: {error}");
            EX_CONFIG.into()
        }
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
    print!("{}", if json { report.json(strict) } else { report.text() });
    report.exit_code(strict).into()
}

fn run(config: Config) -> ExitCode {
    let log = logging::init(&config.log);
    let code = run_logging(config, &log);
    log.flush(FLUSH_PATIENCE);
    code
}

fn run_logging(mut config: Config, log: &Log) -> ExitCode {
    let spare = spare_descriptors(config.workers.count());
    config.listen = config.listen.within_descriptors(raise_descriptor_limit(), spare);
    runtime().block_on(async {
        let (first, second) = signals();
        // The process listens for SIGHUP from here on: without a listener, SIGHUP would end the process.
        let mut hangup = signal(SignalKind::hangup()).expect("signals can be handled");
        let app = match App::bind_with(config, log.clone()) {
            Ok(app) => app,
            Err(error) => {
                // Writes the queued lines first, since they led to the error.
                log.flush(FLUSH_PATIENCE);
                return not_started(&error);
            }
        };
        let trigger = app.reload_trigger();
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                trigger.look().await;
            }
        });
        let addresses = app.addresses();
        info!(traffic = %addresses.traffic, admin = %addresses.admin, "velt-sidecar is listening");
        run_until(second, app.run(first)).await;
        ExitCode::SUCCESS
    })
}

fn explain(file: Option<&Path>, arguments: ExplainArguments) -> ExitCode {
    let (whom, line) = arguments.explainer_and_line();
    let ExplainArguments { json, port, .. } = arguments;
    let asked = Asked::from_flags(Flags {
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
    });
    let (asked, notes) = match asked {
        Ok(asked) => asked,
        Err(error) => return unclear(&error),
    };
    let print = |mut report: Report| {
        report.notes = notes;
        if json {
            println!("{}", serde_json::to_string_pretty(&report).expect("string keys"));
        } else {
            print!("{report}");
        }
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
    with_config(file, |config| {
        let explained = runtime().block_on(explain::by_config(&config, asked));
        match explained {
            Ok(report) => print(report),
            Err(Unexplained::Unclear(error)) => unclear(&error),
            Err(Unexplained::Tls(error)) => report(&error),
        }
    })
}

fn unclear(error: &Unclear) -> ExitCode {
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
            AdminCall::Invalidate { user, .. } => client.invalidate(user.as_deref()).await,
            AdminCall::LogLevel { level } => client.log_level(level.as_deref()).await,
            AdminCall::Config => client.config().await,
            AdminCall::Refusals => client.refusals().await,
        };
        print!("{}", answer?);
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

fn demo(listen: SocketAddr) -> ExitCode {
    runtime().block_on(async {
        let (first, second) = signals();
        let demo = match Demo::bind(listen) {
            Ok(demo) => demo,
            Err(error) => return report(&error),
        };
        let at = demo.addresses();
        println!(
            "velt-sidecar demo: open http://{}/\n\n  \
             the page, behind a stand-in for a login proxy   http://{}/\n  \
             the sidecar                                     http://{}/\n  \
             the sidecar's metrics and health                http://{}/metrics\n  \
             the app, which knows nothing of Velt            http://{}/\n  \
             the emulator, in the place of Velt              http://{}/emulator/journal\n\n\
             Try: curl -i -H 'X-Forwarded-User: ada' http://{}/api/me\n     \
             curl -X POST -H 'X-Forwarded-User: ada' http://{}/api/velt/token\n\n\
             Ctrl-C ends it.",
            at.front, at.front, at.sidecar, at.admin, at.app, at.emulator, at.sidecar, at.sidecar
        );
        run_until(second, demo.run(first)).await;
        ExitCode::SUCCESS
    })
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

/// Makes a runtime of one thread. Each thread that serves has a runtime of its own: see `app`.
fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("the system has threads and descriptors left at start")
}

/// Returns two futures, which resolve with the first and with the second signal to end. The process listens
/// for the signals from here on, not from the first wait: a signal in between would kill the process, or be
/// lost.
fn signals() -> (impl Future<Output = ()>, impl Future<Output = ()>) {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be handled");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be handled");
    let (counter, count) = watch::channel(0_u32);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            counter.send_modify(|count| *count += 1);
        }
    });
    let nth = |n| {
        let mut count = count.clone();
        async move {
            // The counter lives as long as the runtime.
            let _ = count.wait_for(|count| *count >= n).await;
        }
    };
    (nth(1), nth(2))
}

/// Runs until `running` ends or the second signal comes.
async fn run_until(second: impl Future<Output = ()>, running: impl Future<Output = ()>) {
    tokio::select! {
        () = running => {}
        () = second => {}
    }
}

fn not_started(error: &StartError) -> ExitCode {
    let code = report(error);
    match error {
        StartError::Bind { .. } | StartError::Threads(_) | StartError::AccessLog(_) => code,
        // The configuration names something that can't be used.
        StartError::Tls(_)
        | StartError::Velt(_)
        | StartError::Identity(_)
        | StartError::Tracing(_) => EX_CONFIG.into(),
    }
}

fn report(error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("velt-sidecar: {}", logging::Chain(error));
    EX_UNAVAILABLE.into()
}
