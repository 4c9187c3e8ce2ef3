//! The page about the store that replicas share: its commands are run in a shell, with a real Redis, and print what the
//! page shows.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

const PAGE: &str = "docs/shared.md";

/// Returns the fenced blocks in `language`.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("\n```{language}\n");
    let after = page.split(&*opening).skip(1);
    after.map(|rest| rest.split("```").next().expect("split has a first part")).collect()
}

fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    free.local_addr().expect("it is bound").port()
}

/// Returns all digits but the last of two free ports that end in 1 and 2, as the page has them.
fn free_tens() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut tens = std::iter::repeat_with(|| free_port() / 10);
    tens.find(|tens| is_free(tens * 10 + 1) && is_free(tens * 10 + 2)).expect("it goes on")
}

/// Puts free ports in the place of the page's.
struct Ports([(&'static str, String); 6]);

impl Ports {
    fn new() -> Self {
        let (velt, traffic, admin) = (free_port().to_string(), free_tens(), free_tens());
        Self([
            ("velt-sidecar emulator", format!("velt-sidecar emulator --listen 127.0.0.1:{velt}")),
            (":4191/", format!(":{velt}/")),
            ("6379", free_port().to_string()),
            (":808$1", format!(":{traffic}$1")),
            (":990$1", format!(":{admin}$1")),
            (":9901", format!(":{admin}1")),
        ])
    }

    fn put_into(&self, script: &str) -> String {
        self.0.iter().fold(script.to_owned(), |text, (from, to)| text.replace(from, to))
    }
}

/// Numbers the hashes of tokens in the order in which they first occur.
fn with_numbered_hashes(text: &str) -> String {
    let is_hash = |line: &str| line.len() == 8 && line.chars().all(|it| it.is_ascii_hexdigit());
    let mut known: Vec<&str> = Vec::new();
    let mut numbered = String::new();
    for line in text.lines() {
        if !is_hash(line) {
            numbered += &format!("{line}\n");
            continue;
        }
        let number = known.iter().position(|hash| *hash == line).unwrap_or_else(|| {
            known.push(line);
            known.len() - 1
        });
        numbered += &format!("token {number}\n");
    }
    numbered
}

#[test]
fn commands_of_the_page_share_a_token_and_forget_it() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(page).expect("the page");
    let (set_up, shown) = (blocks(&page, "sh"), blocks(&page, "console"));
    assert_eq!((set_up.len(), shown.len()), (1, 2), "one set-up, and what comes of it");
    let mut script = "trap 'kill $(jobs -p); wait' EXIT\n".to_owned() + set_up[0];
    // A reader is slower than this script.
    script += "is_connected() { curl -s http://127.0.0.1:990$1/metrics | grep -q '^velt_sidecar_shared_connected 1'; }\n\
               until is_connected 1 && is_connected 2; do sleep 0.1; done\n";
    for command in shown.concat().lines().filter_map(|line| line.strip_prefix("$ ")) {
        script += &format!("sleep 1; echo '$ {}'\n{command}\n", command.replace('\'', "'\\''"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let own = Path::new(env!("CARGO_BIN_EXE_velt-sidecar")).parent().expect("a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut bash = Command::new("bash");
    bash.args(["-c", &Ports::new().put_into(&script)]).current_dir(folder.path());
    bash.env("PATH", format!("{}:{path}:/usr/sbin", own.display())).stdin(Stdio::null());
    let ended = bash.output().expect("a shell");
    let printed = String::from_utf8_lossy(&ended.stdout);
    let complaints = String::from_utf8_lossy(&ended.stderr);
    // The commands were run on other ports.
    let without_commands = |text: &str| {
        let lines = with_numbered_hashes(text);
        let lines = lines.lines().map(|line| if line.starts_with("$ ") { "$" } else { line });
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        without_commands(&printed),
        without_commands(&shown.concat()),
        "{printed}{complaints}"
    );
}
