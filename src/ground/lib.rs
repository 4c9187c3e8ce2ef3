//! Parts that every other crate uses. No code here reads a user or a token or calls Velt: [`metrics`] has the
//! words under which others count them, and [`user_id`] the type of an id.
//!
//! | for | modules |
//! |---|---|
//! | observation | [`metrics`] (every exported name), [`logging`], [`lines`], [`trace`], [`alarm`] |
//! | the network | [`tcp`], [`tls`], [`outgoing`] (our own calls), [`peer`], [`client_connection`] |
//! | bounds | [`memory`] |
//! | the system | [`platform`] (what only Linux has) |
//! | small types | [`names`], [`spelling`], [`user_id`], [`grants`], [`groups`], [`json`], [`dozing`] |

#![forbid(unsafe_code)]

pub mod alarm;
pub mod client_connection;
pub mod dozing;
pub mod grants;
pub mod groups;
pub mod json;
pub mod lines;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod names;
pub mod outgoing;
pub mod peer;
pub mod platform;
pub mod spelling;
pub mod tcp;
pub mod tls;
pub mod trace;
pub mod user_id;
