//! Pages that may ask a token route, by what their browser says of them.

use http::header::{HOST, ORIGIN, REFERER};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::Injection;

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Injection {
    /// Whether a page may ask a token route, by what the browser says of the page (W3C Fetch Metadata,
    /// section 2.3). Old browsers and tools say nothing, and may ask. A word that is not known yet is
    /// refused, although section 4 would have it ignored: a token is not worth the doubt.
    pub fn may_ask(&self, headers: &HeaderMap) -> bool {
        headers.get_all(SEC_FETCH_SITE).iter().all(|site| match site.as_bytes() {
            // `none`: the user asks, by the address bar or a bookmark.
            b"same-origin" | b"none" => true,
            b"same-site" => self.settings.allow_same_site,
            _ => false,
        })
    }

    /// Whether a page may ask a token route for a user whom the app finds by its cookies. As
    /// [`Self::may_ask_by_cookie`], but a request in which nothing speaks of a page may ask: programs do so.
    pub fn may_ask_through_app(&self, authority: Option<&str>, headers: &HeaderMap) -> bool {
        let of_page = [ORIGIN, REFERER].iter().any(|name| headers.contains_key(name));
        !of_page || self.may_ask_by_cookie(authority, headers)
    }

    /// Whether a page may ask a token route with a cookie alone. A browser sends the cookie along with requests
    /// of any site's pages, so the request must show that a page of this host has made it: by Fetch Metadata,
    /// or in older browsers by `Origin` or else `Referer`.
    pub fn may_ask_by_cookie(&self, authority: Option<&str>, headers: &HeaderMap) -> bool {
        if headers.contains_key(SEC_FETCH_SITE) {
            return self.may_ask(headers);
        }
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let page = text(ORIGIN).or_else(|| text(REFERER));
        let Some(page) = page.and_then(|page| Uri::try_from(page).ok()) else { return false };
        // A front may ask for another host than the browser did, and then says which it was. No page can set
        // this header in a request of another origin.
        let hosts = [authority.or_else(|| text(HOST)), text(X_FORWARDED_HOST)];
        hosts.into_iter().flatten().any(|host| is_page_of(&page, host))
    }
}

/// Whether a page's address, or its origin, is of `host`, the value of a `Host` header.
fn is_page_of(page: &Uri, host: &str) -> bool {
    let usual = match page.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let (Some(page), Ok(host)) = (page.authority(), Authority::try_from(host)) else {
        return false;
    };
    let port = |named: &Authority| named.port_u16().unwrap_or(usual);
    page.host().eq_ignore_ascii_case(host.host()) && port(page) == port(&host)
}
