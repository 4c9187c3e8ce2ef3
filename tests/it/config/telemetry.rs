//! Settings of the access log and of tracing.

use sidecar::access_log::Format;

use super::{fine, says};

#[test]
fn access_log_has_a_format_and_is_off_by_default() {
    let log = fine("", &[]).access_log;
    assert_eq!((log.format, log.sample, log.user), (Format::Off, 1.0, false));
    for (word, format) in [("json", Format::Json), ("text", Format::Text), ("off", Format::Off)] {
        let toml = format!("[access_log]\nformat = \"{word}\"\nuser = true\nsample = 0.5");
        let log = fine(&toml, &[]).access_log;
        assert_eq!((log.format, log.sample, log.user), (format, 0.5, true));
    }
    says("access_log_format", &["[access_log]\nformat = \"combined\""]);
}

#[test]
fn tracing_is_off_by_default_and_names_its_collector() {
    let tracing = fine("", &[]).tracing;
    assert!(!tracing.create && tracing.export.is_none());
    let toml = "[tracing]\ncreate = true\nsample = 0.25\n\
                otlp_endpoint = \"http://collector:4318/v1/traces\"\nservice_name = \"shop\"";
    let tracing = fine(toml, &[]).tracing;
    let export = tracing.export.expect("an endpoint");
    assert_eq!((tracing.create, tracing.sample), (true, 0.25));
    assert_eq!(export.endpoint.as_str(), "http://collector:4318/v1/traces");
    assert_eq!(export.service_name, "shop");
    let toml = toml.replace("service_name = \"shop\"", "");
    assert_eq!(fine(&toml, &[]).tracing.export.expect("one").service_name, "velt-sidecar");
}

#[test]
fn tracing_setting_without_effect_is_refused() {
    says(
        "tracing_without_effect",
        &[
            "[tracing]\nsample = 0.5",
            "[tracing]\nservice_name = \"shop\"",
            "[tracing]\notlp_endpoint = \"collector:4318\"\nservice_name = \"shop\"",
        ],
    );
}
