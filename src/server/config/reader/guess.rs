//! Names of settings that operators guess, with what to write in their place.

use std::fmt::Display;

/// Returns what to write in place of the unknown setting `path`, if it is a known guess. `port` is its value, where the
/// value is a whole number.
pub(super) fn remedy(path: &str, port: Option<&dyn Display>) -> Option<String> {
    let address = |host: &str, usual: u16, table: &str| {
        let port = port.map_or_else(|| usual.to_string(), ToString::to_string);
        format!("write address = \"{host}:{port}\" in [{table}]")
    };
    let remedy = match path {
        "app.port" | "app_port" => address("127.0.0.1", 3000, "app"),
        "app.host" | "app.url" | "app.upstream" | "app.backend" | "app.target" | "upstream"
        | "backend" | "target" | "proxy" => {
            format!("{}: host and port, without http://", address("127.0.0.1", 3000, "app"))
        }
        "listen.port" | "listen.host" | "listen.bind" | "port" | "bind" | "server" => {
            address("0.0.0.0", 8080, "listen")
        }
        "admin.port" | "admin.host" | "admin.bind" | "metrics" => address("127.0.0.1", 9901, "admin"),
        "velt.token" | "velt.secret" | "auth_token" | "token" => {
            "give Velt's auth token in VELT_AUTH_TOKEN, or write auth_token_file = \"/path/to/file\" in [velt]"
                .to_owned()
        }
        "velt.key" | "api_key" => {
            "give Velt's API key in VELT_API_KEY, or write api_key_file = \"/path/to/file\" in [velt]"
                .to_owned()
        }
        "velt.url" | "velt.base_url" | "velt.host" => {
            "leave it out for Velt's own servers, or write endpoint = \"https://...\" in [velt]".to_owned()
        }
        "identity.header" | "identity.user" => {
            "write user_header = \"X-Forwarded-User\" in [identity]".to_owned()
        }
        _ => return None,
    };
    Some(remedy)
}
