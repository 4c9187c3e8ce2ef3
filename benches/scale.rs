//! Figures of an installation with many replicas, from a simulation in virtual time: see `docs/scale.md`.
//!
//! Not a measurement: the figures are the same on every machine, and in every profile.

#[path = "scale/model.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod model;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use self::model::tables::{self, DOCUMENT, LARGE, SIZES};
use self::model::{SEED, Size};

const USAGE: &str = "usage: cargo bench --bench scale -- \
    [--record] [--replicas N] [--users N] [--sessions-per-day N] [--seed N]";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs benches too, as a check that they build.
    if arguments.is_empty() {
        println!("scale simulates only when it is run by `cargo bench`");
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (mut records, mut size, mut seed) = (false, None, SEED);
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        let own = || size.unwrap_or(LARGE);
        match argument {
            "--bench" => {}
            "--record" => records = true,
            "--replicas" => size = Some(Size { replicas: number(arguments.next())?, ..own() }),
            "--users" => size = Some(Size { users: number(arguments.next())?, ..own() }),
            "--sessions-per-day" => {
                size = Some(Size { sessions_per_day: number(arguments.next())?, ..own() });
            }
            "--seed" => seed = number(arguments.next())?,
            _ => return Err(USAGE.into()),
        }
    }
    if let Some(size) = size {
        return print_one(size, seed);
    }
    let section = tables::section(&tables::simulate_all(&SIZES, seed)).ok_or("no installation")?;
    print!("{section}");
    if records { record(&section) } else { Ok(()) }
}

/// Reads the value of an argument.
fn number<N: FromStr>(text: Option<&str>) -> Result<N> {
    text.and_then(|text| text.parse().ok()).ok_or_else(|| USAGE.into())
}

/// Prints the table of an installation of the reader's.
fn print_one(size: Size, seed: u64) -> Result<()> {
    if size.replicas == 0 || size.users == 0 || size.sessions_per_day <= 0.0 {
        return Err("there is no installation without replicas, users or sessions".into());
    }
    for figures in tables::simulate_all(&[size], seed) {
        print!("{}", tables::table(&figures));
    }
    Ok(())
}

/// Writes the figures into the document.
fn record(section: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let document = fs::read_to_string(&path)?;
    let document = tables::with_section(&document, section)
        .ok_or_else(|| format!("{DOCUMENT} has lost the marks around its figures"))?;
    Ok(fs::write(&path, document)?)
}
