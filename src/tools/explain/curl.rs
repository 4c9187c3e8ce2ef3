//! Reads a curl command as browsers copy it ("Copy as cURL (bash)"), and as people write it.
//!
//! [`words`] splits a line as bash does, with the quotes `$'...'` that browsers write for odd characters.
//! [`parse`] reads the flags that shape a request. It skips other known flags, and notes and skips unknown
//! ones.

mod shell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use self::shell::words;
use super::{Asked, QuestionError};

/// Meaning of a curl flag for a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flag {
    Header,
    Cookie,
    Method,
    Data,
    UrlEncoded,
    Json,
    Form,
    Url,
    Get,
    Head,
    Agent,
    Referer,
    User,
    Bearer,
    Compressed,
    Http2,
    Upload,
    /// The flag has a value, and changes nothing of what the sidecar sees.
    OtherValue,
    /// The flag has no value, and changes nothing of what the sidecar sees.
    OtherSwitch,
}

/// Known flags: long name, letter, meaning.
const FLAGS: &[(&str, char, Flag)] = &[
    ("header", 'H', Flag::Header),
    ("cookie", 'b', Flag::Cookie),
    ("request", 'X', Flag::Method),
    ("data", 'd', Flag::Data),
    ("data-ascii", '\0', Flag::Data),
    ("data-raw", '\0', Flag::Data),
    ("data-binary", '\0', Flag::Data),
    ("data-urlencode", '\0', Flag::UrlEncoded),
    ("json", '\0', Flag::Json),
    ("form", 'F', Flag::Form),
    ("form-string", '\0', Flag::Form),
    ("url", '\0', Flag::Url),
    ("get", 'G', Flag::Get),
    ("head", 'I', Flag::Head),
    ("user-agent", 'A', Flag::Agent),
    ("referer", 'e', Flag::Referer),
    ("user", 'u', Flag::User),
    ("oauth2-bearer", '\0', Flag::Bearer),
    ("compressed", '\0', Flag::Compressed),
    ("http2", '\0', Flag::Http2),
    ("http2-prior-knowledge", '\0', Flag::Http2),
    ("upload-file", 'T', Flag::Upload),
    ("cacert", '\0', Flag::OtherValue),
    ("cert", 'E', Flag::OtherValue),
    ("connect-timeout", '\0', Flag::OtherValue),
    ("connect-to", '\0', Flag::OtherValue),
    ("cookie-jar", 'c', Flag::OtherValue),
    ("dump-header", 'D', Flag::OtherValue),
    ("key", '\0', Flag::OtherValue),
    ("max-time", 'm', Flag::OtherValue),
    ("output", 'o', Flag::OtherValue),
    ("proxy", 'x', Flag::OtherValue),
    ("resolve", '\0', Flag::OtherValue),
    ("retry", '\0', Flag::OtherValue),
    ("unix-socket", '\0', Flag::OtherValue),
    ("write-out", 'w', Flag::OtherValue),
    ("fail", 'f', Flag::OtherSwitch),
    ("fail-with-body", '\0', Flag::OtherSwitch),
    ("globoff", 'g', Flag::OtherSwitch),
    ("http1.1", '\0', Flag::OtherSwitch),
    ("include", 'i', Flag::OtherSwitch),
    ("insecure", 'k', Flag::OtherSwitch),
    ("location", 'L', Flag::OtherSwitch),
    ("no-buffer", 'N', Flag::OtherSwitch),
    ("path-as-is", '\0', Flag::OtherSwitch),
    ("remote-name", 'O', Flag::OtherSwitch),
    ("show-error", 'S', Flag::OtherSwitch),
    ("silent", 's', Flag::OtherSwitch),
    ("verbose", 'v', Flag::OtherSwitch),
];

impl Flag {
    fn has_value(self) -> bool {
        !matches!(self, Self::Get | Self::Head | Self::Compressed | Self::Http2 | Self::OtherSwitch)
    }
}

/// Reads the words of a curl command, `curl` itself included or not. The notes say what was not
/// understood.
///
/// # Errors
///
/// If there is no URL, a flag lacks its value, or a header has no colon.
pub fn parse(words: &[String]) -> Result<(Asked, Vec<String>), QuestionError> {
    let mut command = Command::default();
    let mut words = words.iter().map(String::as_str).peekable();
    words.next_if(|word| *word == "curl" || word.ends_with("/curl"));
    while let Some(word) = words.next() {
        let mut value = || words.next().map(str::to_owned);
        if let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) {
            match FLAGS.iter().find(|(name, ..)| *name == long) {
                Some((_, _, flag)) => command.take(*flag, word, &mut value)?,
                None => command.unknown(word),
            }
        } else if let Some(letters) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            command.letters(letters, &mut value)?;
        } else {
            command.url(word);
        }
    }
    command.finish()
}

/// A command as far as it has been read.
#[derive(Default)]
struct Command {
    asked: Asked,
    data: Vec<String>,
    as_query: bool,
    content_type: Option<&'static str>,
    notes: Vec<String>,
}

type NextWord<'a> = dyn FnMut() -> Option<String> + 'a;

impl Command {
    /// Reads several one-letter flags in one word. The last flag may have its value in the word too.
    fn letters(&mut self, letters: &str, value: &mut NextWord<'_>) -> Result<(), QuestionError> {
        for (at, letter) in letters.char_indices() {
            let name = format!("-{letter}");
            let Some((_, _, flag)) = FLAGS.iter().find(|(_, short, _)| *short == letter) else {
                self.unknown(&name);
                continue;
            };
            if flag.has_value() {
                let rest = &letters[at + letter.len_utf8()..];
                let attached = (!rest.is_empty()).then(|| rest.to_owned());
                return self.take(*flag, &name, &mut || attached.clone().or_else(&mut *value));
            }
            self.take(*flag, &name, value)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        flag: Flag,
        name: &str,
        value: &mut NextWord<'_>,
    ) -> Result<(), QuestionError> {
        let value = if flag.has_value() {
            value().ok_or_else(|| {
                QuestionError::new(format!("curl's {name} has no value"), "copy the command whole")
            })?
        } else {
            String::new()
        };
        match flag {
            Flag::Header => return self.header(&value),
            Flag::Cookie if value.contains('=') => self.set("Cookie", value),
            Flag::Cookie => self.note(name, "names a file, which is not read"),
            Flag::Method => self.asked.method = value,
            Flag::Data | Flag::Json if value.starts_with('@') => {
                self.data.push(String::new());
                self.note(name, "names a file, which is not read");
            }
            Flag::Data => self.data.push(value),
            Flag::UrlEncoded => {
                self.data.push(value);
                self.note(name, "is taken as it stands");
            }
            Flag::Json => {
                self.content_type = Some("application/json");
                self.data.push(value);
            }
            Flag::Form => {
                self.content_type = Some("multipart/form-data");
                self.data.push(String::new());
                self.note(name, "is not supported; the body is left empty");
            }
            Flag::Upload => {
                self.asked.method = "PUT".into();
                self.note(name, "names a file, which is not read");
            }
            Flag::Url => self.url(&value),
            Flag::Get => self.as_query = true,
            Flag::Head => self.asked.method = "HEAD".into(),
            Flag::Agent => self.set("User-Agent", value),
            Flag::Referer => self.set("Referer", value),
            Flag::User => self.set("Authorization", format!("Basic {}", STANDARD.encode(value))),
            Flag::Bearer => self.set("Authorization", format!("Bearer {value}")),
            Flag::Compressed => self.set("Accept-Encoding", "gzip, deflate, br, zstd".into()),
            Flag::Http2 => self.asked.http2 = true,
            Flag::OtherValue | Flag::OtherSwitch => {}
        }
        Ok(())
    }

    /// Reads a header: `Name: value`, or `Name;` for an empty value. `Name:` tells curl to leave out its own
    /// header.
    fn header(&mut self, line: &str) -> Result<(), QuestionError> {
        if line.starts_with('@') {
            self.note("-H", "names a file, which is not read");
        } else if line.starts_with(':') {
            self.note("-H", "has one of HTTP/2's own fields, which the URL stands for");
        } else if let Some(name) = line.strip_suffix(';').filter(|name| !name.contains(':')) {
            self.set(name, String::new());
        } else {
            let (name, value) = split_header(line)?;
            if !value.trim().is_empty() {
                self.set(&name, value);
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: String) {
        self.asked.headers.push((name.to_owned(), value));
    }

    fn url(&mut self, url: &str) {
        if self.asked.target.is_empty() {
            // curl takes a URL without a scheme for http.
            let bare = !url.contains("://") && !url.starts_with('/');
            self.asked.target = if bare { format!("http://{url}") } else { url.to_owned() };
        } else {
            self.notes.push(format!("{url:?} is left out: one request is explained at a time"));
        }
    }

    fn unknown(&mut self, flag: &str) {
        self.note(flag, "is not known here and left out");
    }

    fn note(&mut self, flag: &str, what: &str) {
        self.notes.push(format!("curl's {flag} {what}"));
    }

    fn finish(mut self) -> Result<(Asked, Vec<String>), QuestionError> {
        if self.asked.target.is_empty() {
            return Err(QuestionError::new("the curl command has no URL", "copy it whole"));
        }
        let data = self.data.join("&");
        if self.as_query {
            let mark = if self.asked.target.contains('?') { '&' } else { '?' };
            if !data.is_empty() {
                self.asked.target = format!("{}{mark}{data}", self.asked.target);
            }
        } else if !self.data.is_empty() {
            if self.asked.method.is_empty() {
                self.asked.method = "POST".into();
            }
            let typed = self
                .asked
                .headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
            if !typed {
                let default = self.content_type.unwrap_or("application/x-www-form-urlencoded");
                self.set("Content-Type", default.into());
            }
            self.asked.body = data;
        }
        Ok((self.asked, self.notes))
    }
}

/// Returns the two sides of `Name: value`.
pub(super) fn split_header(line: &str) -> Result<(String, String), QuestionError> {
    let (name, value) = line.split_once(':').ok_or_else(|| {
        let name = line.split(' ').next().unwrap_or_default();
        QuestionError::new(format!("the header {name:?} has no colon"), "write it as 'Name: value'")
    })?;
    Ok((name.to_owned(), value.trim_start().to_owned()))
}
