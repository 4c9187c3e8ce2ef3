//! The two ends of a hop: [`listener`] has the connections of clients, [`proxy`] has the connections to the app.
//! Neither knows users or tokens.

#![forbid(unsafe_code)]

pub mod listener;
pub mod proxy;
