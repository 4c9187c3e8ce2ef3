//! Properties that hold for every request.

use http::{HeaderMap, HeaderName, HeaderValue};
use identity::{Caller, Identified, Refusal};
use proptest::prelude::*;

use super::{
    DROP, EVERY_HEADER, NAMES, assert_no_identity, caller, every_header_and, identified, identity,
};

/// Generates header names that have a meaning or could be taken to have one, and a name without a
/// meaning.
fn some_name() -> impl Strategy<Value = String> {
    let mut names: Vec<String> = NAMES.map(str::to_owned).to_vec();
    names.extend(["connection", "trailer", "x-velt-token", "x-other"].map(str::to_owned));
    names.extend(["x_forwarded_user", "x-auth_request-org"].map(str::to_owned));
    prop::sample::select(names)
}

/// Generates values that tend to matter, and any other value that a header may hold.
fn some_value() -> impl Strategy<Value = HeaderValue> {
    let words = [
        "",
        " ",
        "ada",
        "eve",
        "ada,eve",
        "admins",
        "close",
        "X-Forwarded-User",
        "x-org",
        "(null)",
        "{user}",
    ];
    let word = prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![3 => word, 1 => bytes]
        .prop_filter_map("no header holds that", |bytes| HeaderValue::from_bytes(&bytes).ok())
}

/// Whether `value` stands for no user.
fn says_nothing(value: &HeaderValue) -> bool {
    std::str::from_utf8(value.as_bytes()).is_ok_and(|text| {
        let words = ["(null)", "-", "null", "nil", "undefined", "None", "NaN"];
        text.trim().is_empty() || words.contains(&text) || text.contains(['{', '%', '$', '<'])
    })
}

fn some_headers() -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec((some_name(), some_value()), 0..8).prop_map(|lines| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), value);
        }
        headers
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn t07_value_of_a_user_header_is_that_user_or_a_refusal(value in some_value()) {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-user", value.clone());
        match caller(&identity(""), &mut headers) {
            Ok(Caller::Known(user)) => {
                prop_assert_eq!(user.id.as_bytes(), value.as_bytes());
                prop_assert_eq!(headers.get("x-forwarded-user"), Some(&value));
            }
            Ok(Caller::Anonymous) => prop_assert!(says_nothing(&value), "{value:?} is not nobody"),
            Err(Refusal::Ambiguous { header, .. }) => prop_assert_eq!(header, "x-forwarded-user"),
            _ => prop_assert!(false, "{value:?} is a user, nobody or refused"),
        }
    }

    #[test]
    fn t07_known_caller_was_named_once_and_an_anonymous_one_never(
        original in some_headers(),
    ) {
        let mut headers = original.clone();
        let named: Vec<_> = original.get_all("x-forwarded-user").iter().collect();
        match caller(&identity(EVERY_HEADER), &mut headers) {
            Ok(Caller::Known(user)) => {
                prop_assert_eq!(named.len(), 1);
                prop_assert_eq!(user.id.as_bytes(), named[0].as_bytes());
                let org = original.get("x-auth-request-org").map(HeaderValue::as_bytes);
                if let Some(named) = user.organization.name() {
                    prop_assert_eq!(Some(named.as_bytes()), org);
                }
                prop_assert!(headers.keys().all(|name| !name.as_str().contains('_')));
            }
            Ok(Caller::Anonymous) => {
                prop_assert!(named.len() <= 1 && named.into_iter().all(says_nothing));
                for name in &NAMES[1..] {
                    prop_assert!(headers.get_all(*name).iter().all(says_nothing), "{name} is left");
                }
            }
            Ok(Caller::Unverified | Caller::Unnamed) => prop_assert!(false, "nothing was to be verified"),
            // If there are several reasons, the sidecar may give any of them first.
            Err(_) => {}
        }
        prop_assert!(!headers.contains_key("x-velt-token"));
    }

    #[test]
    fn t10_untrusted_peer_names_no_user_with_any_headers(original in some_headers()) {
        let mut headers = original.clone();
        let stranger = identified(&identity(EVERY_HEADER), "192.0.2.7", &mut headers);
        let nobody = matches!(
            stranger,
            Ok(Identified { caller: Caller::Anonymous, trusted: false, .. })
        );
        prop_assert!(nobody);
        assert_no_identity(&headers);
        prop_assert_eq!(
            headers.get_all("x-other").iter().count(),
            original.get_all("x-other").iter().count()
        );
    }

    #[test]
    fn t07_dropped_ambiguous_identity_leaves_no_header(original in some_headers()) {
        let mut headers = original.clone();
        let refused = caller(&identity(EVERY_HEADER), &mut original.clone()).is_err();
        let caller = caller(&identity(&every_header_and(DROP)), &mut headers);
        if refused {
            prop_assert!(matches!(caller, Ok(Caller::Anonymous)));
            assert_no_identity(&headers);
        } else {
            prop_assert!(caller.is_ok());
        }
    }
}
