//! ISO/IEC 15444-1 and -15 by `j2k`: the codestream, taken out of a JP2 file where a writer put it into one (PS3.5 §A.4.4
//! forbids that, some do), so that no colour box changes what the components are.
//!
//! ```text
//!   FF4F | FF51 length 2, Rsiz 2, Xsiz 4, Ysiz 4, XOsiz 4, YOsiz 4, (tile) 4 × 4, Csiz 2, (Ssiz 1, XRsiz 1, YRsiz 1) × Csiz
//!        | FF52 length 2, Scod 1, progression 1, layers 2, component transform 1, …
//! ```
//!
//! Colours: the decoder undoes the component transform, whatever it is: RGB. Without one the components are what the data
//! set says; RGB where it says YBR_RCT or YBR_ICT, which without the transform is what it must mean.

use crate::{
    coders::{Coder, Shape},
    fit::{Decoded, Samples},
    openjpeg,
    refusal::{Refusal, refused, said, unsupported},
};
use archive_codec_wire::{Image, Photometric};
use j2k::{CpuDecodeParallelism, J2kDecoder};

pub(crate) struct Jpeg2000;

/// What the main header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Main {
    shape: Shape,
    transformed: bool,
    /// Part 15: block coding with high throughput.
    high_throughput: bool,
    /// The 5/3 wavelet; else the 9/7.
    reversible: bool,
    /// Bit planes of the deepest subband, `guard bits + exponent - 1` (ISO/IEC 15444-1 E-2); 0 where it is not told.
    planes: u8,
}

/// Bit planes up to which `j2k` was seen to decode Part 1 exactly; beyond, it lost the lowest ones of real 16-bit images,
/// without a word.
const PART_1_PLANES_MAX: u8 = 16;

impl Main {
    /// Whether `j2k` was not seen to decode the like wrongly. What it does is OpenJPEG's.
    fn is_proven(&self) -> bool {
        match (self.high_throughput, self.reversible) {
            (true, reversible) => reversible,
            (false, true) => self.planes <= PART_1_PLANES_MAX,
            (false, false) => true,
        }
    }
}

impl Coder for Jpeg2000 {
    fn look(&self, stream: &[u8]) -> Result<Option<Shape>, Refusal> {
        Ok(Some(main(codestream(stream)?)?.shape))
    }

    fn decode(&self, image: &Image, stream: &[u8]) -> Result<Decoded, Refusal> {
        let stream = codestream(stream)?;
        let main = main(stream)?;
        let Main { shape, transformed, .. } = main;
        let samples =
            if main.is_proven() { decode(image, &shape, stream)? } else { openjpeg::decode(image, &shape, stream)? };
        let photometric = match image.photometric {
            _ if transformed && image.samples == 3 => Photometric::Rgb,
            Photometric::YbrRct | Photometric::YbrIct => Photometric::Rgb,
            Photometric::YbrFull | Photometric::YbrFull422 => Photometric::YbrFull,
            Photometric::YbrPartial420 | Photometric::Xyb => {
                return Err(refused("Photometric Interpretation is one that JPEG 2000 cannot have"));
            }
            same => same,
        };
        Ok(Decoded { samples, photometric, planar: false })
    }
}

/// By `j2k`.
fn decode(image: &Image, shape: &Shape, stream: &[u8]) -> Result<Samples, Refusal> {
    let fail = |error| said("j2k", &error);
    let mut decoder = J2kDecoder::new(stream).map_err(fail)?;
    decoder.set_cpu_decode_parallelism(CpuDecodeParallelism::Serial);
    let decoded = decoder.decode_native_components().map_err(fail)?;
    let planes = decoded.planes();
    let size = (image.columns, image.rows);
    let first = planes.first().ok_or_else(|| refused("no component was decoded"))?;
    let width = first.bytes_per_sample();
    let same = planes.iter().all(|plane| {
        (plane.dimensions(), plane.bit_depth(), plane.bytes_per_sample()) == (size, shape.precision, width)
    });
    if !same || planes.len() != usize::from(image.samples) {
        return Err(refused("the decoder gave components of another size, number or precision"));
    }
    let planes: Vec<&[u8]> = planes.iter().map(|plane| plane.data()).collect();
    Ok(match width {
        1 => Samples::Bytes(interleaved(&planes, 1)),
        2 => Samples::words(&interleaved(&planes, 2)),
        3 | 4 => Samples::Longs(longs(&interleaved(&planes, usize::from(width)), usize::from(width))),
        _ => return Err(unsupported("JPEG 2000 of more than 32 bits")),
    })
}

/// Samples of all planes, pixel by pixel.
fn interleaved(planes: &[&[u8]], width: usize) -> Vec<u8> {
    if let [plane] = planes {
        return plane.to_vec();
    }
    let pixels = planes.iter().map(|plane| plane.len() / width).min().unwrap_or(0);
    let mut out = Vec::with_capacity(pixels * width * planes.len());
    for at in 0..pixels {
        planes.iter().for_each(|plane| out.extend_from_slice(&plane[at * width..(at + 1) * width]));
    }
    out
}

fn longs(bytes: &[u8], width: usize) -> Vec<u32> {
    let long = |sample: &[u8]| sample.iter().rev().fold(0, |long, &byte| long << 8 | u32::from(byte));
    bytes.chunks_exact(width).map(long).collect()
}

/// The codestream of a stream that is one, or a JP2 file around it.
fn codestream(stream: &[u8]) -> Result<&[u8], Refusal> {
    if stream.starts_with(&[0xFF, 0x4F, 0xFF, 0x51]) {
        return Ok(stream);
    }
    let mut rest = stream;
    while let Some(&[l0, l1, l2, l3, k0, k1, k2, k3]) = rest.first_chunk::<8>() {
        let (head, length) = match u32::from_be_bytes([l0, l1, l2, l3]) {
            0 => (8, rest.len()),
            1 => {
                let long = rest.get(8..16).and_then(|long| long.first_chunk::<8>());
                let long = long.and_then(|long| usize::try_from(u64::from_be_bytes(*long)).ok());
                (16, long.unwrap_or(0))
            }
            length => (8, length as usize),
        };
        let Some(body) = rest.get(head..length) else { break };
        if [k0, k1, k2, k3] == *b"jp2c" {
            return Ok(body);
        }
        rest = &rest[length..];
    }
    Err(refused("the stream is no JPEG 2000 codestream, nor a JP2 file with one"))
}

fn main(stream: &[u8]) -> Result<Main, Refusal> {
    let cut = || refused("the main header is cut off");
    let mut rest =
        stream.strip_prefix(&[0xFF, 0x4F]).ok_or_else(|| refused("the codestream does not begin with SOC"))?;
    let (mut shape, mut coding, mut planes, mut high_throughput) = (None, None, 0, false);
    loop {
        let [0xFF, marker, l0, l1, ..] = *rest else { return Err(cut()) };
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        match marker {
            0x90 => break,
            0x51 => shape = Some(size(rest.get(4..length + 2).ok_or_else(cut)?)?),
            0x50 => high_throughput = true, // CAP
            0x52 => coding = Some((*rest.get(8).ok_or_else(cut)? != 0, *rest.get(13).ok_or_else(cut)? == 1)),
            0x5C => planes = bit_planes(rest.get(4..length + 2).ok_or_else(cut)?),
            _ => {}
        }
        rest = rest.get(length + 2..).filter(|_| length >= 2).ok_or_else(cut)?;
    }
    match (shape, coding) {
        (Some(shape), Some((transformed, reversible))) => {
            Ok(Main { shape, transformed, high_throughput, reversible, planes })
        }
        _ => Err(refused("the main header has no SIZ or no COD")),
    }
}

/// Of the body of QCD: without quantisation each subband has a byte, else two, the exponent in front.
fn bit_planes(body: &[u8]) -> u8 {
    let Some((style, exponents)) = body.split_first() else { return 0 };
    let step = if style & 0x1F == 0 { 1 } else { 2 };
    let deepest = exponents.iter().step_by(step).map(|exponent| exponent >> 3).max().unwrap_or(0);
    (style >> 5) + deepest.saturating_sub(1)
}

/// Of the body of SIZ.
fn size(body: &[u8]) -> Result<Shape, Refusal> {
    let short = || refused("SIZ is too short");
    let number = |at: usize| -> Result<u32, Refusal> {
        Ok(u32::from_be_bytes(*body.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or_else(short)?))
    };
    let extent = |end: u32, start: u32| end.checked_sub(start).filter(|&extent| extent > 0);
    let columns = extent(number(2)?, number(10)?).ok_or_else(|| refused("SIZ has no columns"))?;
    let rows = extent(number(6)?, number(14)?).ok_or_else(|| refused("SIZ has no rows"))?;
    let samples = body.get(34..36).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).ok_or_else(short)?;
    let components = body.get(36..).filter(|rest| rest.len() == usize::from(samples) * 3).ok_or_else(short)?;
    let [first, ..] = *components else { return Err(refused("SIZ has no components")) };
    if components.chunks_exact(3).any(|component| *component != [first, 1, 1]) {
        return Err(unsupported("JPEG 2000 with components of different precision or sampling"));
    }
    Ok(Shape { rows, columns, samples, precision: (first & 0x7F) + 1, signed: first & 0x80 != 0 })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::coders::{
        self,
        tests::{colour, grey},
    };
    use crate::fit::fit;
    use archive_codec_wire::Coding;

    fn coded() -> (Image, Vec<u8>, Vec<u8>) {
        let image = grey(20, 30, 16, 12, true);
        let native: Vec<u8> = (0..600_i16).flat_map(|at| (at * 3 - 900).to_le_bytes()).collect();
        let (coded, ..) = coders::encode(Coding::Htj2k, &image, &native).unwrap();
        (image, native, coded)
    }

    #[test]
    fn the_header_says_size_precision_and_sign() {
        let (_, _, coded) = coded();
        let shape = Shape { rows: 20, columns: 30, samples: 1, precision: 12, signed: true };
        let found = main(&coded).unwrap();
        assert_eq!(
            (found.shape, found.transformed, found.high_throughput, found.reversible),
            (shape, false, true, true)
        );
        for end in 0..40 {
            assert!(main(&coded[..end]).is_err());
        }
    }

    /// Main headers of pydicom's `MR_small_jp2klossless.dcm` and `J2K_pixelrep_mismatch.dcm`: of the first `j2k` 0.11.0 gave
    /// samples that were one too small.
    #[test]
    fn what_was_decoded_wrongly_is_given_to_another_decoder() {
        let qcd = |exponents: &[u8]| bit_planes(&[&[0x40], exponents].concat());
        assert_eq!(qcd(&[0x80, 0x88, 0x88, 0x90]), 19);
        assert_eq!(qcd(&[0x68, 0x70, 0x70, 0x78]), 16);
        let (_, _, coded) = coded();
        let lossless = Main { high_throughput: false, ..main(&coded).unwrap() };
        assert!(Main { planes: 16, ..lossless }.is_proven() && !Main { planes: 17, ..lossless }.is_proven());
        assert!(Main { planes: 19, reversible: false, ..lossless }.is_proven());
        assert!(Main { planes: 19, high_throughput: true, ..lossless }.is_proven());
        assert!(!Main { high_throughput: true, reversible: false, ..lossless }.is_proven());
    }

    #[test]
    fn both_decoders_give_the_same_samples() {
        for (stored, signed) in [(8, false), (12, true), (16, false), (16, true)] {
            let image = grey(20, 30, 16, stored, signed);
            let low = if signed { 1_i32 << (stored - 1) } else { 0 };
            let native: Vec<u8> =
                (0..600).flat_map(|at| ((at * 7_919 % (1 << stored) - low) as i16).to_le_bytes()).collect();
            let (coded, ..) = coders::encode(Coding::Htj2k, &image, &native).unwrap();
            let main = main(&coded).unwrap();
            let samples = openjpeg::decode(&image, &main.shape, &coded).unwrap();
            let decoded = Decoded { samples, photometric: image.photometric, planar: false };
            assert_eq!(fit(&image, Some(&main.shape), decoded), Ok(native), "{stored} {signed}");
            assert!(openjpeg::decode(&image, &main.shape, &coded[..coded.len() / 2]).is_err(), "cut off");
        }
        let image = colour(16, 16);
        let native: Vec<u8> = (0..768_u32).map(|at| (at * 5) as u8).collect();
        let (coded, ..) = coders::encode(Coding::Htj2k, &image, &native).unwrap();
        let samples = openjpeg::decode(&image, &main(&coded).unwrap().shape, &coded).unwrap();
        assert_eq!(samples, Samples::Words(native.into_iter().map(u16::from).collect()));
    }

    #[test]
    fn a_codestream_in_a_jp2_file_is_found() {
        let (image, native, coded) = coded();
        let signature = b"\0\0\0\x0CjP  \x0D\x0A\x87\x0A";
        let long =
            [b"\0\0\0\x01jp2c".to_vec(), (coded.len() as u64 + 16).to_be_bytes().to_vec(), coded.clone()].concat();
        let open = [b"\0\0\0\0jp2c".to_vec(), coded].concat();
        for boxed in [long, open] {
            let file = [&signature[..], &boxed].concat();
            assert_eq!(coders::decode(Coding::Jpeg2000, &image, &file).unwrap().0, native);
        }
        assert!(codestream(signature).is_err());
        assert!(codestream(b"\0\0\0\x01jp2c\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF").is_err());
    }

    #[test]
    fn colours_that_were_transformed_are_rgb() {
        let image = colour(16, 16);
        let native: Vec<u8> = (0..768_u32).map(|at| (at * 5) as u8).collect();
        let (coded, ..) = coders::encode(Coding::Htj2k, &image, &native).unwrap();
        assert!(main(&coded).unwrap().transformed);
        for photometric in [Photometric::Rgb, Photometric::YbrRct, Photometric::YbrFull] {
            let (frame, became, _) = coders::decode(Coding::Htj2k, &Image { photometric, ..image }, &coded).unwrap();
            assert_eq!((frame == native, became), (true, Photometric::Rgb));
        }
    }

    #[test]
    fn a_shortened_codestream_is_refused() {
        let (image, _, coded) = coded();
        for end in (40..coded.len() - 2).step_by(11) {
            assert!(coders::decode(Coding::Htj2k, &image, &coded[..end]).is_err(), "{end}");
        }
    }
}
