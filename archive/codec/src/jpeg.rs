//! ISO/IEC 10918-1: baseline, extended and progressive with 8 bits and lossless with 2 to 16 by `jpeg-decoder`, extended
//! with 12 bits by `libjpeg-turbo-rs`.
//!
//! Colours: DCT coded colour becomes RGB. Whether it was YCbCr the stream says first (components named R, G, B; JFIF, which is
//! always YCbCr; Adobe's APP14), since writers forget to change the data set; then Photometric Interpretation. Lossless colour
//! stays what it was.
//!
//! Read in `jpeg-decoder` 0.3.2, and hence refused: lossless with restarts (it predicts across them), with a point transform
//! (it shifts what it predicts from), with subsampled components or several scans (it takes the first for all).

use crate::{
    coders::{Coder, Shape, as_put_in},
    fit::{Decoded, Samples},
    markers::{Header, whole},
    refusal::{Refusal, refused, said, unsupported},
    scan,
};
use archive_codec_wire::{FRAME_BYTES_MAX, Image, Photometric};
use jpeg_decoder::{ColorTransform, Decoder};
use libjpeg_turbo_rs::{DecodeLimits, decompress_12bit_with_limits};
use std::borrow::Cow;

const LOSSLESS: u8 = 0xC3;
/// Scans of one frame: a progressive one has some ten.
const SCANS_MAX: usize = 100;

pub(crate) struct Jpeg;

impl Coder for Jpeg {
    fn look(&self, stream: &[u8]) -> Result<Option<Shape>, Refusal> {
        let header = Header::of(stream)?;
        let samples = match header.components.len() {
            1 => 1,
            3 => 3,
            _ => return Err(unsupported("JPEG of other than 1 or 3 components")),
        };
        match (header.process, header.precision) {
            (0xC0..=0xC2, 8) | (0xC0 | 0xC1, 12) => {}
            (LOSSLESS, 2..=16) => lossless(&header)?,
            (0xC0..=0xC3, _) => return Err(unsupported("JPEG of this precision")),
            _ => return Err(unsupported("hierarchical or arithmetically coded JPEG")),
        }
        let Header { rows, columns, precision, .. } = header;
        Ok(Some(Shape { rows, columns, samples, precision, signed: false }))
    }

    fn decode(&self, image: &Image, stream: &[u8]) -> Result<Decoded, Refusal> {
        let stream = &*complete(stream)?;
        let header = Header::of(stream)?;
        if header.process != LOSSLESS && header.precision == 12 {
            return twelve_bits(image, &header, stream);
        }
        let mut decoder = Decoder::new(stream);
        decoder.set_max_decoding_buffer_size(usize::try_from(FRAME_BYTES_MAX).unwrap_or(usize::MAX));
        let photometric = match (header.process, header.components.len()) {
            (LOSSLESS, _) | (_, 1) => as_put_in(image)?,
            _ => {
                decoder.set_color_transform(transform(&header, image)?);
                Photometric::Rgb
            }
        };
        let bytes = decoder.decode().map_err(|error| said("jpeg-decoder", &error))?;
        // Lossless samples of other than 8 bits come as words of this machine, which is little endian or swapped here.
        let samples = if header.precision == 8 {
            Samples::Bytes(bytes)
        } else {
            Samples::Words(bytes.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect())
        };
        Ok(Decoded { samples, photometric, planar: false })
    }
}

/// The stream up to its EOI, with one where only that is missing.
fn complete(stream: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    whole(stream).map(Cow::Borrowed).or_else(|refusal| {
        let end = scan::end(stream).ok_or(refusal)?;
        Ok(Cow::Owned([&stream[..end], b"\xFF\xD9"].concat()))
    })
}

/// What `jpeg-decoder` decodes rightly.
fn lossless(header: &Header) -> Result<(), Refusal> {
    let (count, predictor, _, shifts) = header.scan;
    if header.restarts || shifts & 0x0F != 0 {
        return Err(unsupported("lossless JPEG with restarts or a point transform"));
    }
    // One component may call its sampling what it likes.
    let several = header.components.len() > 1;
    let apart = usize::from(count) != header.components.len();
    if several && (apart || header.components.iter().any(|(_, sampling)| *sampling != 0x11)) {
        return Err(unsupported("lossless JPEG with subsampled components or several scans"));
    }
    if (1..=7).contains(&predictor) { Ok(()) } else { Err(refused("lossless JPEG without a predictor")) }
}

/// What three DCT coded components are.
fn transform(header: &Header, image: &Image) -> Result<ColorTransform, Refusal> {
    let ids: Vec<u8> = header.components.iter().map(|(id, _)| *id).collect();
    match (header.adobe, &ids[..], image.photometric) {
        (_, b"RGB", _) => Ok(ColorTransform::RGB),
        _ if header.jfif => Ok(ColorTransform::YCbCr),
        (Some(0), ..) => Ok(ColorTransform::RGB),
        (Some(1), ..) => Ok(ColorTransform::YCbCr),
        (Some(_), ..) => Err(refused("a colour transform that three components cannot have")),
        (None, _, Photometric::Rgb) => Ok(ColorTransform::RGB),
        (None, _, Photometric::YbrFull | Photometric::YbrFull422) => Ok(ColorTransform::YCbCr),
        (None, ..) => Err(refused("Photometric Interpretation is one that JPEG cannot have")),
    }
}

fn twelve_bits(image: &Image, header: &Header, stream: &[u8]) -> Result<Decoded, Refusal> {
    if header.components.len() != 1 {
        return Err(unsupported("JPEG of 12 bits in colour"));
    }
    let limits = DecodeLimits { max_scans: SCANS_MAX, max_memory: Some(FRAME_BYTES_MAX), ..DecodeLimits::default() };
    let decoded = decompress_12bit_with_limits(stream, &limits).map_err(|error| said("libjpeg-turbo-rs", &error))?;
    if decoded.data.iter().any(|sample| !(0..4096).contains(sample)) {
        return Err(refused("a sample of 12 bits is out of range"));
    }
    let samples = Samples::Words(decoded.data.into_iter().map(|sample| sample as u16).collect());
    Ok(Decoded { samples, photometric: image.photometric, planar: false })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::coders::{
        decode,
        tests::{colour, grey},
    };
    use archive_codec_wire::{Coding, Failure};
    use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};

    fn gradient(rows: u32, columns: u32, samples: u32) -> Vec<u8> {
        (0..rows * columns)
            .flat_map(|at| (0..samples).map(move |sample| (at / columns * 2 + at % columns + sample * 40) as u8))
            .collect()
    }

    /// Apart by at most `most` levels.
    fn close(one: &[u8], other: &[u8], most: u8) -> bool {
        one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.abs_diff(*b) <= most)
    }

    #[test]
    fn baseline_grey_and_colour_come_back() {
        let native = gradient(33, 47, 1);
        let coded = compress(&native, 47, 33, PixelFormat::Grayscale, 95, Subsampling::S444).unwrap();
        let (frame, photometric, _) = decode(Coding::Jpeg, &grey(33, 47, 8, 8, false), &coded).unwrap();
        assert!(close(&frame, &native, 6));
        assert_eq!(photometric, Photometric::Monochrome2);
        let native = gradient(32, 48, 3);
        let coded = compress(&native, 48, 32, PixelFormat::Rgb, 95, Subsampling::S444).unwrap();
        let image = Image { photometric: Photometric::YbrFull422, ..colour(32, 48) };
        let (frame, photometric, planar) = decode(Coding::Jpeg, &image, &coded).unwrap();
        assert!(close(&frame, &native, 8));
        assert_eq!((photometric, planar), (Photometric::Rgb, false));
    }

    #[test]
    fn what_the_stream_says_of_its_colours_comes_before_the_data_set() {
        let header = |adobe, ids: [u8; 3]| Header {
            adobe,
            components: ids.iter().map(|id| (*id, 0x11)).collect(),
            ..Header::default()
        };
        let ybr = Image { photometric: Photometric::YbrFull422, ..colour(2, 2) };
        let rgb = colour(2, 2);
        assert_eq!(transform(&header(Some(0), [1, 2, 3]), &ybr), Ok(ColorTransform::RGB));
        assert_eq!(transform(&header(Some(1), [1, 2, 3]), &rgb), Ok(ColorTransform::YCbCr));
        assert_eq!(transform(&header(None, *b"RGB"), &ybr), Ok(ColorTransform::RGB));
        let jfif = Header { jfif: true, ..header(None, [1, 2, 3]) };
        assert_eq!(transform(&jfif, &rgb), Ok(ColorTransform::YCbCr));
        assert_eq!(transform(&header(None, [1, 2, 3]), &rgb), Ok(ColorTransform::RGB));
        assert_eq!(transform(&header(None, [0, 1, 2]), &ybr), Ok(ColorTransform::YCbCr));
        assert!(transform(&header(None, [1, 2, 3]), &Image { photometric: Photometric::YbrRct, ..rgb }).is_err());
    }

    #[test]
    fn a_stream_that_was_cut_off_is_refused() {
        let native = gradient(32, 48, 1);
        let coded = compress(&native, 48, 32, PixelFormat::Grayscale, 95, Subsampling::S444).unwrap();
        let image = grey(32, 48, 8, 8, false);
        for end in [coded.len() - 3, coded.len() / 2, 10] {
            let refusal = decode(Coding::Jpeg, &image, &coded[..end]).unwrap_err();
            assert_eq!(refusal.failure, Failure::Refused);
        }
        let whole = decode(Coding::Jpeg, &image, &coded);
        assert_eq!(decode(Coding::Jpeg, &image, &coded[..coded.len() - 2]), whole, "only its EOI is missing");
        assert_eq!(decode(Coding::Jpeg, &image, &coded[..coded.len() - 1]), whole, "half of its EOI is missing");
    }

    #[test]
    fn lossless_streams_that_the_decoder_gets_wrong_are_not_given_to_it() {
        let good = Header { process: LOSSLESS, components: vec![(1, 0x11)], scan: (1, 1, 0, 0), ..Header::default() };
        assert!(lossless(&good).is_ok());
        assert!(lossless(&Header { restarts: true, ..good.clone() }).is_err());
        assert!(lossless(&Header { scan: (1, 1, 0, 2), ..good.clone() }).is_err());
        assert!(lossless(&Header { scan: (1, 0, 0, 0), ..good.clone() }).is_err());
        let three = vec![(1, 0x21), (2, 0x11), (3, 0x11)];
        assert!(lossless(&Header { components: three, scan: (3, 1, 0, 0), ..good }).is_err());
    }
}
