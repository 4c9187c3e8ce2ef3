//! Files that go with the binary and are made from the command line's own description: completions for shells, and
//! manual pages.

use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::arguments::{Arguments, CompletedShell};

/// Name under which a shell completes the command.
const NAME: &str = "velt-sidecar";

/// Returns the script by which a shell completes commands and flags.
pub fn completions(shell: CompletedShell) -> String {
    let shell = match shell {
        CompletedShell::Bash => Shell::Bash,
        CompletedShell::Fish => Shell::Fish,
        CompletedShell::Zsh => Shell::Zsh,
    };
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), NAME, &mut script);
    String::from_utf8(script).expect("made of text")
}

/// Writes a manual page for the binary and one for each of its commands, such as `velt-sidecar-check.1`.
pub fn manual(folder: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Arguments::command(), folder)
}
