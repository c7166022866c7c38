//! What waits to be written to one connection, and the writing: many small frames in one call, large pieces uncopied.
//!
//! Invariant: whatever carries a message holds a permit of the peer's send budget, from before it is queued until its
//! bytes were handed to the kernel. Frames without a message (cancel, credit, finish, stop) are at most a few for each
//! call or stream that exists.

use crate::frame::{self, Frame};
use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use raft_types::BytePermit;
use std::{collections::VecDeque, io, io::IoSlice, time::Duration};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

/// Pieces up to this size are copied next to each other: cheaper than one more slice for the kernel.
const COPY_BYTES_MAX: usize = 4 << 10;
/// One turn of the writer: enough for full packets, short enough that cancelled permits come back soon.
const TURN_BYTES_MAX: u64 = 1 << 20;
/// Slices in one call; Linux takes up to 1024.
const SLICES_MAX: usize = 64;

/// Frames that wait for the writer.
#[derive(Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<(Frame, Option<BytePermit>)>,
    closed: bool,
}

impl Outbox {
    /// Queues a frame; silently dropped when the connection is closed, whose callers were told already.
    pub(crate) fn push(&self, frame: Frame, permit: Option<BytePermit>) {
        let mut queue = self.queue.lock();
        if !queue.closed {
            queue.frames.push_back((frame, permit));
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// Drops what waits; nothing is queued any more.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        let frames = std::mem::take(&mut queue.frames);
        drop(queue);
        drop(frames); // permits wake others: not under the lock
    }

    fn take(&self) -> Vec<(Frame, Option<BytePermit>)> {
        let mut queue = self.queue.lock();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < TURN_BYTES_MAX {
            let Some(next) = queue.frames.pop_front() else { break };
            bytes += frame::cost(&next.0.message);
            taken.push(next);
        }
        taken
    }

    /// Writes until an error; says `beat` whenever there was nothing to say for `beat_every`. Answers each turn's bytes
    /// to `wrote`.
    pub(crate) async fn write_all<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut W,
        beat: Frame,
        beat_every: Duration,
        stall_max: Duration,
        wrote: impl Fn(usize),
    ) -> io::Result<()> {
        loop {
            let mut turn = self.take();
            if turn.is_empty() {
                match tokio::time::timeout(beat_every, self.filled.notified()).await {
                    Ok(()) => continue,
                    Err(_) => turn.push((beat.clone(), None)),
                }
            }
            let mut pieces = join(turn.iter().map(|(frame, _)| frame));
            let bytes = pieces.iter().map(Bytes::len).sum();
            write(writer, &mut pieces, stall_max).await?;
            wrote(bytes);
        }
    }
}

/// The bytes of the frames in order, small pieces joined.
fn join<'a>(frames: impl Iterator<Item = &'a Frame>) -> VecDeque<Bytes> {
    let (mut pieces, mut small) = (VecDeque::new(), BytesMut::new());
    for frame in frames {
        let (front, rest) = frame::encode(frame);
        small.extend_from_slice(&front);
        for piece in rest {
            if piece.len() <= COPY_BYTES_MAX {
                small.extend_from_slice(&piece);
            } else {
                pieces.push_back(small.split().freeze());
                pieces.push_back(piece);
            }
        }
    }
    pieces.push_back(small.freeze());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Writes one frame at once: for the handshake, where nothing else is under way.
pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(
    writer: &mut W,
    frame: &Frame,
    stall_max: Duration,
) -> io::Result<()> {
    write(writer, &mut join(std::iter::once(frame)), stall_max).await
}

/// Writes all pieces. Each call must make progress within `stall_max`.
async fn write<W: AsyncWrite + Unpin>(
    writer: &mut W,
    pieces: &mut VecDeque<Bytes>,
    stall_max: Duration,
) -> io::Result<()> {
    while !pieces.is_empty() {
        let slices: Vec<IoSlice<'_>> = pieces.iter().take(SLICES_MAX).map(|piece| IoSlice::new(piece)).collect();
        let written = tokio::time::timeout(stall_max, writer.write_vectored(&slices)).await;
        let mut written = written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while let Some(first) = pieces.front_mut() {
            let step = written.min(first.len());
            first.advance(step);
            written -= step;
            if first.is_empty() {
                pieces.pop_front();
            } else {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;
    use raft_types::{ByteBudget, Class, Message};

    fn frame(id: u64, body: usize) -> Frame {
        let message = Message { bodies: vec![Bytes::from(vec![7; body])], ..Message::default() };
        Frame { kind: Kind::Data, class: Class::Bulk, id, message }
    }

    #[test]
    fn small_frames_share_one_piece_and_large_bodies_are_not_copied() {
        let frames = [frame(1, 10), frame(2, 20), frame(3, 100_000), frame(4, 5)];
        let pieces = join(frames.iter());
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), frames[2].message.bodies[0].as_ptr());
    }

    #[test]
    fn closing_gives_permits_back_and_takes_no_more() {
        let (outbox, budget) = (Outbox::default(), ByteBudget::new(100));
        outbox.push(frame(1, 10), budget.try_acquire(60));
        outbox.close();
        outbox.push(frame(2, 10), budget.try_acquire(60));
        assert_eq!(budget.used(), 0);
        assert!(outbox.take().is_empty());
    }

    #[test]
    fn a_turn_is_bounded_in_bytes() {
        let outbox = Outbox::default();
        (0..8).for_each(|id| outbox.push(frame(id, 600 << 10), None));
        assert_eq!(outbox.take().len(), 2);
    }
}
