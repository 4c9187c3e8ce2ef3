//! The table `listen`: where clients come in, and how much of them.

use super::super::reader::Section;
use super::super::setting::Span;
use super::super::words::{Count, HeaderBytes};
use crate::listener::{Limits, Settings};

/// Reads the table `listen`.
pub fn read(section: &Section<'_, '_>) -> Settings {
    Settings {
        address: section.value("address", "0.0.0.0:8080"),
        max_connections: section.value("max_connections", "10000"),
        limits: Limits {
            idle: section.value::<Span>("idle_timeout", "75s").0,
            head: section.value::<Span>("header_timeout", "10s").0,
            stalled: section.value::<Span>("write_timeout", "60s").0,
        },
        max_header_bytes: section.value::<HeaderBytes>("max_header_bytes", "64KiB").0,
        max_headers: section.value::<Count>("max_headers", "100").size(),
        http2_max_streams: section.value::<Count>("http2_max_streams", "200").0,
        http2_max_pending_resets: section.value::<Count>("http2_max_pending_resets", "20").size(),
        http2_max_error_resets: section.value::<Count>("http2_max_error_resets", "1024").size(),
    }
}
