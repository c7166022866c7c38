//! Frames that are native inside of their fragment (1.2.840.10008.1.2.1.98), or deflated (1.2.840.10008.1.2.8.1).

use crate::{
    coders::{Coder, Shape},
    fit::{Decoded, Samples},
    refusal::{Refusal, refused, said, unsupported},
};
use archive_codec_wire::{Image, Photometric};
use flate2::{Decompress, FlushDecompress, Status};

pub(crate) struct Native;
pub(crate) struct Deflated;

impl Coder for Native {
    fn look(&self, _: &[u8]) -> Result<Option<Shape>, Refusal> {
        Ok(None)
    }

    fn decode(&self, image: &Image, stream: &[u8]) -> Result<Decoded, Refusal> {
        let bytes = frame_bytes(image)?;
        match stream.get(..bytes) {
            // A fragment of odd length is padded.
            Some(frame) if stream.len() - bytes <= bytes % 2 => Ok(native(image, frame.to_vec())),
            _ => Err(refused("the fragment has not the bytes of a frame")),
        }
    }
}

impl Coder for Deflated {
    fn look(&self, _: &[u8]) -> Result<Option<Shape>, Refusal> {
        Ok(None)
    }

    fn decode(&self, image: &Image, stream: &[u8]) -> Result<Decoded, Refusal> {
        let bytes = frame_bytes(image)?;
        // One more than a frame may have, so that a longer one shows.
        let mut frame = Vec::with_capacity(bytes + 1);
        let mut inflate = Decompress::new(false);
        let status = inflate.decompress_vec(stream, &mut frame, FlushDecompress::Finish);
        match status.map_err(|error| said("flate2", &error))? {
            Status::StreamEnd if frame.len() == bytes => Ok(native(image, frame)),
            Status::StreamEnd | Status::Ok | Status::BufError => {
                Err(refused("the deflated stream has not the bytes of a frame"))
            }
        }
    }
}

fn native(image: &Image, frame: Vec<u8>) -> Decoded {
    Decoded { samples: Samples::Native(frame), photometric: image.photometric, planar: image.planar }
}

fn frame_bytes(image: &Image) -> Result<usize, Refusal> {
    if matches!(image.photometric, Photometric::YbrFull422 | Photometric::YbrPartial420) {
        return Err(unsupported("native frames with subsampled colours"));
    }
    usize::try_from(image.native_bytes()).map_err(|_| refused("a frame of this size"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::coders::{decode, tests::grey};
    use archive_codec_wire::Coding;
    use std::io::Write;

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_frame_has_its_bytes_and_no_other() {
        let image = grey(3, 5, 8, 8, false);
        let frame: Vec<u8> = (0..15).collect();
        let padded = [&frame[..], &[0]].concat();
        assert_eq!(decode(Coding::Native, &image, &padded).unwrap().0, frame);
        assert_eq!(decode(Coding::Deflated, &image, &deflated(&frame)).unwrap().0, frame);
        for wrong in [&frame[..14], &[0; 17][..]] {
            assert!(decode(Coding::Native, &image, wrong).is_err());
            assert!(decode(Coding::Deflated, &image, &deflated(wrong)).is_err());
        }
        let cut = deflated(&frame);
        assert!(decode(Coding::Deflated, &image, &cut[..cut.len() - 2]).is_err());
    }

    #[test]
    fn a_bomb_is_stopped_at_the_size_of_a_frame() {
        let bomb = deflated(&vec![0; 64 << 20]);
        assert!(decode(Coding::Deflated, &grey(8, 8, 8, 8, false), &bomb).is_err());
    }
}
