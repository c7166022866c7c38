//! What server and codec worker say to each other: one frame a request, over the worker's standard input and output.
//! Little endian, no I/O here.
//!
//! ```text
//!   request   'T' 'Q' | version 1 = 2 | verb 1 | coding 1 | photometric 1 | planar 1 | signed 1
//!             rows 4 | columns 4 | samples 2 | allocated 1 | stored 1 | high bit 1 | zero 3
//!             recipe length 4 | length 4 | recipe | stream
//!   answer    'T' 'A' | version 1 = 2 | outcome 1 | photometric 1 | planar 1 | zero 2 | length 4 | bytes
//!
//!   verb      1 decode: stream is the coded frame; 2 encode: stream is the native frame; both: no recipe
//!             3 render: stream is the coded frame, or a native one as it is stored (`recipe.rs`)
//!   outcome   0 done: bytes are the frame, native little endian (decode) or coded (encode), or the picture (render)
//!             1 refused · 2 unsupported · 3 failed: bytes are a sentence in UTF-8 that says why
//! ```
//!
//! Invariants
//! - W-1 An answer with outcome 0 to a decode has exactly [`Image::native_bytes`] bytes.
//! - W-2 No length of a header is believed before it was compared with [`FRAME_BYTES_MAX`].
//! - W-3 A worker answers requests in order, one at a time; what it says is nothing but answers.
//! - W-4 A request has a recipe if it is to render, and else none.
//!
//! Versions: 1 had no recipes.

/// The version of the bytes.
///
/// When changing them: 1. raise it and draw the new picture above; 2. rewrite the golden test; server and worker of one
/// release speak one version, and an older worker is refused with a sentence.
pub const VERSION: u8 = 2;
/// Bytes of a native frame or of a coded one, at most.
pub const FRAME_BYTES_MAX: u64 = 512 << 20;
/// Bytes of a request before its recipe and its stream.
pub const REQUEST_HEAD_BYTES: usize = 32;
/// Bytes of an answer before its own.
pub const ANSWER_HEAD_BYTES: usize = 12;
/// Bytes of the sentence of a refusal, at most; the rest is cut.
pub const SENTENCE_BYTES_MAX: usize = 512;

/// Gives an enum a byte for each variant, and the way back.
macro_rules! bytes_of {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $byte:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$each])* $variant,)* }

        impl $name {
            /// The byte that stands for it.
            #[must_use]
            pub fn byte(self) -> u8 {
                match self { $(Self::$variant => $byte,)* }
            }

            /// What a byte stands for.
            #[must_use]
            pub fn of_byte(byte: u8) -> Option<Self> {
                match byte { $($byte => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

pub mod recipe;

use recipe::RECIPE_BYTES_MAX;

bytes_of! {
    /// What is to be done.
    Verb {
        /// From the coded form to the native one.
        Decode = 1,
        /// From the native form to a coded one, without loss.
        Encode = 2,
        /// From the coded form, or a native one as it is stored, to a picture.
        Render = 3,
    }
}

bytes_of! {
    /// How a frame is coded.
    Coding {
        /// Run lengths (PS3.5 Annex G).
        Rle = 1,
        /// ISO/IEC 10918-1, whatever its process.
        Jpeg = 2,
        /// ISO/IEC 14495-1.
        JpegLs = 3,
        /// ISO/IEC 15444-1.
        Jpeg2000 = 4,
        /// ISO/IEC 15444-15; encoded as `.202` demands.
        Htj2k = 5,
        /// ISO/IEC 18181-1.
        JpegXl = 6,
        /// RFC 1951.
        Deflated = 7,
        /// Native samples in a fragment.
        Native = 8,
    }
}

bytes_of! {
    /// Photometric Interpretation (0028,0004).
    Photometric {
        /// `MONOCHROME1`
        Monochrome1 = 1,
        /// `MONOCHROME2`
        Monochrome2 = 2,
        /// `PALETTE COLOR`
        Palette = 3,
        /// `RGB`
        Rgb = 4,
        /// `YBR_FULL`
        YbrFull = 5,
        /// `YBR_FULL_422`
        YbrFull422 = 6,
        /// `YBR_PARTIAL_420`
        YbrPartial420 = 7,
        /// `YBR_ICT`
        YbrIct = 8,
        /// `YBR_RCT`
        YbrRct = 9,
        /// `XYB`
        Xyb = 10,
    }
}

bytes_of! {
    /// How a request ended without a frame.
    Failure {
        /// The stream is not what the request says, or is damaged.
        Refused = 1,
        /// It may be good, but nothing here decodes it.
        Unsupported = 2,
        /// The decoder failed.
        Failed = 3,
    }
}

impl Photometric {
    /// Its defined term.
    #[must_use]
    pub fn term(self) -> &'static str {
        match self {
            Self::Monochrome1 => "MONOCHROME1",
            Self::Monochrome2 => "MONOCHROME2",
            Self::Palette => "PALETTE COLOR",
            Self::Rgb => "RGB",
            Self::YbrFull => "YBR_FULL",
            Self::YbrFull422 => "YBR_FULL_422",
            Self::YbrPartial420 => "YBR_PARTIAL_420",
            Self::YbrIct => "YBR_ICT",
            Self::YbrRct => "YBR_RCT",
            Self::Xyb => "XYB",
        }
    }

    /// Of a defined term; padding is disregarded.
    #[must_use]
    pub fn of_term(term: &str) -> Option<Self> {
        (0..=u8::MAX).filter_map(Self::of_byte).find(|known| known.term() == term.trim_matches(['\0', ' ']))
    }
}

/// What a data set says about each of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Rows (0028,0010).
    pub rows: u32,
    /// Columns (0028,0011).
    pub columns: u32,
    /// Samples per Pixel (0028,0002).
    pub samples: u16,
    /// Bits Allocated (0028,0100).
    pub allocated: u8,
    /// Bits Stored (0028,0101).
    pub stored: u8,
    /// High Bit (0028,0102).
    pub high: u8,
    /// Pixel Representation (0028,0103) is 1.
    pub signed: bool,
    /// Photometric Interpretation (0028,0004).
    pub photometric: Photometric,
    /// Planar Configuration (0028,0006) is 1: all of a sample before the next one.
    pub planar: bool,
}

impl Image {
    /// Bits of the native frame.
    #[must_use]
    pub fn native_bits(&self) -> u128 {
        u128::from(self.rows) * u128::from(self.columns) * u128::from(self.samples) * u128::from(self.allocated)
    }

    /// Bytes of the native frame; a frame of single bits is filled up to a whole byte.
    #[must_use]
    pub fn native_bytes(&self) -> u128 {
        self.native_bits().div_ceil(8)
    }

    /// Why no frame can be like this, if none can.
    #[must_use]
    pub fn nonsense(&self) -> Option<&'static str> {
        if self.rows == 0 || self.columns == 0 || self.samples == 0 {
            return Some("rows, columns or samples are 0");
        }
        if self.allocated != 1 && (self.allocated == 0 || !self.allocated.is_multiple_of(8) || self.allocated > 64) {
            return Some("bits allocated are neither 1 nor 8 to 64 in whole bytes");
        }
        if self.stored == 0 || self.stored > self.allocated || self.high >= self.allocated {
            return Some("bits stored and high bit do not fit into bits allocated");
        }
        if self.native_bytes() > u128::from(FRAME_BYTES_MAX) {
            return Some("a frame is larger than 512 MiB");
        }
        None
    }
}

/// The head of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub verb: Verb,
    /// Between this coding and native samples.
    pub coding: Coding,
    /// What the frame is.
    pub image: Image,
    /// Bytes of the recipe that follows; 0 unless it is to render.
    pub recipe: u32,
    /// Bytes of the stream that follows that.
    pub length: u32,
}

/// The head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// What the frame became: its colours, and whether its planes are apart; or why there is none.
    pub outcome: Result<(Photometric, bool), Failure>,
    /// Bytes that follow.
    pub length: u32,
}

/// Why bytes are no request or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another release.
    #[error(
        "version {found} of the codec's protocol, where {VERSION} is spoken: install server and codec of one release"
    )]
    Version {
        /// The version found.
        found: u8,
    },
    /// Nothing that was ever said in this protocol.
    #[error("these bytes are no message of the codec's protocol")]
    Damaged,
    /// More than a frame may have.
    #[error("a frame is larger than {FRAME_BYTES_MAX} bytes")]
    TooLarge,
}

impl Request {
    /// Its bytes, the stream not among them.
    #[must_use]
    pub fn encode(&self) -> [u8; REQUEST_HEAD_BYTES] {
        let image = &self.image;
        let mut out = [0; REQUEST_HEAD_BYTES];
        out[..8].copy_from_slice(&[
            b'T',
            b'Q',
            VERSION,
            self.verb.byte(),
            self.coding.byte(),
            image.photometric.byte(),
            u8::from(image.planar),
            u8::from(image.signed),
        ]);
        out[8..12].copy_from_slice(&image.rows.to_le_bytes());
        out[12..16].copy_from_slice(&image.columns.to_le_bytes());
        out[16..18].copy_from_slice(&image.samples.to_le_bytes());
        out[18..21].copy_from_slice(&[image.allocated, image.stored, image.high]);
        out[24..28].copy_from_slice(&self.recipe.to_le_bytes());
        out[28..].copy_from_slice(&self.length.to_le_bytes());
        out
    }

    /// Reads what [`Request::encode`] wrote.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn decode(bytes: &[u8; REQUEST_HEAD_BYTES]) -> Result<Self, WireError> {
        let [m0, m1, version, verb, coding, photometric, planar, signed, rest @ ..] = *bytes;
        version_of([m0, m1, version], *b"TQ")?;
        let [image @ .., a0, a1, a2, a3, l0, l1, l2, l3] = rest;
        let [r0, r1, r2, r3, c0, c1, c2, c3, s0, s1, allocated, stored, high, 0, 0, 0] = image else {
            return Err(WireError::Damaged);
        };
        let damaged = WireError::Damaged;
        let request = Self {
            verb: Verb::of_byte(verb).ok_or(damaged)?,
            coding: Coding::of_byte(coding).ok_or(damaged)?,
            image: Image {
                rows: u32::from_le_bytes([r0, r1, r2, r3]),
                columns: u32::from_le_bytes([c0, c1, c2, c3]),
                samples: u16::from_le_bytes([s0, s1]),
                allocated,
                stored,
                high,
                signed: flag(signed)?,
                photometric: Photometric::of_byte(photometric).ok_or(damaged)?,
                planar: flag(planar)?,
            },
            recipe: u32::from_le_bytes([a0, a1, a2, a3]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
        };
        bounded(request.length)?;
        match (request.verb, u64::from(request.recipe)) {
            (Verb::Decode | Verb::Encode, 0) | (Verb::Render, 1..=RECIPE_BYTES_MAX) => Ok(request),
            (Verb::Render, bytes) if bytes > RECIPE_BYTES_MAX => Err(WireError::TooLarge),
            (Verb::Decode | Verb::Encode | Verb::Render, _) => Err(WireError::Damaged),
        }
    }
}

impl Answer {
    /// Its bytes, those that follow not among them.
    #[must_use]
    pub fn encode(&self) -> [u8; ANSWER_HEAD_BYTES] {
        let (outcome, photometric, planar) = match self.outcome {
            Ok((photometric, planar)) => (0, photometric.byte(), u8::from(planar)),
            Err(failure) => (failure.byte(), 0, 0),
        };
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        [b'T', b'A', VERSION, outcome, photometric, planar, 0, 0, l0, l1, l2, l3]
    }

    /// Reads what [`Answer::encode`] wrote.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn decode(bytes: &[u8; ANSWER_HEAD_BYTES]) -> Result<Self, WireError> {
        let [m0, m1, version, outcome, photometric, planar, z0, z1, l0, l1, l2, l3] = *bytes;
        version_of([m0, m1, version], *b"TA")?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        bounded(length)?;
        let outcome = match (outcome, Failure::of_byte(outcome)) {
            (0, _) => Ok((Photometric::of_byte(photometric).ok_or(WireError::Damaged)?, flag(planar)?)),
            (_, Some(failure)) if photometric == 0 && planar == 0 && length as usize <= SENTENCE_BYTES_MAX => {
                Err(failure)
            }
            _ => return Err(WireError::Damaged),
        };
        if [z0, z1] == [0, 0] { Ok(Self { outcome, length }) } else { Err(WireError::Damaged) }
    }
}

fn version_of([m0, m1, version]: [u8; 3], magic: [u8; 2]) -> Result<(), WireError> {
    match version {
        _ if [m0, m1] != magic => Err(WireError::Damaged),
        VERSION => Ok(()),
        found => Err(WireError::Version { found }),
    }
}

fn flag(byte: u8) -> Result<bool, WireError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Damaged),
    }
}

fn bounded(length: u32) -> Result<(), WireError> {
    if u64::from(length) <= FRAME_BYTES_MAX { Ok(()) } else { Err(WireError::TooLarge) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn request() -> Request {
        let image = Image {
            rows: 512,
            columns: 0x0102_0304,
            samples: 3,
            allocated: 16,
            stored: 12,
            high: 11,
            signed: true,
            photometric: Photometric::YbrFull422,
            planar: false,
        };
        Request { verb: Verb::Decode, coding: Coding::Jpeg2000, image, recipe: 0, length: 0x0A0B }
    }

    #[test]
    fn version_2_bytes_are_these() {
        let image = [4, 6, 0, 1, 0, 2, 0, 0, 4, 3, 2, 1, 3, 0, 16, 12, 11, 0, 0, 0];
        let golden = |verb: u8, recipe: u8| -> [u8; REQUEST_HEAD_BYTES] {
            let ends = [recipe, 0, 0, 0, 0x0B, 0x0A, 0, 0];
            [&[b'T', b'Q', 2, verb][..], &image, &ends].concat().try_into().unwrap()
        };
        let render = Request { verb: Verb::Render, recipe: 9, ..request() };
        assert_eq!((request().encode(), render.encode()), (golden(1, 0), golden(3, 9)));
        assert_eq!(Request::decode(&golden(1, 0)), Ok(request()));
        assert_eq!(Request::decode(&golden(3, 9)), Ok(render));
        assert_eq!(Request::decode(&golden(3, 0)), Err(WireError::Damaged));
        assert_eq!(Request::decode(&golden(2, 9)), Err(WireError::Damaged));
        let done = Answer { outcome: Ok((Photometric::Rgb, true)), length: 258 };
        let golden = [b'T', b'A', 2, 0, 4, 1, 0, 0, 2, 1, 0, 0];
        assert_eq!(done.encode(), golden);
        assert_eq!(Answer::decode(&golden), Ok(done));
        let refused = Answer { outcome: Err(Failure::Unsupported), length: 7 };
        let golden = [b'T', b'A', 2, 2, 0, 0, 0, 0, 7, 0, 0, 0];
        assert_eq!(refused.encode(), golden);
        assert_eq!(Answer::decode(&golden), Ok(refused));
    }

    #[test]
    fn every_enum_comes_back_and_other_bytes_are_none() {
        for byte in 0..=u8::MAX {
            assert!(Coding::of_byte(byte).is_none_or(|known| known.byte() == byte));
            assert!(Failure::of_byte(byte).is_none_or(|known| known.byte() == byte));
            let colours = Photometric::of_byte(byte);
            assert!(colours.is_none_or(|known| known.byte() == byte && Photometric::of_term(known.term()) == colours));
        }
        assert_eq!(Photometric::of_term("PALETTE COLOR \0"), Some(Photometric::Palette));
        assert_eq!(Photometric::of_term("HSV"), None);
    }

    #[test]
    fn another_version_and_an_impossible_length_are_said() {
        let mut bytes = request().encode();
        bytes[2] = 1;
        assert_eq!(Request::decode(&bytes), Err(WireError::Version { found: 1 }));
        let huge = Answer { outcome: Ok((Photometric::Rgb, false)), length: u32::MAX };
        assert_eq!(Answer::decode(&huge.encode()), Err(WireError::TooLarge));
        let chatter = Answer { outcome: Err(Failure::Refused), length: 1 << 20 };
        assert_eq!(Answer::decode(&chatter.encode()), Err(WireError::Damaged));
    }

    #[test]
    fn what_no_frame_can_be_is_told() {
        let good = request().image;
        let good = Image { columns: 512, ..good };
        assert_eq!(good.nonsense(), None);
        assert_eq!(good.native_bytes(), 512 * 512 * 6);
        for bad in [
            Image { rows: 0, ..good },
            Image { stored: 0, ..good },
            Image { stored: 17, ..good },
            Image { high: 16, ..good },
            Image { allocated: 12, ..good },
            Image { rows: u32::MAX, columns: u32::MAX, samples: u16::MAX, ..good },
        ] {
            assert!(bad.nonsense().is_some(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(head in any::<[u8; 29]>(), answer in any::<[u8; 9]>()) {
            let mut request = [0; REQUEST_HEAD_BYTES];
            request[..3].copy_from_slice(b"TQ\x02");
            request[3..].copy_from_slice(&head);
            if let Ok(read) = Request::decode(&request) {
                prop_assert_eq!(read.encode(), request);
            }
            let mut bytes = [0; ANSWER_HEAD_BYTES];
            bytes[..3].copy_from_slice(b"TA\x02");
            bytes[3..].copy_from_slice(&answer);
            if let Ok(read) = Answer::decode(&bytes) {
                prop_assert_eq!(read.encode(), bytes);
            }
        }
    }
}
