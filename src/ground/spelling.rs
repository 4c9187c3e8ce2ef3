//! Spelling of header names, as an app may read them: WSGI and CGI take `_` for `-`, PHP takes other
//! punctuation for `-` too (CVE-2025-64484, CVE-2026-39858). Names that are the same to such an app are the
//! same to the sidecar.

/// Returns `name`, in lower case as header names are in this program, with a dash for each character that an
/// app may take for a dash.
pub fn folded(name: &str) -> impl DoubleEndedIterator<Item = u8> + Clone {
    name.bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte } else { b'-' })
}

/// Whether an app may take `name` for `own`.
pub fn is_read_as(name: &str, own: &str) -> bool {
    // Nearly always `name` is spelled as `own`, or differs at its end: names begin with `x-` or `sec-`.
    name.len() == own.len() && (name == own || folded(name).rev().eq(folded(own).rev()))
}

/// Whether an app may take `name` for a name that begins with `prefix`.
pub fn begins_with(name: &str, prefix: &str) -> bool {
    name.len() >= prefix.len() && folded(name).take(prefix.len()).eq(folded(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_punctuation_reads_the_same() {
        for name in ["x-real-ip", "x_real-ip", "x.real_ip", "x%real~ip"] {
            assert!(is_read_as(name, "x-real-ip"), "{name}");
            assert!(begins_with(name, "x-real-") && begins_with(name, "x_real"), "{name}");
        }
        for name in ["x-real-ip2", "xreal-ip", "x--real-ip", "x-real-i", "x-real"] {
            assert!(!is_read_as(name, "x-real-ip"), "{name}");
        }
        assert!(!begins_with("x-rea", "x-real") && !begins_with("y-real", "x-real"));
    }
}
