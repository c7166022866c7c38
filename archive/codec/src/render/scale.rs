//! A region of the image, its pixels made square, fitted into a viewport (PS3.18 §8.3.5.1.4, PS3.3 §C.7.6.3.1.7).
//!
//! What is shown is as large as the viewport lets it be without being distorted, and never larger than it. Smaller pictures
//! are weighted means of all the samples that a pixel covers, larger ones are interpolated linearly.
//!
//! ```text
//!   region, in columns and rows ─ × aspect ─► extent ─ the smaller of both ratios ─► columns and rows of the picture
//! ```

use super::{Canvas, PIXELS_MAX};
use crate::refusal::{Refusal, refused};
use archive_codec_wire::{
    Image,
    recipe::{Recipe, Region},
};
use std::ops::Range;

/// Columns and rows of the picture.
pub(super) fn size(image: &Image, recipe: &Recipe) -> Result<(u32, u32), Refusal> {
    let whole = Region { x: 0.0, y: 0.0, width: f64::from(image.columns), height: f64::from(image.rows) };
    let region = recipe.region.unwrap_or(whole);
    let (left, right) = (region.x, region.x + region.width.abs());
    let (top, bottom) = (region.y, region.y + region.height.abs());
    if left < 0.0 || top < 0.0 || right > whole.width || bottom > whole.height || left >= right || top >= bottom {
        return Err(refused("the region that is asked for is not within the image"));
    }
    // No pixel is left out: the shorter side of a pixel keeps its size.
    let aspect = if (0.01..=100.0).contains(&recipe.aspect) { recipe.aspect } else { 1.0 };
    let (width, height) = ((right - left) * (1.0 / aspect).max(1.0), (bottom - top) * aspect.max(1.0));
    let ratio =
        recipe.viewport.map_or(1.0, |(columns, rows)| (f64::from(columns) / width).min(f64::from(rows) / height));
    let count = |extent: f64| (extent * ratio).round().clamp(1.0, f64::from(u32::MAX)) as u32;
    let (columns, rows) = (count(width), count(height));
    if u64::from(columns) * u64::from(rows) > PIXELS_MAX {
        return Err(refused("the picture would have more than 67,108,864 pixels: ask for a smaller viewport"));
    }
    Ok((columns, rows))
}

/// `canvas` in a size that [`size`] gave.
pub(super) fn scale(canvas: Canvas, recipe: &Recipe, columns: u32, rows: u32) -> Canvas {
    let whole = Region { x: 0.0, y: 0.0, width: f64::from(canvas.columns), height: f64::from(canvas.rows) };
    let region = recipe.region.unwrap_or(whole);
    if region == whole && (columns, rows) == (canvas.columns, canvas.rows) {
        return canvas;
    }
    let across = weights(region.x, region.width, canvas.columns, columns);
    let down = weights(region.y, region.height, canvas.rows, rows);
    let channels = canvas.channels;
    // Only the rows that are shown; of those only what the picture has in width.
    let first = down.iter().map(|taps| taps.from).min().unwrap_or(0);
    let last = down.iter().map(|taps| taps.from + taps.weights.len()).max().unwrap_or(0);
    let narrow: Vec<u8> = (first..last)
        .flat_map(|row| {
            let row = &canvas.levels[row * canvas.columns as usize * channels..];
            across
                .iter()
                .flat_map(move |taps| (0..channels).map(move |channel| taps.mean(|at| row[at * channels + channel])))
        })
        .collect();
    let stride = across.len() * channels;
    let levels = down
        .iter()
        .flat_map(|taps| {
            let narrow = &narrow;
            (0..stride).map(move |at| taps.mean(|row| narrow[(row - first) * stride + at]))
        })
        .collect();
    Canvas { columns, rows, channels, levels }
}

/// From which samples a pixel is made, and how much of each.
struct Taps {
    from: usize,
    weights: Vec<f32>,
}

impl Taps {
    fn mean(&self, level: impl Fn(usize) -> u8) -> u8 {
        let sum: f32 = self.weights.iter().zip(self.from..).map(|(weight, at)| weight * f32::from(level(at))).sum();
        (sum + 0.5) as u8
    }
}

/// A triangle as wide as two pixels of the picture, or of the image if those are larger.
fn weights(start: f64, extent: f64, samples: u32, pixels: u32) -> Vec<Taps> {
    let step = extent.abs() / f64::from(pixels);
    let radius = step.max(1.0);
    let taps = |pixel: u32| {
        let centre = start + (f64::from(pixel) + 0.5) * step;
        let range: Range<u32> = {
            let low = (centre - radius + 0.5).floor().max(0.0) as u32;
            let high = ((centre + radius + 0.5).floor().max(0.0) as u32).min(samples);
            low.min(samples - 1)..high.max(low.min(samples - 1) + 1)
        };
        let weight = |at: u32| (1.0 - ((f64::from(at) + 0.5 - centre) / radius).abs()).max(0.0);
        let sum: f64 = range.clone().map(weight).sum();
        let even = |at| if sum > 0.0 { weight(at) / sum } else { 1.0 / f64::from(range.end - range.start) };
        Taps { from: range.start as usize, weights: range.clone().map(|at| even(at) as f32).collect() }
    };
    let forward = (0..pixels).map(taps);
    if extent < 0.0 { forward.rev().collect() } else { forward.collect() }
}
