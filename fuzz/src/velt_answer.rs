//! Reading of Velt's answers, for any answer that Velt or a proxy in between may send.
//!
//! First line: three letters, for the answer's status (`a` to `n`, see [`STATUSES`]), for `velt.verify_user`
//! (`a`, `r`, `o`) and for the form of the rest: `t` makes a token whose claims are the rest; `r` sends the
//! rest as the answer's body. Then lines with `Retry-After` and `Date`, an empty line, and the rest.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ground::tls::Roots;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use secrecy::SecretString;
use serde_json::{Value, json};
use token::velt::{Api, DOCUMENTED_LIFE, Settings, VeltClient, VerifyUser};
use token::{
    Demand, Details, Issuer, MalformedReason, Mint as _, MintError, MintPlan, MintRequest, Minted,
    TokenValue,
};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use super::lines;

const STATUSES: [u16; 14] = [200, 201, 299, 301, 307, 400, 401, 403, 404, 408, 429, 500, 503, 504];

/// The user; a name that a fuzzer does not hit by chance in an error's text.
const USER: &str = "ada-5f1d0c";

/// # Panics
///
/// Panics if the client returns a token that was meant for another user, or a life longer than the token's,
/// or an error whose text holds the user id or a credential.
pub fn check(input: &[u8]) {
    let Some((case, answer)) = Case::read(input) else { return };
    let minted = VELT.with(|velt| velt.mint(case.verify, answer));
    match minted {
        Ok(minted) => case.assert_minted(&minted),
        Err(error) => case.assert_failed(&error),
    }
}

struct Case {
    status: StatusCode,
    verify: VerifyUser,
    date: Option<Duration>,
    body: Vec<u8>,
}

impl Case {
    fn read(input: &[u8]) -> Option<(Self, Response<Full<Bytes>>)> {
        let (options, rest) = lines::first_line(input);
        let [status, verify, form] = options.try_into().ok()?;
        let status = STATUSES.get(usize::from(u8::checked_sub(status, b'a')?))?;
        let status = StatusCode::from_u16(*status).ok()?;
        let verify = match verify {
            b'a' => VerifyUser::Auto,
            b'r' => VerifyUser::Require,
            b'o' => VerifyUser::Off,
            _ => return None,
        };
        let (head, rest) = match rest.windows(2).position(|pair| pair == b"\n\n") {
            Some(end) => (&rest[..end], &rest[end + 2..]),
            None => (&b""[..], rest),
        };
        let body = match form {
            b't' => {
                let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(rest));
                json!({ "result": { "data": { "token": token } } }).to_string().into_bytes()
            }
            b'r' => rest.to_vec(),
            _ => return None,
        };
        let said = lines::headers(head);
        let mut answer = Response::new(Full::from(body.clone()));
        *answer.status_mut() = status;
        for name in [RETRY_AFTER, DATE] {
            if let Some(value) = said.get(&name) {
                answer.headers_mut().insert(name, value.clone());
            }
        }
        let date = date_of(&said);
        Some((Self { status, verify, date, body }, answer))
    }

    fn assert_minted(&self, minted: &Minted) {
        assert!(self.status.is_success(), "a token came with {}", self.status);
        let token = minted.value.expose();
        // serde skips unknown fields unread, so the whole body need not be a `Value`.
        let body = self.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.body);
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let said = answer.pointer("/result/data/token");
        assert!(said.is_none_or(|said| said == token), "byte for byte");
        assert!((1..=TokenValue::MAX_BYTES).contains(&token.len()));
        assert!(token.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte)));
        assert_eq!(minted.value.header().as_bytes(), token.as_bytes());
        assert!(!minted.life.is_zero() && minted.life <= DOCUMENTED_LIFE);
        let claims = claims(token);
        if let (Some(exp), Some(now)) = (claims["exp"].as_f64(), self.date) {
            let left = exp - now.as_secs_f64();
            assert!(minted.life.as_secs_f64() <= left.max(0.0) + 1e-3, "served beyond its end");
        }
        let verified = match &claims["userId"] {
            Value::Null => self.verify != VerifyUser::Require,
            Value::String(user) => user == USER,
            _ => false,
        };
        assert!(verified || self.verify == VerifyUser::Off, "minted for {}", claims["userId"]);
    }

    fn assert_failed(&self, error: &MintError) {
        if self.status.is_redirection() {
            let redirect = MalformedReason::Redirect;
            assert!(matches!(error, MintError::Malformed { reason } if *reason == redirect));
        }
        if error.is_retryable() {
            assert!(error.retry_after().is_none_or(|wait| wait <= Duration::from_secs(300)));
        }
        let malformed = matches!(error, MintError::Malformed { .. });
        // Only Velt refuses: a refusal by another server is malformed. Any server may be down or busy.
        assert!(
            !malformed
                || !self.status.is_server_error() && self.status != 429 && self.status != 408
        );
        if matches!(error, MintError::Refused { .. }) {
            let body = self.body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.body);
            assert!(!body.trim_ascii().starts_with(b"<"), "a page is no word of Velt's");
        }
        // The cache decides by these two whether to ask again.
        let refused = matches!(error, MintError::Refused { .. } | MintError::Mismatch);
        assert!(!(refused && error.is_retryable()));
        let text = format!("{error} {error:?}");
        for secret in [USER, API_KEY, AUTH_TOKEN] {
            assert!(!text.contains(secret), "{text}");
        }
        // The fake server never breaks a connection off: such an error would be a hole in this target.
        assert!(!matches!(error, MintError::Unavailable { http_status: None, .. }), "{text}");
    }
}

/// Returns the claims of `token`, or `Null` if it has none.
fn claims(token: &str) -> Value {
    let parts: Vec<&str> = token.split('.').collect();
    let payload = parts.get(1).filter(|_| parts.len() >= 3).copied().unwrap_or_default();
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&payload).unwrap_or_default();
    if claims.is_object() { claims } else { Value::Null }
}

/// Returns the time of Velt's clock, if the answer tells it.
fn date_of(headers: &HeaderMap) -> Option<Duration> {
    let date = std::str::from_utf8(headers.get(DATE)?.as_bytes()).ok()?;
    httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()
}

const API_KEY: &str = "key-5f1d0c";
const AUTH_TOKEN: &str = "secret-5f1d0c";

thread_local! {
    /// One server and its connections for all inputs: a new connection for each input would use up the
    /// machine's ports.
    static VELT: FakeVelt = FakeVelt::start();
}

/// An HTTP server on loopback that gives the answer it is set to, and clients that call it.
struct FakeVelt {
    runtime: Runtime,
    tasks: LocalSet,
    answer: Rc<RefCell<Response<Full<Bytes>>>>,
    clients: [(VerifyUser, VeltClient); 3],
    request: MintRequest,
}

impl FakeVelt {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (tasks, answer) = (LocalSet::new(), Rc::<RefCell<Response<Full<Bytes>>>>::default());
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tasks.spawn_local(serve(listener, Rc::clone(&answer)));
        let clients = [VerifyUser::Auto, VerifyUser::Require, VerifyUser::Off]
            .map(|verify_user| (verify_user, client(address, verify_user)));
        let endpoint = Arc::from(format!("http://{address}/"));
        let issuer = Issuer {
            api: Api::Legacy,
            endpoint,
            credentials_generation: 0,
            organization: None,
            resources: Arc::from([]),
        };
        let request = MintPlan::new(issuer, false).request(USER.into(), Details::default());
        let request = request.expect("no organization is needed");
        Self { runtime, tasks, answer, clients, request }
    }

    fn mint(&self, verify: VerifyUser, answer: Response<Full<Bytes>>) -> Result<Minted, MintError> {
        self.answer.replace(answer);
        let client = self.clients.iter().find(|(verify_user, _)| *verify_user == verify);
        let (_, client) = client.expect("one for each");
        self.tasks.block_on(&self.runtime, client.mint(&self.request, &Demand::urgent()))
    }
}

async fn serve(listener: TcpListener, answer: Rc<RefCell<Response<Full<Bytes>>>>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("an option of TCP");
        let answer = Rc::clone(&answer);
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = Rc::clone(&answer);
            async move {
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(answer.borrow().clone())
            }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::task::spawn_local(async move {
            // Ends when the client closes its connection.
            let _ = connection.await;
        });
    }
}

fn client(address: SocketAddr, verify_user: VerifyUser) -> VeltClient {
    let settings = Settings {
        api: Api::Legacy,
        endpoint: format!("http://{address}/").parse().expect("a URL"),
        api_key: SecretString::from(API_KEY),
        auth_token: SecretString::from(AUTH_TOKEN),
        verify_user,
        connect_timeout: Duration::from_secs(5),
        roots: Roots::Bundled,
    };
    VeltClient::new(settings).expect("a client")
}
