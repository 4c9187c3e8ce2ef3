//! The table `tracing`: which traces there are, and where their spans go.

use reqwest::Url;

use super::super::reader::Section;
use super::super::setting::Share;
use ground::tls::Roots;
use ground::trace::{ExportSettings, SampledBy, Settings};

/// Reads the table `tracing`, and whose sampled traces are exported; `roots` vouch for the collector.
pub fn read(section: &Section<'_, '_>, roots: &Roots) -> (Settings, SampledBy) {
    let create = section.value("create", "false");
    let sample = if create {
        section.value::<Share>("sample", "1.0").0
    } else {
        let remedy = "write create = true, or remove it: the program that starts a trace decides \
                      what is sampled";
        section.refuse("sample", "it has no effect on traces that others start", remedy);
        1.0
    };
    let has_collector = section.has("otlp_endpoint");
    let sampled_by = if has_collector {
        section.value("sampled_by", "trusted_peers")
    } else {
        let remedy = "write otlp_endpoint = \"http://collector:4318/v1/traces\", or remove it";
        section.refuse("sampled_by", "without otlp_endpoint it has no effect", remedy);
        SampledBy::TrustedPeers
    };
    let export = if has_collector {
        let endpoint = section.optional("otlp_endpoint");
        let service_name = section.value("service_name", "velt-sidecar");
        endpoint.map(|endpoint| ExportSettings { endpoint, service_name, roots: roots.clone() })
    } else {
        // Ask for the key all the same, so that it counts as known.
        section.optional::<Url>("otlp_endpoint");
        let remedy = "write otlp_endpoint = \"http://collector:4318/v1/traces\", or remove it";
        section.refuse("service_name", "without otlp_endpoint it has no effect", remedy);
        None
    };
    (Settings { create, sample, export }, sampled_by)
}
