//! State of one client connection that both sides of the sidecar need: the listener, to know that a
//! request's body is still coming in, and the proxy, to keep a connection to the app for this client
//! alone.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// State of one client connection. Dropped with the connection, together with the thing that is kept.
#[derive(Default)]
pub struct ClientConnection {
    /// Requests whose body has not come to its end.
    uploads: AtomicUsize,
    /// Whether `kept` holds a thing, so that an ordinary request needs no lock to find out.
    keeps: AtomicBool,
    kept: Mutex<Option<Box<dyn Any + Send>>>,
}

impl ClientConnection {
    /// Counts a request's body as coming in, until the returned guard is dropped.
    pub fn begin_upload(self: &Arc<Self>) -> Upload {
        self.uploads.fetch_add(1, Ordering::Relaxed);
        Upload(Arc::clone(self))
    }

    /// Whether a request's body is still coming in.
    pub fn is_uploading(&self) -> bool {
        self.uploads.load(Ordering::Relaxed) > 0
    }

    /// Keeps `thing` for this client alone, in place of the thing kept before.
    pub fn keep(&self, thing: Box<dyn Any + Send>) {
        let before = self.kept().replace(thing);
        self.keeps.store(true, Ordering::Release);
        drop(before);
    }

    /// Whether a thing is kept.
    pub fn keeps(&self) -> bool {
        self.keeps.load(Ordering::Acquire)
    }

    /// Takes out the thing that is kept.
    pub fn take(&self) -> Option<Box<dyn Any + Send>> {
        if !self.keeps() {
            return None;
        }
        let mut kept = self.kept();
        self.keeps.store(false, Ordering::Release);
        kept.take()
    }

    fn kept(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's body that is still coming in.
pub struct Upload(Arc<ClientConnection>);

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_value_is_taken_once_and_dropped_with_its_connection() {
        let connection = ClientConnection::default();
        assert!(connection.take().is_none());
        connection.keep(Box::new(1));
        connection.keep(Box::new(2));
        let kept = connection.take().and_then(|kept| kept.downcast::<i32>().ok());
        assert_eq!(kept, Some(Box::new(2)));
        assert!(connection.take().is_none());
        let thing = Arc::new(());
        connection.keep(Box::new(Arc::clone(&thing)));
        drop(connection);
        assert_eq!(Arc::strong_count(&thing), 1);
    }

    #[test]
    fn uploads_are_counted_until_they_end() {
        let connection = Arc::new(ClientConnection::default());
        assert!(!connection.is_uploading());
        let uploads = [connection.begin_upload(), connection.begin_upload()];
        assert!(connection.is_uploading());
        drop(uploads);
        assert!(!connection.is_uploading());
    }
}
