//! What must hold whatever the input is: one module for each fuzz target.
//!
//! The integration tests include this file too and feed it `fuzz/corpus`. So it uses nothing but
//! what the sidecar itself depends on.

pub mod assertion;
pub mod cacheability;
pub mod config;
pub mod curl;
pub mod header_law;
pub mod identity;
pub mod route;
pub mod velt_answer;
pub mod websocket_frames;

mod lines;
