//! The deflated transfer syntax (PS3.5 §A.5): raw RFC 1951, no zlib header, padded to even length.
//!
//! Inflation is a stream with a bounded window: no more than 32 KiB of it exist at a time, and it is stopped as soon
//! as it has grown beyond the permitted ratio.

use super::machine::Machine;
use crate::{Invalid, Limits, Place};
use flate2::{Decompress, FlushDecompress, Status};

const WINDOW_BYTES: usize = 32 << 10;
/// Below this many inflated bytes no ratio is asked for: a small black image may well deflate to a thousandth.
const RATIO_FREE_BYTES: u64 = 1 << 20;

/// Bytes behind the end of the stream that are tolerated: a checksum or a buffer's rest, as real files have it.
const BEHIND_BYTES_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Inflater {
    stream: Decompress,
    window: Vec<u8>,
    ratio_max: u64,
    ended: bool,
    /// Bytes that came after the end of the stream.
    behind: usize,
}

impl Inflater {
    pub(crate) fn new(limits: &Limits) -> Self {
        let window = vec![0; WINDOW_BYTES];
        Self { stream: Decompress::new(false), window, ratio_max: limits.inflate_ratio_max, ended: false, behind: 0 }
    }

    /// Inflates `piece` into `machine`.
    pub(crate) fn push(&mut self, mut piece: &[u8], machine: &mut Machine) -> Result<(), Invalid> {
        loop {
            if self.ended {
                // The stream itself has said that it is complete: a pad byte, or what some writers leave behind it.
                self.behind += piece.len();
                if self.behind > 1 || piece.iter().any(|byte| *byte != 0) {
                    machine.like_nothing(); // more than the pad byte
                }
                if self.behind > BEHIND_BYTES_MAX {
                    return Err(self.invalid("bytes follow the deflated data set"));
                }
                return Ok(());
            }
            let (taken_before, given_before) = (self.stream.total_in(), self.stream.total_out());
            let status = self
                .stream
                .decompress(piece, &mut self.window, FlushDecompress::None)
                .map_err(|_| self.invalid("the deflated data set is damaged"))?;
            let taken = (self.stream.total_in() - taken_before) as usize;
            let given = (self.stream.total_out() - given_before) as usize;
            let allowed = self.stream.total_in().saturating_mul(self.ratio_max).max(RATIO_FREE_BYTES);
            if self.stream.total_out() > allowed {
                return Err(self.invalid("inflates to more than the permitted ratio"));
            }
            machine.feed(&self.window[..given])?;
            piece = &piece[taken..];
            match status {
                Status::StreamEnd => self.ended = true,
                Status::Ok | Status::BufError if piece.is_empty() && given < WINDOW_BYTES => return Ok(()),
                Status::Ok | Status::BufError if taken == 0 && given == 0 => {
                    return Err(self.invalid("the deflated data set is damaged"));
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }

    /// The bytes are at their end.
    pub(crate) fn finish(&self) -> Result<(), Invalid> {
        if self.ended {
            return Ok(());
        }
        Err(Invalid::Truncated { place: Place { tag: None, offset: self.stream.total_in() } })
    }

    fn invalid(&self, why: &'static str) -> Invalid {
        Invalid::Inflate { place: Place { tag: None, offset: self.stream.total_in() }, why }
    }
}
