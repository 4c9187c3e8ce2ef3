//! The command line: reads arguments and signals, prints, exits. No logic.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;
use velt_sidecar::app::{self, App, StartError};
use velt_sidecar::config::{Config, Workers};
use velt_sidecar::demo::Demo;
use velt_sidecar::emulator::{self, Behaviour, Credentials, Emulator, Failure};
use velt_sidecar::listener::{Phase, raise_descriptor_limit};
use velt_sidecar::logging;

/// sysexits.h: the command line was wrong.
const EX_USAGE: u8 = 64;
/// sysexits.h: something that is needed is not available.
const EX_UNAVAILABLE: u8 = 69;
/// sysexits.h: the configuration was wrong.
const EX_CONFIG: u8 = 78;

/// A reverse-proxy auth sidecar that mints, caches and delivers Velt JWTs.
#[derive(Parser)]
#[command(
    name = "velt-sidecar",
    version,
    after_help = "Exit codes: 64 usage, 69 an address is in \
    use, 78 configuration or a file it names. Documentation: README.md"
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file [default: sidecar.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the sidecar (the default)
    Run,
    /// Check the configuration and print what is in force, secrets redacted
    Check,
    /// Run the whole thing on loopback with an app and an emulator of Velt, and show it on a page
    Demo {
        /// Where the page is
        #[arg(long, default_value = "127.0.0.1:4180")]
        listen: SocketAddr,
    },
    /// Emulate Velt's token APIs (legacy, v1, v2), for tests without an account
    Emulator(EmulatorArguments),
    /// Print the version
    Version,
}

#[derive(clap::Args)]
struct EmulatorArguments {
    #[arg(long, default_value = "127.0.0.1:4190")]
    listen: SocketAddr,
    /// Accept only this API key [default: any]
    #[arg(long, requires = "auth_token")]
    api_key: Option<String>,
    /// Accept only this auth token [default: any]
    #[arg(long, requires = "api_key")]
    auth_token: Option<String>,
    /// Seconds from a token's iat to its exp
    #[arg(long, default_value_t = 172_800, value_name = "SECONDS")]
    token_life: u64,
    /// Milliseconds that every mint takes
    #[arg(long, default_value_t = 0, value_name = "MILLISECONDS")]
    latency: u64,
    /// Let every mint fail like this
    #[arg(long)]
    failure: Option<Failure>,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Only fails if nobody reads it.
            let _ = error.print();
            return if error.use_stderr() { EX_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let file = arguments.config.as_deref();
    match arguments.command.unwrap_or(Command::Run) {
        Command::Run => with_config(file, run),
        Command::Check => with_config(file, |config| {
            if let Err(error) = app::check(&config) {
                return not_started(&error);
            }
            print!("{}", config.describe());
            ExitCode::SUCCESS
        }),
        Command::Demo { listen } => demo(listen),
        Command::Emulator(arguments) => emulator(arguments),
        Command::Version => {
            println!("velt-sidecar {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

fn with_config(file: Option<&Path>, go_on: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    let name = file.unwrap_or(Path::new("sidecar.toml"));
    let text = match std::fs::read_to_string(name) {
        Ok(text) => text,
        // Everything can be set by environment, so without being asked for the file may be absent.
        Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            String::new()
        }
        Err(error) => {
            eprintln!("velt-sidecar: {} can't be read: {error}", name.display());
            return EX_CONFIG.into();
        }
    };
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match Config::parse(&name.display().to_string(), &text, &environment) {
        Ok(config) => go_on(config),
        Err(error) => {
            eprintln!("velt-sidecar: {error}");
            EX_CONFIG.into()
        }
    }
}

fn run(mut config: Config) -> ExitCode {
    logging::init(&config.log);
    config.listen = config.listen.within_descriptors(raise_descriptor_limit());
    runtime(config.workers).block_on(async {
        let (first, second) = signals();
        let app = match App::bind(config).await {
            Ok(app) => app,
            Err(error) => return not_started(&error),
        };
        let addresses = app.addresses();
        info!(traffic = %addresses.traffic, admin = %addresses.admin, "velt-sidecar is listening");
        run_until(second, app.run(first)).await;
        ExitCode::SUCCESS
    })
}

fn demo(listen: SocketAddr) -> ExitCode {
    runtime(Workers::Auto).block_on(async {
        let (first, second) = signals();
        let demo = match Demo::bind(listen).await {
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
    runtime(Workers::Auto).block_on(async {
        let (first, _) = signals();
        let emulator = match Emulator::bind(settings).await {
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

/// One worker needs no work stealing; more share their tasks.
fn runtime(workers: Workers) -> Runtime {
    let count = match workers {
        Workers::Exactly(count) => count,
        Workers::Auto => std::thread::available_parallelism().map_or(1, usize::from).min(2),
    };
    let runtime = match count {
        1 => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().worker_threads(count).enable_all().build(),
    };
    runtime.expect("the system has threads and descriptors left at start")
}

/// Resolve with the first and with the second signal to end. They are listened for from here on
/// and not from the first wait: one that came in between would kill the process, or be lost.
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

/// Runs to its end, or to the second signal, whichever comes first.
async fn run_until(second: impl Future<Output = ()>, running: impl Future<Output = ()>) {
    tokio::select! {
        () = running => {}
        () = second => {}
    }
}

fn not_started(error: &StartError) -> ExitCode {
    let code = report(error);
    match error {
        StartError::Bind { .. } | StartError::AccessLog(_) => code,
        // What the configuration names will not do.
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
