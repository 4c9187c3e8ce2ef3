//! velt-sidecar: a reverse proxy in front of an app that mints, caches and delivers Velt JWTs for
//! the user that the login proxy names.
//!
//! The life of a request, in the order of the modules:
//!
//! 1. [`app::App::bind`] builds every part from the [`config::Config`] and binds the sockets.
//! 2. A [`listener::Listener`] accepts the connection and tells HTTP/1.1 from HTTP/2.
//! 3. [`sidecar::Sidecar::handle`] takes the request and cannot fail; its `respond` is the product.
//! 4. [`identity::Identity`] finds the caller, and removes what only the front proxy may say.
//! 5. [`token::cache::TokenCache`] has the caller's token, or starts a mint in a task of its own.
//! 6. [`token::velt::VeltClient`], behind retries and a breaker, is the only code that knows Velt.
//! 7. [`proxy::Upstream`] asks the app meanwhile; it streams both ways and knows no tokens.
//! 8. [`inject::Injection`] puts the token into the response, which no cache may store then.
//!
//! [`metrics`] has every name that is exported; [`admin`] shows the metrics on a port of its own. At its end
//! a request leaves a line in the [`access_log`] and spans in its [`trace`], where configured.

#![forbid(unsafe_code)]

// Modules in the order in which to read them.
pub mod config;
pub mod app;
pub mod reload;
pub mod listener;
pub mod sidecar;
pub mod identity;
pub mod user_id;
pub mod token;
pub mod proxy;
pub mod inject;
pub mod tls;
pub mod outgoing;
pub mod explain;
pub mod metrics;
pub mod access_log;
pub mod trace;
pub mod admin;
pub mod logging;
mod alarm;
mod lines;
mod client_connection;
mod dozing;
mod memory;
mod names;
mod spelling;
mod tcp;
pub mod emulator;
pub mod demo;
pub mod doctor;
