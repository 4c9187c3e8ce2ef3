//! The ground that every other crate stands on. Nothing in this crate knows users, tokens or Velt.
//!
//! | for | modules |
//! |---|---|
//! | seeing what happens | [`metrics`] (every name that is exported), [`logging`], [`lines`], [`trace`], [`alarm`] |
//! | the network | [`tcp`], [`tls`], [`outgoing`] (our own calls), [`peer`], [`client_connection`] |
//! | bounds | [`memory`] |
//! | small types | [`names`], [`spelling`], [`user_id`], [`dozing`] |

#![forbid(unsafe_code)]

pub mod alarm;
pub mod client_connection;
pub mod dozing;
pub mod lines;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod names;
pub mod outgoing;
pub mod peer;
pub mod spelling;
pub mod tcp;
pub mod tls;
pub mod trace;
pub mod user_id;
