//! Programs that talk with the tests in lines: apps and clients that print in JSON what they see.

use std::fmt::Display;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::neighbour::{PATIENCE, Process, lines_of, tool};

pub const APPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/apps");

/// Debian's own Python, which alone has Debian's packages.
pub const PYTHON: &str = "/usr/bin/python3";

/// A program that prints lines of JSON and takes lines of commands.
pub struct Program {
    _process: Process,
    lines: mpsc::UnboundedReceiver<String>,
    input: ChildStdin,
}

impl Program {
    pub fn start(command: &mut Command) -> Self {
        let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let lines = lines_of(process.child().stdout.take().expect("a pipe"));
        let input = process.child().stdin.take().expect("a pipe");
        Self { _process: process, lines, input }
    }

    /// Runs `apps/<script>` with Node, which finds Debian's modules.
    pub fn node(script: &str, arguments: &[&str]) -> Self {
        let mut node = Command::new(tool("node"));
        node.env("NODE_PATH", "/usr/share/nodejs").arg(Path::new(APPS).join(script));
        Self::start(node.args(arguments))
    }

    /// Runs `apps/<script>` with Python.
    pub fn python(script: &str, arguments: &[&str]) -> Self {
        let mut python = Command::new(PYTHON);
        python.env("PYTHONDONTWRITEBYTECODE", "1").arg(Path::new(APPS).join(script));
        Self::start(python.args(arguments))
    }

    /// Waits for the first line of an app, which has its `port`.
    pub async fn listening(mut self) -> (Self, SocketAddr) {
        let line = self.line().await;
        let port = line["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let port = port.unwrap_or_else(|| panic!("no port in {line}"));
        (self, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    /// Returns the next line, or `None` at the program's end.
    pub async fn try_line(&mut self) -> Option<Value> {
        let line = timeout(PATIENCE, self.lines.recv()).await.expect("a line in time")?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// Returns the next line.
    pub async fn line(&mut self) -> Value {
        self.try_line().await.expect("it has ended")
    }

    /// Skips lines up to a line with `name` in it, and returns the value of `name`.
    pub async fn value_of(&mut self, name: &str) -> Value {
        loop {
            if let Some(value) = self.line().await.get_mut(name) {
                return value.take();
            }
        }
    }

    /// Returns every line up to the program's end.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Some(line) = self.try_line().await {
            lines.push(line);
        }
        lines
    }

    pub fn say(&mut self, line: impl Display) {
        writeln!(self.input, "{line}").expect("it listens");
    }
}
