//! Values in answers of the store. A value of another form than the expected one counts as absent.

use redis::Value;

/// Returns the bytes of a string.
pub fn bytes_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// Returns a number.
pub fn number_of(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        _ => None,
    }
}

/// Returns the items of a list.
pub fn items_of(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

/// Whether the answer is `OK`.
pub fn is_ok(value: &Value) -> bool {
    matches!(value, Value::Okay)
}
