//! RLE Lossless (PS3.5 Annex G): each byte of each sample is a plane, each plane a segment of run lengths.
//!
//! ```text
//!   segments 4 | offset 4 × 15 | segment …       segment 0: the most significant bytes of the first sample
//!   run   n 0…127:   n + 1 bytes as they are     129…255: 257 - n times the next byte     128: nothing
//! ```
//!
//! Strict: the header has the planes that the data set needs, each segment fills its plane exactly, and behind it stands
//! nothing but padding. Nothing else in such a stream tells a damaged one.

use crate::{
    coders::{Coder, Shape, as_put_in},
    fit::{Decoded, Samples},
    refusal::{Refusal, refused, unsupported},
};
use archive_codec_wire::Image;

const HEAD_BYTES: usize = 64;
const SEGMENTS_MAX: usize = 15;

pub(crate) struct Rle;

impl Coder for Rle {
    fn look(&self, _: &[u8]) -> Result<Option<Shape>, Refusal> {
        Ok(None)
    }

    fn decode(&self, image: &Image, stream: &[u8]) -> Result<Decoded, Refusal> {
        let (pixels, samples, bytes) = planes(image)?;
        let head = stream.get(..HEAD_BYTES).ok_or_else(|| refused("the RLE header is cut off"))?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        if number(0) != samples * bytes {
            return Err(refused("the RLE header has not as many segments as the samples have bytes"));
        }
        let mut frame = vec![0; pixels * samples * bytes];
        let mut end = HEAD_BYTES;
        for plane in 0..samples * bytes {
            let start = number(4 + plane * 4);
            let next = if plane + 1 < samples * bytes { number(8 + plane * 4) } else { stream.len() };
            if start != end {
                return Err(refused("the segments of the RLE header are out of order"));
            }
            let segment = stream.get(start..next).ok_or_else(|| refused("a segment lies outside of the RLE stream"))?;
            // Most significant byte first; the native sample has it last.
            let (sample, byte) = (plane / bytes, bytes - 1 - plane % bytes);
            let places = frame.iter_mut().skip(sample * bytes + byte).step_by(samples * bytes);
            unpack(segment, places)?;
            end = next;
        }
        Ok(Decoded { samples: Samples::Native(frame), photometric: as_put_in(image)?, planar: false })
    }
}

/// Pixels, samples, and bytes of each.
fn planes(image: &Image) -> Result<(usize, usize, usize), Refusal> {
    let (samples, bytes) = (usize::from(image.samples), usize::from(image.allocated / 8));
    if bytes == 0 || samples * bytes > SEGMENTS_MAX {
        return Err(unsupported("RLE of single bits, or of more than 15 bytes a pixel"));
    }
    // The frame is bounded, and so is this.
    Ok((image.rows as usize * image.columns as usize, samples, bytes))
}

fn unpack<'a>(segment: &[u8], mut places: impl ExactSizeIterator<Item = &'a mut u8>) -> Result<(), Refusal> {
    let cut = || refused("a segment of the RLE stream ends before its plane is full");
    let long = || refused("a run of the RLE stream reaches beyond its plane");
    let mut rest = segment;
    while places.len() > 0 {
        let [control, after @ ..] = rest else { return Err(cut()) };
        rest = match *control {
            128 => after,
            literal @ 0..=127 => {
                let count = usize::from(literal) + 1;
                let bytes = after.get(..count).ok_or_else(cut)?;
                for &byte in bytes {
                    *places.next().ok_or_else(long)? = byte;
                }
                &after[count..]
            }
            repeated => {
                let [byte, after @ ..] = after else { return Err(cut()) };
                for _ in 0..257 - u16::from(repeated) {
                    *places.next().ok_or_else(long)? = *byte;
                }
                after
            }
        };
    }
    if rest.iter().all(|&byte| byte == 0 || byte == 128) || rest.len() == 1 {
        Ok(())
    } else {
        Err(refused("a segment of the RLE stream goes on behind its plane"))
    }
}

/// The coded frame, of even length.
pub(crate) fn encode(image: &Image, native: &[u8]) -> Result<Vec<u8>, Refusal> {
    let (_, samples, bytes) = planes(image)?;
    let mut out = vec![0; HEAD_BYTES];
    out[..4].copy_from_slice(&((samples * bytes) as u32).to_le_bytes());
    for plane in 0..samples * bytes {
        let offset = u32::try_from(out.len()).map_err(|_| refused("the RLE stream is larger than 4 GiB"))?;
        out[4 + plane * 4..8 + plane * 4].copy_from_slice(&offset.to_le_bytes());
        let (sample, byte) = (plane / bytes, bytes - 1 - plane % bytes);
        let values: Vec<u8> = native.iter().skip(sample * bytes + byte).step_by(samples * bytes).copied().collect();
        // Rows apart: no run crosses the end of one (PS3.5 §G.3.1).
        values.chunks(image.columns as usize).for_each(|row| pack(row, &mut out));
        if out.len() % 2 == 1 {
            out.push(0);
        }
    }
    Ok(out)
}

fn pack(mut row: &[u8], out: &mut Vec<u8>) {
    let run = |bytes: &[u8]| bytes.iter().take(128).take_while(|&&byte| byte == bytes[0]).count();
    while !row.is_empty() {
        let repeated = run(row);
        if repeated > 1 {
            out.extend([(257 - repeated) as u8, row[0]]);
            row = &row[repeated..];
            continue;
        }
        // As they are, up to a run that is worth its two bytes.
        let mut count = 1;
        while count < row.len().min(128) && run(&row[count..]) < 3 {
            count += 1;
        }
        out.push((count - 1) as u8);
        out.extend_from_slice(&row[..count]);
        row = &row[count..];
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::coders::{
        self,
        tests::{colour, grey},
    };
    use archive_codec_wire::{Coding, Photometric};
    use proptest::prelude::*;

    #[test]
    fn the_example_of_planes_is_decoded() {
        // Two pixels of 16 bits, 0102 and 0103: most significant bytes first.
        let mut stream = vec![0; HEAD_BYTES];
        stream[0] = 2;
        stream[4] = 64;
        stream[8] = 66;
        stream.extend([255, 1, 1, 2, 3, 0]);
        let image = grey(1, 2, 16, 16, false);
        assert_eq!(coders::decode(Coding::Rle, &image, &stream).unwrap().0, [2, 1, 3, 1]);
        assert_eq!(encode(&image, &[2, 1, 3, 1]).unwrap(), stream);
    }

    #[test]
    fn segments_that_do_not_fill_their_planes_are_refused() {
        let image = grey(2, 4, 8, 8, false);
        let stream = |segment: &[u8]| {
            let mut stream = vec![0; HEAD_BYTES];
            stream[0] = 1;
            stream[4] = 64;
            stream.extend(segment);
            stream
        };
        let decoded = |segment: &[u8]| coders::decode(Coding::Rle, &image, &stream(segment));
        assert_eq!(decoded(&[249, 7]).unwrap().0, [7; 8]);
        assert_eq!(decoded(&[128, 249, 7, 0, 128]).unwrap().0, [7; 8], "padding");
        assert!(decoded(&[250, 7]).is_err(), "one too few");
        assert!(decoded(&[248, 7]).is_err(), "one too many");
        assert!(decoded(&[249, 7, 249, 7]).is_err(), "twice");
        assert!(decoded(&[7, 1, 2]).is_err(), "cut off");
        let mut wrong = stream(&[249, 7]);
        wrong[0] = 2;
        assert!(coders::decode(Coding::Rle, &image, &wrong).is_err(), "two segments");
        wrong[0] = 1;
        wrong[4] = 65;
        assert!(coders::decode(Coding::Rle, &image, &wrong).is_err(), "begins late");
    }

    #[test]
    fn colours_stay_and_planes_become_pixels() {
        let image = Image { photometric: Photometric::YbrFull, planar: true, ..colour(2, 2) };
        let native: Vec<u8> = (0..12).collect();
        let coded = encode(&image, &native).unwrap();
        assert_eq!(coders::decode(Coding::Rle, &image, &coded).unwrap(), (native, Photometric::YbrFull, false));
    }

    proptest! {
        #[test]
        fn rows_come_back_and_no_run_crosses_their_ends(values in prop::collection::vec(0_u8..3, 1..600), columns in 1_usize..60) {
            let rows = values.len() / columns;
            prop_assume!(rows > 0);
            let native = &values[..rows * columns];
            let image = grey(rows as u32, columns as u32, 8, 8, false);
            let coded = encode(&image, native).unwrap();
            prop_assert_eq!(coders::decode(Coding::Rle, &image, &coded).unwrap().0, native);
            // Each row alone is what its runs say.
            let mut rest = &coded[HEAD_BYTES..];
            for row in native.chunks(columns) {
                let mut out = Vec::new();
                pack(row, &mut out);
                prop_assert!(rest.starts_with(&out));
                rest = &rest[out.len()..];
            }
        }
    }
}
