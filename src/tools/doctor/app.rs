//! Checks the app: whether the app answers as configured, keeps connections for longer than the sidecar does,
//! and can only be reached through the sidecar.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;

use super::{Check, Finding, Findings, Surroundings, app_path};
use ground::logging::Chain;
use ground::tls::ClientTls;
use hop::proxy::{Address, AppProtocol, IdleTime, Probe, Settings, UpstreamError, probe};

/// The longest wait for the app to close an idle connection.
const LONGEST_HOLD: Duration = Duration::from_secs(8);

pub(super) async fn check(around: Arc<Surroundings>) -> Vec<Finding> {
    let mut findings = Findings::of(Check::App);
    let Some(settings) = &around.config.app else {
        without_app(&around, &mut findings);
        return findings.all();
    };
    let place = place(settings);
    look_at_address(settings, &mut findings).await;
    let tls = match settings.tls.as_ref().map(ClientTls::load).transpose() {
        Ok(tls) => tls,
        Err(error) => {
            let remedy = "name in app.ca_file the authority that signed the app's certificate";
            findings.fatal("app.ca_file", error.to_string(), remedy);
            return findings.all();
        }
    };
    match probe(settings, tls.as_ref(), hold(settings)).await {
        Ok(probe) => {
            answered(&probe, &place, settings, &mut findings);
            if probe.to_https {
                app_path::look_at_https(settings, tls.as_ref(), &place, &mut findings).await;
            }
            look_at_idle(&probe, settings, &mut findings);
            app_path::look_at_path(&around, settings, tls.as_ref(), &mut findings).await;
            app_path::look_at_details(&around, settings, tls.as_ref(), &mut findings).await;
        }
        Err(error) => failed(&error, place, settings, tls.as_ref(), &mut findings).await,
    }
    findings.all()
}

/// Tells what a sidecar without an app answers.
fn without_app(around: &Surroundings, findings: &mut Findings) {
    let delivery = &around.config.delivery;
    let routes = delivery.routes.iter().map(|route| &*route.path);
    let answered: Vec<&str> = routes.chain(delivery.check.path.as_deref()).collect();
    findings.note(
        "app.address none",
        format!("no app is behind the sidecar, which answers {}", answered.join(", ")),
        "have the gateway send these paths, or its checks, to the sidecar, and all else to the app",
    );
}

fn place(settings: &Settings) -> String {
    match &settings.address {
        Address::Tcp(authority) => format!("app.address {authority}"),
        Address::Unix(path) => format!("app.address unix:{}", path.display()),
    }
}

/// Time within which an app that closes a connection after its response leaves the sidecar no idle
/// connection.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Returns how long to watch an idle connection: a little longer than the sidecar keeps an idle connection
/// itself.
fn hold(settings: &Settings) -> Duration {
    if settings.max_idle == 0 {
        return Duration::ZERO;
    }
    let margin = (settings.idle_timeout / 4).min(Duration::from_secs(1));
    (settings.idle_timeout + margin).min(LONGEST_HOLD)
}

/// Warns if the app's address is not loopback: a client that reaches the app itself can claim to be any user.
async fn look_at_address(settings: &Settings, findings: &mut Findings) {
    let Address::Tcp(authority) = &settings.address else { return };
    // `doctor::resolution` reports a name without an address.
    let Ok(addresses) = lookup_host(authority.as_str()).await else { return };
    let outside: Vec<IpAddr> =
        addresses.map(|address| address.ip()).filter(|address| !address.is_loopback()).collect();
    if let Some(address) = outside.first() {
        findings.warning(
            place(settings),
            format!("{address} is not loopback: a client that reaches it bypasses the sidecar"),
            "let the app listen on 127.0.0.1 in the sidecar's pod, or let only the sidecar reach \
             it (NetworkPolicy): otherwise a client there can claim to be any user",
        );
    }
}

fn answered(probe: &Probe, place: &str, settings: &Settings, findings: &mut Findings) {
    let Probe { connect_time, response_time, status, .. } = probe;
    let what = format!(
        "it answers {}: connected after {connect_time:.1?}, GET / gave {} after {response_time:.1?}",
        protocol(settings.protocol),
        status.as_u16()
    );
    if status.is_server_error() {
        let remedy = "look at the app's own log; the sidecar hands such answers on as they are";
        findings.warning(place, what, remedy);
    } else {
        findings.ok(place, what);
    }
}

fn look_at_idle(probe: &Probe, settings: &Settings, findings: &mut Findings) {
    if settings.max_idle == 0 {
        let what = "each request has a connection of its own, so the app closes none too early";
        return findings.ok("app.max_idle 0", what);
    }
    let ours = settings.idle_timeout;
    let place = format!("app.idle_timeout {ours:?}");
    let shorter = |theirs: Duration| {
        let below = theirs.mul_f64(0.8);
        format!(
            "let the app keep connections for longer, or write idle_timeout = \"{}ms\" in [app]",
            below.as_millis().max(1)
        )
    };
    let race = "requests will meet connections that the app is just closing";
    if let Some(announced) = probe.announced.filter(|announced| *announced <= ours) {
        let what = format!("the app says Keep-Alive: timeout={}: {race}", announced.as_secs());
        findings.warning(place, what, shorter(announced));
        return;
    }
    match probe.idle {
        IdleTime::Closed(after) if after.is_zero() => findings.warning(
            place,
            "the app closes every connection after its response, so each request opens one",
            "turn on keep-alive in the app's server",
        ),
        IdleTime::Closed(after) if after <= ours.min(AT_ONCE) => findings.warning(
            place,
            format!("the app closed an idle connection after {after:.1?}, unannounced: {race}"),
            "write max_idle = 0 in [app], for one connection per request, or turn on keep-alive in \
             the app's server",
        ),
        IdleTime::Closed(after) if after <= ours => {
            let what = format!("the app closed an idle connection after {after:.1?}: {race}");
            findings.warning(place, what, shorter(after));
        }
        IdleTime::Closed(after) => {
            findings.ok(
                place,
                format!("the app keeps an idle connection for {after:.1?}, which is longer"),
            );
        }
        IdleTime::Open(held) if held >= ours => findings.ok(
            place,
            format!("the app keeps an idle connection for more than {held:.1?}, which is longer"),
        ),
        IdleTime::Open(held) => findings.note(
            place,
            format!("the app kept an idle connection for {held:.1?}; doctor waited no longer"),
            "make sure that the app's own keep-alive exceeds app.idle_timeout",
        ),
        IdleTime::Busy => findings.note(
            place,
            "GET / did not end, so doctor could not see how long the app keeps idle connections",
            "make sure that the app's own keep-alive exceeds app.idle_timeout",
        ),
    }
}

async fn failed(
    error: &UpstreamError,
    place: String,
    settings: &Settings,
    tls: Option<&ClientTls>,
    findings: &mut Findings,
) {
    if matches!(error, UpstreamError::Broken(_) | UpstreamError::Unreachable(_))
        && let Some(other) = other_protocol(settings, tls).await
    {
        findings.problem(
            "app.protocol",
            format!("the app speaks {} and not {}", protocol(other), protocol(settings.protocol)),
            format!("write protocol = \"{}\" in [app]", word(other)),
        );
        return;
    }
    let remedy = match error {
        UpstreamError::Timeout | UpstreamError::Idle => {
            "see what the app does with GET /, or allow more by app.response_timeout"
        }
        UpstreamError::Unreachable(_) => {
            "start the app, or write where it listens; before a pod's containers have started, as \
             in an init container, nothing else can be expected (--init)"
        }
        _ => {
            "see whether something else listens there, or the app wants TLS: address = \"https://...\""
        }
    };
    findings.problem(place, Chain(error).to_string(), remedy);
}

/// Returns the protocol that the app speaks, if the app does not speak the configured one.
async fn other_protocol(settings: &Settings, tls: Option<&ClientTls>) -> Option<AppProtocol> {
    let other = match (settings.protocol, tls) {
        (AppProtocol::Http1, None) => AppProtocol::H2c,
        (AppProtocol::Http1, Some(_)) => AppProtocol::H2,
        (AppProtocol::H2c | AppProtocol::H2, _) => AppProtocol::Http1,
    };
    let settings = Settings { protocol: other, ..settings.clone() };
    let answered = probe(&settings, tls, Duration::ZERO).await;
    // A server of HTTP/1.1 that does not know the preface of HTTP/2 says so in an answer.
    answered.is_ok().then_some(other)
}

fn word(protocol: AppProtocol) -> &'static str {
    match protocol {
        AppProtocol::Http1 => "http1",
        AppProtocol::H2c => "h2c",
        AppProtocol::H2 => "h2",
    }
}

fn protocol(protocol: AppProtocol) -> &'static str {
    match protocol {
        AppProtocol::Http1 => "HTTP/1.1",
        AppProtocol::H2c => "HTTP/2 without TLS",
        AppProtocol::H2 => "HTTP/2 over TLS",
    }
}
