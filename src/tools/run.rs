//! The command `run`: log, server, signals, and the exit code of a server that did not start.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ground::logging::{self, Log};
use hop::listener::{raise_descriptor_limit, spare_descriptors};
use server::config::Config;
use server::{Server, StartError};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use super::mesh;
use super::service_manager::{SOCKET_VARIABLE, ServiceManager};
use super::{EX_CONFIG, EX_UNAVAILABLE};

/// Time that the process waits at its end for the reader of the log.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the server until the second signal, or until it has drained after the first.
pub fn run(config: Config) -> ExitCode {
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
        let is_by_address = mesh::is_by_address(&config);
        let server = match Server::bind_with(config, log.clone()) {
            Ok(server) => server,
            Err(error) => {
                // Writes the queued lines first, since they led to the error.
                log.flush(FLUSH_PATIENCE);
                return not_started(&error);
            }
        };
        let addresses = server.addresses();
        info!(traffic = %addresses.traffic, admin = %addresses.admin, "velt-sidecar is listening");
        let manager = std::env::var_os(SOCKET_VARIABLE);
        let manager = Arc::new(ServiceManager::at(manager.as_deref()));
        if is_by_address {
            tokio::spawn(mesh::warn_when_found());
        }
        // Both sockets queue connections from here on, and the server is ready before it takes the first.
        manager.ready(addresses);
        let (trigger, told) = (server.reload_trigger(), Arc::clone(&manager));
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                told.during_reload(trigger.reload()).await;
            }
        });
        let first = async {
            first.await;
            manager.stopping();
        };
        run_until(second, server.run(first)).await;
        ExitCode::SUCCESS
    })
}

/// Makes a runtime of one thread. Each thread that serves has a runtime of its own: see [`server`].
pub fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("the system has threads and descriptors left at start")
}

/// Returns two futures, which resolve with the first and with the second signal to end. The process listens
/// for the signals from here on, not from the first wait: a signal in between would kill the process, or be
/// lost.
pub fn signals() -> (impl Future<Output = ()>, impl Future<Output = ()>) {
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
pub async fn run_until(second: impl Future<Output = ()>, running: impl Future<Output = ()>) {
    tokio::select! {
        () = running => {}
        () = second => {}
    }
}

/// Prints why the server did not start, and returns the exit code: 78 if the configuration names a thing that
/// can't be used.
pub fn not_started(error: &StartError) -> ExitCode {
    let code = report(error);
    match error {
        StartError::Bind { .. } | StartError::Threads(_) | StartError::AccessLog(_) => code,
        // The configuration names something that can't be used.
        StartError::Tls(_)
        | StartError::Velt(_)
        | StartError::Identity(_)
        | StartError::Shared(_)
        | StartError::Resolver(_)
        | StartError::Tracing(_) => EX_CONFIG.into(),
    }
}

/// Prints an error and its causes, and returns the exit code 69.
pub fn report(error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("velt-sidecar: {}", logging::Chain(error));
    EX_UNAVAILABLE.into()
}
