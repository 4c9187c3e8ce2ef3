//! Tests with real programs around the sidecar: a browser in front of the demo, an nginx in front of a
//! sidecar, real app servers behind it and clients of every protocol that they speak, a Prometheus that
//! scrapes it. The behaviour of these programs is not the project's to define, so no test double can show
//! whether the sidecar works with them.
//!
//! The tests are a separate binary, since the programs have to be installed: `tests/run` installs them,
//! `tests/run --quick` leaves this binary out, and `tests/run --long` lets some tests use sizes that take
//! minutes: a gigabyte in `bulk`, messages of 16 MiB in `autobahn`.

mod aliases;
mod accessibility;
mod apache;
mod autobahn;
mod browser;
mod bulk;
mod deploy;
mod events;
mod examples;
mod floods;
mod foreign_pages;
#[allow(dead_code, reason = "the tests without real tools use the rest")]
mod frames;
mod caches;
#[path = "../it/support/certificates.rs"]
#[allow(dead_code, reason = "the tests without real tools use the rest")]
mod certificates;
mod conformance;
mod framing;
mod front_pages;
mod frontend;
mod gateways;
mod fronts;
mod grpc;
mod ipv6;
mod login;
mod logins;
mod logout;
mod meshes;
mod messages;
mod namespace;
mod neighbour;
mod nginx;
mod no_user;
mod otel;
mod own_app;
mod pages;
mod program;
mod promtool;
mod readme;
#[path = "../it/support/record.rs"]
mod record;
mod replicas;
mod resolver;
mod scanner;
mod shared_store;
mod sidecar_process;
mod snippets;
mod stalls;
mod transcripts;
mod varnish;
mod webdriver;
mod wire;
