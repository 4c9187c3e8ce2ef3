//! Properties of the app's answer about a user: it is used as it stands, or not at all.

use identity::{AnswerFault, AppAnswer, Placeholders};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::fuzz_corpus::properties::app_answer::check;

/// Generates keys of an answer, and a few that are none.
fn some_key() -> impl Strategy<Value = String> {
    let keys = ["userId", "name", "email", "organizationId", "isAdmin", "resources", "userid", "x"];
    prop::sample::select(keys.to_vec()).prop_map(str::to_owned)
}

/// Generates values that fit some key, or none.
fn some_value() -> impl Strategy<Value = Value> {
    let role = prop::sample::select(vec!["viewer", "editor", "owner"]);
    prop_oneof![
        3 => prop::sample::select(vec!["ada", "eve", "", " ", "a@b.example", "null", "acme"])
            .prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => prop::collection::vec(role, 0..3).prop_map(|roles| {
            let grant = |role| json!({ "type": "document", "id": "d", "accessRole": role });
            roles.into_iter().map(grant).collect()
        }),
    ]
}

fn some_object() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((some_key(), some_value()), 0..5)
        .prop_map(|pairs| pairs.into_iter().collect())
}

fn fault(text: &str) -> Option<AnswerFault> {
    AppAnswer::parse(text.as_bytes(), &Placeholders::default()).err()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answer_means_what_its_json_says_or_nothing(object in some_object()) {
        check(Value::Object(object).to_string().as_bytes());
    }

    #[test]
    fn bytes_of_any_kind_make_no_other_user(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&bytes);
    }

    #[test]
    fn order_of_keys_and_white_space_decide_nothing(object in some_object()) {
        let lines: Vec<_> = object.iter().map(|(key, value)| format!("{key:?}:{value}")).collect();
        let reversed: Vec<_> = lines.iter().rev().cloned().collect();
        let read = |text: String| AppAnswer::parse(text.as_bytes(), &Placeholders::default());
        let (one, other) = (read(format!("{{{}}}", lines.join(","))),
            read(format!(" {{\n{}\n}} ", reversed.join(" , "))));
        prop_assert_eq!(one.is_ok(), other.is_ok());
        if let (Ok(one), Ok(other)) = (one, other) {
            prop_assert!(one == other);
        }
    }

    #[test]
    fn repeated_key_spoils_the_answer(object in some_object(), value in some_value()) {
        prop_assume!(!object.is_empty());
        let key = object.keys().next().expect("one").clone();
        let text = Value::Object(object).to_string();
        let twice = text.replacen('{', &format!("{{{key:?}:{value},"), 1);
        prop_assert_eq!(fault(&twice), Some(AnswerFault::NotAnObject));
    }
}
