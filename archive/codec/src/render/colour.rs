//! Colours as red, green and blue of 8 bits (PS3.3 §C.7.6.3.1.2, §C.7.6.3.1.3, §C.7.6.3.1.5).

use super::{
    grey::entry,
    samples::{Kind, Stored},
};
use crate::refusal::{Refusal, unsupported};
use archive_codec_wire::{Photometric, recipe::Table};

/// Three levels for every sample.
pub(super) fn palette(stored: &Stored<'_>, tables: &[Table; 3]) -> Vec<u8> {
    let colour = |bits: u64| {
        let value = stored.value(bits);
        tables.each_ref().map(|table| scaled(u64::from(entry(table, value)), u32::from(table.bits)))
    };
    if !stored.is_narrow() {
        return (0..stored.len()).flat_map(|at| colour(stored.bits(at))).collect();
    }
    let mut known: Vec<Option<[u8; 3]>> = vec![None; 1 << 16];
    let mut levels = Vec::with_capacity(stored.len() * 3);
    stored.each_word(|word| {
        levels.extend(*known[usize::from(word)].get_or_insert_with(|| colour(u64::from(word))));
    });
    levels
}

/// Three levels for every three samples.
pub(super) fn rgb(stored: &Stored<'_>, photometric: Photometric, planar: bool) -> Result<Vec<u8>, Refusal> {
    let Kind::Integer { bits, .. } = stored.kind else { return Err(unsupported("colours of floating point numbers")) };
    let pixels = stored.len() / 3;
    let level = |word: u64| scaled((stored.integer(word) as u64) & (u64::MAX >> (64 - bits)), bits);
    let mut samples = Vec::with_capacity(stored.len());
    if stored.is_narrow() {
        stored.each_word(|word| samples.push(level(u64::from(word))));
    } else {
        samples.extend((0..stored.len()).map(|at| level(stored.bits(at))));
    }
    let mut levels = if planar {
        (0..pixels).flat_map(|pixel| [0, 1, 2].map(|plane| samples[plane * pixels + pixel])).collect()
    } else {
        samples
    };
    match photometric {
        Photometric::Rgb => {}
        Photometric::YbrFull => levels.chunks_exact_mut(3).for_each(|pixel| {
            let [red, green, blue] = from_ybr(pixel[0], pixel[1], pixel[2]);
            pixel.copy_from_slice(&[red, green, blue]);
        }),
        Photometric::Monochrome1
        | Photometric::Monochrome2
        | Photometric::Palette
        | Photometric::YbrFull422
        | Photometric::YbrPartial420
        | Photometric::YbrIct
        | Photometric::YbrRct
        | Photometric::Xyb => return Err(unsupported("colours of this Photometric Interpretation are not rendered")),
    }
    Ok(levels)
}

/// Of `bits` the eighth part that is shown: the greatest value is white.
fn scaled(value: u64, bits: u32) -> u8 {
    if bits == 8 {
        return value as u8;
    }
    let white = u64::MAX >> (64 - bits);
    (value as f64 / white as f64 * 255.0).round() as u8
}

/// The inverse of the equations of §C.7.6.3.1.2.
fn from_ybr(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (f64::from(y), f64::from(cb) - 128.0, f64::from(cr) - 128.0);
    let rgb = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
    rgb.map(|light| light.round().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_of_ybr_are_those_of_the_standard() {
        // Red, green and blue by the equations of §C.7.6.3.1.2: 76, 85, 255; 150, 44, 21; 29, 255, 107.
        let rgb = [from_ybr(76, 85, 255), from_ybr(150, 44, 21), from_ybr(29, 255, 107), from_ybr(90, 128, 128)];
        assert_eq!(rgb, [[254, 0, 0], [0, 255, 1], [0, 0, 254], [90, 90, 90]]);
    }

    #[test]
    fn a_depth_becomes_8_bits() {
        assert_eq!([0, 0x8000, 0xFFFF].map(|value| scaled(value, 16)), [0, 128, 255]);
        assert_eq!([0, 1].map(|value| scaled(value, 1)), [0, 255]);
        assert_eq!([0, 2048, 4095].map(|value| scaled(value, 12)), [0, 128, 255]);
    }
}
