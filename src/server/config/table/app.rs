//! The table `app`: the app's address and protocol, and the limits of connections to it; and what is without effect if no
//! app is behind the sidecar.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use rustls::pki_types::ServerName;

use super::super::reader::Section;
use super::super::setting::{Count, Limit, Span};
use super::super::words::{self, AppAddress};
use ground::memory::Memory;
use ground::tls::{ClientSettings, Roots};
use hop::proxy::{Address, AppProtocol, Settings};
use identity::Source;

/// Reason why a setting is refused.
pub(super) const WITHOUT_APP: &str = "it has no effect with app.address = \"none\"";

/// Remedy for such a setting.
pub(super) const REMOVE: &str = "remove it, or write the app's address in [app]";

/// Keys beside `address`.
const OTHER_KEYS: [&str; 10] = [
    "protocol",
    "forwarded_for",
    "ca_file",
    "server_name",
    "connect_timeout",
    "response_timeout",
    "idle_timeout",
    "max_idle",
    "stream_idle_timeout",
    "max_headers",
];

/// Reads the table `app`. `listen` is the sidecar's own address. `None` if no app is behind the sidecar.
pub fn read(section: &Section<'_, '_>, listen: SocketAddr) -> Option<Settings> {
    match section.value("address", "127.0.0.1:3000") {
        AppAddress::At { address, tls } => {
            let settings = read_settings(section, address, tls);
            check_protocol(section, settings.protocol, tls);
            check_loop(section, &settings.address, listen);
            Some(settings)
        }
        AppAddress::None => {
            // Asks for the keys, so that they count as known.
            let nowhere = Address::Unix(PathBuf::default());
            read_settings(section, nowhere, true);
            section.refuse_other(&OTHER_KEYS, WITHOUT_APP, REMOVE);
            None
        }
    }
}

/// Complains about settings of `identity` for which an app is needed, if there is none.
pub fn check_identity(section: &Section<'_, '_>, source: Option<&Source>, has_app: bool) {
    if has_app {
        return;
    }
    if let Some(Source::App(_)) = source {
        section.complain_about(
            "source",
            "the app would have to name the user, and app.address is \"none\"",
            "believe the gateway (\"header\") or a signature (\"assertion\"), or write the app's address",
        );
    }
    let keys = ["details_path", "require_on", "forward_headers", "trusted_proxies"];
    section.refuse_other(&keys, WITHOUT_APP, REMOVE);
}

/// Complains about a protocol that does not go with the scheme of the app's address.
fn check_protocol(section: &Section<'_, '_>, protocol: AppProtocol, encrypted: bool) {
    let remedy = match protocol {
        AppProtocol::H2c if encrypted => Some("\"h2\""),
        AppProtocol::H2 if !encrypted => Some("\"h2c\", or address = \"https://...\""),
        _ => None,
    };
    if let Some(remedy) = remedy {
        let problem = "h2 is HTTP/2 over TLS, h2c without";
        section.complain_about("protocol", problem, &format!("write protocol = {remedy}"));
    }
}

fn read_settings(section: &Section<'_, '_>, address: Address, encrypted: bool) -> Settings {
    let protocol = section.value("protocol", "http1");
    let tls = read_tls(section, &address, encrypted);
    let forwarded_for = section.value("forwarded_for", "keep");
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
