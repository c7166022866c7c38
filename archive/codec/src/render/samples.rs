//! Samples as they are stored: whatever their words, bits and planes, a number each (PS3.5 §8.1.1).

use crate::refusal::{Refusal, refused, unsupported};
use archive_codec_wire::{
    Image, Photometric,
    recipe::{Recipe, Samples},
};
use std::borrow::Cow;

/// The samples of a frame.
pub(super) struct Stored<'a> {
    /// Little endian, `bytes` each.
    frame: Cow<'a, [u8]>,
    bytes: usize,
    pub(super) kind: Kind,
}

/// What the bits of a sample are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of the bits from `low` on, `bits` many.
    Integer {
        low: u32,
        bits: u32,
        signed: bool,
    },
    Float,
}

impl Stored<'_> {
    pub(super) fn len(&self) -> usize {
        self.frame.len() / self.bytes
    }

    /// Whether a sample has at most 16 bits.
    pub(super) fn is_narrow(&self) -> bool {
        matches!(self.kind, Kind::Integer { .. }) && self.bytes <= 2
    }

    /// All bits of each of the samples, which are narrow.
    pub(super) fn each_word(&self, mut take: impl FnMut(u16)) {
        if self.bytes == 1 {
            self.frame.iter().for_each(|&byte| take(u16::from(byte)));
        } else {
            self.frame.chunks_exact(2).for_each(|pair| take(u16::from_le_bytes([pair[0], pair[1]])));
        }
    }

    /// All bits of the sample `at`.
    pub(super) fn bits(&self, at: usize) -> u64 {
        let bytes = self.frame.get(at * self.bytes..(at + 1) * self.bytes).unwrap_or_default();
        bytes.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte))
    }

    /// The value that bits stand for.
    pub(super) fn value(&self, bits: u64) -> f64 {
        match self.kind {
            Kind::Float if self.bytes == 4 => f64::from(f32::from_bits(bits as u32)),
            Kind::Float => f64::from_bits(bits),
            Kind::Integer { .. } => self.integer(bits) as f64,
        }
    }

    /// The value that bits stand for; 0 for a floating point number.
    pub(super) fn integer(&self, word: u64) -> i128 {
        let Kind::Integer { low, bits, signed } = self.kind else { return 0 };
        let (above, word) = (64 - bits, word >> low);
        if signed { i128::from((word << above) as i64 >> above) } else { i128::from(word << above >> above) }
    }
}

fn kind(image: &Image, recipe: &Recipe) -> Kind {
    match recipe.samples {
        Samples::Floats => Kind::Float,
        // A High Bit below Bits Stored - 1 cannot be: the value has no more bits than there are.
        Samples::Integers => {
            let (high, stored) = (u32::from(image.high), u32::from(image.stored));
            Kind::Integer { low: (high + 1).saturating_sub(stored), bits: stored, signed: image.signed }
        }
    }
}

/// Of a frame that was decoded.
pub(super) fn decoded<'a>(image: &Image, recipe: &Recipe, frame: &'a [u8]) -> Stored<'a> {
    if image.allocated == 1 {
        return Stored { frame: unpacked(image, 0, frame).into(), bytes: 1, kind: kind(image, recipe) };
    }
    Stored { frame: frame.into(), bytes: usize::from(image.allocated / 8), kind: kind(image, recipe) }
}

/// Of a native frame as it is stored, and what its colours are then.
pub(super) fn native<'a>(
    image: &Image,
    recipe: &Recipe,
    stream: &'a [u8],
) -> Result<(Stored<'a>, Photometric), Refusal> {
    if let Some(why) = image.nonsense() {
        return Err(refused(why));
    }
    let floats = matches!((recipe.samples, image.allocated), (Samples::Integers, _) | (Samples::Floats, 32 | 64));
    if !floats {
        return Err(refused("floating point numbers have 32 or 64 bits"));
    }
    let short = || refused("the frame is shorter than rows, columns, samples and bits promise");
    let kind = kind(image, recipe);
    if image.allocated == 1 {
        let bits = image.native_bits() + u128::from(recipe.first_bit);
        let stream = stream.get(..usize::try_from(bits.div_ceil(8)).map_err(|_| short())?).ok_or_else(short)?;
        let frame = unpacked(image, u64::from(recipe.first_bit), stream).into();
        return Ok((Stored { frame, bytes: 1, kind }, image.photometric));
    }
    let word = usize::from(recipe.word_bytes);
    let turned: Cow<'a, [u8]> = if word > 1 {
        stream.chunks_exact(word).flat_map(|word| word.iter().rev().copied()).collect::<Vec<u8>>().into()
    } else {
        stream.into()
    };
    let (bytes, all) = (usize::from(image.allocated / 8), usize::try_from(image.native_bytes()).map_err(|_| short())?);
    // Both kinds of files exist under the name of YBR_FULL_422: the length tells.
    if image.photometric == Photometric::YbrFull422 && image.samples == 3 && turned.len() < all {
        let frame = upsampled(image, &turned)?.into();
        return Ok((Stored { frame, bytes, kind }, Photometric::YbrFull));
    }
    let frame = match turned {
        Cow::Borrowed(frame) => Cow::Borrowed(frame.get(..all).ok_or_else(short)?),
        Cow::Owned(mut frame) if frame.len() >= all => {
            frame.truncate(all);
            Cow::Owned(frame)
        }
        Cow::Owned(_) => return Err(short()),
    };
    let photometric = match image.photometric {
        Photometric::YbrFull422 => Photometric::YbrFull,
        Photometric::YbrPartial420 | Photometric::YbrIct | Photometric::YbrRct | Photometric::Xyb => {
            return Err(unsupported("native frames cannot have this Photometric Interpretation"));
        }
        same @ (Photometric::Monochrome1
        | Photometric::Monochrome2
        | Photometric::Palette
        | Photometric::Rgb
        | Photometric::YbrFull) => same,
    };
    Ok((Stored { frame, bytes, kind }, photometric))
}

/// A byte for each bit, the lowest bit of a byte first.
fn unpacked(image: &Image, first: u64, frame: &[u8]) -> Vec<u8> {
    let count = u64::try_from(image.native_bits()).unwrap_or(0);
    let bit = |at: u64| frame.get((at / 8) as usize).map_or(0, |byte| byte >> (at % 8) & 1);
    (first..first + count).map(bit).collect()
}

/// `Y Y CB CR` for two pixels each (PS3.3 §C.7.6.3.1.2) as three samples a pixel.
fn upsampled(image: &Image, frame: &[u8]) -> Result<Vec<u8>, Refusal> {
    let pixels = image.rows as usize * image.columns as usize;
    if image.allocated != 8 || image.planar || !image.columns.is_multiple_of(2) {
        return Err(unsupported(
            "subsampled colours other than of 8 bits, pixel by pixel, in an even number of columns",
        ));
    }
    let frame = frame.get(..pixels * 2).ok_or_else(|| refused("the frame is shorter than its colours need"))?;
    Ok(frame.chunks_exact(4).flat_map(|four| [four[0], four[2], four[3], four[1], four[2], four[3]]).collect())
}
