//! Tests with the real neighbours: a browser in front of the demo, an nginx in front of a sidecar,
//! real app servers behind one and clients of every protocol that they speak, a Prometheus that
//! scrapes one. What they speak is not ours to say, so no double of them can tell whether we get
//! along.
//!
//! A binary of its own, since these tools have to be installed: `tests/run` does that, and
//! `tests/run --quick` leaves this binary out, and `tests/run --long` lets some of them take sizes that
//! take minutes: a gigabyte in `bulk`, messages of 16 MiB in `autobahn`.

mod aliases;
mod apache;
mod autobahn;
mod browser;
mod bulk;
mod deploy;
mod events;
mod floods;
#[allow(dead_code, reason = "the tests without real tools use the rest")]
mod frames;
mod caches;
#[path = "../it/support/certificates.rs"]
#[allow(dead_code, reason = "the tests without real tools use the rest")]
mod certificates;
mod framing;
mod front_pages;
mod fronts;
mod grpc;
mod login;
mod messages;
mod neighbour;
mod nginx;
mod no_user;
mod otel;
mod program;
mod promtool;
mod scanner;
mod sidecar_process;
mod snippets;
mod stalls;
mod varnish;
mod webdriver;
mod wire;
