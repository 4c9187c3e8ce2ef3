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
    use std::future::poll_fn;

    use super::*;

    /// Output that notes each write and its kind.
    #[derive(Default)]
    struct Noted(Vec<(&'static str, Vec<u8>)>);

    impl AsyncWrite for Noted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(("plain", bytes.to_vec()));
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes = slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>();
            let length = bytes.len();
            self.0.push(("vectored", bytes));
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
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
            assert!(stream.0 == [(how, expected)], "{how}");
        }
    }
}
