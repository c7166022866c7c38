//! A plain instance with its frames compressed, without loss, for who asks for that coding.
//!
//! ```text
//!   stored   elements │ pixel data: frame, frame, …  │ elements
//!            ─ recoder ┤ frame 1 … n ─► codec, which  ├ recoder ─►
//!                      │ decodes what it encoded      │
//!                      └ header, offset table, an item a frame, delimiter
//! ```
//!
//! Codecs take little endian. Of a big endian instance the words of a frame are turned, those that Pixel Data of its VR has: of
//! OB none, of OW with up to 16 bits pairs of bytes. A frame need not begin on a word (8 bits in OW, an odd number of pixels):
//! then what is read is widened to whole words, turned, and cut again.
//!
//! How long it becomes is known only when all frames are encoded, so they are, before the first byte is sent, and kept: an
//! instance of more than [`NATIVE_BYTES_MAX`] is not compressed on its way. The SOP Instance UID stays: nothing is lost.

use crate::{
    Archive, ConvertError,
    codec::coding,
    convert::{Covered, lenient},
    decode::{self, Held},
    read::Reading,
};
use archive_catalog::InstanceRow;
use archive_codec_wire::Photometric;
use archive_model::{EXPLICIT_BE, Edits, FrameMap, Recoder, pixel_word_bytes, transfer_syntax};
use bytes::Bytes;
use std::{collections::VecDeque, ops::Range, sync::Arc};

/// Native bytes of an instance that is compressed on its way, at most.
const NATIVE_BYTES_MAX: u64 = 256 << 20;

/// Bytes of the header of Pixel Data in Explicit VR Big Endian: tag 4, VR 2, zero 2, length 4.
const HEADER_BYTES: u64 = 12;

/// Bytes of a word, by that header.
fn big_word_bytes(header: &[u8], allocated: u8) -> Option<usize> {
    match header {
        [0x7F, 0xE0, 0x00, 0x10, b'O', b'W', ..] => Some(pixel_word_bytes(allocated)),
        [0x7F, 0xE0, 0x00, 0x10, b'O', b'B', ..] => Some(1),
        _ => None,
    }
}

/// The words of a value from `begin` that `place` has a part of.
fn widened(place: &Range<u64>, begin: u64, word: u64) -> Range<u64> {
    let (start, end) = (place.start - begin, place.end - begin);
    begin + start / word * word..begin + end.next_multiple_of(word)
}

async fn read(archive: &Archive, row: &InstanceRow, range: Range<u64>) -> Result<Vec<u8>, ConvertError> {
    let mut bytes = Vec::new();
    let mut reading = archive.read(row, range);
    while let Some(piece) = reading.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

/// An instance that is being encoded.
pub(crate) struct Encoding {
    archive: Archive,
    row: InstanceRow,
    recoder: Recoder,
    /// Bytes of pixel data that is these frames: what is behind them is padding while it is less than a frame.
    native_bytes: Range<u64>,
    /// The offset table, then the frames.
    coded: VecDeque<Bytes>,
    reading: Option<Reading>,
    finished: bool,
}

impl Encoding {
    /// An instance in `to`, and how many bytes that are.
    pub(crate) async fn prepare(
        archive: &Archive,
        row: &InstanceRow,
        to: &str,
        map: FrameMap,
        edits: &Edits,
    ) -> Result<(Self, u64), ConvertError> {
        let never = || ConvertError::Never { from: row.transfer_syntax.clone(), to: to.to_owned() };
        let coding = coding(&transfer_syntax(to)).ok_or_else(never)?;
        let places: Option<Vec<Range<u64>>> = (1..=map.frames())
            .map(|frame| map.bits(frame).filter(|(_, bit, _)| *bit == 0).map(|place| place.0))
            .collect();
        let places = places.filter(|places| !places.is_empty());
        let places = places.ok_or(ConvertError::Image("its frames do not begin on whole bytes"))?;
        let header = decode::header(archive, row, places[0].start).await?;
        let image = decode::image(&header)?;
        let frame_bytes = u64::try_from(image.native_bytes()).unwrap_or(u64::MAX);
        if places.iter().any(|place| place.end - place.start != frame_bytes) {
            return Err(ConvertError::Image(
                "its frames have not the bytes that rows, columns, samples and bits promise",
            ));
        }
        let native_bytes = frame_bytes.saturating_mul(places.len() as u64);
        if native_bytes > NATIVE_BYTES_MAX {
            return Err(ConvertError::Image(
                "more than 256 MiB of pixels are not compressed on their way: take them as they are stored",
            ));
        }
        let mut permit = archive.codec().reserve(native_bytes.saturating_add(frame_bytes)).await;
        let value = places[0].start;
        let word = if transfer_syntax(&row.transfer_syntax).uid == EXPLICIT_BE {
            big_word_bytes(&read(archive, row, value.saturating_sub(HEADER_BYTES)..value).await?, image.allocated)
                .ok_or(ConvertError::Image("its big endian pixel data has no header that tells its words"))?
        } else {
            1
        };
        let (mut frames, mut table, mut offset, mut became) = (Vec::new(), Vec::new(), 0_u32, image.photometric);
        for (place, number) in places.into_iter().zip(1..) {
            let wide = widened(&place, value, word as u64);
            let mut native = read(archive, row, wide.start..wide.end.min(row.length_bytes)).await?;
            if word > 1 {
                native.chunks_exact_mut(word).for_each(<[u8]>::reverse);
                let skipped = (place.start - wide.start) as usize;
                native.drain(..skipped);
                native.truncate((place.end - place.start) as usize);
            }
            let frame = archive.codec().encode(coding, image, &native).await;
            let frame = frame.map_err(|why| ConvertError::Frame { frame: number, why })?;
            table.extend(offset.to_le_bytes());
            let item_bytes = u32::try_from(frame.bytes.len().next_multiple_of(2) + 8).ok();
            offset = item_bytes
                .and_then(|bytes| offset.checked_add(bytes))
                .ok_or(ConvertError::Image("its compressed frames are larger than 4 GiB"))?;
            became = frame.photometric;
            frames.push(frame.bytes);
        }
        permit.shrink(u64::from(offset));
        let permit = Arc::new(permit);
        let held = |bytes| Bytes::from_owner(Held { bytes, _permit: Arc::clone(&permit) });
        let coded: VecDeque<Bytes> = std::iter::once(table).chain(frames).map(held).collect();
        let coded_bytes: u64 = coded.iter().map(|item| item.len().next_multiple_of(2) as u64 + 8).sum();
        let changed = (became != image.photometric).then(|| Photometric::term(became));
        let planar = (image.planar && image.samples > 1).then_some(false);
        let recoder = || {
            Recoder::encoding(&row.transfer_syntax, to, changed, planar, &lenient())
                .map(|recoder| recoder.edited(edits))
                .ok_or_else(never)
        };
        let mut trial = Self {
            archive: archive.clone(),
            row: row.clone(),
            recoder: recoder()?,
            native_bytes: native_bytes..native_bytes.saturating_add(frame_bytes.max(2)),
            coded: VecDeque::new(),
            reading: None,
            finished: false,
        };
        let mut around_bytes = 0;
        while let Some(bytes) = trial.step().await? {
            around_bytes += bytes.len() as u64;
        }
        Ok((Self { recoder: recoder()?, coded, reading: None, finished: false, ..trial }, around_bytes + coded_bytes))
    }

    /// The next bytes; perhaps none yet.
    pub(crate) async fn step(&mut self) -> Result<Option<Bytes>, ConvertError> {
        let mut out = Vec::new();
        if self.recoder.wants_frames() {
            self.reading = None;
            // Frames behind those that are told (Number of Frames is missing, or no number) would be left out.
            let value_bytes = self.recoder.native_value().map_or(0, |value| value.end - value.start);
            if !self.native_bytes.contains(&value_bytes) {
                return Err(ConvertError::Image("its pixel data is longer than its frames"));
            }
            if let Some(item) = self.coded.pop_front() {
                self.recoder.fragment(&item, &mut out).map_err(ConvertError::Recode)?;
                return Ok(Some(Covered::bytes(out, item)));
            }
            let end = self.recoder.native_value().map_or(self.row.length_bytes, |value| value.end);
            self.recoder.resume(end, &mut out).map_err(ConvertError::Recode)?;
            self.reading = Some(self.archive.read(&self.row, end..self.row.length_bytes));
            return Ok(Some(out.into()));
        }
        let (archive, row) = (&self.archive, &self.row);
        let reading = self.reading.get_or_insert_with(|| archive.read(row, 0..row.length_bytes));
        match reading.next().await.transpose()? {
            Some(piece) => {
                self.recoder.push(&piece, &mut out).map_err(ConvertError::Recode)?;
                Ok(Some(Covered::bytes(out, piece)))
            }
            None if !std::mem::replace(&mut self.finished, true) => {
                self.recoder.finish(&mut out).map_err(ConvertError::Recode)?;
                Ok(Some(out.into()))
            }
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_value_representation() {
        let header = |vr: &[u8; 2]| [b"\x7F\xE0\0\x10".as_slice(), vr, &[0; 6]].concat();
        assert_eq!(big_word_bytes(&header(b"OW"), 8), Some(2));
        assert_eq!(big_word_bytes(&header(b"OW"), 16), Some(2));
        assert_eq!(big_word_bytes(&header(b"OW"), 32), Some(4));
        assert_eq!(big_word_bytes(&header(b"OB"), 8), Some(1));
        assert_eq!(big_word_bytes(&header(b"UN"), 8), None);
        assert_eq!(big_word_bytes(&[], 8), None);
    }

    #[test]
    fn a_frame_that_begins_inside_of_a_word_is_read_with_it() {
        assert_eq!(widened(&(103..106), 100, 2), 102..106);
        assert_eq!(widened(&(100..103), 100, 2), 100..104);
        assert_eq!(widened(&(101..103), 101, 2), 101..103);
        assert_eq!(widened(&(103..106), 100, 1), 103..106);
    }
}
