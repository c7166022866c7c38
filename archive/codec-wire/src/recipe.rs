//! What a frame is to look like: all that the pixel pipeline of the standard needs besides the samples (PS3.4 §N.2), read from
//! the data set by the server, so that the worker reads no data set.
//!
//! ```text
//!   recipe    samples 1 | word bytes 1 | first bit 1 | inverted 1
//!             padding 1   0 | 1: lowest 8, highest 8
//!             modality 1  0: slope 8, intercept 8 | 1: table
//!             voi 1       0 | 1: function 1, centre 8, width 8 | 2: table
//!             palette 1   0 | 1: table × 3
//!             overlays 1  | overlay × that
//!             aspect 8
//!             region 1    0 | 1: x 8, y 8, width 8, height 8
//!             viewport 1  0 | 1: width 4, height 4
//!             picture 1   1: JPEG, quality 1 | 2: PNG
//!             profile length 4 | profile
//!   table     first 4 | bits 1 | count 4 | entry 2 × count
//!   overlay   rows 4 | columns 4 | top 4 | left 4 | source 1   255: length 4, bits | other: the bit of the samples
//! ```
//!
//! Little endian; 8 bytes are a floating point number, `first`, `top` and `left` are signed.
//!
//! Invariants
//! - R-1 What [`Recipe::decode`] gives is finite where it is a number, and a table of it has an entry.
//! - R-2 No count is believed before its bytes are there.

use crate::WireError;

/// Bytes of a recipe, at most: some overlays of a large image.
pub const RECIPE_BYTES_MAX: u64 = 64 << 20;
/// Overlay planes of an image (PS3.5 §7.6: groups 6000 to 601E).
pub const OVERLAYS_MAX: usize = 16;
/// Entries of a table (PS3.3 §C.11.1.1).
pub const ENTRIES_MAX: usize = 65_536;

bytes_of! {
    /// What the samples of a native frame are.
    Samples {
        /// Whole numbers, of which Bits Stored are the value.
        Integers = 1,
        /// IEEE 754, of 32 or 64 bits.
        Floats = 2,
    }
}

bytes_of! {
    /// VOI LUT Function (0028,1056).
    Function {
        /// `LINEAR` (PS3.3 §C.11.2.1.2.1).
        Linear = 1,
        /// `LINEAR_EXACT` (§C.11.2.1.3.2).
        LinearExact = 2,
        /// `SIGMOID` (§C.11.2.1.3.1).
        Sigmoid = 3,
    }
}

/// A look-up table (PS3.3 §C.11.1.1): what is below `first` becomes the first entry, what is beyond the last the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The value that becomes the first entry.
    pub first: i32,
    /// Bits of an entry: 8 to 16.
    pub bits: u8,
    /// At least one.
    pub entries: Vec<u16>,
}

/// From stored values to those of the modality (PS3.3 §C.11.1).
#[derive(Debug, Clone, PartialEq)]
pub enum Modality {
    /// Rescale Slope and Intercept.
    Linear {
        /// Rescale Slope (0028,1053).
        slope: f64,
        /// Rescale Intercept (0028,1052).
        intercept: f64,
    },
    /// Modality LUT Sequence (0028,3000).
    Table(Table),
}

/// From values of the modality to those that are shown (PS3.3 §C.11.2).
#[derive(Debug, Clone, PartialEq)]
pub enum Voi {
    /// The lowest value of the frame is black, the highest white.
    Extent,
    /// A window.
    Window {
        /// Its shape.
        function: Function,
        /// Window Center (0028,1050).
        centre: f64,
        /// Window Width (0028,1051): at least 1 for `Linear`, above 0 for the others.
        width: f64,
    },
    /// VOI LUT Sequence (0028,3010).
    Table(Table),
}

/// An overlay plane (PS3.3 §C.9.2), as far as it lies over this frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Overlay Rows (60xx,0010).
    pub rows: u32,
    /// Overlay Columns (60xx,0011).
    pub columns: u32,
    /// The row of the image under its first row, counted from 0; perhaps outside of it.
    pub top: i32,
    /// The column of the image under its first column.
    pub left: i32,
    /// Where its bits are.
    pub source: OverlaySource,
}

/// Where the bits of an overlay are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverlaySource {
    /// Row by row, the lowest bit of a byte first.
    Bits(Vec<u8>),
    /// In this bit of each sample of the native frame (retired).
    Embedded(u8),
}

/// A part of the image, in its columns and rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Of its left edge.
    pub x: f64,
    /// Of its upper edge.
    pub y: f64,
    /// Negative: shown with left and right changed.
    pub width: f64,
    /// Negative: shown upside down.
    pub height: f64,
}

/// How the picture is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Baseline JPEG.
    Jpeg {
        /// 1 to 100.
        quality: u8,
    },
    /// PNG of 8 bits.
    Png,
}

/// How a frame becomes a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// What the samples of a native frame are.
    pub samples: Samples,
    /// Bytes of the words that a native frame has in big endian; 1 for little endian.
    pub word_bytes: u8,
    /// The bit of the first byte with which a native frame of single bits begins.
    pub first_bit: u8,
    /// White is the lowest value.
    pub inverted: bool,
    /// Stored values from the lowest to the highest that are no image (PS3.3 §C.7.5.1.1.2).
    pub padding: Option<(f64, f64)>,
    /// Of grey images.
    pub modality: Modality,
    /// Of grey images.
    pub voi: Voi,
    /// Red, green and blue of a stored value.
    pub palette: Option<Box<[Table; 3]>>,
    /// Drawn in white.
    pub overlays: Vec<Overlay>,
    /// The height of a pixel, where its width is 1.
    pub aspect: f64,
    /// What is shown; none: all.
    pub region: Option<Region>,
    /// Columns and rows that the picture must fit into; none: as many as the region has.
    pub viewport: Option<(u32, u32)>,
    /// How it is coded.
    pub format: Format,
    /// The ICC profile that is put into the picture; empty: none.
    pub profile: Vec<u8>,
}

impl Recipe {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.samples.byte(), self.word_bytes, self.first_bit, u8::from(self.inverted)];
        match self.padding {
            None => out.push(0),
            Some((lowest, highest)) => put_numbers(&mut out, 1, &[lowest, highest]),
        }
        match &self.modality {
            Modality::Linear { slope, intercept } => put_numbers(&mut out, 0, &[*slope, *intercept]),
            Modality::Table(table) => {
                out.push(1);
                put_table(&mut out, table);
            }
        }
        match &self.voi {
            Voi::Extent => out.push(0),
            Voi::Window { function, centre, width } => {
                out.push(1);
                put_numbers(&mut out, function.byte(), &[*centre, *width]);
            }
            Voi::Table(table) => {
                out.push(2);
                put_table(&mut out, table);
            }
        }
        out.push(u8::from(self.palette.is_some()));
        self.palette.iter().flat_map(|tables| tables.iter()).for_each(|table| put_table(&mut out, table));
        out.push(self.overlays.len() as u8);
        self.overlays.iter().for_each(|overlay| put_overlay(&mut out, overlay));
        out.extend(self.aspect.to_le_bytes());
        match self.region {
            None => out.push(0),
            Some(Region { x, y, width, height }) => put_numbers(&mut out, 1, &[x, y, width, height]),
        }
        match self.viewport {
            None => out.push(0),
            Some((width, height)) => {
                out.push(1);
                out.extend(width.to_le_bytes());
                out.extend(height.to_le_bytes());
            }
        }
        match self.format {
            Format::Jpeg { quality } => out.extend([1, quality]),
            Format::Png => out.push(2),
        }
        put_bytes(&mut out, &self.profile);
        out
    }

    /// Reads what [`Recipe::encode`] wrote.
    ///
    /// # Errors
    /// `Damaged` for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader(bytes);
        let recipe = Self {
            samples: Samples::of_byte(from.byte()?).ok_or(WireError::Damaged)?,
            word_bytes: from.one_of(&[1, 2, 4, 8])?,
            first_bit: from.one_of(&[0, 1, 2, 3, 4, 5, 6, 7])?,
            inverted: from.one_of(&[0, 1])? == 1,
            padding: match from.one_of(&[0, 1])? {
                0 => None,
                _ => Some((from.number()?, from.number()?)),
            },
            modality: match from.one_of(&[0, 1])? {
                0 => Modality::Linear { slope: from.number()?, intercept: from.number()? },
                _ => Modality::Table(from.table()?),
            },
            voi: match from.one_of(&[0, 1, 2])? {
                0 => Voi::Extent,
                1 => Voi::Window {
                    function: Function::of_byte(from.byte()?).ok_or(WireError::Damaged)?,
                    centre: from.number()?,
                    width: from.number()?,
                },
                _ => Voi::Table(from.table()?),
            },
            palette: match from.one_of(&[0, 1])? {
                0 => None,
                _ => Some(Box::new([from.table()?, from.table()?, from.table()?])),
            },
            overlays: {
                let count = usize::from(from.byte()?);
                if count > OVERLAYS_MAX {
                    return Err(WireError::Damaged);
                }
                (0..count).map(|_| from.overlay()).collect::<Result<_, _>>()?
            },
            aspect: from.number()?,
            region: match from.one_of(&[0, 1])? {
                0 => None,
                _ => {
                    Some(Region { x: from.number()?, y: from.number()?, width: from.number()?, height: from.number()? })
                }
            },
            viewport: match from.one_of(&[0, 1])? {
                0 => None,
                _ => Some((from.count()?, from.count()?)),
            },
            format: match from.one_of(&[1, 2])? {
                1 => Format::Jpeg { quality: from.byte()? },
                _ => Format::Png,
            },
            profile: from.bytes()?.to_vec(),
        };
        if from.0.is_empty() { Ok(recipe) } else { Err(WireError::Damaged) }
    }
}

fn put_numbers(out: &mut Vec<u8>, kind: u8, numbers: &[f64]) {
    out.push(kind);
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // A recipe that is longer than it may be is refused as a whole.
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(bytes);
}

fn put_table(out: &mut Vec<u8>, table: &Table) {
    out.extend(table.first.to_le_bytes());
    out.push(table.bits);
    out.extend(u32::try_from(table.entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    table.entries.iter().for_each(|entry| out.extend(entry.to_le_bytes()));
}

fn put_overlay(out: &mut Vec<u8>, overlay: &Overlay) {
    out.extend(overlay.rows.to_le_bytes());
    out.extend(overlay.columns.to_le_bytes());
    out.extend(overlay.top.to_le_bytes());
    out.extend(overlay.left.to_le_bytes());
    match &overlay.source {
        OverlaySource::Bits(bits) => {
            out.push(u8::MAX);
            put_bytes(out, bits);
        }
        OverlaySource::Embedded(bit) => out.push(*bit),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(WireError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.try_into().map_err(|_| WireError::Damaged)
    }

    fn byte(&mut self) -> Result<u8, WireError> {
        self.array().map(|[byte]| byte)
    }

    fn one_of(&mut self, known: &[u8]) -> Result<u8, WireError> {
        self.byte().and_then(|byte| if known.contains(&byte) { Ok(byte) } else { Err(WireError::Damaged) })
    }

    fn count(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    fn signed(&mut self) -> Result<i32, WireError> {
        self.array().map(i32::from_le_bytes)
    }

    fn number(&mut self) -> Result<f64, WireError> {
        let number = f64::from_le_bytes(self.array()?);
        if number.is_finite() { Ok(number) } else { Err(WireError::Damaged) }
    }

    fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let count = self.count()?;
        self.take(count as usize)
    }

    fn table(&mut self) -> Result<Table, WireError> {
        let (first, bits, count) = (self.signed()?, self.byte()?, self.count()? as usize);
        if !(1..=16).contains(&bits) || !(1..=ENTRIES_MAX).contains(&count) {
            return Err(WireError::Damaged);
        }
        let entries = self.take(count * 2)?.chunks_exact(2);
        Ok(Table { first, bits, entries: entries.map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect() })
    }

    fn overlay(&mut self) -> Result<Overlay, WireError> {
        let (rows, columns, top, left) = (self.count()?, self.count()?, self.signed()?, self.signed()?);
        let source = match self.byte()? {
            u8::MAX => OverlaySource::Bits(self.bytes()?.to_vec()),
            bit if bit < 64 => OverlaySource::Embedded(bit),
            _ => return Err(WireError::Damaged),
        };
        Ok(Overlay { rows, columns, top, left, source })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn plain() -> Recipe {
        Recipe {
            samples: Samples::Integers,
            word_bytes: 1,
            first_bit: 0,
            inverted: false,
            padding: None,
            modality: Modality::Linear { slope: 1.0, intercept: -2.0 },
            voi: Voi::Extent,
            palette: None,
            overlays: Vec::new(),
            aspect: 1.0,
            region: None,
            viewport: None,
            format: Format::Png,
            profile: Vec::new(),
        }
    }

    fn full() -> Recipe {
        let table = |first, entries: &[u16]| Table { first, bits: 12, entries: entries.to_vec() };
        let overlay = |source| Overlay { rows: 2, columns: 3, top: -1, left: 258, source };
        Recipe {
            samples: Samples::Floats,
            word_bytes: 2,
            first_bit: 5,
            inverted: true,
            padding: Some((-1.0, 2.0)),
            modality: Modality::Table(table(-3, &[1, 2])),
            voi: Voi::Window { function: Function::Sigmoid, centre: 0.0, width: 1.0 },
            palette: Some(Box::new([table(0, &[9]), table(0, &[8]), table(0, &[7])])),
            overlays: vec![overlay(OverlaySource::Bits(vec![0x3F])), overlay(OverlaySource::Embedded(12))],
            aspect: 2.0,
            region: Some(Region { x: 0.0, y: 1.0, width: -2.0, height: 2.0 }),
            viewport: Some((256, 3)),
            format: Format::Jpeg { quality: 90 },
            profile: vec![1, 2, 3],
        }
    }

    #[test]
    fn bytes_of_a_recipe_are_these() {
        let golden = [
            &[1, 1, 0, 0, 0, 0][..],
            &1.0_f64.to_le_bytes(),
            &(-2.0_f64).to_le_bytes(),
            &[0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0xF0, 0x3F],
            &[0, 0, 2, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(plain().encode(), golden);
        let ends = [
            // Overlays.
            &[2, 2, 0, 0, 0, 3, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 2, 1, 0, 0, 255, 1, 0, 0, 0, 0x3F][..],
            &[2, 0, 0, 0, 3, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 2, 1, 0, 0, 12],
            &2.0_f64.to_le_bytes(),
            &[1],
            &0.0_f64.to_le_bytes(),
            &1.0_f64.to_le_bytes(),
            &(-2.0_f64).to_le_bytes(),
            &2.0_f64.to_le_bytes(),
            &[1, 0, 1, 0, 0, 3, 0, 0, 0, 1, 90, 3, 0, 0, 0, 1, 2, 3],
        ]
        .concat();
        assert!(full().encode().ends_with(&ends));
    }

    #[test]
    fn what_is_encoded_is_decoded_and_no_prefix_is() {
        for recipe in
            [plain(), full(), Recipe { voi: Voi::Table(Table { first: 1, bits: 8, entries: vec![3; 256] }), ..full() }]
        {
            let bytes = recipe.encode();
            assert_eq!(Recipe::decode(&bytes), Ok(recipe));
            assert!((0..bytes.len()).all(|end| Recipe::decode(&bytes[..end]).is_err()));
            assert!(Recipe::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn numbers_that_are_none_and_empty_tables_are_refused() {
        assert!(Recipe::decode(&Recipe { aspect: f64::NAN, ..plain() }.encode()).is_err());
        let empty = Table { first: 0, bits: 8, entries: Vec::new() };
        assert!(Recipe::decode(&Recipe { voi: Voi::Table(empty), ..plain() }.encode()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(at in 0_usize..200, byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Recipe::decode(&noise);
            let mut bytes = full().encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Recipe::decode(&bytes);
        }
    }
}
