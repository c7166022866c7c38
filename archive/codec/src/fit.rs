//! Samples of a decoder as the native samples of a data set (PS3.5 §8.1.1): little endian, right-justified in Bits Allocated.
//!
//! A codec sees bits: the low P ones of every sample, P being the precision in the stream's header. What stands above them:
//!
//! ```text
//!   Pixel Representation 0                       zeros
//!   1, and the stream is of signed numbers       the sign, bit P-1
//!   1, of unsigned numbers, P ≥ Bits Stored      the sign, bit P-1: the codec was given two's complement as it stood
//!   1, of unsigned numbers, P < Bits Stored      zeros: no sample was negative, else P had not been enough
//! ```
//!
//! So a stream whose sign is not the data set's (pydicom's `J2K_pixelrep_mismatch`) gives the bits that were put in.

use crate::{
    coders::Shape,
    refusal::{Refusal, refused},
};
use archive_codec_wire::{Image, Photometric};

/// What a decoder gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub(crate) samples: Samples,
    pub(crate) photometric: Photometric,
    /// All of a sample before the next one.
    pub(crate) planar: bool,
}

/// Samples in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Samples {
    /// One byte each.
    Bytes(Vec<u8>),
    /// Two.
    Words(Vec<u16>),
    /// Four.
    Longs(Vec<u32>),
    /// As they stand in a native frame.
    Native(Vec<u8>),
}

impl Samples {
    /// Of bytes in little endian.
    pub(crate) fn words(bytes: &[u8]) -> Self {
        Self::Words(bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect())
    }

    fn len(&self) -> usize {
        match self {
            Self::Bytes(samples) | Self::Native(samples) => samples.len(),
            Self::Words(samples) => samples.len(),
            Self::Longs(samples) => samples.len(),
        }
    }
}

/// The native frame.
pub(crate) fn fit(image: &Image, shape: Option<&Shape>, decoded: Decoded) -> Result<Vec<u8>, Refusal> {
    let (shape, samples) = match (shape, decoded.samples) {
        (_, Samples::Native(frame)) => return Ok(frame),
        (Some(shape), samples) => (shape, samples),
        (None, _) => return Err(refused("the coding has no header to tell its precision")),
    };
    let count = u128::from(image.rows) * u128::from(image.columns) * u128::from(image.samples);
    if samples.len() as u128 != count || !image.allocated.is_multiple_of(8) || image.allocated > 32 {
        return Err(refused("the decoder gave another number of samples than the frame has"));
    }
    let precision = u32::from(shape.precision);
    let extend = image.signed && (shape.signed || shape.precision >= image.stored);
    // Bits that are already as they are to be.
    if let (Samples::Bytes(samples), 8, 8) = (&samples, image.allocated, precision) {
        return Ok(samples.clone());
    }
    let place = |bits: u32| {
        let low = bits << (32 - precision);
        if extend { (low as i32 >> (32 - precision)) as u32 } else { low >> (32 - precision) }
    };
    Ok(match (samples, image.allocated) {
        (Samples::Bytes(samples), 8) => samples.into_iter().map(|bits| place(u32::from(bits)) as u8).collect(),
        (Samples::Words(samples), 8) => samples.into_iter().map(|bits| place(u32::from(bits)) as u8).collect(),
        (Samples::Bytes(samples), 16) => {
            samples.into_iter().flat_map(|bits| (place(u32::from(bits)) as u16).to_le_bytes()).collect()
        }
        (Samples::Words(samples), 16) => {
            samples.into_iter().flat_map(|bits| (place(u32::from(bits)) as u16).to_le_bytes()).collect()
        }
        (samples, allocated) => {
            let samples: Vec<u32> = match samples {
                Samples::Bytes(samples) | Samples::Native(samples) => samples.into_iter().map(u32::from).collect(),
                Samples::Words(samples) => samples.into_iter().map(u32::from).collect(),
                Samples::Longs(samples) => samples,
            };
            let bytes = usize::from(allocated / 8);
            samples.into_iter().flat_map(|bits| place(bits).to_le_bytes().into_iter().take(bytes)).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::coders::tests::grey;

    fn fitted(stored: u8, signed: bool, precision: u8, coded_signed: bool, bits: u16) -> i32 {
        let image = grey(1, 1, 16, stored, signed);
        let shape = Shape { rows: 1, columns: 1, samples: 1, precision, signed: coded_signed };
        let samples = Samples::Words(vec![bits]);
        let decoded = Decoded { samples, photometric: image.photometric, planar: false };
        let frame = fit(&image, Some(&shape), decoded).unwrap();
        let value = u16::from_le_bytes([frame[0], frame[1]]);
        if signed { i32::from(value as i16) } else { i32::from(value) }
    }

    #[test]
    fn the_sign_is_that_of_the_data_set() {
        // -5 in 12 bits, however the stream calls it.
        assert_eq!(fitted(12, true, 12, false, 0x0FFB), -5);
        assert_eq!(fitted(12, true, 12, true, 0xFFFB), -5);
        // The other way: bits that were taken for signed ones.
        assert_eq!(fitted(12, false, 12, true, 0xFFFB), 0x0FFB);
        // Coded with all of Bits Allocated.
        assert_eq!(fitted(12, true, 16, false, 0xFFFB), -5);
        // Coded with fewer bits than stored: nothing was negative.
        assert_eq!(fitted(16, true, 12, false, 0x0FFB), 0x0FFB);
        assert_eq!(fitted(16, true, 12, true, 0xFFFB), -5);
    }

    #[test]
    fn another_number_of_samples_is_refused() {
        let image = grey(2, 2, 8, 8, false);
        let shape = Shape { rows: 2, columns: 2, samples: 1, precision: 8, signed: false };
        let decoded = |samples| Decoded { samples, photometric: image.photometric, planar: false };
        assert!(fit(&image, Some(&shape), decoded(Samples::Bytes(vec![0; 3]))).is_err());
        assert_eq!(fit(&image, Some(&shape), decoded(Samples::Words(vec![7; 4]))), Ok(vec![7; 4]));
    }
}
