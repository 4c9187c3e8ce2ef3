//! Stand-in for Velt's browser SDK, which the pages of a test or an example load from the emulator.
//!
//! `@veltdev/react` and `@veltdev/client` contain only a loader: it fetches the SDK from `cdn.velt.dev`, or from the
//! host of the documented setting `proxyDomain` (docs.velt.dev/security/proxy-server), and always at
//! `/lib/sdk@VERSION/velt.js`. With the emulator as that host, real loaders run without Velt's network.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body_util::Full;

const SDK: &str = include_str!("browser-sdk.js");

/// Whether a loader of any version fetches the SDK at this path.
pub(super) fn is_at(path: &str) -> bool {
    let version = path.strip_prefix("/lib/sdk@").and_then(|rest| rest.strip_suffix("/velt.js"));
    version.is_some_and(|version| !version.is_empty() && !version.contains('/'))
}

/// Answers with the stand-in, the same for every version.
pub(super) fn answer() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(SDK.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    // The next emulator at this address may be a later release with another stand-in.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::is_at;

    #[test]
    fn sdk_is_at_the_path_of_each_version_alone() {
        for path in ["/lib/sdk@6.0.6/velt.js", "/lib/sdk@latest/velt.js"] {
            assert!(is_at(path), "{path}");
        }
        for path in
            ["/lib/sdk@/velt.js", "/lib/sdk@1/2/velt.js", "/lib/velt.js", "/x/lib/sdk@1/velt.js"]
        {
            assert!(!is_at(path), "{path}");
        }
    }
}
