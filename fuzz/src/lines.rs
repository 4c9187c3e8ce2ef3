//! Inputs as lines of text, so that a person can read and write them.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Splits off the first line.
pub fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[]),
    }
}

/// Reads the lines that are header fields. Leaves out all lines that hyper would refuse.
pub fn headers(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // hyper takes 100 headers.
    for line in lines.split(|byte| *byte == b'\n').take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = line[colon + 1..].trim_ascii();
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// Returns `name` as an app reads it that takes any punctuation for `-`, as PHP does with some characters.
pub fn folded(name: &HeaderName) -> String {
    name.as_str().replace(|letter: char| !letter.is_ascii_alphanumeric(), "-")
}

/// Returns the elements of the comma-separated header `list`.
pub fn elements(headers: &HeaderMap, list: &str) -> Vec<Vec<u8>> {
    let values = headers.get_all(list).into_iter();
    let elements = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    elements.map(|element| element.trim_ascii().to_ascii_lowercase()).collect()
}

/// Returns `headers` without the headers for which `gone` returns true.
pub fn without(headers: &HeaderMap, gone: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    let left = headers.iter().filter(|(name, _)| !gone(name));
    left.map(|(name, value)| (name.clone(), value.clone())).collect()
}
