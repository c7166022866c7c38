//! ISO/IEC 14495-1, one component, lossless and near-lossless, by `pure_jpegls`. Several components are refused: the decoders
//! of them are not written in Rust.

use crate::{
    coders::{Coder, Shape, as_put_in},
    fit::{Decoded, Samples},
    markers::{Header, whole},
    refusal::{Refusal, refused, said, unsupported},
};
use archive_codec_wire::Image;
use jpegls::EncodeOptions;

const DECODER: &str = "pure_jpegls";
const FRAME: u8 = 0xF7;

pub(crate) struct JpegLs;

impl Coder for JpegLs {
    fn look(&self, stream: &[u8]) -> Result<Option<Shape>, Refusal> {
        let header = Header::of(whole(stream)?)?;
        if header.process != FRAME {
            return Err(refused("the stream is not JPEG-LS"));
        }
        if header.components.len() != 1 {
            return Err(unsupported("JPEG-LS of several components"));
        }
        let Header { rows, columns, precision, .. } = header;
        Ok(Some(Shape { rows, columns, samples: 1, precision, signed: false }))
    }

    fn decode(&self, image: &Image, stream: &[u8]) -> Result<Decoded, Refusal> {
        let (samples, columns, rows) =
            jpegls::decode(whole(stream)?, image.columns, image.rows).map_err(|error| said(DECODER, &error))?;
        if (columns, rows) != (image.columns, image.rows) {
            return Err(refused("the decoder gave a frame of another size"));
        }
        Ok(Decoded { samples: Samples::Words(samples), photometric: as_put_in(image)?, planar: false })
    }
}

/// Lossless. The samples are coded as the bits that they are, all of Bits Allocated where a bit above Bits Stored says
/// anything of its own.
pub(crate) fn encode(image: &Image, native: &[u8]) -> Result<Vec<u8>, Refusal> {
    let samples: Vec<u16> = match (image.samples, image.allocated) {
        (1, 8) => native.iter().map(|&byte| u16::from(byte)).collect(),
        (1, 16) => native.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect(),
        _ => return Err(unsupported("JPEG-LS of several samples or of more than 16 bits is not encoded")),
    };
    let precision = precision(image, &samples).max(2);
    let mask = u16::MAX >> (16 - precision);
    let samples: Vec<u16> = samples.into_iter().map(|sample| sample & mask).collect();
    let mut options = EncodeOptions::default();
    options.precision = Some(precision);
    let mut coded = Vec::new();
    jpegls::encode_with_options(&samples, image.columns, image.rows, &options, &mut coded)
        .map_err(|error| said(DECODER, &error))?;
    Ok(coded)
}

/// Bits Stored, if every sample is its extension from them; else Bits Allocated.
pub(crate) fn precision(image: &Image, samples: &[u16]) -> u8 {
    let above = u32::from(16 - image.stored);
    let extended = |sample: u16| {
        let low = sample << above;
        let whole = if image.signed { (low as i16 >> above) as u16 } else { low >> above };
        if image.allocated == 8 { whole & 0xFF == sample } else { whole == sample }
    };
    if image.high + 1 == image.stored && samples.iter().all(|&sample| extended(sample)) {
        image.stored
    } else {
        image.allocated
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::coders::{self, tests::grey};
    use archive_codec_wire::Coding;

    #[test]
    fn bits_above_those_stored_are_kept() {
        // An overlay in bit 12, as old modalities have it.
        let image = grey(4, 5, 16, 12, false);
        let native: Vec<u8> = (0..20_u16).flat_map(|at| (at | at << 12).to_le_bytes()).collect();
        let (coded, ..) = coders::encode(Coding::JpegLs, &image, &native).unwrap();
        assert_eq!(coders::decode(Coding::JpegLs, &image, &coded).unwrap().0, native);
    }

    #[test]
    fn precision_is_that_of_what_is_stored_where_nothing_else_is_there() {
        assert_eq!(precision(&grey(1, 2, 16, 12, true), &[0xFFFB, 3]), 12);
        assert_eq!(precision(&grey(1, 2, 16, 12, true), &[0x0FFB, 3]), 16);
        assert_eq!(precision(&grey(1, 2, 16, 12, false), &[0x0FFB, 3]), 12);
        assert_eq!(precision(&grey(1, 2, 8, 6, true), &[0xFB, 3]), 6);
    }

    #[test]
    fn every_shortened_stream_is_refused() {
        let image = grey(16, 16, 16, 12, false);
        let native: Vec<u8> = (0..256_u16).flat_map(|at| (at * 13 % 4096).to_le_bytes()).collect();
        let (coded, ..) = coders::encode(Coding::JpegLs, &image, &native).unwrap();
        for end in (0..coded.len() - 1).step_by(7) {
            assert!(coders::decode(Coding::JpegLs, &image, &coded[..end]).is_err());
            let closed = [&coded[..end], b"\xFF\xD9"].concat();
            assert!(coders::decode(Coding::JpegLs, &image, &closed).is_err(), "{end}");
        }
    }
}
