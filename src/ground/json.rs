//! Reader of JSON with one meaning only: an object that names a member twice is refused, since its signer and
//! its reader may each take another value (RFC 8259 section 4, RFC 7515 section 4).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads the value that `bytes` are; `None` if they are no JSON with one meaning.
pub fn value(bytes: &[u8]) -> Option<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(value)
}

/// Reads the object that `bytes` are; `None` if they are anything else.
pub fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match value(bytes)? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// Reader of a [`Value`] in which no object has a name twice.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON without repeated names")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Self)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::object;

    #[test]
    fn t08_json_object_with_a_repeated_name_is_refused() {
        for text in [
            r#"{"sub":"ada","sub":"eve"}"#,
            r#"{"sub":"ada","s\u0075b":"ada"}"#,
            r#"{"a":{"id":1,"id":1}}"#,
            r#"{"a":[{"id":1,"id":2}]}"#,
        ] {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
        assert!(object(br#"{"a":{"id":1},"b":{"id":1}}"#).is_some());
    }

    #[test]
    fn json_parser_takes_only_one_whole_object() {
        let bad: [&[u8]; 9] = [
            b"",
            b"null",
            b"[]",
            b"\"{}\"",
            b"{} {}",
            b"{}x",
            b"{\"a\":\xff\"\"}",
            b"{\"a\":1,}",
            b"{\"a\":\"\xff\"}",
        ];
        for text in bad {
            assert_eq!(object(text), None, "{}", text.escape_ascii());
        }
        let nested = [b"{\"a\":".repeat(200), b"1".to_vec(), b"}".repeat(200)].concat();
        assert_eq!(object(&nested), None, "no depth that could exhaust the stack");
    }
}
