//! The table `app`: the app's address and protocol, and the limits of connections to it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use rustls::pki_types::ServerName;

use super::super::reader::Section;
use super::super::setting::{Count, Limit, Span};
use super::super::words::{self, AppAddress};
use ground::memory::Memory;
use ground::tls::{ClientSettings, Roots};
use hop::proxy::{Address, AppProtocol, Settings};

/// Reads the table `app`. `listen` is the sidecar's own address.
pub fn read(section: &Section<'_, '_>, listen: SocketAddr) -> Settings {
    let AppAddress { address, tls: encrypted } = section.value("address", "127.0.0.1:3000");
    let protocol = section.value("protocol", "http1");
    let tls = read_tls(section, &address, encrypted);
    let forwarded_for = section.value("forwarded_for", "keep");
    let remedy = match protocol {
        AppProtocol::H2c if encrypted => Some("\"h2\""),
        AppProtocol::H2 if !encrypted => Some("\"h2c\", or address = \"https://...\""),
        _ => None,
    };
    if let Some(remedy) = remedy {
        let problem = "h2 is HTTP/2 over TLS, h2c without";
        section.complain_about("protocol", problem, &format!("write protocol = {remedy}"));
    }
    check_loop(section, &address, listen);
    Settings {
        address,
        tls,
        protocol,
        forwarded_for,
        connect_timeout: section.value::<Span>("connect_timeout", "5s").0,
        response_timeout: section.value::<Span>("response_timeout", "60s").0,
        idle_timeout: section.value::<Span>("idle_timeout", "4s").0,
        max_idle: section.value::<Count>("max_idle", "256").0,
        stream_idle_timeout: section.value::<Limit>("stream_idle_timeout", "off").0,
        max_headers: section.value::<words::Count>("max_headers", "100").size(),
        memory: Memory::default(),
    }
}

/// Reads the roots and the name that verify the app, if the app speaks TLS.
fn read_tls(
    section: &Section<'_, '_>,
    address: &Address,
    encrypted: bool,
) -> Option<ClientSettings> {
    let ca_file: Option<PathBuf> = section.optional("ca_file");
    let server_name: Option<ServerName<'static>> = section.optional("server_name");
    if !encrypted {
        for key in ["ca_file", "server_name"] {
            section.refuse(
                key,
                "it has no effect unless the app speaks TLS",
                "write address = \"https://...\" in [app], or remove it",
            );
        }
        return None;
    }
    let Address::Tcp(authority) = address else { return None };
    let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
    let host = host.trim_matches(['[', ']']).to_owned();
    let Some(server_name) = server_name.or_else(|| ServerName::try_from(host).ok()) else {
        section.complain_about(
            "address",
            "no certificate can carry this name",
            "write server_name = \"...\" in [app]: the name in the app's certificate",
        );
        return None;
    };
    Some(ClientSettings { roots: ca_file.map_or(Roots::Auto, Roots::File), server_name })
}

/// Complains if the app's address is the sidecar's own: each request would come back until no connection is
/// left.
fn check_loop(section: &Section<'_, '_>, app: &Address, listen: SocketAddr) {
    let Address::Tcp(authority) = app else { return };
    let Some((host, port)) = authority.rsplit_once(':') else { return };
    let host = host.trim_matches(['[', ']']);
    let ours = match host.parse::<IpAddr>() {
        Ok(address) => {
            address == listen.ip() || listen.ip().is_unspecified() && address.is_loopback()
        }
        Err(_) => {
            host == "localhost" && (listen.ip().is_unspecified() || listen.ip().is_loopback())
        }
    };
    if ours && port.parse() == Ok(listen.port()) {
        section.complain_about(
            "address",
            "this is the sidecar's own listen.address, so requests would go in circles",
            "write the app's address, or give the sidecar another port in [listen]",
        );
    }
}
