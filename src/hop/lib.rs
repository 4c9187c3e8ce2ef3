//! The two ends of a hop: [`listener`] has the connections of clients, [`proxy`] has the connections to the
//! app. This crate can use neither `identity` nor `token` (`tests/it/architecture.rs`).

#![forbid(unsafe_code)]

pub mod listener;
pub mod proxy;
