//! Spans of a request by OpenTelemetry's semantic conventions for HTTP (stable since 1.23). No span has a
//! user, a query or a header in it, so `url.full` ends with the path.

use std::time::Duration;

use http::{Method, StatusCode, Version};

use super::Notes;
use crate::access_log::End;
use ground::metrics::{Label as _, Outcome};
use ground::trace::{Value, Work};
use hop::proxy::Address;

type Attributes = Vec<(&'static str, Value)>;

impl Notes {
    /// Returns the span of the whole request, to the last byte of its response.
    pub(super) fn request_span(&self, duration: Duration) -> Work {
        let mut attributes = vec![
            ("http.request.method", method(&self.method).into()),
            ("url.scheme", self.scheme.as_str().into()),
            ("url.path", self.path.to_string().into()),
            ("network.protocol.version", version(self.version).into()),
            ("network.peer.address", self.peer.to_string().into()),
            ("velt_sidecar.outcome", self.outcome.as_str().into()),
        ];
        attributes.extend(self.status.map(status_code));
        attributes.extend(self.token.map(|token| ("velt_sidecar.token", token.as_str().into())));
        let route = self.route.as_deref();
        attributes.extend(route.map(|route| ("http.route", route.to_owned().into())));
        let error = self.error();
        let failed = error.is_some();
        attributes.extend(error.map(|error| ("error.type", error)));
        let name = match (span_name(&self.method), route) {
            (method, Some(route)) => format!("{method} {route}").into(),
            (method, None) => method.into(),
        };
        Work { name, started: self.time, duration, attributes, failed }
    }

    /// Returns the span of the call to the app, to the head of the app's response. `None` if the app was not
    /// asked.
    pub(super) fn app_span(&self) -> Option<Work> {
        let asked = self.app_call.asked?;
        let mut attributes = vec![("http.request.method", method(&self.method).into())];
        self.name_app(&mut attributes);
        let status = self.app_call.status;
        attributes.extend(status.map(status_code));
        // In the span of a client, unlike in a server's, 4xx is an error too.
        let failed = status.is_none_or(|status| status.as_u16() >= 400);
        if failed {
            let error = status.map(|status| status.as_str().to_owned().into());
            attributes.push(("error.type", error.unwrap_or(self.outcome.as_str().into())));
        }
        Some(Work {
            name: span_name(&self.method).into(),
            started: self.time + (asked - self.started),
            duration: self.app_call.wait()?,
            attributes,
            failed,
        })
    }

    fn name_app(&self, attributes: &mut Attributes) {
        let Some((scheme, address)) = &self.app else { return };
        let authority = match address {
            Address::Tcp(authority) => {
                let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
                attributes
                    .push(("server.address", host.trim_matches(['[', ']']).to_owned().into()));
                attributes.extend(port.parse().ok().map(|port: u16| ("server.port", port.into())));
                authority
            }
            Address::Unix(path) => {
                attributes.push(("server.address", path.display().to_string().into()));
                attributes.push(("network.transport", "unix".into()));
                "localhost"
            }
        };
        attributes
            .push(("url.full", format!("{}://{authority}{}", scheme.as_str(), self.path).into()));
    }

    /// Returns the error of the request, if the client did not cause it.
    fn error(&self) -> Option<Value> {
        match (self.end, self.status) {
            (Some(end @ (End::AppBrokeOff | End::Idle)), _) => Some(end.as_str().into()),
            (_, Some(status)) if status.is_server_error() => Some(match self.outcome {
                Outcome::Forwarded => status.as_str().to_owned().into(),
                ours => ours.as_str().into(),
            }),
            _ => None,
        }
    }
}

fn status_code(status: StatusCode) -> (&'static str, Value) {
    ("http.response.status_code", status.as_u16().into())
}

/// Returns the name of a method of RFC 9110 or of PATCH, else `_OTHER`, as the conventions ask for.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] =
        ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| method == known).unwrap_or("_OTHER")
}

/// Returns the method in a span's name, which is the whole name of a span without a route.
fn span_name(name: &Method) -> &'static str {
    match method(name) {
        "_OTHER" => "HTTP",
        known => known,
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
