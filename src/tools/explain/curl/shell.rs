//! Reads a command line as bash does, as far as pasted commands need it.
//!
//! Written by hand, because the crates that split words do not know `$'...'` (shlex and shell-words have
//! POSIX's quotes only), which browsers write as soon as a header has an odd character.

use std::str::Chars;

use super::QuestionError;

/// Splits a command line into words, up to a pipe, a redirection or the next command. Variables are left as
/// they are written.
///
/// # Errors
///
/// If a quote is not closed, or an escape makes no text.
pub fn words(line: &str) -> Result<Vec<String>, QuestionError> {
    let mut splitter = Splitter { rest: line.chars(), word: None };
    let mut words = Vec::new();
    loop {
        let word = match splitter.rest.next() {
            Some(' ' | '\t' | '\n' | '\r') => splitter.word.take(),
            None | Some('|' | ';' | '&' | '<' | '>') => {
                words.extend(splitter.word.take());
                return Ok(words);
            }
            Some(char) => {
                splitter.piece(char)?;
                continue;
            }
        };
        words.extend(word);
    }
}

struct Splitter<'a> {
    rest: Chars<'a>,
    /// Word so far. `None` between words.
    word: Option<String>,
}

impl Splitter<'_> {
    /// Adds the piece that begins with `first` to the word: a quoted piece, an escape or one character.
    fn piece(&mut self, first: char) -> Result<(), QuestionError> {
        match first {
            '\'' => self.single_quoted(),
            '"' => self.double_quoted(),
            '$' if self.rest.as_str().starts_with('\'') => {
                self.rest.next();
                self.ansi_quoted()
            }
            '\\' => {
                match self.rest.next() {
                    // A backslash before a line's end, LF or CRLF, continues the line.
                    None | Some('\n') => {}
                    Some('\r') if self.rest.as_str().starts_with('\n') => {
                        self.rest.next();
                    }
                    Some(char) => self.push(char),
                }
                Ok(())
            }
            '^' if self.word.is_none() && self.rest.as_str().starts_with(['"', '\n', '\r']) => {
                Err(QuestionError::new(
                    "this is a command of Windows' cmd",
                    "copy it as cURL (bash), or as cURL (POSIX)",
                ))
            }
            char => {
                self.push(char);
                Ok(())
            }
        }
    }

    fn push(&mut self, char: char) {
        self.word.get_or_insert_default().push(char);
    }

    fn single_quoted(&mut self) -> Result<(), QuestionError> {
        self.word.get_or_insert_default();
        loop {
            match self.rest.next().ok_or_else(unclosed)? {
                '\'' => return Ok(()),
                char => self.push(char),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<(), QuestionError> {
        self.word.get_or_insert_default();
        loop {
            match self.rest.next().ok_or_else(unclosed)? {
                '"' => return Ok(()),
                '\\' => match self.rest.next().ok_or_else(unclosed)? {
                    '\n' => {}
                    char @ ('$' | '`' | '"' | '\\') => self.push(char),
                    char => {
                        self.push('\\');
                        self.push(char);
                    }
                },
                char => self.push(char),
            }
        }
    }

    /// Reads bash's `$'...'` (bash manual, section 3.1.2.4). Gathers bytes, because `\x` stands for a byte.
    fn ansi_quoted(&mut self) -> Result<(), QuestionError> {
        let mut bytes = Vec::new();
        loop {
            let char = match self.rest.next().ok_or_else(unclosed)? {
                '\'' => break,
                '\\' => match self.rest.next().ok_or_else(unclosed)? {
                    'a' => '\u{7}',
                    'b' => '\u{8}',
                    'e' | 'E' => '\u{1b}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\u{b}',
                    'u' => self.code_point(4)?,
                    'U' => self.code_point(8)?,
                    'x' => {
                        bytes.push(byte(self.digits(16, 2))?);
                        continue;
                    }
                    digit @ '0'..='7' => {
                        let value = digit.to_digit(8).unwrap_or_default();
                        let more = self.rest.as_str().len();
                        let rest = self.digits(8, 2).unwrap_or_default();
                        let digits = u32::try_from(more - self.rest.as_str().len()).unwrap_or(0);
                        // bash keeps only the low eight bits of a larger value.
                        let value = (value * 8_u32.pow(digits) + rest) & 0xff;
                        bytes.push(byte(Some(value))?);
                        continue;
                    }
                    char @ ('\\' | '\'' | '"' | '?') => char,
                    char => {
                        bytes.push(b'\\');
                        char
                    }
                },
                char => char,
            };
            bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
        let text = String::from_utf8(bytes).map_err(|_| not_text())?;
        self.word.get_or_insert_default().push_str(&text);
        Ok(())
    }

    fn code_point(&mut self, most: usize) -> Result<char, QuestionError> {
        self.digits(16, most).and_then(char::from_u32).ok_or_else(not_text)
    }

    /// Reads the number that at most `most` digits make. Returns `None` if there is no digit.
    fn digits(&mut self, radix: u32, most: usize) -> Option<u32> {
        let mut value = None;
        for _ in 0..most {
            let Some(digit) = self.rest.clone().next().and_then(|char| char.to_digit(radix)) else {
                break;
            };
            self.rest.next();
            value = Some(value.unwrap_or(0_u32).wrapping_mul(radix).wrapping_add(digit));
        }
        value
    }
}

fn byte(value: Option<u32>) -> Result<u8, QuestionError> {
    value.and_then(|value| u8::try_from(value).ok()).ok_or_else(not_text)
}

fn unclosed() -> QuestionError {
    QuestionError::new("a quote of the curl command is not closed", "copy it whole")
}

fn not_text() -> QuestionError {
    QuestionError::new(
        "an escape of the curl command stands for no text",
        "give that header as --header, or leave it out",
    )
}
