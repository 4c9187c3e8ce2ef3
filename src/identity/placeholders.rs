//! Placeholders: values that stand for "no value", which a login proxy or an app sends where it has no
//! user. A placeholder is a word (`null`) or a form (`{...}`, a template that was not filled in).

/// Part of a form that stands for the name of a variable.
const NAME: &str = "...";

/// The longest entry, in bytes.
const MAX_BYTES: usize = 64;

/// One entry of `identity.placeholders`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// A whole value, byte for byte: `(null)`.
    Word(Box<str>),
    /// A template that was not filled in: `{...}` matches `{http.auth.user.id}`.
    Form { before: Box<str>, after: Box<str> },
}

impl Placeholder {
    /// Reads an entry. `None` if `text` would match any value, or can match none.
    pub fn parse(text: &str) -> Option<Self> {
        let is_clean = text.trim() == text && !text.chars().any(char::is_control);
        if text.is_empty() || text.len() > MAX_BYTES || !is_clean {
            return None;
        }
        let Some((before, after)) = text.split_once(NAME) else {
            return Some(Self::Word(text.into()));
        };
        let is_form = !before.is_empty() && !after.contains(NAME);
        is_form.then(|| Self::Form { before: before.into(), after: after.into() })
    }
}

/// The entries of `identity.placeholders`.
#[derive(Clone, Debug)]
pub struct Placeholders {
    words: Box<[Box<str>]>,
    forms: Box<[(Box<str>, Box<str>)]>,
    /// Whether a form begins with this byte: most values have none of these bytes, and so match no form.
    starts: Box<[bool; 256]>,
}

impl Placeholders {
    /// Makes the set of these entries.
    pub fn new(entries: impl IntoIterator<Item = Placeholder>) -> Self {
        let (mut words, mut forms) = (Vec::new(), Vec::new());
        let mut starts = Box::new([false; 256]);
        for entry in entries {
            match entry {
                Placeholder::Word(word) => words.push(word),
                Placeholder::Form { before, after } => {
                    starts[usize::from(before.as_bytes()[0])] = true;
                    forms.push((before, after));
                }
            }
        }
        Self { words: words.into(), forms: forms.into(), starts }
    }

    /// Whether `text` stands for no value.
    pub(super) fn contain(&self, text: &str) -> bool {
        // Most user ids begin with a letter.
        let by_signs = !text.starts_with(|first: char| first.is_ascii_alphanumeric());
        self.words.iter().any(|word| **word == *text || by_signs && is_made_of(text, word))
            || text.bytes().any(|byte| self.starts[usize::from(byte)])
                && self.forms.iter().any(|(before, after)| matches(text, before, after))
    }
}

impl Default for Placeholders {
    fn default() -> Self {
        Self::new([])
    }
}

/// Whether `text`, which begins with a sign, is an address that a front has made of `word`:
/// `(null)@example.com`. A person may be called `null`, but no name of a person begins with a sign.
fn is_made_of(text: &str, word: &str) -> bool {
    text.strip_prefix(word).is_some_and(|rest| rest.starts_with('@'))
}

/// Whether `text` is a template of this form, or has one in it: `{http.auth.user.id}@example.com`
/// is no address. A form whose ends are alike (`%...%`), or that has no end (`$...`), has to match the
/// whole value: `caf%C3%A9` is no template. Around a template without a name there are only signs: `${}`.
fn matches(text: &str, before: &str, after: &str) -> bool {
    if after.is_empty() {
        return text.strip_prefix(before).is_some_and(is_identifier);
    }
    let has_words = text.contains(|sign: char| sign.is_alphanumeric());
    if !has_words && text.split(before).skip(1).any(|rest| rest.starts_with(after)) {
        return true;
    }
    if before == after {
        let inner = text.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        return inner.is_some_and(is_variable);
    }
    text.match_indices(before).any(|(at, _)| {
        let rest = &text[at + before.len()..];
        rest.find(after).is_some_and(|end| is_variable(&rest[..end]))
    })
}

/// Whether `text` is a name alone, or a way to one: `http_x_user`, `context.authorizer.sub`, `env:USER`.
fn is_identifier(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:".contains(&byte);
    text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && text.bytes().all(legal)
}

/// Whether `text` begins as the name of a variable does in some template language: a letter, or a sign that
/// leads to a letter, as in `{{ .Sub }}`, `{$USER}` and `<%= user %>`. A UUID is no name of a variable, since
/// Windows writes user ids as UUIDs in braces. The inside of a JSON object is no name either.
fn is_variable(text: &str) -> bool {
    let name = text
        .trim_start_matches([' ', '-', '=', '.', '$', '>', '#', '@', '~', '?', '_', '!', '%', '{']);
    name.starts_with(|first: char| first.is_ascii_alphabetic()) && !is_uuid(text)
}

fn is_uuid(text: &str) -> bool {
    let digits = || text.bytes().filter(|byte| *byte != b'-');
    digits().count() == 32 && digits().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(entries: &[&str]) -> Placeholders {
        Placeholders::new(entries.iter().map(|entry| Placeholder::parse(entry).expect("an entry")))
    }

    #[test]
    fn placeholder_matches_a_whole_value_byte_for_byte() {
        let set = set(&["(null)", "-", "null"]);
        for text in ["(null)", "-", "null", "(null)@example.com", "-@example.com"] {
            assert!(set.contain(text), "{text}");
        }
        for text in ["Null", "NULL", "null ", "(Null)", "--", "", "nullo", "a-b", "null@a.example"]
        {
            assert!(!set.contain(text), "{text}");
        }
    }

    #[test]
    fn unfilled_template_counts_as_a_placeholder() {
        let set = set(&["{...}", "%[...]", "$(...)", "<%...%>", "$...", "%...%"]);
        for text in [
            "{http.auth.user.id}",
            "{http.reverse_proxy.header.Remote-User}",
            "{user}",
            "{>X-User}",
            "{$USER}",
            "{{user}}",
            "{{ .Sub }}",
            "{{- index .Claims \"sub\" -}}",
            "${user}",
            "%{REMOTE_USER}e",
            "%{REMOTE_USER}",
            "#{user.name}",
            "%[var(txn.user)]",
            "$(USER)",
            "<%= user %>",
            "$http_x_user",
            "$remote_user",
            "%REQ(X-USER)%",
            "%DOWNSTREAM_PEER_SUBJECT%",
            "caddy:{http.auth.user.id}",
            "{http.auth.user.id}@example.com",
            "{}",
            "${}",
            "{{}}",
            "$()",
            "{!user}",
            "{{!user}}",
            "{%user%}",
            "$context.authorizer.claims.sub",
            "$env:USER",
        ] {
            assert!(set.contain(text), "{text}");
        }
    }

    #[test]
    fn user_id_with_punctuation_is_no_template() {
        let set = set(&["{...}", "%[...]", "$(...)", "<%...%>", "$...", "%...%"]);
        for text in [
            "{6B29FC40-CA47-1067-B31D-00DD010662DA}",
            "{ab29fc40-ca47-1067-b31d-00dd010662da}",
            "{ab29fc40ca471067b31d00dd010662da}",
            "{\"$gt\":\"\"}",
            "a{}b",
            "{42}",
            "caf%C3%A9",
            "%C3%A9l%C3%A9onore",
            "50% off",
            "svc$",
            "DOMAIN\\HOST$",
            "$2b$10$N9qo8uLOickgx2ZMRZoMye",
            "$",
            "pa$$word",
            "a<b",
            "(ada)",
        ] {
            assert!(!set.contain(text), "{text}");
        }
    }

    #[test]
    fn placeholder_that_could_match_anything_is_refused() {
        for text in ["", " ", "...", "...}", "{...}...", " null", "a\tb", &"x".repeat(65)] {
            assert_eq!(Placeholder::parse(text), None, "{text:?}");
        }
    }
}
