//! Completions and manual pages in `deploy/`, which packages take along: they are those of the command line.
//!
//! `INSTA_UPDATE=always cargo test --locked --test it packaging` writes them anew, as it does with snapshots.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use clap::Command;
use clap_complete::{Shell, generate};

/// Files of a folder, by their names.
type Files = BTreeMap<String, String>;

fn read(folder: &Path) -> Files {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let named = paths.map(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
        (name.to_owned(), fs::read_to_string(&path).expect("text"))
    });
    named.collect()
}

/// Asserts that the folder has these files and no others, or writes them if it is told to.
fn assert_current(folder: &str, files: &Files) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(folder);
    if std::env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always") {
        // An error only says that there is no such folder yet.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a disk");
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("a disk");
        }
    }
    let kept = read(&folder);
    assert_eq!(
        kept.keys().collect::<Vec<_>>(),
        files.keys().collect::<Vec<_>>(),
        "{}",
        folder.display()
    );
    for (name, text) in files {
        assert!(
            kept[name] == *text,
            "{name} is not of this command line: see tests/it/packaging.rs"
        );
    }
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    generate(shell, &mut tools::command_line(), "velt-sidecar", &mut script);
    let script = String::from_utf8(script).expect("made of text");
    // clap_complete spells a name with a hyphen in two ways, so that bash completes no flag of a command
    // (clap-rs/clap#6421).
    script.replace("velt__subcmd__sidecar", "velt__sidecar")
}

#[test]
fn completions_are_those_of_the_command_line() {
    let shells = [("bash", Shell::Bash), ("fish", Shell::Fish), ("zsh", Shell::Zsh)];
    let named = shells.map(|(name, shell)| (format!("velt-sidecar.{name}"), completions(shell)));
    assert_current("completions", &named.into());
}

#[test]
fn manual_pages_are_those_of_the_command_line() {
    let folder = tempfile::tempdir().expect("a folder");
    clap_mangen::generate_to(tools::command_line(), folder.path()).expect("a disk");
    let pages = read(folder.path());
    assert!(pages.contains_key("velt-sidecar-admin-invalidate.1"), "a page for each command");
    assert_current("man", &pages);
}

#[test]
fn bash_finds_the_flags_of_each_command() {
    let script = completions(Shell::Bash);
    let lines: Vec<_> = script.lines().map(str::trim).collect();
    let commands = lines.iter().filter_map(|line| line.strip_prefix("cmd=\"")?.strip_suffix('"'));
    let commands: Vec<_> = commands.filter(|command| !command.is_empty()).collect();
    assert!(commands.len() > 10, "{script}");
    for command in commands {
        let flags = format!("{command})");
        assert!(lines.contains(&&*flags), "no case {flags}");
    }
}

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
fn names_of_values_have_no_colon() {
    let command = tools::command_line();
    assert!(command.get_subcommands().count() > 10);
    assert_names_are_plain(&command);
}
