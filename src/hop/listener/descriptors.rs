//! Limit on open files: each client takes one, and the connection to the app for its request takes
//! another.
//!
//! The kernel compares a new descriptor's number with the soft limit. So the soft limit stays a little
//! below the hard one, and the numbers between the two are a reserve: only [`beyond_limit`] can take a
//! descriptor there, and once that descriptor is closed, only `beyond_limit` can take its number again.

use std::io;
use std::sync::{Mutex, PoisonError};

use ground::platform::MOST_OPEN_FILES;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::debug;

/// Descriptors that only the admin port can take; an eighth of the hard limit if that limit is small.
pub const RESERVED_DESCRIPTORS: u64 = 64;
const LARGEST_SHARE: u64 = 8;

/// Lock held while the soft limit is raised, because the limit belongs to the whole process.
static RAISED: Mutex<()> = Mutex::new(());

/// Raises the soft limit as far as this process may, up to the reserve, and returns the new soft limit.
///
/// The soft limit is small for programs that use `select(2)`, which this one doesn't.
pub fn raise_descriptor_limit() -> u64 {
    let _raised = RAISED.lock().unwrap_or_else(PoisonError::into_inner);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.or(MOST_OPEN_FILES);
    let usable = most.map(|most| most - RESERVED_DESCRIPTORS.min(most / LARGEST_SHARE));
    let limit = match setrlimit(Resource::Nofile, Rlimit { current: usable, maximum }) {
        Ok(()) => usable,
        Err(error) => {
            debug!(%error, "the limit on open files stays as it is");
            current
        }
    };
    limit.unwrap_or(u64::MAX)
}

/// Runs `open`, which may open one file more than the limit allows. `open` must not block: other
/// threads can take descriptors of the reserve meanwhile.
pub(super) fn beyond_limit<T>(open: impl FnOnce() -> T) -> T {
    let _raised = RAISED.lock().unwrap_or_else(PoisonError::into_inner);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let opened = open();
    if raised.is_ok() {
        // The same system call has just worked with the higher limit.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
    opened
}

/// Whether `error` says that this process has no descriptor left.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::MFILE.raw_os_error())
}
