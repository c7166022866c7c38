//! Whether a connection goes on: a peer that says nothing, or takes nothing of what it asked for, is hung up on.
//!
//! ```text
//!   accepted ─► first request within `head` ─► answer in slices ─► slices written ─► idle, at most `idle`
//!                                              └ one of them within `write` ┘
//! ```
//!
//! A slice counts as written when the connection has let go of it, whatever the version of HTTP: what a peer does not
//! take stays in memory, and counts against the budget of all readers.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::Instant;

/// Bytes of a slice, at first. A line of 9.6 kb/s takes one in 14 seconds.
const SLICE_BYTES_MIN: usize = 16 << 10;
/// Bytes of a slice for who takes them at once: each one costs a system call or a part of one.
const SLICE_BYTES_MAX: usize = 256 << 10;
/// Who takes a slice within this gets one of twice the size.
const TAKEN_AT_ONCE: Duration = Duration::from_millis(100);
/// Who does not take one within this gets the smallest.
const TAKEN_SLOWLY: Duration = Duration::from_secs(2);

/// The deadlines of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// For the head of the first request.
    pub(crate) head: Duration,
    /// For a slice of an answer to be taken.
    pub(crate) write: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
}

/// What is known of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Pace(Arc<Mutex<Now>>);

#[derive(Debug)]
struct Now {
    /// When something last went on.
    last: Instant,
    /// A request has come.
    begun: bool,
    /// Requests whose answer is not complete.
    requests: usize,
    /// Slices that are not written.
    slices: usize,
    /// Bytes of the next slice.
    slice_bytes: usize,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Now {
            last: Instant::now(),
            begun: false,
            requests: 0,
            slices: 0,
            slice_bytes: SLICE_BYTES_MIN,
        })))
    }

    /// A request has come; it counts until what is returned is dropped.
    pub(crate) fn request(&self) -> Running {
        let mut now = self.0.lock();
        (now.begun, now.last) = (true, Instant::now());
        now.requests += 1;
        Running(self.clone())
    }

    /// Returns why the connection does not go on, once it does not.
    pub(crate) async fn stalled(&self, deadlines: Deadlines) -> &'static str {
        loop {
            let Some((until, why)) = self.deadline(deadlines) else {
                // We are at work ourselves.
                tokio::time::sleep(deadlines.head.min(deadlines.write)).await;
                continue;
            };
            if until <= Instant::now() {
                return why;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Until when something must go on, and what; `None` while it is our turn.
    fn deadline(&self, deadlines: Deadlines) -> Option<(Instant, &'static str)> {
        let now = self.0.lock();
        let (within, why) = match *now {
            Now { begun: false, .. } => (deadlines.head, "no request came"),
            Now { slices: 1.., .. } => (deadlines.write, "the answer is not taken"),
            Now { requests: 0, .. } => (deadlines.idle, "no further request came"),
            Now { .. } => return None,
        };
        Some((now.last + within, why))
    }
}

/// A request whose answer is not complete.
#[derive(Debug)]
pub(crate) struct Running(Pace);

impl Running {
    /// The answer in slices that are watched.
    pub(crate) fn answer(self, response: Response) -> Response {
        response.map(|body| Body::new(Sliced { body, rest: Bytes::new(), running: self }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut now = self.0.0.lock();
        now.requests -= 1;
        now.last = Instant::now();
    }
}

struct Sliced {
    body: Body,
    rest: Bytes,
    running: Running,
}

impl hyper::body::Body for Sliced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                other => return other,
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.len().min(self.running.0.0.lock().slice_bytes);
        let bytes = self.rest.split_to(length);
        let slice = Slice::new(bytes, &self.running.0);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(slice)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// Bytes on their way to the peer.
struct Slice {
    bytes: Bytes,
    pace: Pace,
    begun: Instant,
}

impl Slice {
    fn new(bytes: Bytes, pace: &Pace) -> Self {
        let mut now = pace.0.lock();
        let begun = Instant::now();
        // The first one begins the time in which one must be taken.
        if now.slices == 0 {
            now.last = begun;
        }
        now.slices += 1;
        drop(now);
        Self { bytes, pace: pace.clone(), begun }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        let mut now = self.pace.0.lock();
        now.slices -= 1;
        now.last = Instant::now();
        let took = now.last - self.begun;
        if took < TAKEN_AT_ONCE {
            now.slice_bytes = (now.slice_bytes * 2).min(SLICE_BYTES_MAX);
        } else if took > TAKEN_SLOWLY {
            now.slice_bytes = SLICE_BYTES_MIN;
        }
    }
}
