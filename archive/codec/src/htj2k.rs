//! High-Throughput JPEG 2000 as `.202` demands it (PS3.5 §10.18): reversible, RPCL, a base of at most 64 pixels, one
//! tile-part a resolution and a TLM that says where each begins, so that a viewer may stop after any of them.

use crate::{
    jpegls::precision,
    refusal::{Refusal, said, unsupported},
};
use archive_codec_wire::{Image, Photometric};
use j2k::{
    J2kBlockCodingMode, J2kEncodeValidation, J2kLosslessEncodeOptions, J2kLosslessSamples, J2kMarkerSegment,
    J2kProgressionOrder, encode_j2k_lossless,
};

/// Pixels of the smaller side of the smallest resolution, at most.
const BASE_PIXELS_MAX: u32 = 64;

pub(crate) fn encode(image: &Image, native: &[u8]) -> Result<Vec<u8>, Refusal> {
    let words: Vec<u16> = match image.allocated {
        8 => native.iter().map(|&byte| u16::from(byte)).collect(),
        16 => native.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect(),
        _ => return Err(unsupported("HTJ2K of other than 8 or 16 bits allocated is not encoded")),
    };
    if image.samples == 3 && image.photometric != Photometric::Rgb {
        return Err(unsupported("HTJ2K of colour other than RGB is not encoded"));
    }
    let bit_depth = precision(image, &words);
    let data: Vec<u8> = if bit_depth <= 8 {
        words.iter().map(|&word| word as u8).collect()
    } else {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    };
    let mut levels = 0;
    while image.rows.min(image.columns).div_ceil(1 << levels) > BASE_PIXELS_MAX {
        levels += 1;
    }
    let options = J2kLosslessEncodeOptions::default()
        .with_cpu_only_backend()
        .with_block_coding_mode(J2kBlockCodingMode::HighThroughput)
        .with_progression(J2kProgressionOrder::Rpcl)
        .with_max_decomposition_levels(Some(levels))
        .with_tile_part_packet_limit(Some(image.samples))
        .with_marker_segments(&[J2kMarkerSegment::Tlm])
        // Decoded and compared by whoever called, with all that is around a decoder.
        .with_validation(J2kEncodeValidation::External);
    let samples = J2kLosslessSamples {
        data: &data,
        width: image.columns,
        height: image.rows,
        components: image.samples,
        bit_depth,
        signed: image.signed,
    };
    Ok(encode_j2k_lossless(samples, &options).map_err(|error| said("j2k", &error))?.codestream)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::coders::{self, tests::grey};
    use archive_codec_wire::Coding;

    #[test]
    fn each_resolution_has_a_tile_part_and_the_tlm_knows_it() {
        let image = grey(200, 300, 16, 12, false);
        let native: Vec<u8> =
            (0..60_000_u32).flat_map(|at| ((at % 300 * 7 + at / 300) as u16 & 0xFFF).to_le_bytes()).collect();
        let (coded, ..) = coders::encode(Coding::Htj2k, &image, &native).unwrap();
        let parts = coded.windows(4).filter(|bytes| *bytes == [0xFF, 0x90, 0, 10]).count();
        // 200 → 100 → 50: two decompositions, three resolutions.
        assert_eq!(parts, 3);
        assert!(coded.windows(2).any(|bytes| bytes == [0xFF, 0x55]), "no TLM");
        assert!(coded.windows(2).any(|bytes| bytes == [0xFF, 0x50]), "no CAP: not HTJ2K");
    }
}
