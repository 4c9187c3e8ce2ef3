//! Transcripts of documents: `console` blocks, whose commands are run in a shell, in a folder of their own, and have to
//! print what the page shows.
//!
//! A section of a page is one session. Its `toml` blocks become `sidecar.toml`, and its `sh` blocks are run without
//! a look at what they print. Blocks of the section "Set-up" belong to each later section of the page.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Programs that a session may call besides the sidecar, the shell and coreutils. `tests/run` installs them.
const OTHER_PROGRAMS: [&str; 4] = ["curl", "grep", "openssl", "redis-server"];

/// Programs that no test may call from a page: they change machines of others, or need an account.
const FORBIDDEN: [&str; 13] = [
    "apt-get",
    "aws",
    "az",
    "cargo",
    "docker",
    "fly",
    "gcloud",
    "helm",
    "kubectl",
    "nomad",
    "npm",
    "sudo",
    "systemctl",
];

/// Seconds that a session may take.
const PATIENCE: &str = "300";

/// Line before the output of each command.
const MARK: &str = "-- the next command --";

/// Servers of a section that have to be up before its transcript begins, by the ports on the page; and a shell
/// command that has to succeed too. A reader is slower than the script.
const READY: [(&str, &str, &[u16], &str); 9] = [
    ("docs/demo.md", "Two cases without the demo", &[4191, 9901], "true"),
    ("docs/operations/audit.md", "Find the lines of one user", &[4191, 9901], "true"),
    ("docs/operations/no-token.md", "Velt refused", &[4191, 9901], "true"),
    ("docs/operations/reload.md", "See it", &[9901], "true"),
    ("docs/operations/rotate.md", "Try it", &[4191, 9901], "true"),
    ("docs/operations/shut-down.md", "See it", &[9901], "true"),
    ("docs/reference/doctor.md", "A good set-up", &[4191], "true"),
    ("docs/reference/doctor.md", "A broken set-up", &[4191], "true"),
    (
        "docs/shared.md",
        "Try it on your machine",
        &[4191, 6379, 9901, 9902],
        "for port in 9901 9902; do \
         curl -s 127.0.0.1:$port/metrics | grep -q '^velt_sidecar_shared_connected 1' || break; done",
    ),
];

/// Fenced block of a page, without the indent of a list.
#[derive(Clone)]
pub struct Block {
    pub language: String,
    pub text: String,
    /// Line of the page at which the block begins, from 1.
    pub line: usize,
}

/// Returns the fenced blocks of a text, with the heading of the section in which each stands.
pub fn blocks(text: &str) -> Vec<(String, Block)> {
    let (mut heading, mut blocks) = (String::new(), Vec::new());
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        if let Some(title) = line.strip_prefix("##") {
            title.trim_start_matches('#').trim().clone_into(&mut heading);
        }
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        let indent = line.len() - line.trim_start().len();
        let within = lines.by_ref().take_while(|(line, _)| line.trim_start() != "```");
        let text = within.flat_map(|(line, _)| [line.get(indent..).unwrap_or(""), "\n"]).collect();
        let block = Block { language: language.to_owned(), text, line: number };
        blocks.push((heading.clone(), block));
    }
    blocks
}

/// Section of a page that has a transcript.
pub struct Session {
    page: String,
    heading: String,
    blocks: Vec<Block>,
}

/// Heading of the section whose blocks belong to each later section.
const SET_UP: &str = "Set-up";

/// Returns the sections of a page that have transcripts.
pub fn sessions(page: &str, text: &str) -> Vec<Session> {
    let mut sections: Vec<(String, Vec<Block>)> = Vec::new();
    let mut set_up = Vec::new();
    for (heading, block) in blocks(text) {
        if heading == SET_UP {
            set_up.push(block);
            continue;
        }
        if sections.last().is_none_or(|(last, _)| *last != heading) {
            sections.push((heading, set_up.clone()));
        }
        sections.last_mut().expect("a section").1.push(block);
    }
    let is_shown = |block: &Block| block.language == "console";
    let sessions = sections.into_iter().filter(|(_, blocks)| blocks.iter().any(is_shown));
    sessions.map(|(heading, blocks)| Session { page: page.to_owned(), heading, blocks }).collect()
}

/// Splits a transcript into commands, each with the lines that the page shows for it.
fn commands(transcript: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    let mut goes_on = false;
    for line in transcript.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => {
                commands.push((format!("{command}\n"), String::new()));
                goes_on = command.ends_with('\\');
                continue;
            }
            None if commands.is_empty() => panic!("a transcript begins with a command: {line}"),
            None => {}
        }
        let (command, shown) = commands.last_mut().expect("a command");
        let part = if goes_on { command } else { shown };
        part.push_str(line);
        part.push('\n');
        goes_on = goes_on && line.ends_with('\\');
    }
    commands
}

/// Free ports in the place of those that pages name.
struct Ports {
    /// Text of a command or a file, and the text that takes its place.
    given: Vec<(&'static str, String)>,
    /// Ports whose last digit stays: 8080, 8081 and so on, and 9901, 9902 and so on.
    tens: [(&'static str, u16); 2],
}

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("it is bound").port()
}

/// Returns all digits but the last of three free ports that end in 0, 1 and 2.
fn free_tens() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut tens = std::iter::repeat_with(|| free_port() / 10);
    tens.find(|tens| (0..3).all(|last| is_free(tens * 10 + last))).expect("it goes on")
}

impl Ports {
    fn new(app: SocketAddr) -> Self {
        let velt = free_port();
        let emulator = format!("velt-sidecar emulator --listen 127.0.0.1:{velt}");
        let given = vec![
            ("velt-sidecar emulator", emulator),
            ("127.0.0.1:4191", format!("127.0.0.1:{velt}")),
            ("/127.0.0.1/4191", format!("/127.0.0.1/{velt}")),
            ("6379", free_port().to_string()),
            ("127.0.0.1:3000", app.to_string()),
        ];
        Self { given, tens: [("808", free_tens()), ("990", free_tens())] }
    }

    fn put_into(&self, text: &str) -> String {
        let text =
            self.given.iter().fold(text.to_owned(), |text, (page, own)| text.replace(page, own));
        self.tens.iter().fold(text, |text, (page, own)| {
            let rest = |sign: &str, text: &str| {
                text.replace(&format!(":{page}{sign}"), &format!(":{own}{sign}"))
                    .replace(&format!("/{page}{sign}"), &format!("/{own}{sign}"))
                    .replace(&format!(" {page}{sign}"), &format!(" {own}{sign}"))
            };
            ["0", "1", "2", "$"].iter().fold(text, |text, sign| rest(sign, &text))
        })
    }

    /// Puts the ports of the page back into what a command has printed.
    fn take_from(&self, printed: &str) -> String {
        let text = self
            .given
            .iter()
            .skip(1)
            .fold(printed.to_owned(), |text, (page, own)| text.replace(own, page));
        self.tens.iter().fold(text, |text, (page, own)| {
            (0..3).fold(text, |text, last| {
                text.replace(&format!(":{own}{last}"), &format!(":{page}{last}"))
            })
        })
    }
}

impl Session {
    pub fn name(&self) -> String {
        format!("{}, {:?}", self.page, self.heading)
    }

    fn calls(&self, programs: &[&str]) -> bool {
        let runs = |block: &&Block| ["console", "sh"].contains(&&*block.language);
        let lines = self.blocks.iter().filter(runs).flat_map(|block| match &*block.language {
            "sh" => block.text.lines().map(str::to_owned).collect::<Vec<_>>(),
            _ => commands(&block.text).into_iter().map(|(command, _)| command).collect(),
        });
        lines
            .flat_map(|line| {
                let is_part = |sign: char| sign.is_alphanumeric() || "_-".contains(sign);
                line.split(|sign| !is_part(sign)).map(str::to_owned).collect::<Vec<_>>()
            })
            .any(|word| programs.contains(&&*word))
    }

    /// Whether a program is needed that not every machine has.
    pub fn needs_other_programs(&self) -> bool {
        self.calls(&OTHER_PROGRAMS)
    }

    /// Whether a program is called that no test may call.
    pub fn is_forbidden(&self) -> bool {
        self.calls(&FORBIDDEN)
    }

    /// Returns the shell lines that wait until the servers of the section are up.
    fn ready(&self) -> Option<String> {
        let known = |row: &&(&str, &str, _, _)| (row.0, row.1) == (&*self.page, &*self.heading);
        let (.., ports, condition) = READY.iter().find(known)?;
        let listen = ports.iter().map(|port| format!("(: < /dev/tcp/127.0.0.1/{port}) && "));
        let look =
            format!("{{ {}{condition}; }} 2> /dev/null && break", listen.collect::<String>());
        Some(format!("for look in $(seq 300); do {look}; sleep 0.1; done"))
    }

    /// Returns the script, in which a mark stands before the output of each command.
    fn script(&self) -> String {
        let ready = self.ready();
        // What one replica tells another takes a moment to arrive.
        let pause = if ready.is_some() { "sleep 1" } else { "" };
        let ready = ready.unwrap_or_default();
        let mut lines = vec!["trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT".to_owned()];
        for Block { language, text, .. } in &self.blocks {
            match &**language {
                "toml" => lines.push(format!("cat > sidecar.toml <<'END'\n{text}END")),
                "sh" => lines.push(format!("{{\n{text}}} > /dev/null 2>&1\n{ready}")),
                "console" => {
                    let commands = commands(text).into_iter();
                    let marked = |(command, _)| format!("{pause}\necho '{MARK}'\n{command}");
                    lines.extend(commands.map(marked));
                }
                _ => {}
            }
        }
        lines.join("\n")
    }

    /// Runs the script in a folder of its own, and returns what it prints.
    fn run(&self, ports: &Ports, path: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let (script, place) = (folder.path().join("script"), folder.path().join("place"));
        fs::write(&script, ports.put_into(&self.script())).expect("a disk");
        fs::create_dir(&place).expect("a folder in it");
        let own = Path::new(env!("CARGO_BIN_EXE_velt-sidecar")).parent().expect("a folder");
        let mut bash = Command::new("timeout");
        bash.args(["--kill-after=5", PATIENCE, "bash"]).arg("-c");
        bash.arg(format!(". {} 2>&1", script.display())).current_dir(&place).env_clear();
        bash.env("PATH", format!("{}:{path}", own.display())).env("LC_ALL", "C.UTF-8");
        let ended = bash.stdin(Stdio::null()).output().expect("bash and coreutils are installed");
        ports.take_from(&String::from_utf8_lossy(&ended.stdout))
    }

    /// Runs the session and asserts that each command prints what the page shows. `app` answers where pages say
    /// 127.0.0.1:3000.
    pub fn assert_prints(&self, app: SocketAddr, path: &str) {
        let printed = self.run(&Ports::new(app), path);
        let mark = format!("{MARK}\n");
        let mut outputs = printed.split(&*mark).skip(1);
        let (mut shown, mut seen) = (Vec::new(), Vec::new());
        for block in self.blocks.iter().filter(|block| block.language == "console") {
            for (command, lines) in commands(&block.text) {
                let output = outputs.next().unwrap_or("(the session has ended before)\n");
                shown.extend([format!("$ {command}"), lines]);
                seen.extend([format!("$ {command}"), output.to_owned()]);
            }
        }
        let (shown, seen, name) = (shown.concat(), seen.concat(), self.name());
        let is_same = is_shown(&steady(&shown), &steady(&seen));
        assert!(is_same, "{name} prints\n{seen}\n(all: {printed})");
    }
}

/// Replaces what differs from run to run: times, and the hashes of tokens, by the order in which they first occur.
fn steady(text: &str) -> Vec<String> {
    let is_hash = |line: &str| line.len() == 8 && line.chars().all(|it| it.is_ascii_hexdigit());
    let mut known: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        if is_hash(line) {
            let number = known.iter().position(|hash| *hash == line).unwrap_or_else(|| {
                known.push(line);
                known.len() - 1
            });
            lines.push(format!("hash {number}"));
        } else {
            lines.push(without_times(line));
        }
    }
    lines
}

/// Replaces each number before a unit of time by `#`, and gives all times the same unit.
fn without_times(line: &str) -> String {
    let mut masked = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(|sign: char| sign.is_ascii_digit()) {
        let number = &rest[start..];
        let end = number.find(|sign: char| !sign.is_ascii_digit() && sign != '.');
        let (number, after) = number.split_at(end.unwrap_or(number.len()));
        let unit = [" s", "ns", "µs", "ms", "s"].into_iter().find(|unit| {
            let after = after.strip_prefix(unit);
            after.is_some_and(|after| !after.starts_with(|sign: char| sign.is_alphanumeric()))
        });
        masked += &rest[..start];
        masked += if unit.is_some() { "# s" } else { number };
        rest = &after[unit.map_or(0, str::len)..];
    }
    masked + rest
}

/// Whether `seen` is what `shown` shows, where `...` stands for any text, and a line of it alone for any lines.
fn is_shown<Line: AsRef<str>>(shown: &[Line], seen: &[Line]) -> bool {
    let Some((first, rest)) = shown.split_first() else { return seen.is_empty() };
    if first.as_ref() == "..." {
        return (0..=seen.len()).any(|skipped| is_shown(rest, &seen[skipped..]));
    }
    let Some((line, others)) = seen.split_first() else { return false };
    fits(first.as_ref(), line.as_ref()) && is_shown(rest, others)
}

/// Whether `line` is `pattern`, in which `...` stands for any text.
fn fits(pattern: &str, line: &str) -> bool {
    let Some((before, rest)) = pattern.split_once("...") else { return pattern == line };
    let Some(after) = line.strip_prefix(before) else { return false };
    let mut ends = after.char_indices().map(|(at, _)| at).chain([after.len()]);
    ends.any(|end| fits(rest, &after[end..]))
}

/// Returns the documents of the repository by their paths: of its root, and of the folders with documents.
pub fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = Vec::new();
    for entry in fs::read_dir(root).expect("the repository") {
        let path = entry.expect("an entry").path();
        documents.extend(path.extension().is_some_and(|it| it == "md").then_some(path));
    }
    for folder in ["benches", "deploy", "docs", "examples", "frontend", "fuzz", "tests"] {
        walk(&root.join(folder), &mut documents);
    }
    let named =
        documents.into_iter().map(|path| path.strip_prefix(root).expect("below").to_owned());
    let mut documents: Vec<_> = named.collect();
    documents.sort();
    assert!(documents.len() > 100, "only {} documents: the folders have moved", documents.len());
    documents
}

fn walk(folder: &Path, documents: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let is_installed =
            ["node_modules", "target", ".venv", ".next"].iter().any(|name| path.ends_with(name));
        if path.is_dir() && !is_installed {
            walk(&path, documents);
        } else if path.extension().is_some_and(|it| it == "md") {
            documents.push(path);
        }
    }
}

/// Returns all sections of all documents that have transcripts.
pub fn all_sessions() -> Vec<Session> {
    let of = |page: PathBuf| {
        let text = fs::read_to_string(&page).expect("a document");
        sessions(page.to_str().expect("a plain path"), &text)
    };
    documents().into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_text_and_for_lines() {
        let shown = ["a ... c", "...", "end"];
        assert!(is_shown(&shown, &["a b c", "end"]));
        assert!(is_shown(&shown, &["a  c", "more", "and more", "end"]));
        assert!(!is_shown(&shown, &["a b c", "more"]));
        assert!(!is_shown(&shown, &["a b d", "end"]));
        assert!(!is_shown(&["a"], &["a", "b"]));
    }

    #[test]
    fn only_times_and_hashes_may_differ() {
        let shown = "exit 69 after 2.6ms, 48.0 h, 1 s ago, 16MiB\nc725dec0\nc725dec0\n00000001";
        let seen = "exit 69 after 178.4µs, 48.0 h, 31 s ago, 16MiB\naaaaaaaa\naaaaaaaa\nbbbbbbbb";
        assert_eq!(steady(shown), steady(seen));
        assert_ne!(steady(shown), steady(&seen.replace("exit 69", "exit 78")));
        assert_ne!(steady(shown), steady(&seen.replace("bbbbbbbb", "aaaaaaaa")));
    }

    #[test]
    fn sections_have_the_blocks_of_the_set_up() {
        let page = "```sh\nforeign\n```\n## Set-up\n```toml\na = 1\n```\n## One\n```console\n$ echo 1 \\\n  2\n\
                    1 2\n$ true\n```\n## Two\n```sh\nb\n```\n";
        let [session] = &sessions("page.md", page)[..] else {
            panic!("one section has a transcript")
        };
        assert_eq!(session.name(), "page.md, \"One\"");
        let languages: Vec<_> = session.blocks.iter().map(|block| &*block.language).collect();
        assert_eq!(languages, ["toml", "console"]);
        let expected = [("echo 1 \\\n  2\n", "1 2\n"), ("true\n", "")];
        let expected = expected.map(|(command, shown)| (command.to_owned(), shown.to_owned()));
        assert_eq!(commands(&session.blocks[1].text), expected);
    }
}
