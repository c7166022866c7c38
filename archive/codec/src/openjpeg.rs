//! JPEG 2000 by OpenJPEG, for the streams that `j2k` was seen to decode wrongly (`jpeg2000.rs` says which): C, in this process
//! that may crash. Strict: a stream that was cut off is refused, not filled up.

use crate::{
    coders::Shape,
    fit::Samples,
    refusal::{Refusal, refused, said},
};
use archive_codec_wire::Image;
use jpeg2k::DecodeParameters;

/// Samples of the frame, pixel by pixel.
pub(crate) fn decode(image: &Image, shape: &Shape, stream: &[u8]) -> Result<Samples, Refusal> {
    let decoded = jpeg2k::Image::from_bytes_with(stream, DecodeParameters::new().strict(true));
    let decoded = decoded.map_err(|error| said("OpenJPEG", &error))?;
    let components = decoded.components();
    let same = components.iter().all(|component| {
        (component.width(), component.height()) == (image.columns, image.rows)
            && (component.precision(), component.is_signed()) == (u32::from(shape.precision), shape.signed)
    });
    if !same || components.len() != usize::from(image.samples) {
        return Err(refused("the decoder gave components of another size, number or precision"));
    }
    let planes: Vec<&[i32]> = components.iter().map(|component| component.data()).collect();
    let pixels = planes.iter().map(|plane| plane.len()).min().unwrap_or(0);
    // Two's complement: `fit` takes the bits that count.
    let samples = (0..pixels).flat_map(|at| planes.iter().map(move |plane| plane[at]));
    Ok(match shape.precision {
        0..=16 => Samples::Words(samples.map(|sample| sample as u16).collect()),
        _ => Samples::Longs(samples.map(|sample| sample as u32).collect()),
    })
}
