//! One trait over all codings, and the checks around it. A decode without error proves nothing (no checksum in these
//! streams), so that before it the header of the stream must say what the data set says, and after it the frame must have
//! exactly the bytes that the data set promises. What is in between cannot be checked: an archive has digests for that.

use crate::{
    fit::{self, Decoded},
    htj2k, jpeg, jpeg2000, jpegls, jxl, plain,
    refusal::{Refusal, refused, unsupported},
    rle,
    serve::Frame,
};
use archive_codec_wire::{Coding, Image, Photometric};

/// What the header of a coded frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) samples: u16,
    /// Bits of a sample.
    pub(crate) precision: u8,
    /// Whether samples are coded as signed numbers.
    pub(crate) signed: bool,
}

/// A coding.
pub(crate) trait Coder {
    /// What the header says; `None` where a coding has none. Nothing is decoded.
    fn look(&self, stream: &[u8]) -> Result<Option<Shape>, Refusal>;

    /// The samples.
    fn decode(&self, image: &Image, stream: &[u8]) -> Result<Decoded, Refusal>;
}

fn coder(coding: Coding) -> &'static dyn Coder {
    match coding {
        Coding::Rle => &rle::Rle,
        Coding::Jpeg => &jpeg::Jpeg,
        Coding::JpegLs => &jpegls::JpegLs,
        Coding::Jpeg2000 | Coding::Htj2k => &jpeg2000::Jpeg2000,
        Coding::JpegXl => &jxl::JpegXl,
        Coding::Deflated => &plain::Deflated,
        Coding::Native => &plain::Native,
    }
}

/// The native frame, little endian.
pub(crate) fn decode(coding: Coding, image: &Image, stream: &[u8]) -> Result<Frame, Refusal> {
    sensible(image)?;
    let coder = coder(coding);
    let shape = coder.look(stream)?;
    if let Some(shape) = &shape {
        compare(image, shape)?;
    }
    let decoded = coder.decode(image, stream)?;
    let (photometric, planar) = (decoded.photometric, decoded.planar);
    let frame = fit::fit(image, shape.as_ref(), decoded)?;
    if frame.len() as u128 != image.native_bytes() {
        return Err(refused("the decoded frame has not the bytes that rows, columns, samples and bits promise"));
    }
    Ok((frame, photometric, planar))
}

/// The coded frame. It is answered only after it was decoded again and is the same.
pub(crate) fn encode(coding: Coding, image: &Image, native: &[u8]) -> Result<Frame, Refusal> {
    sensible(image)?;
    if native.len() as u128 != image.native_bytes() {
        return Err(refused("the native frame has not the bytes that rows, columns, samples and bits promise"));
    }
    // Codings have the samples of a pixel together; of a single sample Planar Configuration says nothing.
    let together = (image.planar && image.samples > 1).then(|| pixel_by_pixel(image, native));
    let native = together.as_deref().unwrap_or(native);
    let image = &Image { planar: false, ..*image };
    let coded = match coding {
        Coding::Rle => rle::encode(image, native)?,
        Coding::JpegLs => jpegls::encode(image, native)?,
        Coding::Htj2k => htj2k::encode(image, native)?,
        Coding::Jpeg | Coding::Jpeg2000 | Coding::JpegXl | Coding::Deflated | Coding::Native => {
            return Err(unsupported("nothing is encoded in this coding"));
        }
    };
    let (again, ..) = decode(coding, image, &coded)?;
    if again != native {
        return Err(Refusal {
            failure: archive_codec_wire::Failure::Failed,
            why: "what was encoded does not decode to the same frame: nothing is answered".into(),
        });
    }
    // What is in the stream: RGB is coded through the reversible transform.
    let photometric = match (coding, image.samples) {
        (Coding::Htj2k, 3) => Photometric::YbrRct,
        _ => image.photometric,
    };
    Ok((coded, photometric, false))
}

/// Samples of planes that are apart, those of a pixel together. Bits that fill up a byte have no planes.
fn pixel_by_pixel(image: &Image, native: &[u8]) -> Vec<u8> {
    let (samples, bytes) = (usize::from(image.samples), usize::from(image.allocated / 8).max(1));
    let pixels = native.len() / (samples * bytes);
    let sample = |pixel: usize, plane: usize| {
        let at = (plane * pixels + pixel) * bytes;
        &native[at..at + bytes]
    };
    (0..pixels).flat_map(|pixel| (0..samples).flat_map(move |plane| sample(pixel, plane))).copied().collect()
}

fn sensible(image: &Image) -> Result<(), Refusal> {
    if let Some(why) = image.nonsense() {
        return Err(refused(why));
    }
    let grey = matches!(image.photometric, Photometric::Monochrome1 | Photometric::Monochrome2 | Photometric::Palette);
    match (image.samples, grey) {
        (1, true) | (3, false) => Ok(()),
        _ => Err(refused("Samples per Pixel does not fit Photometric Interpretation")),
    }
}

/// Sizes must be equal. A precision may differ from Bits Stored, in both directions (writers get it wrong, and values that
/// need fewer bits are coded in fewer), as long as it fits into Bits Allocated; see `fit.rs` for what becomes of the bits.
fn compare(image: &Image, shape: &Shape) -> Result<(), Refusal> {
    if (shape.rows, shape.columns) != (image.rows, image.columns) {
        return Err(refused("rows and columns of the data set are not those of the coded frame"));
    }
    if shape.samples != image.samples {
        return Err(refused("Samples per Pixel of the data set is not that of the coded frame"));
    }
    if shape.precision == 0 || shape.precision > image.allocated {
        return Err(refused("samples of the coded frame do not fit into Bits Allocated"));
    }
    if image.high + 1 != image.stored && shape.precision <= image.high {
        return Err(refused("High Bit is not Bits Stored less 1, and the coded frame does not reach it"));
    }
    Ok(())
}

/// The colours of three samples that a coding gives back as they were put in, all in full resolution.
pub(crate) fn as_put_in(image: &Image) -> Result<Photometric, Refusal> {
    match image.photometric {
        Photometric::YbrFull | Photometric::YbrFull422 => Ok(Photometric::YbrFull),
        Photometric::YbrIct | Photometric::YbrRct | Photometric::Xyb | Photometric::YbrPartial420 => {
            Err(refused("Photometric Interpretation is one that this coding cannot have"))
        }
        same @ (Photometric::Rgb | Photometric::Monochrome1 | Photometric::Monochrome2 | Photometric::Palette) => {
            Ok(same)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use archive_codec_wire::Failure;
    use proptest::prelude::*;

    pub(crate) fn grey(rows: u32, columns: u32, allocated: u8, stored: u8, signed: bool) -> Image {
        Image {
            rows,
            columns,
            samples: 1,
            allocated,
            stored,
            high: stored - 1,
            signed,
            photometric: Photometric::Monochrome2,
            planar: false,
        }
    }

    pub(crate) fn colour(rows: u32, columns: u32) -> Image {
        Image { samples: 3, photometric: Photometric::Rgb, ..grey(rows, columns, 8, 8, false) }
    }

    const CODINGS: [Coding; 8] = [
        Coding::Rle,
        Coding::Jpeg,
        Coding::JpegLs,
        Coding::Jpeg2000,
        Coding::Htj2k,
        Coding::JpegXl,
        Coding::Deflated,
        Coding::Native,
    ];

    #[test]
    fn a_frame_of_another_size_than_its_stream_is_refused_before_it_is_decoded() {
        for coding in [Coding::Htj2k, Coding::JpegLs] {
            let image = grey(16, 24, 16, 12, false);
            let native: Vec<u8> = (0..16 * 24_u16).flat_map(|at| (at * 7 % 4096).to_le_bytes()).collect();
            let (coded, ..) = encode(coding, &image, &native).unwrap();
            assert_eq!(decode(coding, &image, &coded).unwrap().0, native);
            for other in [
                Image { rows: 17, ..image },
                Image { columns: 16, ..image },
                Image { rows: 24, columns: 16, ..image },
                Image { allocated: 8, stored: 8, high: 7, ..image },
                Image { samples: 3, photometric: Photometric::Rgb, ..image },
            ] {
                assert_eq!(
                    decode(coding, &other, &coded).unwrap_err().failure,
                    Failure::Refused,
                    "{coding:?} {other:?}"
                );
            }
        }
    }

    #[test]
    fn bits_and_colours_that_no_frame_has_are_refused() {
        for image in [
            Image { stored: 0, ..grey(2, 2, 8, 8, false) },
            Image { high: 8, ..grey(2, 2, 8, 8, false) },
            Image { samples: 3, ..grey(2, 2, 8, 8, false) },
            Image { samples: 1, ..colour(2, 2) },
        ] {
            for coding in CODINGS {
                assert_eq!(decode(coding, &image, &[0; 12]).unwrap_err().failure, Failure::Refused);
            }
        }
    }

    #[test]
    fn planes_that_are_apart_are_encoded_together() {
        let image = Image { planar: true, ..colour(2, 2) };
        let native: Vec<u8> = (0..12).collect();
        let together = [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11];
        for coding in [Coding::Rle, Coding::Htj2k] {
            let (coded, _, planar) = encode(coding, &image, &native).unwrap();
            assert!(!planar);
            assert_eq!(decode(coding, &image, &coded).unwrap().0, together);
        }
        let grey = Image { planar: true, ..grey(3, 4, 8, 8, false) };
        let (coded, ..) = encode(Coding::Rle, &grey, &native).unwrap();
        assert_eq!(decode(Coding::Rle, &grey, &coded).unwrap().0, native);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            (rows, columns, bits) in (1_u32..40, 1_u32..40, prop::sample::select(vec![8_u8, 10, 12, 16])),
            signed in any::<bool>(),
            noise in any::<u64>(),
        ) {
            let allocated = if bits > 8 { 16 } else { 8 };
            let image = grey(rows, columns, allocated, bits, signed);
            let mut state = noise | 1;
            let native: Vec<u8> = (0..rows * columns).flat_map(|at| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let value = if noise.is_multiple_of(3) { at % 200 } else { (state >> 40) as u32 };
                let value = (value & ((1 << bits) - 1)) as i32;
                let value = if signed { value << (32 - bits) >> (32 - bits) } else { value };
                value.to_le_bytes().into_iter().take(usize::from(allocated / 8))
            }).collect();
            for coding in [Coding::Rle, Coding::Htj2k, Coding::JpegLs] {
                let (coded, ..) = encode(coding, &image, &native).map_err(|refusal| TestCaseError::fail(format!("{coding:?} {}", refusal.why)))?;
                prop_assert_eq!(&decode(coding, &image, &coded).unwrap().0, &native);
            }
        }

        #[test]
        fn no_bytes_bring_more_than_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..300), head in 0_usize..4) {
            let heads: [&[u8]; 4] = [b"", b"\xFF\xD8\xFF\xF7\0\x0B\x08\0\x02\0\x03\x01\x01\x11\0", b"\xFF\x4F\xFF\x51", b"\x01\0\0\0\x40\0\0\0"];
            let stream = [heads[head], &bytes[..]].concat();
            for coding in CODINGS {
                if let Ok((frame, ..)) = decode(coding, &grey(2, 3, 8, 8, false), &stream) {
                    prop_assert_eq!(frame.len(), 6);
                }
            }
        }

        #[test]
        fn a_damaged_stream_never_brings_a_frame_of_another_size(at in 0_usize..4000, bit in 0_u8..8) {
            let image = grey(20, 30, 16, 12, false);
            let native: Vec<u8> = (0..600_u16).flat_map(|at| (at * 31 % 4096).to_le_bytes()).collect();
            for coding in [Coding::Rle, Coding::Htj2k, Coding::JpegLs] {
                let (mut coded, ..) = encode(coding, &image, &native).unwrap();
                let at = at % coded.len();
                coded[at] ^= 1 << bit;
                // A decoder may panic: the worker catches that.
                let done = std::panic::catch_unwind(|| decode(coding, &image, &coded));
                if let Ok(Ok((frame, ..))) = done {
                    prop_assert_eq!(frame.len(), native.len());
                }
            }
        }
    }
}
