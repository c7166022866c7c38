//! Levels as PNG (ISO/IEC 15948) or baseline JPEG, with the ICC profile of the image.

use super::Canvas;
use crate::refusal::{Refusal, refused, said};
use archive_codec_wire::recipe::{Format, Recipe};
use jpeg_encoder::SamplingFactor;

/// From this quality on colours are not subsampled.
const WHOLE_COLOURS_FROM: u8 = 90;

pub(super) fn encode(canvas: &Canvas, recipe: &Recipe) -> Result<Vec<u8>, Refusal> {
    // A profile of colours says nothing of grey.
    let profile = if canvas.channels == 3 { &recipe.profile[..] } else { &[] };
    match recipe.format {
        Format::Png => png(canvas, profile),
        Format::Jpeg { quality } => jpeg(canvas, quality, profile),
    }
}

fn png(canvas: &Canvas, profile: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::new();
    let mut info = png::Info::with_size(canvas.columns, canvas.rows);
    info.bit_depth = png::BitDepth::Eight;
    info.color_type = if canvas.channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb };
    if !profile.is_empty() {
        info.icc_profile = Some(profile.to_vec().into());
    }
    let failed = |error| said("png", &error);
    let mut encoder = png::Encoder::with_info(&mut out, info).map_err(failed)?;
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&canvas.levels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(out)
}

fn jpeg(canvas: &Canvas, quality: u8, profile: &[u8]) -> Result<Vec<u8>, Refusal> {
    let (Ok(columns), Ok(rows)) = (u16::try_from(canvas.columns), u16::try_from(canvas.rows)) else {
        return Err(refused("a JPEG has at most 65,535 columns and rows: ask for a viewport, or for image/png"));
    };
    let mut out = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut out, quality.clamp(1, 100));
    if quality >= WHOLE_COLOURS_FROM {
        encoder.set_sampling_factor(SamplingFactor::F_1_1);
    }
    let failed = |error| said("jpeg-encoder", &error);
    if !profile.is_empty() {
        encoder.add_icc_profile(profile).map_err(failed)?;
    }
    let colours = if canvas.channels == 1 { jpeg_encoder::ColorType::Luma } else { jpeg_encoder::ColorType::Rgb };
    encoder.encode(&canvas.levels, columns, rows, colours).map_err(failed)?;
    Ok(out)
}
