//! Everything that is tested from outside, as one binary: linking the crate once is faster than
//! once per topic.

#![allow(clippy::missing_errors_doc)]

mod support;

mod architecture;
mod identity;
mod mint_failures;
mod proxying;
mod request_path;
mod token_cache;
