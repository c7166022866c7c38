//! What the data set and the request say of a picture, as the worker wants to have it.
//!
//! ```text
//!   of              the first that is there
//!   modality        the frame's functional group, the shared one, Modality LUT Sequence, Rescale Slope and Intercept
//!   VOI             the request, then of the same places: the first item of VOI LUT Sequence, the first window
//!   shape           MONOCHROME1, or Presentation LUT Shape INVERSE: inverted, once
//!   pixels' size    Pixel Spacing (functional groups first), Imager Pixel Spacing, Pixel Aspect Ratio
//! ```
//!
//! Values that the standard does not allow are disregarded, and the next place is asked: a window of width 0 is none. A
//! window narrower than 1 is taken for LINEAR_EXACT, which its writer meant.

use super::{
    RegionAsked, RenderError, Viewing,
    source::{Source, octets},
    table::{entries, expanded, table},
};
use archive_codec_wire::{
    Image, Photometric,
    recipe::{Function, Modality, OVERLAYS_MAX, Overlay, OverlaySource, Recipe, Region, Samples, Table, Voi},
};
use archive_model::{DataSet, Element, Tag, Value, tags};

/// X-Ray angiography and radiofluoroscopy: their Modality LUT undoes the detector's logarithm, for measuring, and is not
/// for the eye (PS3.3 §C.8.7.1.1.2).
const MEASURING_LUT_CLASSES: [&str; 2] = ["1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2"];
/// The greatest profile that is passed on.
const PROFILE_BYTES_MAX: usize = 4 << 20;
/// Sides of a pixel that differ by less are the same: spacings are rounded.
const SQUARE_WITHIN: f64 = 0.01;

const PALETTE_DESCRIPTORS: [Tag; 3] = [
    tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
    tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
    tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
];
const PALETTES: [Tag; 3] = [
    tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
];
const SEGMENTED_PALETTES: [Tag; 3] = [
    tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::SEGMENTED_GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::SEGMENTED_BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
];

/// The recipe of a frame, and what of the request has no meaning for it.
pub(super) fn recipe(
    source: &Source,
    image: &Image,
    frame: u32,
    viewing: &Viewing,
) -> Result<(Recipe, Vec<&'static str>), RenderError> {
    let header = &source.header;
    let (samples, word_bytes, first_bit) = source.form(image, frame);
    let is_grey = image.samples == 1 && image.photometric != Photometric::Palette;
    let mut disregarded = Vec::new();
    if !is_grey && viewing.window.is_some() {
        disregarded.push("window: the image has colours");
    }
    let modality = if is_grey { modality(source, frame)? } else { Modality::Linear { slope: 1.0, intercept: 0.0 } };
    let voi = match (is_grey, viewing.window) {
        (false, _) => Voi::Extent,
        (true, Some((function, centre, width))) => Voi::Window { function, centre, width },
        (true, None) => voi(source, frame, is_signed(image, samples, &modality)),
    };
    let palette = match image.photometric {
        Photometric::Palette => palette(source, image.signed),
        _ => None,
    };
    let recipe = Recipe {
        samples,
        word_bytes,
        first_bit,
        inverted: is_grey
            && (image.photometric == Photometric::Monochrome1
                || header.text(tags::PRESENTATION_LUT_SHAPE).is_some_and(|shape| shape.trim() == "INVERSE")),
        padding: if is_grey { padding(header, image, samples) } else { None },
        modality,
        voi,
        palette,
        overlays: if viewing.overlays { overlays(source, image, frame) } else { Vec::new() },
        aspect: aspect(header, frame),
        region: viewing.region.map(|asked| region(asked, image)).transpose()?,
        viewport: viewing.viewport,
        format: viewing.format,
        profile: if viewing.profile && !is_grey { profile(source) } else { Vec::new() },
    };
    Ok((recipe, disregarded))
}

/// Items of functional groups that say something of a frame: its own before the shared ones (PS3.3 §C.7.6.16).
fn groups(header: &DataSet, frame: u32) -> impl Iterator<Item = &DataSet> {
    let own = header.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).get(frame as usize - 1);
    own.into_iter().chain(header.items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first())
}

/// The item of a functional group, and then the data set itself.
fn places(header: &DataSet, frame: u32, group: Tag) -> impl Iterator<Item = &DataSet> {
    groups(header, frame).filter_map(move |item| item.items(group).first()).chain([header])
}

/// Each element whose value may have been left in the body and is needed for the picture.
pub(super) fn each_table<'a>(header: &'a DataSet, frame: u32, viewing: &Viewing, take: &mut dyn FnMut(&'a Element)) {
    let mut found: Vec<Option<&Element>> = Vec::new();
    found.extend(header.items(tags::MODALITY_LUT_SEQUENCE).first().map(|item| item.get(tags::LUT_DATA)));
    for place in places(header, frame, tags::FRAME_VOILUT_SEQUENCE) {
        found.extend(place.items(tags::VOILUT_SEQUENCE).first().map(|item| item.get(tags::LUT_DATA)));
    }
    found.extend(PALETTES.iter().chain(&SEGMENTED_PALETTES).map(|tag| header.get(*tag)));
    if viewing.overlays {
        found.extend(overlay_groups().map(|group| header.get(Tag(group, 0x3000))));
    }
    if viewing.profile {
        found.push(profile_element(header));
    }
    found.into_iter().flatten().for_each(take);
}

fn number(set: &DataSet, tag: Tag) -> Option<f64> {
    numbers(set, tag).first().copied().flatten()
}

/// The values of `tag`, of those that are none `None`.
fn numbers(set: &DataSet, tag: Tag) -> Vec<Option<f64>> {
    let finite = |number: f64| Some(number).filter(|number| number.is_finite());
    match set.get(tag).map(|element| &element.value) {
        Some(Value::Text(values)) => values.iter().map(|text| text.trim().parse().ok().and_then(finite)).collect(),
        Some(Value::Integers(values)) => values.iter().map(|value| finite(*value as f64)).collect(),
        Some(Value::Floats(values)) => values.iter().map(|value| finite(*value)).collect(),
        Some(Value::Empty | Value::Tags(_) | Value::Bytes(_) | Value::Bulk { .. } | Value::Items(_)) | None => {
            Vec::new()
        }
    }
}

fn integers(set: &DataSet, tag: Tag) -> &[i128] {
    match set.get(tag).map(|element| &element.value) {
        Some(Value::Integers(values)) => values,
        _ => &[],
    }
}

/// PS3.3 §C.11.1.
fn modality(source: &Source, frame: u32) -> Result<Modality, RenderError> {
    let header = &source.header;
    let rescale = |set: &DataSet| {
        let slope = number(set, tags::RESCALE_SLOPE).filter(|slope| *slope != 0.0);
        let intercept = number(set, tags::RESCALE_INTERCEPT);
        (slope.is_some() || intercept.is_some())
            .then(|| Modality::Linear { slope: slope.unwrap_or(1.0), intercept: intercept.unwrap_or(0.0) })
    };
    let of_group = groups(header, frame)
        .filter_map(|item| item.items(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE).first())
        .find_map(rescale);
    if let Some(linear) = of_group {
        return Ok(linear);
    }
    let class = header.text(tags::SOP_CLASS_UID).unwrap_or_default().trim();
    let item = header.items(tags::MODALITY_LUT_SEQUENCE).first().filter(|_| !MEASURING_LUT_CLASSES.contains(&class));
    if let Some(item) = item {
        let signed = header.integer(tags::PIXEL_REPRESENTATION) == Some(1);
        let found = lut(source, item, signed);
        return found.map(Modality::Table).ok_or(RenderError::None("its Modality LUT is damaged"));
    }
    Ok(rescale(header).unwrap_or(Modality::Linear { slope: 1.0, intercept: 0.0 }))
}

/// Whether what the modality gives can be negative.
fn is_signed(image: &Image, samples: Samples, modality: &Modality) -> bool {
    match modality {
        Modality::Table(_) => false,
        Modality::Linear { .. } if samples == Samples::Floats => true,
        Modality::Linear { slope, intercept } => {
            let (lowest, highest) = if image.signed {
                (-2_f64.powi(i32::from(image.stored) - 1), 2_f64.powi(i32::from(image.stored) - 1) - 1.0)
            } else {
                (0.0, 2_f64.powi(i32::from(image.stored)) - 1.0)
            };
            (lowest * slope + intercept).min(highest * slope + intercept) < 0.0
        }
    }
}

fn lut(source: &Source, item: &DataSet, signed: bool) -> Option<Table> {
    let descriptor = integers(item, tags::LUT_DESCRIPTOR);
    table(descriptor, signed, entries(descriptor, &octets(source, item.get(tags::LUT_DATA)?)))
}

/// PS3.3 §C.11.2.
fn voi(source: &Source, frame: u32, signed: bool) -> Voi {
    let of_place = |place: &DataSet| {
        let table = place.items(tags::VOILUT_SEQUENCE).first().and_then(|item| lut(source, item, signed));
        table.map(Voi::Table).or_else(|| window(place))
    };
    places(&source.header, frame, tags::FRAME_VOILUT_SEQUENCE).find_map(of_place).unwrap_or(Voi::Extent)
}

/// The first window that is one.
fn window(place: &DataSet) -> Option<Voi> {
    let (centres, widths) = (numbers(place, tags::WINDOW_CENTER), numbers(place, tags::WINDOW_WIDTH));
    let function = match place.text(tags::VOILUT_FUNCTION).unwrap_or_default().trim() {
        "LINEAR_EXACT" => Function::LinearExact,
        "SIGMOID" => Function::Sigmoid,
        _ => Function::Linear,
    };
    centres.into_iter().zip(widths).find_map(|(centre, width)| {
        let (centre, width) = (centre?, width.filter(|width| *width > 0.0)?);
        let narrow = function == Function::Linear && width < 1.0;
        Some(Voi::Window { function: if narrow { Function::LinearExact } else { function }, centre, width })
    })
}

/// PS3.3 §C.7.5.1.1.2: a value, or all from it to a limit; they have the sign of the samples.
fn padding(header: &DataSet, image: &Image, samples: Samples) -> Option<(f64, f64)> {
    let (value, limit) = match (samples, image.allocated) {
        (Samples::Integers, _) => (tags::PIXEL_PADDING_VALUE, tags::PIXEL_PADDING_RANGE_LIMIT),
        (Samples::Floats, 32) => (tags::FLOAT_PIXEL_PADDING_VALUE, tags::FLOAT_PIXEL_PADDING_RANGE_LIMIT),
        (Samples::Floats, _) => (tags::DOUBLE_FLOAT_PIXEL_PADDING_VALUE, tags::DOUBLE_FLOAT_PIXEL_PADDING_RANGE_LIMIT),
    };
    let read = |tag| {
        let number = number(header, tag)?;
        Some(match samples {
            Samples::Integers if image.signed && number > f64::from(i16::MAX) => number - 65_536.0,
            Samples::Integers if !image.signed && number < 0.0 => number + 65_536.0,
            Samples::Integers | Samples::Floats => number,
        })
    };
    let value = read(value)?;
    let limit = read(limit).unwrap_or(value);
    Some((value.min(limit), value.max(limit)))
}

/// PS3.3 §C.7.6.3.1.5, §C.7.6.3.1.6, §C.7.9.
fn palette(source: &Source, signed: bool) -> Option<Box<[Table; 3]>> {
    let header = &source.header;
    let one = |at: usize| {
        let descriptor = integers(header, PALETTE_DESCRIPTORS[at]);
        let entries = match (header.get(PALETTES[at]), header.get(SEGMENTED_PALETTES[at])) {
            (Some(data), _) => entries(descriptor, &octets(source, data)),
            (None, Some(data)) => {
                let words = octets(source, data);
                expanded(&words.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect::<Vec<_>>())?
            }
            (None, None) => return None,
        };
        table(descriptor, signed, entries)
    };
    Some(Box::new([one(0)?, one(1)?, one(2)?]))
}

fn overlay_groups() -> impl Iterator<Item = u16> {
    (0_u16..OVERLAYS_MAX as u16).map(|at| 0x6000 + 2 * at)
}

/// Overlay planes that are graphics (PS3.3 §C.9.2): a region of interest is no drawing.
fn overlays(source: &Source, image: &Image, frame: u32) -> Vec<Overlay> {
    overlay_groups().filter_map(|group| overlay(source, image, frame, group)).collect()
}

fn overlay(source: &Source, image: &Image, frame: u32, group: u16) -> Option<Overlay> {
    let header = &source.header;
    let number = |element: u16| header.integer(Tag(group, element));
    let natural = |element: u16| number(element).and_then(|number| u32::try_from(number).ok()).filter(|n| *n > 0);
    if header.text(Tag(group, 0x0040)).unwrap_or("G").trim() != "G" {
        return None;
    }
    let (rows, columns) = (natural(0x0010)?, natural(0x0011)?);
    // Those of several frames begin at one of the image; one of a single frame is over all of them (§C.9.3).
    let frames = natural(0x0015).unwrap_or(1);
    let of_frame = match frames {
        1 => 0,
        _ => frame.checked_sub(natural(0x0051).unwrap_or(1)).filter(|at| *at < frames)?,
    };
    let origin = integers(header, Tag(group, 0x0050));
    let place = |at: usize| i32::try_from(origin.get(at).copied().unwrap_or(1) - 1).ok();
    let source = match header.get(Tag(group, 0x3000)) {
        Some(data) => {
            let bits = u64::from(rows).checked_mul(u64::from(columns))?;
            OverlaySource::Bits(cut(&octets(source, data), bits.checked_mul(u64::from(of_frame))?, bits)?)
        }
        None => {
            let bit = u8::try_from(number(0x0102)?).ok()?;
            let low = (image.high + 1).saturating_sub(image.stored);
            if image.samples != 1 || bit >= image.allocated || (low..=image.high).contains(&bit) {
                return None;
            }
            OverlaySource::Embedded(bit)
        }
    };
    Some(Overlay { rows, columns, top: place(0)?, left: place(1)?, source })
}

/// So many bits from a place on, moved to begin on a byte.
fn cut(bytes: &[u8], from: u64, bits: u64) -> Option<Vec<u8>> {
    let (first, shift) = (usize::try_from(from / 8).ok()?, from % 8);
    let count = usize::try_from(bits.div_ceil(8)).ok()?;
    let rest = bytes.get(first..)?;
    if (rest.len() as u64 * 8).checked_sub(shift)? < bits {
        return None;
    }
    let byte = |at: usize| {
        let pair = [rest.get(at).copied().unwrap_or(0), rest.get(at + 1).copied().unwrap_or(0)];
        (u16::from_le_bytes(pair) >> shift) as u8
    };
    Some((0..count).map(byte).collect())
}

/// The height of a pixel whose width is 1.
fn aspect(header: &DataSet, frame: u32) -> f64 {
    let ratio = |set: &DataSet, tag| match numbers(set, tag)[..] {
        [Some(vertical), Some(horizontal)] if vertical > 0.0 && horizontal > 0.0 => Some(vertical / horizontal),
        _ => None,
    };
    let measured = places(header, frame, tags::PIXEL_MEASURES_SEQUENCE).find_map(|set| ratio(set, tags::PIXEL_SPACING));
    let found = measured
        .or_else(|| ratio(header, tags::IMAGER_PIXEL_SPACING))
        .or_else(|| ratio(header, tags::NOMINAL_SCANNED_PIXEL_SPACING))
        .or_else(|| ratio(header, tags::PIXEL_ASPECT_RATIO));
    found.filter(|aspect| (aspect - 1.0).abs() > SQUARE_WITHIN && aspect.is_finite()).unwrap_or(1.0)
}

fn region(asked: RegionAsked, image: &Image) -> Result<Region, RenderError> {
    let (columns, rows) = (f64::from(image.columns), f64::from(image.rows));
    let region = match asked {
        RegionAsked::Pixels { x, y, width, height } => {
            let (x, y) = (x.unwrap_or(0.0), y.unwrap_or(0.0));
            Region { x, y, width: width.unwrap_or(columns - x), height: height.unwrap_or(rows - y) }
        }
        RegionAsked::Fractions { left, top, right, bottom } => Region {
            x: left * columns,
            y: top * rows,
            // Not beyond the edge by rounding.
            width: (right * columns).min(columns) - left * columns,
            height: (bottom * rows).min(rows) - top * rows,
        },
    };
    let Region { x, y, width, height } = region;
    let within = x >= 0.0 && y >= 0.0 && x + width.abs() <= columns && y + height.abs() <= rows;
    if within && width != 0.0 && height != 0.0 {
        Ok(region)
    } else {
        Err(RenderError::Bad("the region that is asked for is not within the image: see its Rows and Columns"))
    }
}

fn profile_element(header: &DataSet) -> Option<&Element> {
    let of_path = || header.items(tags::OPTICAL_PATH_SEQUENCE).first()?.get(tags::ICC_PROFILE);
    header.get(tags::ICC_PROFILE).or_else(of_path)
}

/// The ICC profile of the image (PS3.3 §C.11.15); one that cannot be one is none.
fn profile(source: &Source) -> Vec<u8> {
    let bytes = profile_element(&source.header).map(|element| octets(source, element)).unwrap_or_default();
    // Its own length, and the signature of all profiles (ICC.1 §7.2).
    let length = bytes.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length) as usize);
    let is_one = bytes.get(36..40) == Some(b"acsp") && (128..=PROFILE_BYTES_MAX.min(bytes.len())).contains(&length);
    if is_one { bytes[..length].to_vec() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_cut_out_wherever_they_begin() {
        assert_eq!(cut(&[0xFF, 0x01], 0, 9), Some(vec![0xFF, 0x01]));
        assert_eq!(cut(&[0b1010_0000, 0b0000_0101], 5, 6), Some(vec![0b0010_1101]));
        assert_eq!(cut(&[0xFF], 5, 4), None);
        assert_eq!(cut(&[0xFF], 80, 4), None);
    }
}
