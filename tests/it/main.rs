//! Tests from outside, as one binary: linking the crate once is faster than once per topic.

// Scraped counts are whole numbers, which floats hold exactly.
#![allow(clippy::float_cmp)]

mod support;

mod access_log;
mod addresses;
mod admin;
mod app_answers;
mod app_connections;
mod app_early_answers;
mod app_life;
mod app_logins;
mod architecture;
mod audit;
mod build_script;
mod check;
mod cli;
mod config;
mod examples;
mod error_pages;
mod explain;
mod demo;
mod details;
mod doctor;
mod documents;
mod early_answers;
mod files;
mod first_render;
mod forged_tokens;
mod fronts;
mod fuzz_corpus;
mod gateway_checks;
#[path = "../real/frames.rs"]
#[allow(dead_code, reason = "the tests with real tools use the rest")]
mod frames;
mod grants;
mod half_closes;
mod hostile_velt;
mod http2_app;
mod identity;
mod keys;
mod language;
mod leaks;
mod limits;
mod log;
mod logout;
mod metrics;
mod outage;
mod packaging;
mod pages;
mod probes;
mod proxying;
mod release;
mod reload;
mod renewal;
mod request_path;
mod resolver;
mod rollout;
mod routes;
mod scale;
mod security;
mod service_manager;
mod shared_model;
mod shared_connection;
mod shipped_files;
mod shutdown;
mod slow_readers;
mod snapshots;
mod standing_still;
mod storms;
mod tls;
mod token_cache;
mod tracing;
mod transparency;
mod trial;
mod vanished_clients;
mod velt_api;
mod velt_connections;
mod websocket;
mod workers;
