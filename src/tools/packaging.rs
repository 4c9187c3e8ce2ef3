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
    let script = String::from_utf8(script).expect("made of text");
    // clap_complete spells a name with a hyphen in two ways, so that bash completes no flag of a command
    // (clap-rs/clap#6421).
    script.replace("velt__subcmd__sidecar", "velt__sidecar")
}

/// Writes a manual page for the binary and one for each of its commands, such as `velt-sidecar-check.1`.
pub fn manual(folder: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Arguments::command(), folder)
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    fn assert_names_are_plain(command: &Command) {
        for argument in command.get_arguments() {
            for name in argument.get_value_names().unwrap_or_default() {
                // zsh would run what stands after the colon as a command.
                assert!(!name.contains(':'), "{name} of {}", command.get_name());
            }
        }
        command.get_subcommands().for_each(assert_names_are_plain);
    }

    #[test]
    fn bash_finds_the_flags_of_each_command() {
        let script = completions(CompletedShell::Bash);
        let lines: Vec<_> = script.lines().map(str::trim).collect();
        let commands =
            lines.iter().filter_map(|line| line.strip_prefix("cmd=\"")?.strip_suffix('"'));
        let commands: Vec<_> = commands.filter(|command| !command.is_empty()).collect();
        assert!(commands.len() > 10, "{script}");
        for command in commands {
            let flags = format!("{command})");
            assert!(lines.contains(&&*flags), "no case {flags}");
        }
    }

    #[test]
    fn names_of_values_have_no_colon() {
        let command = Arguments::command();
        assert!(command.get_subcommands().count() > 10);
        assert_names_are_plain(&command);
    }
}
