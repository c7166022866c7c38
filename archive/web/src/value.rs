//! Values of a data set as the web has them: in Explicit VR Little Endian (PS3.18 §8.7.3), whatever is stored.
//!
//! ```text
//!   stored        explicit, implicit, encapsulated   the bytes as they are
//!                 big endian                         words turned
//!                 deflated                           inflated from the beginning, the range cut out
//!                 frames of bits                     moved to begin on a byte (PS3.5 §8.1.1)
//! ```

use crate::{router::Shared, status::Problem};
use archive_model::{DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE};
use archive_service::{Freshness, InstanceRow, Reading, Selection};
use axum::http::StatusCode;
use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use serde_json::Value as Json;
use std::ops::Range;

const WINDOW_BYTES: usize = 64 << 10;

/// The transfer syntax in which values of an instance are served.
pub(crate) fn value_syntax(row: &InstanceRow) -> &str {
    match row.transfer_syntax.as_str() {
        IMPLICIT_LE | EXPLICIT_BE | DEFLATED_LE => EXPLICIT_LE,
        stored => stored,
    }
}

/// Whether places in the data set are not places in the stored bytes, or the bytes there are to be turned.
pub(crate) fn is_remade(row: &InstanceRow) -> bool {
    [EXPLICIT_BE, DEFLATED_LE].contains(&row.transfer_syntax.as_str())
}

/// Bytes of the words of the bulk value at `place` in an instance in big endian, 1 in all others; `None` when no bulk
/// value is there. The header is asked, because a place alone does not tell.
pub(crate) async fn word_bytes(shared: &Shared, row: &InstanceRow, place: &Place) -> Result<Option<usize>, Problem> {
    let selection = Selection {
        patient: None,
        studies: vec![row.study.clone()],
        series: vec![row.series.clone()],
        instances: vec![row.instance.clone()],
    };
    let mut headers = shared.archive.headers(selection, Freshness::Local).await?;
    let Some((_, header)) = headers.next().await.transpose()? else { return Ok(None) };
    let Ok(header) = serde_json::from_slice::<Json>(&header) else { return Ok(None) };
    let vr = match place {
        Place::Pixels => vr_where(&header, &|tag, _| tag == "7FE00010"),
        Place::At(place) => vr_where(&header, &|_, element| element["BulkDataURI"] == *place),
    };
    Ok(vr.map(|vr| swapped_bytes(row, vr)))
}

/// Bytes of the words of a value that are stored in the other order than the web has them; 1 for none.
pub(crate) fn swapped_bytes(row: &InstanceRow, vr: &str) -> usize {
    let big = row.transfer_syntax == EXPLICIT_BE;
    match vr {
        "OW" | "US" | "SS" | "AT" if big => 2,
        "OL" | "OF" | "UL" | "SL" | "FL" if big => 4,
        "OV" | "OD" | "UV" | "SV" | "FD" if big => 8,
        _ => 1,
    }
}

/// Which value.
pub(crate) enum Place {
    /// That of the frames.
    Pixels,
    /// `<offset>-<length>`.
    At(String),
}

fn vr_where<'a>(set: &'a Json, wanted: &dyn Fn(&str, &Json) -> bool) -> Option<&'a str> {
    set.as_object()?.iter().find_map(|(tag, element)| {
        if wanted(tag, element) {
            return element["vr"].as_str();
        }
        // Depth is limited by serde_json, which has read this.
        element["Value"].as_array()?.iter().find_map(|item| vr_where(item, wanted))
    })
}

/// What is done to the bytes of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    Nothing,
    /// The bytes of each word in the other order.
    Words {
        size: usize,
        held: Vec<u8>,
    },
    /// Bits that begin within the first byte are moved to its beginning; what is behind them is cleared.
    Bits {
        shift: u8,
        left: u64,
        held: Option<u8>,
    },
}

impl Turn {
    pub(crate) fn words(size: usize) -> Self {
        if size > 1 { Self::Words { size, held: Vec::new() } } else { Self::Nothing }
    }

    pub(crate) fn bits(shift: u8, bits: u64) -> Self {
        if shift == 0 && bits.is_multiple_of(8) { Self::Nothing } else { Self::Bits { shift, left: bits, held: None } }
    }

    /// What `bytes` become.
    pub(crate) fn push(&mut self, bytes: Bytes) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Nothing => return bytes,
            Self::Words { size, held } => {
                out.reserve(bytes.len() + *size);
                for &byte in &bytes {
                    held.push(byte);
                    if held.len() == *size {
                        out.extend(held.drain(..).rev());
                    }
                }
            }
            Self::Bits { shift, left, held } => {
                out.reserve(bytes.len());
                for &byte in &bytes {
                    if let Some(before) = held.replace(byte) {
                        let both = u16::from_le_bytes([before, byte]) >> *shift;
                        put_bits(both.to_le_bytes()[0], left, &mut out);
                    }
                }
            }
        }
        // The permit of what was read covers what became of it.
        Bytes::from_owner(Covered { bytes: out, _by: bytes })
    }

    /// What is left when the range has ended.
    pub(crate) fn finish(&mut self) -> Bytes {
        let mut out = Vec::new();
        if let Self::Bits { shift, left, held: Some(last) } = self {
            put_bits(*last >> *shift, left, &mut out);
        }
        out.into()
    }
}

fn put_bits(byte: u8, left: &mut u64, out: &mut Vec<u8>) {
    match *left {
        0 => {}
        some @ 1..8 => {
            out.push(byte & ((1 << some) - 1));
            *left = 0;
        }
        _ => {
            out.push(byte);
            *left -= 8;
        }
    }
}

/// Bytes that are held under the permit of others.
struct Covered {
    bytes: Vec<u8>,
    _by: Bytes,
}

impl AsRef<[u8]> for Covered {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// An instance that is being inflated: ranges are taken from it in ascending order. Holds one window.
pub(crate) struct Inflating {
    reading: Reading,
    stream: Decompress,
    input: Bytes,
    window: Bytes,
    window_start: u64,
    ended: bool,
}

impl Inflating {
    pub(crate) fn new(reading: Reading) -> Self {
        let (input, window) = (Bytes::new(), Bytes::new());
        Self { reading, stream: Decompress::new(false), input, window, window_start: 0, ended: false }
    }

    /// The next bytes of `wanted`, which shrinks; `None` when nothing is left of it.
    pub(crate) async fn next(&mut self, wanted: &mut Range<u64>) -> Result<Option<Bytes>, Problem> {
        loop {
            let window_end = self.window_start + self.window.len() as u64;
            if wanted.is_empty() {
                return Ok(None);
            }
            if wanted.start < self.window_start {
                let what = "frames of an instance that is stored deflated come in ascending order: ask for them so";
                return Err(Problem::bad(what));
            }
            if wanted.start < window_end {
                let from = (wanted.start - self.window_start) as usize;
                let to = (wanted.end.min(window_end) - self.window_start) as usize;
                wanted.start += (to - from) as u64;
                return Ok(Some(self.window.slice(from..to)));
            }
            self.inflate().await?;
        }
    }

    async fn inflate(&mut self) -> Result<(), Problem> {
        let damaged = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the deflated instance ends too early");
        if self.ended {
            return Err(damaged());
        }
        if self.input.is_empty() {
            self.input = self.reading.next().await.ok_or_else(damaged)??;
        }
        let mut window = vec![0; WINDOW_BYTES];
        let (taken_before, given_before) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.decompress(&self.input, &mut window, FlushDecompress::None).map_err(|_| damaged())?;
        let taken = (self.stream.total_in() - taken_before) as usize;
        let given = (self.stream.total_out() - given_before) as usize;
        self.input = self.input.split_off(taken);
        self.ended = status == Status::StreamEnd || (taken == 0 && given == 0);
        window.truncate(given);
        if given > 0 {
            self.window_start += self.window.len() as u64;
            self.window = window.into();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(mut turn: Turn, bytes: &[u8], step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in bytes.chunks(step) {
            out.extend_from_slice(&turn.push(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&turn.finish());
        out
    }

    #[test]
    fn bits_are_moved_to_the_beginning_whatever_the_pieces() {
        for step in 1..4 {
            // 9 bits from bit 3 on: 1 0110 1101 of 0110_1101_1xxx, the first bit is the lowest.
            assert_eq!(turned(Turn::bits(3, 9), &[0b0110_1101, 0b1111_0110], step), [0b1100_1101, 0]);
            assert_eq!(turned(Turn::bits(0, 9), &[0xFF, 0xFF], step), [0xFF, 1]);
            assert_eq!(turned(Turn::bits(7, 2), &[0x80, 0xFF], step), [3]);
            assert_eq!(turned(Turn::bits(4, 16), &[0x1F, 0x32, 0xF4], step), [0x21, 0x43]);
            assert_eq!(turned(Turn::bits(4, 4), &[0x1F], step), [1]);
        }
        assert_eq!(Turn::bits(0, 64), Turn::Nothing);
    }

    #[test]
    fn words_are_turned_across_pieces() {
        assert_eq!(turned(Turn::words(2), &[1, 2, 3, 4], 3), [2, 1, 4, 3]);
        assert_eq!(turned(Turn::words(4), &[1, 2, 3, 4], 3), [4, 3, 2, 1]);
    }

    #[test]
    fn a_bulk_value_is_found_in_an_item_too() {
        let header = serde_json::json!({
            "00081140": { "vr": "SQ", "Value": [{ "00420011": { "vr": "OB", "BulkDataURI": "1-2" } }] },
            "7FE00010": { "vr": "OW", "BulkDataURI": "3-4" },
        });
        let vr = |place: &str| vr_where(&header, &|_, element| element["BulkDataURI"] == place);
        assert_eq!((vr("1-2"), vr("3-4"), vr("5-6")), (Some("OB"), Some("OW"), None));
    }
}
