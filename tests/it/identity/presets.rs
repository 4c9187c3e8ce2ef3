//! Each preset, with the headers that the real front sends, and with forged headers.

use ground::metrics::Label as _;
use http::HeaderMap;
use identity::Source;
use serde_json::{Value, json};

use super::assertion::result_count;
use super::{assert_ambiguous, identified, identity, spoof_count};
use crate::support::client::Sending;
use crate::support::issuer::{Issuer, Pen};
use crate::support::velt::{unix_seconds, user_of};
use crate::support::{Stage, config};

/// A front that sets plain headers.
struct Plain {
    preset: &'static str,
    more: &'static str,
    /// Headers that the front sets, the user's id first, as the front's documentation has them.
    headers: &'static [(&'static str, &'static str)],
    /// Properties that reach Velt.
    user: fn() -> Value,
}

const PLAIN: [Plain; 6] = [
    Plain {
        preset: "oauth2-proxy",
        more: "admin_groups = [\"admins\"]",
        headers: &[
            ("X-Forwarded-User", "10769150350006150715113082367"),
            ("X-Forwarded-Email", "ada@example.com"),
            ("X-Forwarded-Preferred-Username", "ada"),
            ("X-Forwarded-Groups", "staff,admins"),
            ("X-Forwarded-Access-Token", "ya29.opaque"),
        ],
        user: || json!({ "name": "ada", "email": "ada@example.com", "isAdmin": true }),
    },
    Plain {
        preset: "oauth2-proxy-auth-request",
        more: "admin_groups = [\"admins\"]",
        headers: &[
            ("X-Auth-Request-User", "10769150350006150715113082367"),
            ("X-Auth-Request-Email", "ada@example.com"),
            ("X-Auth-Request-Preferred-Username", "ada"),
            ("X-Auth-Request-Groups", "staff,other"),
            ("X-Auth-Request-Access-Token", "ya29.opaque"),
        ],
        user: || json!({ "name": "ada", "email": "ada@example.com", "isAdmin": false }),
    },
    Plain {
        preset: "authentik",
        more: "admin_groups = [\"authentik Admins\"]",
        headers: &[
            ("X-authentik-uid", "900347b8a29876b45ca6f75722635ecfedf0e931c6022e3a29a8aa13fb5516fb"),
            ("X-authentik-username", "akadmin"),
            ("X-authentik-email", "root@localhost"),
            ("X-authentik-name", "authentik Default Admin"),
            ("X-authentik-groups", "foo|authentik Admins|baz"),
            ("X-authentik-entitlements", "foo|bar|baz"),
            ("X-authentik-jwt", "a.b.c"),
        ],
        user: || json!({ "name": "authentik Default Admin", "email": "root@localhost", "isAdmin": true }),
    },
    Plain {
        preset: "authelia",
        more: "admin_groups = [\"admins\"]",
        headers: &[
            ("Remote-User", "john"),
            ("Remote-Groups", "admins,dev"),
            ("Remote-Name", "John Doe"),
            ("Remote-Email", "john.doe@authelia.com"),
        ],
        user: || json!({ "name": "John Doe", "email": "john.doe@authelia.com", "isAdmin": true }),
    },
    Plain {
        preset: "azure-easy-auth",
        more: "",
        headers: &[
            ("X-MS-CLIENT-PRINCIPAL-ID", "9e8f5b1c-1f3a-4a34-b1d0-7a0d3b6b7a11"),
            ("X-MS-CLIENT-PRINCIPAL-NAME", "ada@contoso.com"),
            ("X-MS-CLIENT-PRINCIPAL-IDP", "aad"),
            ("X-MS-CLIENT-PRINCIPAL", "eyJhdXRoX3R5cCI6ImFhZCJ9"),
        ],
        user: || json!({ "name": "ada@contoso.com" }),
    },
    Plain {
        preset: "istio",
        more: "user_header = \"X-Jwt-Sub\"\nemail_header = \"X-Jwt-Email\"",
        headers: &[("X-Jwt-Sub", "testing@secure.istio.io"), ("X-Jwt-Email", "ada@example.com")],
        user: || json!({ "email": "ada@example.com" }),
    },
];

impl Plain {
    fn toml(&self, peers: &str) -> String {
        let Self { preset, more, .. } = self;
        format!(
            "[identity]\npreset = \"{preset}\"\n{more}\n{peers}\n\
             [velt]\napi = \"v2\"\norganization = \"o\"\n"
        )
    }

    /// Returns the peers that `istio` must write, because an address is no anchor behind a mesh.
    fn peers(&self) -> &'static str {
        if self.preset == "istio" { "trusted_peers = [\"127.0.0.1\"]" } else { "" }
    }

    fn send(&self, stage: &Stage) -> Sending {
        let sending = stage.client().get("/");
        self.headers.iter().fold(sending, |sending, (name, value)| sending.header(name, value))
    }
}

#[tokio::test]
async fn plain_headers_of_each_front_are_read_and_forwarded() {
    for front in &PLAIN {
        let stage = Stage::set(&front.toml(front.peers())).await;
        for answer in [front.send(&stage).send().await, front.send(&stage).send_http2().await] {
            let token = answer.token().unwrap_or_else(|| panic!("{}: no token", front.preset));
            assert_eq!(user_of(token), front.headers[0].1);
        }
        let data = &stage.velt.calls()[0].body["data"];
        assert_eq!(data["userProperties"], (front.user)(), "{}", front.preset);
        for (name, value) in front.headers {
            assert_eq!(stage.app.journal()[0].header(name), Some(*value));
        }
    }
}

#[tokio::test]
async fn t10_forged_headers_of_each_front_name_no_user() {
    for front in &PLAIN {
        let stage = Stage::set(&front.toml("trusted_peers = [\"10.0.0.0/8\"]")).await;
        let mut sending = front.send(&stage);
        for (name, value) in front.headers {
            sending = sending.header(&name.replace('-', "_"), value);
        }
        let answer = sending.send().await;
        assert_eq!(answer.token_status(), Some("anonymous"), "{}", front.preset);
        let arrived = stage.app.only();
        for (name, _) in front.headers {
            for name in [(*name).to_owned(), name.replace('-', "_")] {
                assert_eq!(arrived.header(&name), None, "{}", front.preset);
            }
        }
        let count = front.headers.len() as f64;
        assert_eq!(spoof_count(&stage, "identity_header").await, count);
        assert_eq!(spoof_count(&stage, "alias").await, count);
        assert_eq!(stage.velt.call_count(), 0);
    }
}

#[tokio::test]
async fn t04_front_headers_without_a_user_are_removed() {
    for front in &PLAIN {
        let stage = Stage::set(&front.toml(front.peers())).await;
        let (user, more) = front.headers.split_first().expect("some headers");
        let leftovers = || {
            let sending = stage.client().get("/");
            more.iter().fold(sending, |sending, (name, value)| sending.header(name, value))
        };
        let answers = [
            leftovers().send().await,
            leftovers().send_http2().await,
            leftovers().header(user.0, "").send().await,
        ];
        for answer in answers {
            assert_eq!(answer.token_status(), Some("anonymous"), "{}", front.preset);
        }
        for arrived in stage.app.journal() {
            for (name, _) in more {
                assert_eq!(arrived.header(name), None, "{} of {}", name, front.preset);
            }
        }
        let count = 3.0 * more.len() as f64;
        assert_eq!(spoof_count(&stage, "identity_header").await, count, "{}", front.preset);
    }
}

#[tokio::test]
async fn t01_an_alias_of_any_header_of_a_front_is_refused() {
    for front in &PLAIN {
        let stage = Stage::set(&front.toml(front.peers())).await;
        for (name, value) in front.headers {
            let sending = front.send(&stage).header(&name.replacen('-', "_", 1), value);
            assert_ambiguous(&sending.send().await);
        }
    }
}

/// A front that signs an assertion.
struct Signed {
    preset: &'static str,
    pen: Pen,
    /// Settings that only the operator knows.
    more: &'static str,
    header: &'static str,
    assertion: fn(&Pen) -> String,
    user: &'static str,
    properties: Value,
    /// Headers that the front also sends, unsigned.
    plain: &'static [(&'static str, &'static str)],
}

const ALB: &str =
    "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/my-app/50dc6c495c0c9188";

fn signed() -> Vec<Signed> {
    vec![
        Signed {
            preset: "pomerium",
            pen: Pen::es256("ccc5bc9d835ff3c8f7075ed4a7510159cf440fd7bf7b517b5caeb1fa419ee6a1"),
            more: "audience = [\"app.corp.example.com\"]",
            header: "X-Pomerium-Jwt-Assertion",
            assertion: |pen| {
                let now = unix_seconds();
                pen.sign(&json!({ "iss": "app.corp.example.com", "aud": "app.corp.example.com",
                    "exp": now + 300, "iat": now, "jti": "f3e7fae3-2e3b-4a8a-9e5d-1a4b1a2a3b4c",
                    "sub": "google/107", "user": "google/107", "email": "ada@example.com",
                    "name": "Ada Lovelace", "groups": ["admins", "staff"] }))
            },
            user: "google/107",
            properties: json!({ "name": "Ada Lovelace", "email": "ada@example.com" }),
            plain: &[("X-Pomerium-Claim-Email", "ada@example.com")],
        },
        Signed {
            preset: "cloudflare-access",
            pen: Pen::rs256("1a1c3986a44ce6390be42ec772b031df8f433fdc71716db821dc0c39af3bce49"),
            more: "issuer = \"https://team.cloudflareaccess.com\"\naudience = [\"32eafc7626e7\"]",
            header: "Cf-Access-Jwt-Assertion",
            assertion: |pen| {
                let now = unix_seconds();
                pen.sign(&json!({ "aud": ["32eafc7626e7"], "email": "ada@example.com",
                    "exp": now + 86_400, "iat": now, "nbf": now,
                    "iss": "https://team.cloudflareaccess.com", "type": "app",
                    "identity_nonce": "6ei69kawdKzMIAPF",
                    "sub": "7335d417-61da-459d-899c-0a01c76a2f94", "country": "US" }))
            },
            user: "7335d417-61da-459d-899c-0a01c76a2f94",
            properties: json!({ "email": "ada@example.com" }),
            plain: &[("Cf-Access-Authenticated-User-Email", "ada@example.com")],
        },
        Signed {
            preset: "google-iap",
            pen: Pen::es256("5PuDqQ"),
            more: "audience = [\"/projects/123456789/global/backendServices/987654321\"]",
            header: "X-Goog-Iap-Jwt-Assertion",
            assertion: |pen| {
                let now = unix_seconds();
                pen.sign(&json!({
                    "aud": "/projects/123456789/global/backendServices/987654321",
                    "email": "ada@example.com", "exp": now + 600, "iat": now,
                    "hd": "example.com", "google": { "access_levels": ["accessPolicies/1"] },
                    "iss": "https://cloud.google.com/iap",
                    "sub": "accounts.google.com:115316524529024874" }))
            },
            user: "accounts.google.com:115316524529024874",
            properties: json!({ "email": "ada@example.com" }),
            plain: &[
                ("X-Goog-Authenticated-User-Email", "accounts.google.com:ada@example.com"),
                ("X-Goog-Authenticated-User-Id", "accounts.google.com:115316524529024874"),
            ],
        },
        Signed {
            preset: "aws-alb",
            pen: Pen::es256("0a1b2c3d-4e5f-6789-abcd-ef0123456789"),
            more: "issuer = \"https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc\"\n\
                   signer = \"arn:aws:elasticloadbalancing:eu-west-1:123456789012:\
                   loadbalancer/app/my-app/50dc6c495c0c9188\"",
            header: "X-Amzn-Oidc-Data",
            assertion: |pen| pen.sign_padded(&alb_header(pen, ALB), &alb_claims()),
            user: "ada-sub",
            properties: json!({ "name": "Ada", "email": "ada@example.com" }),
            plain: &[("X-Amzn-Oidc-Identity", "ada-sub"), ("X-Amzn-Oidc-Accesstoken", "x.y.z")],
        },
    ]
}

fn alb_header(pen: &Pen, signer: &str) -> Value {
    json!({ "typ": "JWT", "kid": pen.id(), "alg": "ES256",
        "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc",
        "client": "1example23456789", "signer": signer, "exp": unix_seconds() + 120 })
}

fn alb_claims() -> Value {
    json!({ "sub": "ada-sub", "email_verified": "true", "email": "ada@example.com", "name": "Ada",
        "username": "ada", "exp": unix_seconds() + 120,
        "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_abc" })
}

impl Signed {
    /// Returns the configuration, with the keys at the stand-in, because the real keys are out of reach.
    fn toml(&self, issuer: &Issuer) -> String {
        let key = if self.preset == "aws-alb" { "key_url" } else { "jwks_url" };
        format!(
            "[identity]\npreset = \"{}\"\n[velt]\napi = \"v2\"\norganization = \"o\"\n\
             [identity.assertion]\n{key} = \"http://{}/keys\"\n{}\n",
            self.preset, issuer.server.address, self.more
        )
    }

    async fn stage(&self) -> (Issuer, Stage) {
        let issuer = Issuer::publishing(&[&self.pen]).await;
        if self.preset == "aws-alb" {
            let pem = self.pen.pem();
            issuer.answer(move |_| http::Response::new(crate::support::app::full(pem.clone())));
        }
        let stage = Stage::set(&self.toml(&issuer)).await;
        (issuer, stage)
    }
}

#[tokio::test]
async fn assertion_of_each_front_is_read_and_forwarded() {
    for front in signed() {
        let (issuer, stage) = front.stage().await;
        let send = || {
            let sending =
                stage.client().get("/").header(front.header, (front.assertion)(&front.pen));
            front.plain.iter().fold(sending, |sending, (name, value)| sending.header(name, value))
        };
        for answer in [send().send().await, send().send_http2().await] {
            let token = answer.token().unwrap_or_else(|| panic!("{}: {answer:?}", front.preset));
            assert_eq!(user_of(token), front.user);
        }
        let properties = &stage.velt.calls()[0].body["data"]["userProperties"];
        assert_eq!(*properties, front.properties, "{}", front.preset);
        for (name, value) in front.plain {
            assert_eq!(stage.app.journal()[0].header(name), Some(*value));
        }
        if front.preset == "aws-alb" {
            let target = &issuer.server.only().target;
            assert_eq!(*target, format!("/keys/{}", front.pen.id()));
        }
    }
}

#[tokio::test]
async fn t08_assertion_of_another_front_of_the_same_make_is_refused() {
    for front in signed() {
        let (_issuer, stage) = front.stage().await;
        let forger = Pen { jwk: front.pen.jwk.clone(), ..forger(front.preset) };
        for forged in [(front.assertion)(&forger), "x".into()] {
            let answer = stage.client().get("/").header(front.header, forged).send().await;
            assert_eq!((answer.status(), &*answer.code()), (401, "invalid_assertion"));
        }
        // Without an assertion, the plain headers count as the client's.
        let sending = stage.client().get("/");
        let plain = front.plain.iter();
        let sending = plain.fold(sending, |sending, (name, value)| sending.header(name, value));
        assert_eq!(sending.send().await.token_status(), Some("anonymous"));
        for (name, _) in front.plain {
            assert_eq!(stage.app.only().header(name), None, "{}", front.preset);
        }
        assert_eq!(stage.velt.call_count(), 0);
    }
}

fn forger(preset: &str) -> Pen {
    if preset == "cloudflare-access" { Pen::rs256("x") } else { Pen::es256("x") }
}

#[tokio::test]
async fn t08_albeast_load_balancer_of_another_account_is_refused() {
    use ground::metrics::AssertionResult::{Audience, Expired, Issuer as OfAnother, Signer};
    let front = signed().pop().expect("the last one");
    let issuer = Issuer::publishing(&[]).await;
    let pem = front.pen.pem();
    issuer.answer(move |_| http::Response::new(crate::support::app::full(pem.clone())));
    let toml = format!("{}audience = [\"1example23456789\"]\n", front.toml(&issuer));
    let stage = Stage::set(&toml).await;
    let other = ALB.replace("123456789012", "999999999999");
    let send = async |header: &Value, claims: &Value| {
        let assertion = front.pen.sign_padded(header, claims);
        stage.client().get("/").header(front.header, assertion).send().await
    };
    let header = alb_header(&front.pen, ALB);
    assert_eq!(send(&header, &alb_claims()).await.status(), 200);
    let change = |json: &Value, name: &str, value: Value| {
        let mut json = json.clone();
        json[name] = value;
        json
    };
    let mut nameless = header.clone();
    nameless.as_object_mut().expect("an object").remove("signer");
    for (header, claims, result) in [
        (alb_header(&front.pen, &other), alb_claims(), Signer),
        (alb_header(&front.pen, &ALB.to_uppercase()), alb_claims(), Signer),
        (nameless, alb_claims(), Signer),
        // A `signer` in the claims is the word of the identity provider, not of the load balancer.
        (alb_header(&front.pen, &other), change(&alb_claims(), "signer", json!(ALB)), Signer),
        (change(&header, "client", json!("another")), alb_claims(), Audience),
        (change(&header, "exp", json!(1)), alb_claims(), Expired),
        (header.clone(), change(&alb_claims(), "exp", json!(1)), Expired),
        (change(&header, "iss", json!("https://evil.example")), alb_claims(), OfAnother),
        (header.clone(), change(&alb_claims(), "iss", json!("https://evil.example")), OfAnother),
    ] {
        let before = result_count(&stage, result).await;
        assert_eq!(send(&header, &claims).await.status(), 401, "{}", result.as_str());
        assert_eq!(result_count(&stage, result).await, before + 1.0);
    }
    assert_eq!(issuer.fetch_count(), 1, "a foreign signer's key is not even fetched");
}

#[test]
fn keys_come_from_where_the_front_publishes_them() {
    let expected = [
        "https://app.corp.example.com/.well-known/pomerium/jwks.json",
        "https://team.cloudflareaccess.com/cdn-cgi/access/certs",
        "https://www.gstatic.com/iap/verify/public_key-jwk",
        "https://public-keys.auth.elb.eu-west-1.amazonaws.com/",
    ];
    for (front, expected) in signed().into_iter().zip(expected) {
        let toml = format!(
            "[identity]\npreset = \"{}\"\n[identity.assertion]\n{}",
            front.preset, front.more
        );
        let config = config(&toml).unwrap_or_else(|error| panic!("{error}"));
        let Source::Assertion(source) = config.identity.source else { panic!("it signs") };
        let keys = source.keys.expect("keys");
        assert_eq!(keys.url().as_str(), expected);
    }
}

#[test]
fn configured_setting_wins_over_the_preset() {
    let toml = "[identity]\npreset = \"authentik\"\nuser_header = \"X-authentik-username\"\n\
        groups_separator = \",\"\nadmin_groups = [\"b\"]";
    let identity = identity(toml);
    let mut headers = HeaderMap::new();
    headers.insert("x-authentik-username", "ada".parse().expect("a value"));
    headers.insert("x-authentik-uid", "123".parse().expect("a value"));
    headers.insert("x-authentik-groups", "a,b".parse().expect("a value"));
    let identified = identified(&identity, "127.0.0.1", &mut headers).expect("unambiguous");
    let identity::Caller::Known(user) = identified.caller else { panic!("known") };
    assert_eq!((&*user.id, user.is_admin), ("ada", Some(true)));
}
