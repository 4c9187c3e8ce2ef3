//! The demo's pages for all readers: rules of accessible pages, both colour schemes, a phone.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tokio::sync::oneshot;
use tools::demo::{Demo, OwnApp};

use crate::neighbour::{LOOPBACK, Task, serve_app};
use crate::program::APPS;
use crate::webdriver::{Page, in_browser_with};

/// Settings of a browser with each colour scheme (`blink::mojom::PreferredColorScheme`).
const SCHEMES: [&str; 2] =
    ["--blink-settings=preferredColorScheme=0", "--blink-settings=preferredColorScheme=1"];

/// A phone, and a laptop.
const SIZES: [&str; 2] = ["--window-size=390,844", "--window-size=1280,900"];

/// Runs `test` on the first page of a demo, in each colour scheme and size.
async fn in_each_look(app: Option<OwnApp>, test: impl AsyncFn(&Page)) {
    let demo = Demo::bind_around(LOOPBACK, app).unwrap_or_else(|error| panic!("{error}"));
    let url = format!("http://{}/", demo.addresses().front);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = Task::spawn(demo.run(async move {
        // A dropped sender stops the demo too.
        let _ = stopped.await;
    }));
    for scheme in SCHEMES {
        for size in SIZES {
            let arguments = [scheme, size].map(str::to_owned);
            in_browser_with("accessibility", &url, &arguments, async |page| test(page).await).await;
        }
    }
    drop(stop);
    drop(running);
}

/// Asserts that the page shows an element before a person scrolls, and that the page is not too wide.
async fn assert_on_first_screen(page: &Page, test_id: &str) {
    let script = format!(
        "const element = document.querySelector('[data-testid={test_id}]');\
         return [element.getBoundingClientRect().bottom, innerHeight,\
         document.documentElement.scrollWidth, innerWidth]"
    );
    let sizes = page.script(&script).await;
    let size = |at: usize| sizes[at].as_f64().expect("a number");
    assert!(size(0) < size(1), "{test_id} is within the screen: {sizes}");
    assert!(size(2) <= size(3), "the page is no wider than the screen: {sizes}");
}

/// Asserts that axe finds nothing on the page.
async fn assert_accessible(page: &Page) {
    let file = Path::new(APPS).join("axe/node_modules/axe-core/axe.min.js");
    let axe = fs::read_to_string(&file)
        .unwrap_or_else(|_| panic!("{} is missing: run tests/run", file.display()));
    let script = format!(
        "{axe}; return axe.run(document).then(({{ violations, passes }}) => [passes.length,\
         violations.map(({{ id, nodes }}) => [id, ...nodes.map(({{ html }}) => html)])])"
    );
    let found = page.script(&script).await;
    assert!(found[0].as_u64().is_some_and(|passed| passed > 10), "{found}");
    assert_eq!(found[1], Value::Array(vec![]), "complaints of axe");
}

#[tokio::test(flavor = "multi_thread")]
async fn page_of_the_demo_is_accessible_and_shows_its_token_first() {
    in_each_look(None, async |page| {
        page.expect_failures(401);
        page.expect_failures(403);
        for delivery in ["route-verdict", "header-verdict"] {
            page.wait_for_attribute(delivery, "data-verdict", "accepted").await;
        }
        assert_on_first_screen(page, "route-verdict").await;
        page.click("forge").await;
        page.wait_for_text("forge-result", "HTTP 403").await;
        assert_accessible(page).await;
        page.click("user-none").await;
        page.wait_for_attribute("route-verdict", "data-verdict", "no-user").await;
        assert_accessible(page).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_around_the_readers_app_are_accessible() {
    let (app, address) = serve_app(|_| unreachable!("the app is gone")).await;
    drop(app);
    let app: OwnApp = address.to_string().parse().expect("the address of an app");
    in_each_look(Some(app), async |page| {
        page.expect_failures(502);
        page.wait_for_text("waiting", "Trying every second").await;
        assert_accessible(page).await;
        let around = page.script("return location.origin + '/__velt-demo/'").await;
        page.navigate(around.as_str().expect("a URL")).await;
        page.wait_for_text("app-state", "does not answer").await;
        page.wait_for_attribute("user-ada", "aria-pressed", "true").await;
        assert_accessible(page).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn panel_in_the_readers_app_is_accessible() {
    // The demo's own app stands for the reader's.
    let demo = Demo::bind(LOOPBACK).unwrap_or_else(|error| panic!("{error}"));
    let app = demo.addresses().app.expect("the demo's own app").to_string();
    let _running = Task::spawn(demo.run(std::future::pending()));
    in_each_look(Some(app.parse().expect("the address of an app")), async |page| {
        page.wait_for_attribute("header-verdict", "data-verdict", "accepted").await;
        page.script(
            "const root = document.querySelector('velt-demo-panel').shadowRoot;\
             if (root.querySelector('[data-collapsed]'))\
             root.querySelector('[data-testid=collapse]').click()",
        )
        .await;
        let shades = page
            .script(
                "const root = document.querySelector('velt-demo-panel').shadowRoot;\
                 const dark = matchMedia('(prefers-color-scheme: dark)').matches;\
                 return [dark, getComputedStyle(root.querySelector('aside')).backgroundColor]",
            )
            .await;
        let expected = if shades[0] == true { "rgb(29, 33, 38)" } else { "rgb(255, 255, 255)" };
        assert_eq!(shades[1], expected, "the panel follows the colour scheme");
        assert_accessible(page).await;
    })
    .await;
}
