//! ISO/IEC 18181-1 by `jxl`, one image without alpha. Three samples become RGB, which XYB and the YCbCr of a recompressed
//! JPEG are turned into; one sample stays what it is. Orientation is not applied: the data set knows no such thing.

use crate::{
    coders::{Coder, Shape},
    fit::{Decoded, Samples},
    refusal::{Refusal, refused, said, unsupported},
};
use archive_codec_wire::{Image, Photometric};
use jxl::{
    api::{
        Endianness, Event, JxlBitDepth, JxlColorType, JxlDataFormat, JxlDecoder, JxlDecoderOptions, JxlOutputBuffer,
        JxlPixelFormat, ProfileLevel,
    },
    error::Error,
};

pub(crate) struct JpegXl;

impl Coder for JpegXl {
    fn look(&self, stream: &[u8]) -> Result<Option<Shape>, Refusal> {
        opened(&mut &*stream).map(|(_, shape)| Some(shape))
    }

    fn decode(&self, image: &Image, stream: &[u8]) -> Result<Decoded, Refusal> {
        let mut rest = stream;
        let (mut decoder, shape) = opened(&mut rest)?;
        let bit_depth = shape.precision;
        let (width, format) = if bit_depth <= 8 {
            (1, JxlDataFormat::U8 { bit_depth })
        } else {
            (2, JxlDataFormat::U16 { endianness: Endianness::LittleEndian, bit_depth })
        };
        let (color_type, photometric) = match image.photometric {
            Photometric::Rgb | Photometric::Xyb | Photometric::YbrRct | Photometric::YbrFull422 => {
                (JxlColorType::Rgb, Photometric::Rgb)
            }
            grey @ (Photometric::Monochrome1 | Photometric::Monochrome2 | Photometric::Palette) => {
                (JxlColorType::Grayscale, grey)
            }
            // Whether the decoder turned it into RGB is not told.
            _ => return Err(unsupported("JPEG XL of this Photometric Interpretation")),
        };
        let pixels = JxlPixelFormat { color_type, color_data_format: Some(format), extra_channel_format: Vec::new() };
        decoder.set_pixel_format(pixels).map_err(fail)?;
        // Both were compared with the data set, whose frame is bounded.
        let row_bytes = shape.columns as usize * usize::from(shape.samples) * width;
        let mut frame = vec![0; row_bytes * shape.rows as usize];
        loop {
            let mut buffers = [JxlOutputBuffer::new(&mut frame, shape.rows as usize, row_bytes)];
            match decoder.process(&mut rest, Some(&mut buffers), None).map_err(fail)? {
                Event::FrameHeader => {}
                Event::FrameComplete { has_more_frames: false } => break,
                Event::FrameComplete { .. } => return Err(unsupported("JPEG XL of several frames")),
                Event::NeedMoreInput { .. } => return Err(refused("the stream is cut off")),
                Event::BasicInfo | Event::Complete => return Err(refused("the stream has no frame")),
            }
        }
        let samples = if width == 1 { Samples::Bytes(frame) } else { Samples::words(&frame) };
        Ok(Decoded { samples, photometric, planar: false })
    }
}

/// A decoder that has read the image header, and what that says.
fn opened(stream: &mut &[u8]) -> Result<(JxlDecoder, Shape), Refusal> {
    let mut options = JxlDecoderOptions::default();
    options.adjust_orientation = false;
    options.high_precision = true;
    options.max_profile_level = ProfileLevel::Main10;
    options.sample_limit = usize::try_from(archive_codec_wire::FRAME_BYTES_MAX).ok();
    let mut decoder = JxlDecoder::new(options);
    match decoder.process(stream, None, None).map_err(fail)? {
        Event::BasicInfo => {}
        _ => return Err(refused("the stream has no image header")),
    }
    let colours = decoder.current_pixel_format().map(|format| format.color_type.is_grayscale());
    let info = decoder.basic_info().ok_or_else(|| refused("the stream has no image header"))?;
    if info.animation.is_some() || !info.extra_channels.is_empty() {
        return Err(unsupported("JPEG XL with animation, alpha or other channels"));
    }
    let JxlBitDepth::Int { bits_per_sample } = info.bit_depth else {
        return Err(unsupported("JPEG XL of floating point numbers"));
    };
    let (Ok(columns), Ok(rows)) = (u32::try_from(info.size.0), u32::try_from(info.size.1)) else {
        return Err(refused("the size of the image"));
    };
    let precision = u8::try_from(bits_per_sample).ok().filter(|bits| *bits <= 16);
    let precision = precision.ok_or_else(|| unsupported("JPEG XL of more than 16 bits"))?;
    let samples = if colours == Some(true) { 1 } else { 3 };
    Ok((decoder, Shape { rows, columns, samples, precision, signed: false }))
}

fn fail(error: Error) -> Refusal {
    said("jxl", &error)
}
