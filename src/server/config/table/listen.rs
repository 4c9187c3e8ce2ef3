//! The table `listen`: the address for clients, and the limits of their connections.

use std::path::PathBuf;

use super::super::reader::Section;
use super::super::setting::Span;
use super::super::words::{Count, HeaderBytes};
use ground::memory::Memory;
use ground::tls::{ClientCertificate, ServerSettings};
use hop::listener::{Limits, SHORT_IDLE, Settings};

/// Reads the table `listen`.
pub fn read(section: &Section<'_, '_>) -> Settings {
    let (address, max_connections) =
        (section.value("address", "0.0.0.0:8080"), section.value("max_connections", "10000"));
    // Must exceed the idle time of every front in docs/configuration.md; Envoy has the longest, an hour.
    let idle = section.value::<Span>("idle_timeout", "65m").0;
    Settings {
        address,
        max_connections,
        limits: Limits {
            first_byte: idle.min(SHORT_IDLE),
            idle,
            head: section.value::<Span>("header_timeout", "10s").0,
            stalled: section.value::<Span>("write_timeout", "60s").0,
        },
        max_header_bytes: section.value::<HeaderBytes>("max_header_bytes", "64KiB").0,
        max_headers: section.value::<Count>("max_headers", "100").size(),
        http2_max_streams: section.value::<Count>("http2_max_streams", "200").0,
        http2_max_pending_resets: section.value::<Count>("http2_max_pending_resets", "20").size(),
        http2_max_error_resets: section.value::<Count>("http2_max_error_resets", "1024").size(),
        memory: Memory::default(),
    }
}

/// Reads the table `listen.tls`. Returns `None` unless it names a certificate and a key.
pub fn read_tls(section: &Section<'_, '_>) -> Option<ServerSettings> {
    let certificate: Option<PathBuf> = section.optional("certificate_file");
    let key: Option<PathBuf> = section.optional("key_file");
    let (Some(certificate), Some(key)) = (certificate, key) else {
        check_alone(section);
        return None;
    };
    let client_ca: Option<PathBuf> = section.optional("client_ca_file");
    let client_certificate = if client_ca.is_some() {
        section.value("client_certificate", "required")
    } else {
        section.refuse(
            "client_certificate",
            "it has no effect without client_ca_file",
            "write client_ca_file = \"/path/to/ca.crt\" in [listen.tls], or remove it",
        );
        ClientCertificate::Required
    };
    Some(ServerSettings {
        certificate,
        key,
        client_ca,
        client_certificate,
        handshake_timeout: section.value::<Span>("handshake_timeout", "10s").0,
        max_handshakes: section.value("max_handshakes", "1000"),
    })
}

/// Complains about a certificate without a key, a key without a certificate, and settings without effect.
fn check_alone(section: &Section<'_, '_>) {
    for (given, missing) in [("certificate_file", "key_file"), ("key_file", "certificate_file")] {
        if section.has(given) && !section.has(missing) {
            let remedy = format!("write {missing} = \"/path\" in [listen.tls] as well");
            section.complain_about(given, "a certificate and its key go together", &remedy);
        }
    }
    for key in ["client_ca_file", "client_certificate", "handshake_timeout", "max_handshakes"] {
        let remedy = "write certificate_file and key_file in [listen.tls], or remove it";
        section.refuse(key, "it has no effect without a certificate", remedy);
    }
}
