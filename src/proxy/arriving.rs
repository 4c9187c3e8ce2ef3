//! Body of a response as it comes from the app, over either version of HTTP.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::BodyError;
use super::pool::http2::Inbound;
use super::upload::Uploading;
use crate::memory::Demand;

/// Body of a response from the app.
pub(super) enum Arriving {
    Http1 {
        body: Incoming,
        demand: Arc<Demand>,
    },
    Http2 {
        body: Inbound,
        /// Rest of the request's body, if the app has answered before all of the body was sent. Boxed,
        /// because such answers are rare.
        uploading: Option<Box<Uploading>>,
    },
}

impl Arriving {
    pub(super) fn http2(body: Inbound, uploading: Option<Uploading>) -> Self {
        Self::Http2 { body, uploading: uploading.map(Box::new) }
    }

    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Http1 { body, demand } => {
                demand.wants();
                let frame = Pin::new(&mut *body).poll_frame(context);
                if matches!(&frame, Poll::Ready(Some(Ok(_)))) && !body.is_end_stream() {
                    demand.meet();
                }
                frame.map(|frame| frame.map(|frame| frame.map_err(BodyError::App)))
            }
            Self::Http2 { body, .. } => {
                let frame = body.poll_frame(context);
                frame.map(|frame| frame.map(|frame| frame.map_err(BodyError::AppStream)))
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1 { body, .. } => body.is_end_stream(),
            Self::Http2 { body, .. } => body.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1 { body, .. } => body.size_hint(),
            Self::Http2 { body, .. } => body.size_hint(),
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Self::Http2 { body, uploading: Some(uploading) } = self
            && body.is_end_stream()
        {
            uploading.answered();
        }
    }
}
