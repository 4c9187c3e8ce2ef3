//! The binary: its allocator, and its first line. The command line is in `src/tools`, the request path in
//! `src/sidecar`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request allocates some twenty times. With mimalloc it costs 5 % less CPU than with glibc's allocator
/// (docs/performance.md, docs/decisions/04-mimalloc-2.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    tools::main()
}
