//! Apps with sessions of their own that run the very lines of `docs/logins/own-session.md`.

use std::fs;
use std::process::Command;

use http::StatusCode;
use serde_json::json;
use tempfile::TempDir;

use super::DEFAULT_ORGANIZATION;
use super::library::Login;
use super::site::Site;
use crate::front_pages::page::Page;
use crate::neighbour::tool;
use crate::program::{APPS, Program};

const PAGE: &str = "own-session";

/// Writes the lines of the page in `language` into a file.
fn lines_of_page(page: &Page, language: &str) -> (TempDir, String) {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("lines");
    fs::write(&file, page.block(language, 0)).expect("a file in it");
    let file = file.to_str().expect("a path in UTF-8").to_owned();
    (folder, file)
}

/// Asserts that the users who sign in at the app get tokens, that a client can't name a user, and that a user
/// who has signed out gets none.
async fn names_its_users(page: &Page, app: Program, ids: [(&str, &str); 2]) {
    let (_app, address) = app.listening().await;
    let site = Site::in_front_of(address, page, 0, &[]).await;
    let stranger = Login::default();
    assert!(site.page(&stranger).await.is_anonymous());
    let route = site.token(&stranger).await;
    assert_eq!(
        (route.status, &route.body["code"]),
        (StatusCode::UNAUTHORIZED, &json!("no_identity"))
    );
    for (user, id) in ids {
        let session = site.signed_in(&format!("/login?user={user}")).await;
        let minted = Some((id.to_owned(), DEFAULT_ORGANIZATION.to_owned()));
        let seen = site.page(&session).await;
        assert_eq!((seen.status, &seen.minted), (StatusCode::OK, &minted), "{seen:?}");
        assert!(!seen.has_user_header, "the browser must not see the app's word: {seen:?}");
        let route = site.token(&session).await;
        assert_eq!((route.status, &route.minted), (StatusCode::OK, &minted), "{route:?}");
        site.is_shown_by_curl(page, &session, id);
        let forged = site.page_naming(&stranger, "eve").await;
        assert!(forged.is_anonymous(), "{forged:?}");
        let forged = site.page_naming(&session, "eve").await;
        assert_eq!(&forged.minted, &minted, "{forged:?}");
        site.signed_out(&session).await;
        assert!(site.page(&session).await.is_anonymous());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn express_names_its_users_by_the_lines_of_the_page() {
    let page = Page::in_folder("logins", PAGE);
    let (_folder, lines) = lines_of_page(&page, "js");
    let app = Program::node("logins/express_app.mjs", &[&lines]);
    // An id that no header can hold as it stands.
    names_its_users(&page, app, [("ada", "ada"), ("J%C3%BCrgen", "J%C3%BCrgen")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn django_names_its_users_by_the_lines_of_the_page() {
    let page = Page::in_folder("logins", PAGE);
    let (_folder, lines) = lines_of_page(&page, "python");
    let mut django = Command::new(tool("python-of-django"));
    django.env("PYTHONDONTWRITEBYTECODE", "1").arg(format!("{APPS}/django_app.py")).arg(lines);
    names_its_users(&page, Program::start(&mut django), [("ada", "1"), ("grace", "2")]).await;
}
