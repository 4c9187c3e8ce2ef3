//! Properties that must hold for every input: one module for each fuzz target.
//!
//! The integration tests include this file too and feed it `fuzz/corpus`, so the modules use only crates on
//! which the sidecar itself depends.

pub mod app_answer;
pub mod assertion;
pub mod cacheability;
pub mod config;
pub mod curl;
pub mod grants;
pub mod header_law;
pub mod identity;
pub mod route;
pub mod session_cookie;
pub mod shared_content;
pub mod velt_answer;
pub mod websocket_frames;

mod lines;
