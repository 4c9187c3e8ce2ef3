//! Answers of apps that break a rule of HTTP, written byte for byte. The client gets an answer with one
//! meaning: the meaning that nginx, another proxy or a browser would find in the app's answer.

use crate::support::client::{Answer, Client};
use crate::support::raw::{RawApp, Wire};
use crate::support::velt::FakeVelt;
use crate::support::{ONE_WORKER, TestSidecar};

/// An app that answers `/n` with the n-th of `answers`, for as long as its connection lasts.
async fn app(answers: Vec<String>) -> RawApp {
    RawApp::serving(move |mut wire, _| {
        let answers = answers.clone();
        async move {
            while let Some(head) = wire.try_head().await {
                let path = head.split(' ').nth(1).expect("a target");
                let answer = &answers[path[1..].parse::<usize>().expect("a number")];
                wire.send(answer).await;
                if answer.contains("onnection: close") || answer.starts_with("HTTP/1.0") {
                    return;
                }
            }
        }
    })
    .await
}

/// A sidecar in front of an app that gives such answers.
struct Stage {
    sidecar: TestSidecar,
    app: RawApp,
    _velt: FakeVelt,
}

impl Stage {
    async fn set(answers: Vec<String>, toml: &str) -> Self {
        let (app, velt) = (app(answers).await, FakeVelt::start().await);
        let toml = format!("{ONE_WORKER}{toml}");
        let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, &toml);
        Self { sidecar, app, _velt: velt }
    }

    fn client(&self) -> Client {
        Client::to(self.sidecar.addresses.traffic)
    }

    async fn get(&self, n: usize) -> Answer {
        self.client().get(&format!("/{n}")).send().await
    }
}

fn ok(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}")
}

const CHUNKS: &str = "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";

/// `hello` in chunks, beside a length that it does not have.
fn contradictions() -> Vec<String> {
    [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 300\r\nX-App-Between: 1\r\nTransfer-Encoding: Chunked\r\n",
        "content-length: 0\r\ntransfer-encoding: chunked\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\nContent-Length: 3\r\n",
        "Transfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: identity, chunked\r\n",
    ]
    .map(|headers| ok(headers, CHUNKS))
    .to_vec()
}

#[tokio::test]
async fn chunks_win_over_a_length_in_either_order() {
    let answers = contradictions();
    let stage = Stage::set(answers.clone(), "").await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    for (n, answer) in answers.iter().enumerate() {
        wire.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let head = wire.head().await.to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{answer:?} became {head:?}");
        assert!(!head.contains("content-length"), "{answer:?} became {head:?}");
        let body = wire.read_to("0\r\n\r\n").await;
        assert_eq!(body.replace("\r\n", ""), "3hel2lo0", "{answer:?}");

        let request = stage.client().get(&format!("/{n}"));
        let over_http2 = request.send_http2().await;
        assert_eq!(over_http2.header("content-length"), None, "{answer:?}");
        assert_eq!((over_http2.status(), &*over_http2.text()), (200, "hello"), "{answer:?}");
    }
    let old = Wire::to(stage.sidecar.addresses.traffic);
    let mut old = old.await;
    old.send("GET /0 HTTP/1.0\r\n\r\n").await;
    let head = old.head().await.to_lowercase();
    assert!(!head.contains("content-length"), "{head:?}");
    assert_eq!(old.rest().await, "hello");
}

#[tokio::test]
async fn length_beside_chunks_is_removed_without_a_body() {
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases = [
        ("GET", "204 No Content", both),
        ("HEAD", "204 No Content", both),
        ("GET", "204 No Content", "Content-Length: 3\r\n\r\n"),
        ("GET", "304 Not Modified", both),
        ("HEAD", "304 Not Modified", both),
        ("HEAD", "200 OK", both),
        ("HEAD", "200 OK", "Content-Length: 3\r\nContent-Length: 4\r\n\r\n"),
        ("HEAD", "200 OK", "Transfer-Encoding: gzip\r\nContent-Length: 3\r\n\r\n"),
        ("HEAD", "103 Early Hints\r\nContent-Length: 3\r\n\r\nHTTP/1.1 200 OK", both),
    ];
    let answers = cases.map(|(_, status, headers)| format!("HTTP/1.1 {status}\r\n{headers}"));
    let stage = Stage::set(answers.to_vec(), "").await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    for (n, (method, status, headers)) in cases.iter().enumerate() {
        let case = format!("{method} {status} {headers:?}");
        wire.send(format!("{method} /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let head = wire.head().await.to_lowercase();
        assert!(head.starts_with("http/1.1") && !head.contains("content-length"), "{case}: {head}");
        let method = method.parse().expect("a method");
        let over_http2 = stage.client().request(method, &format!("/{n}")).send_http2().await;
        assert_eq!(over_http2.header("content-length"), None, "{case}");
    }
}

#[tokio::test]
async fn equal_lengths_become_one_and_unequal_are_502() {
    let good = ["5\r\nContent-Length: 5", "5, 5", "5,5\r\ncontent-length: 5", "5\r\n , 5"];
    let bad = ["5\r\nContent-Length: 6", "6\r\nContent-Length: 5", "5, 6", "5,", "+5", "5 5", "-1"];
    let lengths = good.iter().chain(&bad);
    let answers = lengths.map(|length| ok(&format!("Content-Length: {length}\r\n"), "hello"));
    let stage = Stage::set(answers.collect(), "").await;
    for (n, length) in good.iter().enumerate() {
        let path = format!("/{n}");
        for request in
            [stage.client().get(&path), stage.client().request(http::Method::HEAD, &path)]
        {
            let answer = request.send().await;
            assert_eq!(
                (answer.status(), answer.header("content-length")),
                (200, Some("5")),
                "{length}"
            );
        }
        let answer = stage.client().get(&path).send_http2().await;
        assert_eq!(
            (&*answer.text(), answer.header("content-length")),
            ("hello", Some("5")),
            "{length}"
        );
    }
    for (n, length) in bad.iter().enumerate() {
        let answer = stage.get(good.len() + n).await;
        assert_eq!((answer.status(), &*answer.code()), (502, "app_broken"), "{length}");
    }
}

#[tokio::test]
async fn coding_other_than_chunked_is_502() {
    let codings = [
        "gzip, chunked",
        "gzip\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: gzip",
        "chunked, gzip",
        "chunked, identity",
        "chunked,",
        "x-made-up, chunked",
        "x-made-up",
        "gzip",
        "\"chunked\"",
    ];
    let answers = codings.map(|coding| {
        ok(
            &format!("Transfer-Encoding: {coding}\r\nContent-Length: 5\r\nConnection: close\r\n"),
            CHUNKS,
        )
    });
    let stage = Stage::set(answers.to_vec(), "").await;
    for (n, coding) in codings.iter().enumerate() {
        let answer = stage.get(n).await;
        assert_eq!((answer.status(), &*answer.code()), (502, "app_broken"), "{coding}");
        assert!(answer.text().contains("Transfer-Encoding"), "{}", answer.text());
    }
}

#[tokio::test]
async fn identity_counts_as_no_transfer_coding() {
    let length = "Transfer-Encoding: identity\r\nContent-Length: 5\r\n";
    let end = "Transfer-Encoding: identity\r\nConnection: close\r\n";
    let stage = Stage::set(vec![ok(length, "hello"), ok(end, "hello")], "").await;
    for n in 0..2 {
        let answer = stage.get(n).await;
        assert_eq!((answer.status(), &*answer.text()), (200, "hello"));
    }
}

#[tokio::test]
async fn spaces_before_colons_and_folded_lines_are_repaired() {
    let headers = "X-Space : 1\r\nX-Tab\t \t: 2\r\nContent-Length : 5\r\nX-Folded: one,\r\n two,\r\n\
        \t three\r\nX-Empty:\r\n  late\r\nX-Bare: a\n b\r\nX-Blank: c\r\n \r\nX-Last: d\r\n";
    let stage = Stage::set(vec![ok(headers, "hello")], "").await;
    let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
    wire.send("GET /0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let answer = wire.rest().await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines: Vec<&str> = head.split("\r\n").filter(|line| line.starts_with("x-")).collect();
    lines.retain(|line| !line.starts_with("x-velt"));
    let expected = [
        "x-space: 1",
        "x-tab: 2",
        "x-folded: one, two, three",
        "x-empty: late",
        "x-bare: a b",
        "x-blank: c",
        "x-last: d",
    ];
    assert_eq!((lines.as_slice(), body), (&expected[..], "hello"), "{head}");
}

#[tokio::test]
async fn folded_answer_is_read_whole_when_it_comes_in_pieces() {
    let app = RawApp::serving(|mut wire, _| async move {
        while wire.try_head().await.is_some() {
            let answer =
                "HTTP/1.1 200 OK\r\nX-App-Folded: a\r\n b\r\nContent-Length: 5\r\n\r\nhello";
            for byte in answer.as_bytes() {
                wire.send([*byte]).await;
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    let sidecar = TestSidecar::before(app.address).await;
    for _ in 0..2 {
        let answer = Client::to(sidecar.addresses.traffic).get("/").send().await;
        assert_eq!((answer.header("x-app-folded"), &*answer.text()), (Some("a b"), "hello"));
    }
}

fn many(lines: usize) -> String {
    use std::fmt::Write as _;
    let mut headers = String::from("Content-Length: 5\r\n");
    for n in 1..lines {
        write!(headers, "Set-Cookie: c{n}={n}\r\n").expect("a string");
    }
    ok(&headers, "hello")
}

#[tokio::test]
async fn header_lines_of_an_app_have_a_limit_of_their_own() {
    for (toml, most) in
        [("", 100), ("[app]\nmax_headers = 500\n", 500), ("[app]\nmax_headers = 3\n", 3)]
    {
        let stage = Stage::set(vec![many(most), many(most + 1)], toml).await;
        let mut wire = Wire::to(stage.sidecar.addresses.traffic).await;
        wire.send("GET /0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let answer = wire.rest().await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nhello"),
            "{answer}"
        );
        assert_eq!(answer.matches("set-cookie: ").count(), most - 1, "{toml}");
        let answer = stage.get(1).await;
        assert_eq!((answer.status(), &*answer.code()), (502, "app_broken"), "{toml}");
        assert!(answer.text().contains("app.max_headers"), "{}", answer.text());
    }
}

#[tokio::test]
async fn chunks_in_http_1_0_are_read_and_their_connection_closed() {
    let old = |headers: &str, body: &str| format!("HTTP/1.0 200 OK\r\n{headers}\r\n{body}");
    let answers = vec![
        old("Transfer-Encoding: chunked\r\n", CHUNKS),
        old(
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n",
            CHUNKS,
        ),
        old("Content-Length: 5\r\n", "hello"),
        old("", "hello"),
    ];
    let stage = Stage::set(answers.clone(), "").await;
    for (n, answer) in answers.iter().enumerate() {
        let got = stage.get(n).await;
        assert_eq!((got.status(), &*got.text()), (200, "hello"), "{answer:?}");
        assert_eq!(stage.app.connection_count(), n + 1, "{answer:?}");
    }
}

#[tokio::test]
async fn http_1_0_connection_is_used_again_only_if_the_app_keeps_it() {
    for (connection, expected) in [("Connection: Keep-Alive\r\n", 1), ("", 3)] {
        let answer = format!("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n{connection}\r\nhello");
        let app = RawApp::serving(move |mut wire, _| {
            let answer = answer.clone();
            async move {
                // The app keeps the connection open even without `keep-alive`: the sidecar must go by
                // the head of the answer alone.
                while wire.try_head().await.is_some() {
                    wire.send(&answer).await;
                }
            }
        })
        .await;
        let velt = FakeVelt::start().await;
        let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, ONE_WORKER);
        for _ in 0..3 {
            let answer = Client::to(sidecar.addresses.traffic).get("/").send().await;
            assert_eq!(answer.text(), "hello");
        }
        assert_eq!(app.connection_count(), expected, "{connection:?}");
    }
}

/// Checks servers that send the last chunk, or a body, after an answer without a body.
#[tokio::test]
async fn chunk_after_an_empty_answer_is_no_response() {
    for answer in [
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    ] {
        let app = RawApp::serving(move |mut wire, number| async move {
            wire.head().await;
            if number > 1 {
                return wire.send(ok("Content-Length: 5\r\n", "hello")).await;
            }
            wire.send(answer).await;
            // The client of the next request on the connection would get this chunk as its answer.
            if wire.try_head().await.is_some() {
                wire.send("0\r\n\r\n").await;
            }
        })
        .await;
        let velt = FakeVelt::start().await;
        let sidecar = TestSidecar::start(&app.address.to_string(), velt.address, ONE_WORKER);
        let client = Client::to(sidecar.addresses.traffic);
        client.get("/").send().await;
        let next = client.get("/").send().await;
        assert_eq!((next.status(), &*next.text()), (200, "hello"), "{answer:?}");
    }
}
