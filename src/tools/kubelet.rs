//! Commands that a kubelet runs in the sidecar's own container, where there is no shell and no curl: probes,
//! and the preStop hook.

use std::path::Path;
use std::process::ExitCode;

use crate::probe::{self, Probe, Unhealthy};
use ground::logging;
use server::config::{LoadError, Origin, admin_address};

use super::arguments::{DrainArguments, HealthArguments};
use super::{EX_CONFIG, EX_USAGE, calling, environment};

/// Asks the sidecar for its health.
pub fn health(file: Option<&Path>, arguments: HealthArguments) -> ExitCode {
    let probe = match arguments {
        HealthArguments { ready: true, .. } => Probe::Ready,
        HealthArguments { startup: true, .. } => Probe::Startup,
        _ => Probe::Live,
    };
    let url = match url(file, arguments.admin) {
        Ok(url) => url,
        Err(code) => return code,
    };
    match probe::ask(&url, probe) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ Unhealthy::Url(_)) => {
            eprintln!("velt-sidecar: {error}");
            EX_USAGE.into()
        }
        Err(error) => {
            eprintln!("velt-sidecar: not healthy: {}", logging::Chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Tells the sidecar to start its drain, and waits for the time in the arguments.
pub fn drain(file: Option<&Path>, arguments: DrainArguments) -> ExitCode {
    let DrainArguments { admin, port, wait } = arguments;
    let url = match url(file, admin) {
        Ok(url) => url,
        Err(code) => return code,
    };
    calling(&url, &port, async |client| {
        client.drain().await?;
        tokio::time::sleep(wait).await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Returns the URL of the admin port: `named`, else the URL by the configuration.
pub fn url(file: Option<&Path>, named: Option<String>) -> Result<String, ExitCode> {
    if let Some(url) = named {
        return Ok(url);
    }
    let (name, text) = Origin::new(file, environment()).text();
    match text {
        Ok(text) => Ok(probe::url_of(admin_address(&text, &environment()))),
        Err(error) => {
            let error = LoadError::Unreadable { file: name.into(), source: error };
            eprintln!("velt-sidecar: {error}");
            Err(EX_CONFIG.into())
        }
    }
}
