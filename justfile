# The commands of this project, one recipe each. `tests/run` and .github/workflows/pull-request.yaml run these
# recipes, so what a person runs is what CI runs. `just --list` shows them.

set shell := ["bash", "-euo", "pipefail", "-c"]

# Oldest compiler that must do, as Cargo.toml has it.
oldest := `sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml`

# List the recipes.
default:
    @just --list --unsorted

# Start a sidecar, an app and a stand-in of Velt on loopback.
demo:
    cargo run --release -- demo

# Check that everything compiles.
check:
    cargo check --workspace --all-targets --locked

# Format.
format:
    cargo fmt --all

# Check the format.
format-check:
    cargo fmt --all --check

# Lint.
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Run unit tests, all or those whose names contain a text: `just unit cache`.
unit *filter:
    cargo test --workspace --locked --lib --bins {{ filter }}

# Run tests from outside, all or those whose names contain a text: `just test routes::`.
test *filter:
    cargo test --locked --test it {{ filter }}

# Run tests with real programs, which `tests/run` installs: `just real caches::`.
real *filter:
    PATH="${XDG_CACHE_HOME:-$HOME/.cache}/velt-sidecar/tools/bin:$PATH:/usr/sbin:/usr/local/sbin" \
        cargo test --locked --test real {{ filter }}

# Check the package for pages: types, tests, sizes, and dist/ against its sources.
frontend:
    npm ci --prefix frontend --ignore-scripts --no-audit --no-fund
    npm run --prefix frontend check

# Run everything that needs no other programs.
quick:
    tests/run --quick

# Run everything.
all:
    tests/run

# Run everything at full size: floods, transfers, fuzz targets, instructions.
long:
    tests/run --long

# Compile with the oldest compiler that must do.
msrv:
    rustup toolchain install {{ oldest }} --profile minimal --no-self-update
    cargo +{{ oldest }} check --workspace --locked --target-dir target/oldest

# Write the documentation of the code, with warnings denied.
doc:
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --locked --no-deps

# Check licences, sources and bans of dependencies.
deny:
    cargo deny --locked check bans licenses sources

# Check dependencies against the database of advisories, which is fetched.
advisories:
    cargo deny --locked check advisories

# Compare the instructions of a request with those on record.
instructions:
    cargo bench --locked --bench instructions -- --check

# Fuzz each target for a number of seconds.
fuzz seconds="25":
    fuzz/run {{ seconds }}

# Test the tests: change the lines of a diff, and see whether a test fails.
mutants diff:
    cargo mutants --workspace --in-diff {{ diff }} --test-workspace=false
