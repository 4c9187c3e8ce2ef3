//! Errors of Velt's, and the class of each.

use super::{MALFORMED, RATE_LIMITED, REFUSED, TIMEOUT, UNAVAILABLE, assert_each_comes_to};
use crate::support::velt::{answer, refused};

#[tokio::test]
async fn error_is_classified_by_its_status_word_first() {
    let rows = [
        (400, "INVALID_ARGUMENT", REFUSED),
        (403, "PERMISSION_DENIED", REFUSED),
        (401, "UNAUTHENTICATED", REFUSED),
        (404, "NOT_FOUND", REFUSED),
        (400, "FAILED_PRECONDITION", REFUSED),
        (409, "ALREADY_EXISTS", REFUSED),
        (400, "OUT_OF_RANGE", REFUSED),
        (501, "UNIMPLEMENTED", REFUSED),
        (429, "RESOURCE_EXHAUSTED", RATE_LIMITED),
        (504, "DEADLINE_EXCEEDED", TIMEOUT),
        (500, "INTERNAL", UNAVAILABLE),
        (503, "UNAVAILABLE", UNAVAILABLE),
        (409, "ABORTED", UNAVAILABLE),
        (499, "CANCELLED", UNAVAILABLE),
        // The status word wins over the number.
        (200, "PERMISSION_DENIED", REFUSED),
        (500, "INVALID_ARGUMENT", REFUSED),
        (400, "RESOURCE_EXHAUSTED", RATE_LIMITED),
        (400, "UNAVAILABLE", UNAVAILABLE),
        (200, "INTERNAL", UNAVAILABLE),
        // An unknown status word leaves the decision to the number.
        (403, "canary", REFUSED),
        (500, "canary", UNAVAILABLE),
        (200, "canary", MALFORMED),
    ];
    let row = |(http, word, expected)| (format!("{http} {word}"), refused(http, word), expected);
    assert_each_comes_to(rows.map(row).into()).await;
}

#[tokio::test]
async fn error_without_a_status_word_is_classified_by_number() {
    let rows = [
        (400, REFUSED),
        // A page is no answer of Velt's own.
        (401, MALFORMED),
        (402, REFUSED),
        (403, REFUSED),
        (404, REFUSED),
        (405, REFUSED),
        (422, MALFORMED),
        (408, TIMEOUT),
        (504, TIMEOUT),
        (429, RATE_LIMITED),
        (500, UNAVAILABLE),
        (502, UNAVAILABLE),
        (503, UNAVAILABLE),
        (520, UNAVAILABLE),
    ];
    let bodies = ["", "<html>canary</html>", "{\"error\":\"canary\"}", "[\"canary\"]", "null"];
    let row = |(n, (http, expected)): (usize, _)| {
        let body = bodies[n % bodies.len()];
        (format!("{http} {body}"), answer(http, body), expected)
    };
    assert_each_comes_to(rows.into_iter().enumerate().map(row).collect()).await;
}

#[tokio::test]
async fn t44_endless_error_page_keeps_its_class() {
    let page = "<p>canary</p>".repeat(70 * 1024 / 13);
    assert_each_comes_to(vec![
        ("a large 503".into(), answer(503, &page), UNAVAILABLE),
        // Velt's own refusals are shorter.
        ("a large 403".into(), answer(403, &page), MALFORMED),
    ])
    .await;
}
