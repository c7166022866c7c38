//! Plain bytes to a deflated data set (PS3.5 §A.5): raw RFC 1951, padded to even length by one NUL.
//!
//! The same bytes become the same, however they are cut: a trial says how long they become.

use flate2::{Compress, Compression, FlushCompress, Status};

/// What is deflated in one step.
const STEP_BYTES: usize = 32 << 10;

/// Deflates one data set, in pieces of any size.
#[derive(Debug)]
pub struct Deflater {
    stream: Compress,
    /// Bytes that wait for a step to be whole.
    waiting: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        // Level 1: for who reads it once, on its way.
        Self { stream: Compress::new(Compression::fast(), false), waiting: Vec::new() }
    }
}

impl Deflater {
    /// Takes the next bytes and appends what is ready to `out`.
    pub fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) {
        while self.waiting.len() + piece.len() >= STEP_BYTES {
            let (now, later) = piece.split_at(STEP_BYTES - self.waiting.len());
            self.waiting.extend_from_slice(now);
            self.step(FlushCompress::None, out);
            piece = later;
        }
        self.waiting.extend_from_slice(piece);
    }

    /// The bytes are at their end.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.step(FlushCompress::Finish, out);
        out.extend((self.stream.total_out() % 2 == 1).then_some(0));
    }

    /// Deflates all that waits.
    fn step(&mut self, flush: FlushCompress, out: &mut Vec<u8>) {
        let waiting = std::mem::take(&mut self.waiting);
        let mut rest = &waiting[..];
        loop {
            // What does not become smaller becomes little larger; a full buffer is given another.
            out.reserve(rest.len() + 64);
            let before = self.stream.total_in();
            let status = self.stream.compress_vec(rest, out, flush);
            rest = &rest[(self.stream.total_in() - before) as usize..];
            let ended = match status {
                Ok(Status::StreamEnd) => true,
                // With room in `out` it has taken all that there is, and keeps what it cannot say yet.
                Ok(Status::Ok | Status::BufError) => {
                    flush == FlushCompress::None && rest.is_empty() && out.len() < out.capacity()
                }
                // Only a stream that has ended can fail so, and nothing is pushed behind the end.
                Err(_) => true,
            };
            if ended {
                break;
            }
        }
        self.waiting = waiting;
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::io::Read as _;

    fn deflated<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut deflater, mut out) = (Deflater::default(), Vec::new());
        for piece in pieces {
            // A new buffer each time, as who sends it has.
            let mut part = Vec::new();
            deflater.push(piece, &mut part);
            out.extend(part);
        }
        deflater.finish(&mut out);
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_inflates_to_what_it_was_however_it_was_cut(
            seed in proptest::collection::vec(any::<u8>(), 1..400), times in 0_usize..900, cut in 1_usize..70_000,
        ) {
            // Now compressible, now not.
            let bytes: Vec<u8> =
                seed.repeat(times).iter().enumerate().map(|(at, byte)| byte.wrapping_mul((at / 5000 % 3) as u8)).collect();
            let out = deflated(bytes.chunks(cut));
            prop_assert!(out.len().is_multiple_of(2));
            prop_assert_eq!(&out, &deflated(std::iter::once(&bytes[..])));
            let mut back = Vec::new();
            flate2::read::DeflateDecoder::new(&out[..]).read_to_end(&mut back).unwrap();
            prop_assert!(back == bytes);
        }
    }
}
