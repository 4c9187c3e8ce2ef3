//! Time of the sidecar's own work on a request, step by step and without I/O.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use divan::{Bencher, black_box};
use ground::metrics::{HeaderDelivery, Metrics, Outcome};
use ground::peer::Peer;
use ground::trace::{Settings, TraceId, Tracing};
use hop::proxy::headers::{
    self, Client, ForwardedFor, Scheme, set_forwarded, strip_hop_by_hop, takes_trailers, validate,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version};
use identity::{Caller, Identity};
use mimalloc::MiMalloc;
use server::config::Config;
use sidecar::access_log::{self, AccessLog, End, Format, Line};
use sidecar::inject::{Eligibility, Injection, Place};
use token::velt::Api;
use token::{Details, Issuer, MintPlan, Minted, Moment, Token, TokenValue};

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Headers that a browser's `fetch()` sends through a login proxy: 15.
const REQUEST: [(&str, &str); 15] = [
    ("host", "app.example.com"),
    ("connection", "keep-alive"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
    ("accept", "application/json"),
    ("accept-language", "en-GB,en;q=0.8,de;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://app.example.com/documents/4711"),
    ("sec-fetch-dest", "empty"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "same-origin"),
    ("cookie", "_session=4f1c2d7ab9e04c55a3a1d2f0b6c8e9d1; theme=dark; consent=1"),
    ("x-request-id", "0d2b7a52c1f84f6e9f2e6f6bb7a9c3de"),
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "app.example.com"),
];

/// Headers of an app's JSON answer: 8.
const RESPONSE: [(&str, &str); 8] = [
    ("content-type", "application/json; charset=utf-8"),
    ("content-length", "1024"),
    ("date", "Fri, 06 Nov 2026 08:49:37 GMT"),
    ("server", "gunicorn"),
    ("cache-control", "private, no-cache"),
    ("vary", "Accept-Encoding, Cookie"),
    ("x-frame-options", "SAMEORIGIN"),
    ("strict-transport-security", "max-age=31536000"),
];

/// The allocator of the sidecar.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() {
    // divan's default end, 100 samples, comes too soon on a busy machine.
    let enough = Duration::from_millis(500);
    divan::Divan::default().sample_size(100).min_time(enough).config_with_args().main();
}

mod identify {
    use futures_util::FutureExt as _;

    use super::{
        Bencher, Caller, HeaderMap, HeaderValue, Ipv4Addr, PROXY, Peer, identity, request_head,
    };

    /// A signed-in user.
    #[divan::bench]
    fn known(bencher: Bencher<'_, '_>) {
        let caller = measure(bencher, true, &with_user());
        assert!(matches!(caller, Caller::Known(_)));
    }

    /// No user is signed in.
    #[divan::bench]
    fn anonymous(bencher: Bencher<'_, '_>) {
        let caller = measure(bencher, true, &request_head());
        assert!(matches!(caller, Caller::Anonymous));
    }

    /// A client other than the login proxy names a user, and the sidecar does not believe the client.
    #[divan::bench]
    fn untrusted(bencher: Bencher<'_, '_>) {
        let caller = measure(bencher, false, &with_user());
        assert!(matches!(caller, Caller::Anonymous));
    }

    fn measure(bencher: Bencher<'_, '_>, trusted: bool, head: &HeaderMap) -> Caller {
        let identity = identity();
        let peer = Peer::at(if trusted { PROXY } else { Ipv4Addr::BROADCAST.into() });
        bencher
            .with_inputs(|| head.clone())
            .bench_refs(|headers| identity.identify(&peer, headers).now_or_never().is_some());
        let mut headers = head.clone();
        let identified = identity.identify(&peer, &mut headers).now_or_never();
        identified
            .expect("plain headers are read at once")
            .unwrap_or_else(|refusal| panic!("{refusal}"))
            .caller
    }

    fn with_user() -> HeaderMap {
        let mut headers = request_head();
        headers.insert("x-forwarded-user", HeaderValue::from_static("ada@example.com"));
        headers
    }
}

mod hygiene {
    use super::{
        Bencher, Client, ForwardedFor, PROXY, Scheme, headers, request, request_head,
        response_head, set_forwarded, strip_hop_by_hop, takes_trailers, validate,
    };

    const CLIENT: Client = Client { address: PROXY, trusted: true, scheme: Scheme::Http };

    #[divan::bench(name = "1_validate")]
    fn validation(bencher: Bencher<'_, '_>) {
        let request = request();
        bencher.bench(|| validate(&request).is_ok());
    }

    #[divan::bench(name = "2_strip_request")]
    fn strip_request(bencher: Bencher<'_, '_>) {
        bencher.with_inputs(request_head).bench_refs(strip_hop_by_hop);
    }

    #[divan::bench(name = "3_set_forwarded_trusted")]
    fn forwarded(bencher: Bencher<'_, '_>) {
        bencher
            .with_inputs(request_head)
            .bench_refs(|head| set_forwarded(head, &CLIENT, ForwardedFor::Keep));
    }

    /// Removes the headers that the client claims.
    #[divan::bench(name = "3_set_forwarded_untrusted")]
    fn forwarded_untrusted(bencher: Bencher<'_, '_>) {
        let client = Client { trusted: false, ..CLIENT };
        bencher
            .with_inputs(request_head)
            .bench_refs(|head| set_forwarded(head, &client, ForwardedFor::Keep));
    }

    #[divan::bench(name = "4_strip_response")]
    fn strip_response(bencher: Bencher<'_, '_>) {
        bencher.with_inputs(response_head).bench_refs(strip_hop_by_hop);
    }

    /// Steps of a request between its identity and the app's connection, all together.
    #[divan::bench(name = "request_altogether")]
    fn altogether(bencher: Bencher<'_, '_>) {
        bencher.with_inputs(request).bench_refs(|request| {
            let valid = validate(request).is_ok();
            let websocket = headers::is_websocket(request);
            let trailers = takes_trailers(request.headers());
            strip_hop_by_hop(request.headers_mut());
            set_forwarded(request.headers_mut(), &CLIENT, ForwardedFor::Keep);
            headers::to_http1(request);
            (valid, websocket, trailers)
        });
    }
}

mod inject {
    use super::{
        Api, Bencher, Details, Duration, Eligibility, Issuer, MintPlan, Minted, Moment, Place,
        StatusCode, SystemTime, Token, black_box, injection, request, response_head, token,
    };

    /// Decision between the two jobs: a token route, or the header.
    #[divan::bench(name = "1_coverage")]
    fn coverage(bencher: Bencher<'_, '_>) {
        let (injection, request) = (injection(), request());
        bencher.bench(|| {
            let path = black_box(request.uri().path());
            injection.route(path).is_none()
                && injection.coverage(request.method(), path, request.headers()).place().is_some()
        });
    }

    #[divan::bench(name = "2_strip")]
    fn strip(bencher: Bencher<'_, '_>) {
        let injection = injection();
        bencher.with_inputs(response_head).bench_refs(|head| injection.strip(head));
    }

    #[divan::bench(name = "3_eligibility")]
    fn eligibility(bencher: Bencher<'_, '_>) {
        let (injection, head) = (injection(), response_head());
        let now = SystemTime::now();
        assert!(
            injection.eligibility(Place::Header, StatusCode::OK, &head, now)
                == Eligibility::Eligible
        );
        bencher
            .bench(|| injection.eligibility(Place::Header, StatusCode::OK, black_box(&head), now));
    }

    #[divan::bench(name = "4_apply")]
    fn apply(bencher: Bencher<'_, '_>) {
        let (injection, token) = (injection(), token());
        bencher
            .with_inputs(response_head)
            .bench_refs(|head| injection.apply(Place::Header, head, &token));
    }

    /// The whole answer of a token route.
    #[divan::bench]
    fn route_answer(bencher: Bencher<'_, '_>) {
        let (injection, now) = (injection(), Moment::now());
        let route = injection.route("/api/velt/token").expect("a default route");
        let issuer = Issuer {
            api: Api::Legacy,
            endpoint: "https://velt.example/".into(),
            credentials_generation: 0,
            organization: None,
            resources: [].into(),
        };
        let request = MintPlan::new(issuer, false).request("ada".into(), Details::default());
        let minted = Minted::now(token(), Duration::from_secs(48 * 3600));
        let token = Token::new(minted, &request.expect("no organization is needed"), now);
        bencher.bench(|| route.answer(black_box(&token), now));
    }
}

mod record {
    use std::io::sink;

    use super::{
        AccessLog, Bencher, Duration, End, Format, HeaderDelivery, HeaderValue, Line, Metrics,
        Outcome, PROXY, Settings, StatusCode, SystemTime, TraceId, Tracing, Version, access_log,
        request_head,
    };

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-";

    fn line() -> Line<'static> {
        Line {
            time: SystemTime::now(),
            peer: PROXY,
            method: "GET",
            path: "/api/documents",
            version: Version::HTTP_11,
            status: Some(StatusCode::OK),
            outcome: Outcome::Forwarded,
            token: Some(HeaderDelivery::Injected),
            request_bytes: 0,
            response_bytes: 1024,
            total: Duration::from_micros(12_345),
            added: Duration::from_micros(45),
            app: Some(Duration::from_micros(12_300)),
            end: End::Whole,
            trace: TraceId::parse(&[b'a'; 32]),
            user: None,
        }
    }

    #[divan::bench(args = [Format::Json, Format::Text])]
    fn access_log_format(bencher: Bencher<'_, '_>, format: Format) {
        let (line, mut out) = (line(), Vec::with_capacity(1024));
        bencher.bench_local(|| {
            out.clear();
            line.format(format, &mut out);
        });
    }

    /// Writes a line and hands it to the thread, which discards it. `t=2`: two workers at once.
    #[divan::bench(threads = [1, 2])]
    fn access_log_write(bencher: Bencher<'_, '_>) {
        let settings = access_log::Settings { format: Format::Json, sample: 1.0, user: false };
        let dropped = Metrics::new().access_log_dropped;
        let log = AccessLog::to(sink(), &settings, dropped).expect("a thread");
        let line = line();
        bencher.bench(|| log.write(&line));
    }

    /// Writes a line that the sample leaves out.
    #[divan::bench]
    fn access_log_sampled_out(bencher: Bencher<'_, '_>) {
        let settings = access_log::Settings { format: Format::Json, sample: 0.0, user: false };
        let dropped = Metrics::new().access_log_dropped;
        let log = AccessLog::to(sink(), &settings, dropped).expect("a thread");
        let line = line();
        bencher.bench(|| log.write(&line));
    }

    /// Requests without a trace, with an unsampled trace, and with a trace that starts here.
    #[divan::bench(args = ["none", "unsampled", "created"])]
    fn trace(bencher: Bencher<'_, '_>, case: &str) {
        let settings = Settings { create: case == "created", sample: 0.0, export: None };
        let tracing = Tracing::new(&settings, None);
        let mut head = request_head();
        if case == "unsampled" {
            let parent = HeaderValue::try_from(format!("{PARENT}00")).expect("a value");
            head.insert("traceparent", parent);
        }
        bencher
            .with_inputs(|| head.clone())
            .bench_refs(|head| tracing.enter(head).map(|trace| trace.id));
    }
}

fn config() -> Config {
    let token = ("VELT_AUTH_TOKEN".to_owned(), "token".to_owned());
    Config::parse("bench", "[velt]\napi_key = \"key\"\n", &BTreeMap::from([token]))
        .expect("the defaults and two credentials")
}

fn identity() -> Identity {
    Identity::new(config().identity, Metrics::new().identity).expect("no TLS needed")
}

fn injection() -> Injection {
    Injection::new(config().delivery)
}

fn token() -> TokenValue {
    TokenValue::parse(&"x".repeat(900)).expect("visible ASCII")
}

fn request() -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = "/api/documents?page=2".parse().expect("a target");
    *request.headers_mut() = request_head();
    request
}

fn request_head() -> HeaderMap {
    head(&REQUEST)
}

fn response_head() -> HeaderMap {
    head(&RESPONSE)
}

fn head(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let line = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    lines.iter().map(line).collect()
}
