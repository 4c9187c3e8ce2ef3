//! Insertion of a tag into an HTML document that streams past.
//!
//! The tag goes behind `<head>`, or before the first tag or text that would end the head. Bytes are held back
//! only while they may be the beginning of `<head>`, `<html>` or a comment: nine bytes at most.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Part of the document in which the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Beginning, where a byte order mark may stand.
    Start,
    /// Space between the tags before the head.
    Between,
    /// Inside of a comment, which ends after two dashes and `>`.
    Comment { dashes: u8 },
    /// Inside of `<!doctype ...>` or `<?xml ...>`.
    Declaration,
    /// Inside of the tag `<html ...>` or `<head ...>`, perhaps in the quotes of an attribute.
    Tag { is_head: bool, quote: Option<u8> },
}

/// Markup that begins with `<`.
enum Markup {
    Comment,
    Declaration,
    Html,
    Head,
    /// A tag that ends the head or stands in it.
    Other,
}

/// Result of a look at more of the document.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// The tag belongs before this byte.
    At(usize),
    /// The bytes from here on may be the beginning of a token.
    NotBefore(usize),
    /// The document is not in an encoding that begins like ASCII.
    Never,
}

impl Place {
    /// Reads `bytes`, which begin where the last call asked to go on.
    fn scan(&mut self, bytes: &[u8]) -> Found {
        let mut at = 0;
        while at < bytes.len() {
            let (byte, rest) = (bytes[at], &bytes[at..]);
            match self {
                Self::Start => match rest {
                    [0xfe, 0xff, ..] | [0xff, 0xfe, ..] => return Found::Never,
                    [0xfe | 0xff] => return Found::NotBefore(at),
                    _ if rest.starts_with(BYTE_ORDER_MARK) => at += BYTE_ORDER_MARK.len(),
                    _ if BYTE_ORDER_MARK.starts_with(rest) => return Found::NotBefore(at),
                    _ => {}
                },
                Self::Between if byte.is_ascii_whitespace() => {
                    at += 1;
                    continue;
                }
                Self::Between if byte == b'<' => {
                    let Some(markup) = markup(rest) else { return Found::NotBefore(at) };
                    let Some((place, length)) = markup.inside() else { return Found::At(at) };
                    *self = place;
                    at += length;
                    continue;
                }
                Self::Between => return Found::At(at),
                Self::Comment { dashes } => {
                    at += 1;
                    let ends = *dashes >= 2 && byte == b'>';
                    *dashes = if byte == b'-' { (*dashes + 1).min(2) } else { 0 };
                    if !ends {
                        continue;
                    }
                }
                Self::Declaration => {
                    at += 1;
                    if byte != b'>' {
                        continue;
                    }
                }
                Self::Tag { is_head, quote } => {
                    at += 1;
                    match (*quote, byte) {
                        (Some(open), _) => *quote = Some(open).filter(|open| *open != byte),
                        (None, b'"' | b'\'') => *quote = Some(byte),
                        _ => {}
                    }
                    if quote.is_some() || byte != b'>' {
                        continue;
                    }
                    if *is_head {
                        return Found::At(at);
                    }
                }
            }
            *self = Self::Between;
        }
        Found::NotBefore(at)
    }
}

impl Markup {
    /// Returns the place behind the beginning of this markup, and the length of the beginning.
    fn inside(&self) -> Option<(Place, usize)> {
        match self {
            // `<!-->` is a whole comment.
            Self::Comment => Some((Place::Comment { dashes: 2 }, 4)),
            Self::Declaration => Some((Place::Declaration, 2)),
            Self::Html => Some((Place::Tag { is_head: false, quote: None }, 5)),
            Self::Head => Some((Place::Tag { is_head: true, quote: None }, 5)),
            Self::Other => None,
        }
    }
}

/// Returns the markup at the beginning of `bytes`, `None` if more bytes have to decide.
fn markup(bytes: &[u8]) -> Option<Markup> {
    match bytes {
        [_] | [_, b'!'] | [_, b'!', b'-'] => return None,
        [_, b'!', b'-', b'-', ..] => return Some(Markup::Comment),
        [_, b'!' | b'?', ..] => return Some(Markup::Declaration),
        _ => {}
    }
    for (name, markup) in [(b"<html", Markup::Html), (b"<head", Markup::Head)] {
        match bytes.get(name.len()) {
            None if name[..bytes.len()].eq_ignore_ascii_case(bytes) => return None,
            Some(b'>' | b'/' | b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
                if bytes[..name.len()].eq_ignore_ascii_case(name) =>
            {
                return Some(markup);
            }
            _ => {}
        }
    }
    Some(Markup::Other)
}

/// A body with a tag in it, if the body is a document.
pub struct Inserting<B> {
    body: B,
    /// The tag, until the tag has found its place.
    tag: Option<Bytes>,
    place: Place,
    /// Bytes that may be the beginning of a token.
    held: BytesMut,
    trailers: Option<HeaderMap>,
}

impl<B> Inserting<B> {
    /// Passes `body` on byte for byte.
    pub fn nothing(body: B) -> Self {
        Self { body, tag: None, place: Place::Start, held: BytesMut::new(), trailers: None }
    }

    /// Inserts `tag` into the document `body`.
    pub fn tag(body: B, tag: Bytes) -> Self {
        Self { tag: Some(tag), ..Self::nothing(body) }
    }

    /// Returns what of the document may go on, after `data` has come.
    fn let_pass(&mut self, data: Bytes) -> Bytes {
        let Some(tag) = &self.tag else { return data };
        let data = if self.held.is_empty() {
            data
        } else {
            self.held.extend_from_slice(&data);
            self.held.split().freeze()
        };
        match self.place.scan(&data) {
            Found::At(at) => {
                let whole = [&data[..at], tag, &data[at..]].concat();
                self.tag = None;
                whole.into()
            }
            Found::NotBefore(at) => {
                self.held.extend_from_slice(&data[at..]);
                data.slice(..at)
            }
            Found::Never => {
                self.tag = None;
                data
            }
        }
    }

    /// Returns what is left at the end of a document without a place for the tag.
    fn rest(&mut self) -> Option<Bytes> {
        let tag = self.tag.take()?;
        self.held.extend_from_slice(&tag);
        Some(self.held.split().freeze())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Inserting<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(trailers) = this.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            let frame = match std::task::ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(this.rest().map(|rest| Ok(Frame::data(rest)))),
            };
            let passing = match frame.into_data() {
                Ok(data) => this.let_pass(data),
                Err(frame) => {
                    this.trailers = frame.into_trailers().ok();
                    this.rest().unwrap_or_default()
                }
            };
            if !passing.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(passing))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.tag.is_none() && self.trailers.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.tag.is_none() { self.body.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    const TAG: &str = "[TAG]";

    /// Returns the document with the tag in it, when the document comes in pieces of this size.
    async fn inserted(document: &[u8], size: usize) -> Vec<u8> {
        let frames: Vec<_> = document
            .chunks(size)
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let body = Inserting::tag(body, Bytes::from_static(TAG.as_bytes()));
        body.collect().await.expect("infallible").to_bytes().to_vec()
    }

    #[tokio::test]
    async fn tag_stands_first_in_the_head_however_the_pieces_are_cut() {
        for expected in [
            "<!doctype html><html><head>[TAG]<title>x</title></head><body></body></html>",
            "<!DOCTYPE html>\n<HTML lang=\"a>b\">\n<HEAD data-a='>' >[TAG]<meta>",
            "<!-- <head> --><html><!----><!--><head>[TAG]</head>",
            "\u{feff}<!doctype html><head>[TAG]",
            "<?xml version=\"1.0\"?><html><head\n>[TAG]",
            // No head: the tag comes before the first tag that would begin one.
            "<!doctype html>[TAG]<title>x</title><p>y",
            "<html>[TAG]<body>x",
            "<html>[TAG]<header>x",
            "<!doctype html>[TAG]<htmlx>",
            // No markup, or nothing of a document at all.
            "[TAG]hello <b>x</b>",
            "  \n[TAG]",
            "<!doctype html><he[TAG]",
            "<!-- never closed <head> [TAG]",
            "[TAG]é",
            "[TAG]",
        ] {
            let document = expected.replace(TAG, "");
            for size in 1..=document.len().max(1) {
                let inserted = inserted(document.as_bytes(), size).await;
                let inserted = String::from_utf8(inserted).expect("UTF-8");
                assert_eq!(inserted, expected, "in pieces of {size}");
            }
        }
    }

    #[tokio::test]
    async fn document_in_sixteen_bits_is_left_alone() {
        for document in [&b"\xff\xfe<\0h\0"[..], b"\xfe\xff\0<\0h"] {
            for size in 1..=document.len() {
                assert_eq!(inserted(document, size).await, document, "in pieces of {size}");
            }
        }
    }

    #[tokio::test]
    async fn rest_of_the_document_is_not_held_back() {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
            let piece: &str = receiver.recv().await?;
            let piece = Bytes::from_static(piece.as_bytes());
            Some((Ok::<_, Infallible>(Frame::data(piece)), receiver))
        });
        let body = StreamBody::new(Box::pin(stream));
        let mut body = Inserting::tag(body, Bytes::from_static(TAG.as_bytes()));
        for (sent, passed) in [
            ("<!doctype html><html><!", "<!doctype html><html>"),
            ("-- a --><hea", "<!-- a -->"),
            ("d><title>", "<head>[TAG]<title>"),
            ("<he", "<he"),
        ] {
            sender.send(sent).expect("the body is read");
            let frame = body.frame().await.expect("no end").expect("infallible");
            assert_eq!(frame.into_data().expect("data"), passed);
        }
    }

    #[tokio::test]
    async fn trailers_follow_the_tag() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "1".parse().expect("a value"));
        let frames = [Frame::data(Bytes::from_static(b"<!-- x")), Frame::trailers(trailers)];
        let frames = frames.map(Ok::<_, Infallible>);
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let body = Inserting::tag(body, Bytes::from_static(TAG.as_bytes()));
        let collected = body.collect().await.expect("infallible");
        assert_eq!(collected.trailers().expect("trailers")["x-checksum"], "1");
        assert_eq!(collected.to_bytes(), "<!-- x[TAG]");
    }
}
