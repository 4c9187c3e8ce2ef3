//! The table `admin`: the address of metrics, health and admin calls, and the token of the admin calls.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;

use super::super::reader::{Inline, Section};
use super::check_length;
use hop::listener::{self, Limits};

/// The variable with the token; the commands that make admin calls read it too.
pub const TOKEN_VARIABLE: &str = "VELT_SIDECAR_ADMIN_TOKEN";

/// Time limits of the admin port. A kubelet and Prometheus send their request with the connection and
/// read the answer at once.
const LIMITS: Limits = Limits {
    first_byte: Duration::from_secs(2),
    idle: Duration::from_secs(75),
    head: Duration::from_secs(5),
    stalled: Duration::from_secs(10),
};

/// Reads the table `admin`: its address, and the token of its calls.
pub fn read(section: &Section<'_, '_>) -> (listener::Settings, Option<SecretString>) {
    let settings = listener::Settings {
        max_connections: 256,
        limits: LIMITS,
        http2_max_streams: 16,
        ..listener::Settings::at(read_address(section))
    };
    let token = section.optional_secret("token", TOKEN_VARIABLE, Inline::Refused);
    if let Some(token) = &token {
        let key = if section.has("token_file") { "token_file" } else { "token" };
        check_length(section, key, token);
    }
    (settings, token)
}

/// Reads the address of the admin port alone.
pub fn read_address(section: &Section<'_, '_>) -> SocketAddr {
    section.value("address", "127.0.0.1:9901")
}
