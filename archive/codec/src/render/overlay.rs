//! Overlay planes, in white (PS3.3 §C.9.2, PS3.5 §8.1.2).

use super::{Canvas, samples::Stored};
use archive_codec_wire::recipe::{Overlay, OverlaySource};

/// Draws what of an overlay lies within the image.
pub(super) fn draw(canvas: &mut Canvas, overlay: &Overlay, stored: &Stored<'_>) {
    let shown = |start: i32, extent: u32, most: u32| {
        let start = i64::from(start);
        let end = (start + i64::from(extent)).min(i64::from(most));
        start.max(0)..end
    };
    let columns = shown(overlay.left, overlay.columns, canvas.columns);
    for row in shown(overlay.top, overlay.rows, canvas.rows) {
        for column in columns.clone() {
            let pixel = row as usize * canvas.columns as usize + column as usize;
            let set = match &overlay.source {
                OverlaySource::Bits(bits) => {
                    let of_row = (row - i64::from(overlay.top)) as usize * overlay.columns as usize;
                    let at = of_row + (column - i64::from(overlay.left)) as usize;
                    bits.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
                }
                OverlaySource::Embedded(bit) => stored.bits(pixel) >> bit & 1 == 1,
            };
            if set {
                canvas.levels[pixel * canvas.channels..(pixel + 1) * canvas.channels].fill(u8::MAX);
            }
        }
    }
}
