//! The request to explain, from the arguments of the command.

use std::net::IpAddr;

use server::explain::{AppResponse, Asked, QuestionError};

use super::curl::{self, split_header};

/// The arguments of the command, as they were given.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Headers, each as `Name: value`.
    pub headers: Vec<String>,
    pub peer: Option<IpAddr>,
    pub peer_names: Vec<String>,
    pub http2: bool,
    pub data: Option<String>,
    /// Headers, each as `Name: value`.
    pub response_headers: Vec<String>,
    pub response_status: Option<u16>,
    /// Words of the request line: `[METHOD] TARGET`.
    pub line: Vec<String>,
    /// The words of a curl command.
    pub curl_words: Vec<String>,
    /// A whole curl command.
    pub curl_line: Option<String>,
}

impl Flags {
    /// Reads a request from the command line. Returns with it notes on the parts of a curl command that were
    /// not understood.
    ///
    /// # Errors
    ///
    /// If the command line names no request, or more than one, or is not understood.
    pub fn into_asked(self) -> Result<(Asked, Vec<String>), QuestionError> {
        let (mut asked, notes) = match (&self.curl_line, self.curl_words.is_empty()) {
            (Some(_), false) => {
                return Err(QuestionError::new("two curl commands were given", "give one of them"));
            }
            (Some(line), true) => curl::parse(&curl::words(line)?)?,
            (None, false) => curl::parse(&self.curl_words)?,
            (None, true) => (Asked::default(), Vec::new()),
        };
        match (&self.line[..], asked.target.is_empty()) {
            ([target], true) => asked.target.clone_from(target),
            ([method, target], true) => {
                asked.method.clone_from(method);
                asked.target.clone_from(target);
            }
            ([], false) => {}
            ([], true) => {
                return Err(QuestionError::new(
                    "no request was given",
                    "write: velt-sidecar explain GET /api/me",
                ));
            }
            (_, false) => {
                return Err(QuestionError::new(
                    "two requests were given, one of them by curl",
                    "give one of them",
                ));
            }
            (_, true) => return Err(QuestionError::new("too many words", "write: [METHOD] PATH")),
        }
        for header in &self.headers {
            asked.headers.push(split_header(header)?);
        }
        asked.body = self.data.unwrap_or(asked.body);
        asked.peer = self.peer;
        asked.peer_names = self.peer_names;
        asked.http2 |= self.http2;
        if self.response_status.is_some() || !self.response_headers.is_empty() {
            let headers = self.response_headers.iter().map(|header| split_header(header));
            asked.response = Some(AppResponse {
                status: self.response_status.unwrap_or(200),
                headers: headers.collect::<Result<_, _>>()?,
            });
        }
        Ok((asked, notes))
    }
}
