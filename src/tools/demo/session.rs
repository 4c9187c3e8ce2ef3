//! The session of the demo's login proxy: the bare user id in a cookie. A browser without the cookie is Ada,
//! so that the demo begins with a signed-in user.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use super::{USERS, User};

const COOKIE_NAME: &str = "velt_demo_user";

/// Returns the user of the session, `None` if the user has signed out.
pub fn signed_in(headers: &HeaderMap) -> Option<User> {
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|cookie| cookie.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).map(str::trim);
    match pairs.find_map(|pair| pair.strip_prefix(COOKIE_NAME)?.strip_prefix('=')) {
        Some(id) => User::with_id(id),
        None => Some(USERS[0]),
    }
}

/// Returns the `Set-Cookie` that begins the session of `user`, or a session without a user.
pub fn cookie(user: Option<User>) -> HeaderValue {
    let id = user.map_or("", |user| user.id);
    let cookie = format!("{COOKIE_NAME}={id}; Path=/; HttpOnly; SameSite=Lax");
    HeaderValue::from_str(&cookie).expect("user ids of the demo are plain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_is_adas_until_the_cookie_says_otherwise() {
        for (cookies, expected) in [
            (&[][..], Some("ada")),
            (&["theme=dark"], Some("ada")),
            (&["theme=dark; velt_demo_user=grace"], Some("grace")),
            (&["theme=dark", "velt_demo_user=linus"], Some("linus")),
            (&["velt_demo_user="], None),
            (&["velt_demo_user=eve"], None),
            (&["velt_demo_users=grace"], Some("ada")),
        ] {
            let mut headers = HeaderMap::new();
            for cookie in cookies {
                headers.append(COOKIE, HeaderValue::from_static(cookie));
            }
            assert_eq!(signed_in(&headers).map(|user| user.id), expected, "{cookies:?}");
        }
    }
}
