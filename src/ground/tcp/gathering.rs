//! Copies a small head and body into one buffer: a plain `write` of few bytes is cheaper than a `writev`.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Most bytes that are put together for one plain write: a response's head and a small body. Copying these
/// bytes costs less than the kernel's work for a vectored write.
const GATHERED_BYTES: usize = 4096;

thread_local! {
    /// Buffer for all writes of a thread, so that it is warm.
    static GATHERED: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(GATHERED_BYTES));
}

/// Writes `slices`, gathered into one plain write if they are small.
pub(super) fn write_gathered<S: AsyncWrite>(
    stream: Pin<&mut S>,
    context: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
    match slices {
        [slice] => stream.poll_write(context, slice),
        _ if bytes <= GATHERED_BYTES => GATHERED.with_borrow_mut(|gathered| {
            gathered.clear();
            for slice in slices {
                gathered.extend_from_slice(slice);
            }
            stream.poll_write(context, gathered)
        }),
        _ => stream.poll_write_vectored(context, slices),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{poll_fn, ready};

    use bytes::Bytes;
    use http::Response;
    use http_body_util::Full;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncRead, ReadBuf};

    use super::*;

    /// Stream of one request that notes each write and its kind.
    #[derive(Default)]
    struct Noted {
        writes: Vec<(&'static str, Vec<u8>)>,
        asked: bool,
    }

    impl AsyncRead for Noted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if !self.asked {
                self.asked = true;
                buffer.put_slice(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Noted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes.push(("plain", bytes.to_vec()));
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes = slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>();
            let length = bytes.len();
            self.writes.push(("vectored", bytes));
            Poll::Ready(Ok(length))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn hyper_writes_head_and_body_in_one_vectored_write() {
        // Otherwise there is nothing to gather, and gathering does not pay any more.
        let mut stream = Noted::default();
        let body = Bytes::from(vec![b'b'; 1024]);
        let answer = || ready(Ok::<_, Infallible>(Response::new(Full::new(body.clone()))));
        let serving = http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(&mut stream), service_fn(|_| answer()));
        serving.await.expect("an answer");
        let [("vectored", written)] = &stream.writes[..] else { panic!("{:?}", stream.writes) };
        assert!(written.starts_with(b"HTTP/1.1 200 OK\r\n") && written.ends_with(&body));
    }

    #[tokio::test]
    async fn a_vectored_write_is_made_only_where_there_is_much_to_write() {
        let (head, body) = (vec![b'h'; 1000], vec![b'b'; GATHERED_BYTES - 1000]);
        let too_much = vec![b'b'; GATHERED_BYTES - 999];
        let alone = vec![b'a'; 10 * GATHERED_BYTES];
        let cases: [(&[&[u8]], _); 4] = [
            (&[&head, &body], "plain"),
            (&[&head, &too_much], "vectored"),
            (&[&alone], "plain"),
            (&[&head, &[], &head], "plain"),
        ];
        for (parts, how) in cases {
            let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            let mut stream = Noted::default();
            let written =
                poll_fn(|context| write_gathered(Pin::new(&mut stream), context, &slices));
            let expected = parts.concat();
            assert_eq!(written.await.expect("written"), expected.len());
            assert!(stream.writes == [(how, expected)], "{how}");
        }
    }
}
