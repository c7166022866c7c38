//! What comes while an operation is under way and is none of its business: further requests of a peer that was granted more
//! than one operation at a time. They wait here, in their order, until the operation is over.
//!
//! Room is bounded. When it is used up nothing more is read, not even a C-CANCEL: the peer has sent an object behind it.

use crate::association::Received;
use std::collections::VecDeque;

/// Bytes that wait, at most: requests and their identifiers; of an object only the beginning.
const BYTES_MAX: usize = 1 << 20;
/// What keeping a piece costs beside its bytes, at least.
const PIECE_BYTES: usize = 512;

#[derive(Default)]
pub(crate) struct Held {
    received: VecDeque<Received>,
    bytes: usize,
    full: bool,
}

impl Held {
    /// Keeps one more piece.
    pub(crate) fn push(&mut self, received: Received) {
        self.bytes += bytes_of(&received);
        self.received.push_back(received);
        self.full |= self.bytes >= BYTES_MAX;
    }

    /// The oldest piece; when there is none there is room again.
    pub(crate) fn pop(&mut self) -> Option<Received> {
        let oldest = self.received.pop_front();
        match &oldest {
            Some(oldest) => self.bytes -= bytes_of(oldest),
            None => self.full = false,
        }
        oldest
    }

    /// Requests that wait.
    pub(crate) fn requests(&self) -> usize {
        self.received.iter().filter(|received| matches!(received, Received::Command { .. })).count()
    }

    /// Whether there is no room for more until all was taken.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }
}

fn bytes_of(received: &Received) -> usize {
    PIECE_BYTES
        + match received {
            Received::Data { bytes, .. } => bytes.len(),
            Received::Command { .. } | Received::Released => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use archive_model::DataSet;
    use bytes::Bytes;

    #[test]
    fn pieces_come_back_in_their_order_and_room_comes_back_when_all_are_taken() {
        let mut held = Held::default();
        held.push(Received::Command { context: 1, set: DataSet::new(), data: true });
        held.push(Received::Data { bytes: Bytes::from(vec![0; BYTES_MAX]), last: false });
        assert!(held.is_full());
        assert_eq!(held.requests(), 1);
        assert!(matches!(held.pop(), Some(Received::Command { context: 1, .. })));
        assert!(matches!(held.pop(), Some(Received::Data { last: false, .. })) && held.is_full());
        assert!(held.pop().is_none() && !held.is_full());
        assert_eq!(held.bytes, 0);
    }

    #[test]
    fn empty_pieces_use_up_room_too() {
        let mut held = Held::default();
        for _ in 0..BYTES_MAX / PIECE_BYTES {
            assert!(!held.is_full());
            held.push(Received::Data { bytes: Bytes::new(), last: false });
        }
        assert!(held.is_full());
    }
}
