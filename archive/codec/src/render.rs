//! A frame as a picture of 8 bits: the pixel pipeline of the standard, from stored samples to PNG or JPEG (PS3.4 §N.2).
//!
//! ```text
//!   stream ─► decode, or unpack ─► grey:    padding · modality · VOI · inversion   (grey.rs; PS3.3 §C.11.1, §C.11.2, §C.11.6)
//!                                  palette: three tables                           (colour.rs; §C.7.6.3.1.5)
//!                                  colour:  planes · depth · YBR to RGB            (colour.rs; §C.7.6.3.1.2)
//!            ─► overlays (overlay.rs; §C.9.2) ─► region, aspect, viewport (scale.rs; PS3.18 §8.3.5.1.4) ─► picture.rs
//! ```
//!
//! Each step is a function of its arguments. What a data set says is in the recipe (`archive_codec_wire::recipe`), so that this
//! reads none.
//!
//! Invariants
//! - K7 Nothing is allocated for a picture before its columns times rows were compared with [`PIXELS_MAX`].
//! - K8 A picture has a level for every sample: what is no number, or padding, is black.

mod colour;
mod grey;
mod overlay;
mod picture;
mod samples;
mod scale;

use crate::{
    coders,
    refusal::{Refusal, refused, unsupported},
    serve::Frame,
};
use archive_codec_wire::{
    Coding, Image, Photometric,
    recipe::{Recipe, Samples},
};

/// Pixels of a picture, and of the frame that it is made from: 8192 × 8192.
pub(crate) const PIXELS_MAX: u64 = 1 << 26;

/// A picture of 8 bits, pixel by pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Canvas {
    pub(crate) columns: u32,
    pub(crate) rows: u32,
    /// 1: grey, 3: red, green and blue.
    pub(crate) channels: usize,
    pub(crate) levels: Vec<u8>,
}

/// The coded picture of a frame, and whether it is grey or has colours.
pub(crate) fn render(coding: Coding, image: &Image, recipe: &[u8], stream: &[u8]) -> Result<Frame, Refusal> {
    let recipe = Recipe::decode(recipe).map_err(|error| refused(error.to_string()))?;
    if u64::from(image.rows) * u64::from(image.columns) > PIXELS_MAX {
        return Err(unsupported("a frame of more than 67,108,864 pixels is not rendered: retrieve it as it is"));
    }
    let (columns, rows) = scale::size(image, &recipe)?;
    let canvas = drawn(coding, image, &recipe, stream)?;
    let canvas = scale::scale(canvas, &recipe, columns, rows);
    let colours = if canvas.channels == 1 { Photometric::Monochrome2 } else { Photometric::Rgb };
    Ok((picture::encode(&canvas, &recipe)?, colours, false))
}

/// The frame in its own size.
fn drawn(coding: Coding, image: &Image, recipe: &Recipe, stream: &[u8]) -> Result<Canvas, Refusal> {
    let decoded;
    let (stored, photometric, planar) = match coding {
        Coding::Native => {
            let (stored, photometric) = samples::native(image, recipe, stream)?;
            (stored, photometric, image.planar)
        }
        Coding::Rle
        | Coding::Jpeg
        | Coding::JpegLs
        | Coding::Jpeg2000
        | Coding::Htj2k
        | Coding::JpegXl
        | Coding::Deflated => {
            let (frame, photometric, planar) = coders::decode(coding, image, stream)?;
            decoded = frame;
            (samples::decoded(image, recipe, &decoded), photometric, planar)
        }
    };
    let levels = match (image.samples, photometric) {
        (1, Photometric::Palette) => {
            let palette = recipe.palette.as_deref().ok_or_else(|| refused("its palette is missing or damaged"))?;
            colour::palette(&stored, palette)
        }
        (1, Photometric::Monochrome1 | Photometric::Monochrome2) => grey::levels(&stored, recipe),
        (3, _) if recipe.samples == Samples::Integers => colour::rgb(&stored, photometric, planar)?,
        _ => return Err(unsupported("samples of this number and kind are not rendered")),
    };
    let channels = if levels.len() as u64 == u64::from(image.rows) * u64::from(image.columns) { 1 } else { 3 };
    let mut canvas = Canvas { columns: image.columns, rows: image.rows, channels, levels };
    recipe.overlays.iter().for_each(|overlay| overlay::draw(&mut canvas, overlay, &stored));
    Ok(canvas)
}

#[cfg(test)]
mod tests;
