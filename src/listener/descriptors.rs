//! How many files the system lets this process open: each client is one, and so is the connection
//! to the app that its request takes.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::debug;

/// Raises the limit on open files as far as this process may, and says what it is then.
///
/// The soft limit is small for programs that use `select(2)`, which this one doesn't.
pub fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            debug!(%error, "the limit on open files stays as it is");
            current
        }
    };
    limit.unwrap_or(u64::MAX)
}
