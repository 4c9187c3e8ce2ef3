//! TLS: certificates and keys from files, checked as a whole before they are used, and replaced
//! while connections are open.
//!
//! One provider of cryptography everywhere, aws-lc-rs. Protocol versions and cipher suites are rustls's own
//! defaults (TLS 1.2 and 1.3, forward secrecy only), and no setting can weaken them.

mod certificate;
mod chain;
mod client;
mod material;
mod pem;
mod server;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use self::certificate::{CertificateNames, name_kind};
pub use self::chain::{Anchor, CertificateFacts, ChainFacts, Order};
pub use self::client::{ClientSettings, ClientTls, Roots};
pub use self::material::{FileError, RESTED, Refreshed, is_replaced_at_once};
pub use self::server::{ClientCertificate, ServerSettings, ServerTls};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
