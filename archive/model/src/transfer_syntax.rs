//! Transfer syntaxes: how the bytes of a data set and of its pixel data are written (PS3.5 §10, Annex A).
//!
//! The rows are those of PS3.6 table A-1, retired ones included, and one private syntax that is in wide use. A UID
//! that is not in the table is read as Explicit VR Little Endian (PS3.5 §A.4 demands that of every encapsulated
//! syntax); whether its pixel data is encapsulated is told by the pixel data itself.

use Encoding::{ExplicitBe, ExplicitLe, ImplicitLe};
use PixelCoding::{DeflatedFrame, H264, H265, Htj2k, Jpeg, Jpeg2000, JpegLs, JpegXl, Jpip, Mpeg2, Native};
use PixelCoding::{NativeSwapped, Rle};

/// How elements are written (PS3.5 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// No VR, little endian.
    ImplicitLe,
    /// With VR, little endian.
    ExplicitLe,
    /// With VR, big endian (retired).
    ExplicitBe,
}

/// The family of codings that pixel data is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelCoding {
    /// Samples as they are.
    Native,
    /// Samples as they are, in the other byte order than the data set.
    NativeSwapped,
    /// Run lengths (PS3.5 Annex G).
    Rle,
    /// ISO/IEC 10918-1.
    Jpeg,
    /// ISO/IEC 14495-1.
    JpegLs,
    /// ISO/IEC 15444-1 and -2.
    Jpeg2000,
    /// ISO/IEC 15444-15.
    Htj2k,
    /// ISO/IEC 18181-1.
    JpegXl,
    /// Each frame deflated by itself.
    DeflatedFrame,
    /// Not in the data set: Pixel Data Provider URL (0028,7FE0).
    Jpip,
    /// ISO/IEC 13818-2.
    Mpeg2,
    /// ISO/IEC 14496-10.
    H264,
    /// ISO/IEC 23008-2.
    H265,
    /// Not in the table.
    Unknown,
}

impl PixelCoding {
    /// Whether a stream holds all frames, so that a frame has no bytes of its own.
    #[must_use]
    pub fn is_video(self) -> bool {
        matches!(self, Mpeg2 | H264 | H265)
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferSyntax {
    /// Its UID; empty for one that is not in the table.
    pub uid: &'static str,
    /// Its name in PS3.6.
    pub name: &'static str,
    /// How elements are written.
    pub encoding: Encoding,
    /// Whether the whole data set is deflated (RFC 1951, without zlib header).
    pub deflated: bool,
    /// Whether pixel data is a sequence of fragments (PS3.5 §A.4).
    pub encapsulated: bool,
    /// How pixel data is coded.
    pub pixel: PixelCoding,
    /// Whether the coding may lose information.
    pub lossy: bool,
    /// Whether the standard has retired it: still accepted and served.
    pub retired: bool,
    /// Media type of a single frame, or of a video (PS3.18 §8.7.3).
    pub media_type: &'static str,
}

/// What every syntax that is not in the table is read as.
static UNKNOWN: TransferSyntax = row("", "Unknown", ExplicitLe, PixelCoding::Unknown, 0, "application/octet-stream");

const DEFLATED: u8 = 1;
const ENCAPSULATED: u8 = 2;
const LOSSY: u8 = 4;
const RETIRED: u8 = 8;

const fn row(
    uid: &'static str,
    name: &'static str,
    encoding: Encoding,
    pixel: PixelCoding,
    is: u8,
    media_type: &'static str,
) -> TransferSyntax {
    TransferSyntax {
        uid,
        name,
        encoding,
        deflated: is & DEFLATED != 0,
        encapsulated: is & ENCAPSULATED != 0,
        pixel,
        lossy: is & LOSSY != 0,
        retired: is & RETIRED != 0,
        media_type,
    }
}

impl TransferSyntax {
    /// Whether it is in the table.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !self.uid.is_empty()
    }
}

/// The row of `uid`; padding is disregarded.
#[must_use]
pub fn transfer_syntax(uid: &str) -> TransferSyntax {
    let uid = uid.trim_matches(['\0', ' ']);
    // 60 rows, once an association or request: a search is fast enough.
    *TRANSFER_SYNTAXES.iter().find(|row| row.uid == uid).unwrap_or(&UNKNOWN)
}

/// Every transfer syntax of PS3.6 table A-1, and GE's private one.
#[rustfmt::skip]
pub static TRANSFER_SYNTAXES: &[TransferSyntax] = &[
    row("1.2.840.10008.1.2", "Implicit VR Little Endian", ImplicitLe, Native, 0, "application/octet-stream"),
    row("1.2.840.10008.1.2.1", "Explicit VR Little Endian", ExplicitLe, Native, 0, "application/octet-stream"),
    row("1.2.840.10008.1.2.1.98", "Encapsulated Uncompressed Explicit VR Little Endian", ExplicitLe, Native, ENCAPSULATED, "application/octet-stream"),
    row("1.2.840.10008.1.2.1.99", "Deflated Explicit VR Little Endian", ExplicitLe, Native, DEFLATED, "application/octet-stream"),
    row("1.2.840.10008.1.2.2", "Explicit VR Big Endian", ExplicitBe, Native, RETIRED, "application/octet-stream"),
    row("1.2.840.10008.1.2.4.50", "JPEG Baseline (Process 1)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY, "image/jpeg"),
    row("1.2.840.10008.1.2.4.51", "JPEG Extended (Process 2 & 4)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY, "image/jpeg"),
    row("1.2.840.10008.1.2.4.52", "JPEG Extended (Process 3 & 5)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.53", "JPEG Spectral Selection, Non-Hierarchical (Process 6 & 8)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.54", "JPEG Spectral Selection, Non-Hierarchical (Process 7 & 9)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.55", "JPEG Full Progression, Non-Hierarchical (Process 10 & 12)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.56", "JPEG Full Progression, Non-Hierarchical (Process 11 & 13)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.57", "JPEG Lossless, Non-Hierarchical (Process 14)", ExplicitLe, Jpeg, ENCAPSULATED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.58", "JPEG Lossless, Non-Hierarchical (Process 15)", ExplicitLe, Jpeg, ENCAPSULATED | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.59", "JPEG Extended, Hierarchical (Process 16 & 18)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.60", "JPEG Extended, Hierarchical (Process 17 & 19)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.61", "JPEG Spectral Selection, Hierarchical (Process 20 & 22)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.62", "JPEG Spectral Selection, Hierarchical (Process 21 & 23)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.63", "JPEG Full Progression, Hierarchical (Process 24 & 26)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.64", "JPEG Full Progression, Hierarchical (Process 25 & 27)", ExplicitLe, Jpeg, ENCAPSULATED | LOSSY | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.65", "JPEG Lossless, Hierarchical (Process 28)", ExplicitLe, Jpeg, ENCAPSULATED | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.66", "JPEG Lossless, Hierarchical (Process 29)", ExplicitLe, Jpeg, ENCAPSULATED | RETIRED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.70", "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])", ExplicitLe, Jpeg, ENCAPSULATED, "image/jpeg"),
    row("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless Image Compression", ExplicitLe, JpegLs, ENCAPSULATED, "image/jls"),
    row("1.2.840.10008.1.2.4.81", "JPEG-LS Lossy (Near-Lossless) Image Compression", ExplicitLe, JpegLs, ENCAPSULATED | LOSSY, "image/jls"),
    row("1.2.840.10008.1.2.4.90", "JPEG 2000 Image Compression (Lossless Only)", ExplicitLe, Jpeg2000, ENCAPSULATED, "image/jp2"),
    row("1.2.840.10008.1.2.4.91", "JPEG 2000 Image Compression", ExplicitLe, Jpeg2000, ENCAPSULATED | LOSSY, "image/jp2"),
    row("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)", ExplicitLe, Jpeg2000, ENCAPSULATED, "image/jpx"),
    row("1.2.840.10008.1.2.4.93", "JPEG 2000 Part 2 Multi-component Image Compression", ExplicitLe, Jpeg2000, ENCAPSULATED | LOSSY, "image/jpx"),
    row("1.2.840.10008.1.2.4.94", "JPIP Referenced", ExplicitLe, Jpip, LOSSY, "application/octet-stream"),
    row("1.2.840.10008.1.2.4.95", "JPIP Referenced Deflate", ExplicitLe, Jpip, DEFLATED | LOSSY, "application/octet-stream"),
    row("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level", ExplicitLe, Mpeg2, ENCAPSULATED | LOSSY, "video/mpeg"),
    row("1.2.840.10008.1.2.4.100.1", "Fragmentable MPEG2 Main Profile / Main Level", ExplicitLe, Mpeg2, ENCAPSULATED | LOSSY, "video/mpeg"),
    row("1.2.840.10008.1.2.4.101", "MPEG2 Main Profile / High Level", ExplicitLe, Mpeg2, ENCAPSULATED | LOSSY, "video/mpeg"),
    row("1.2.840.10008.1.2.4.101.1", "Fragmentable MPEG2 Main Profile / High Level", ExplicitLe, Mpeg2, ENCAPSULATED | LOSSY, "video/mpeg"),
    row("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile / Level 4.1", ExplicitLe, H264, ENCAPSULATED | LOSSY, "video/mp4"),
    row("1.2.840.10008.1.2.4.102.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1", ExplicitLe, H264, ENCAPSULATED | LOSSY, "video/mp4"),
    row("1.2.840.10008.1.2.4.103", "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", ExplicitLe, H264, ENCAPSULATED | LOSSY, "video/mp4"),
    row("1.2.840.10008.1.2.4.103.1", "Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", ExplicitLe, H264, ENCAPSULATED | LOSSY, "video/mp4"),
    row("1.2.840.10008.1.2.4.104", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video", ExplicitLe, H264, ENCAPSULATED | LOSSY, "video/mp4"),
    row("1.2.840.10008.1.2.4.104.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video", ExplicitLe, H264, ENCAPSULATED | LOSSY, "video/mp4"),
    row("1.2.840.10008.1.2.4.105", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video", ExplicitLe, H264, ENCAPSULATED | LOSSY, "video/mp4"),
    row("1.2.840.10008.1.2.4.105.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video", ExplicitLe, H264, ENCAPSULATED | LOSSY, "video/mp4"),
    row("1.2.840.10008.1.2.4.106", "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", ExplicitLe, H264, ENCAPSULATED | LOSSY, "video/mp4"),
    row("1.2.840.10008.1.2.4.106.1", "Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", ExplicitLe, H264, ENCAPSULATED | LOSSY, "video/mp4"),
    row("1.2.840.10008.1.2.4.107", "HEVC/H.265 Main Profile / Level 5.1", ExplicitLe, H265, ENCAPSULATED | LOSSY, "video/mp4"),
    row("1.2.840.10008.1.2.4.108", "HEVC/H.265 Main 10 Profile / Level 5.1", ExplicitLe, H265, ENCAPSULATED | LOSSY, "video/mp4"),
    row("1.2.840.10008.1.2.4.110", "JPEG XL Lossless", ExplicitLe, JpegXl, ENCAPSULATED, "image/jxl"),
    row("1.2.840.10008.1.2.4.111", "JPEG XL JPEG Recompression", ExplicitLe, JpegXl, ENCAPSULATED | LOSSY, "image/jxl"),
    row("1.2.840.10008.1.2.4.112", "JPEG XL", ExplicitLe, JpegXl, ENCAPSULATED | LOSSY, "image/jxl"),
    row("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000 Image Compression (Lossless Only)", ExplicitLe, Htj2k, ENCAPSULATED, "image/jphc"),
    row("1.2.840.10008.1.2.4.202", "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)", ExplicitLe, Htj2k, ENCAPSULATED, "image/jphc"),
    row("1.2.840.10008.1.2.4.203", "High-Throughput JPEG 2000 Image Compression", ExplicitLe, Htj2k, ENCAPSULATED | LOSSY, "image/jphc"),
    row("1.2.840.10008.1.2.4.204", "JPIP HTJ2K Referenced", ExplicitLe, Jpip, LOSSY, "application/octet-stream"),
    row("1.2.840.10008.1.2.4.205", "JPIP HTJ2K Referenced Deflate", ExplicitLe, Jpip, DEFLATED | LOSSY, "application/octet-stream"),
    row("1.2.840.10008.1.2.5", "RLE Lossless", ExplicitLe, Rle, ENCAPSULATED, "image/dicom-rle"),
    row("1.2.840.10008.1.2.6.1", "RFC 2557 MIME encapsulation", ExplicitLe, Native, RETIRED, "application/octet-stream"),
    row("1.2.840.10008.1.2.6.2", "XML Encoding", ExplicitLe, Native, RETIRED, "application/octet-stream"),
    row("1.2.840.10008.1.2.7.1", "SMPTE ST 2110-20 Uncompressed Progressive Active Video", ExplicitLe, Native, 0, "application/octet-stream"),
    row("1.2.840.10008.1.2.7.2", "SMPTE ST 2110-20 Uncompressed Interlaced Active Video", ExplicitLe, Native, 0, "application/octet-stream"),
    row("1.2.840.10008.1.2.7.3", "SMPTE ST 2110-30 PCM Digital Audio", ExplicitLe, Native, 0, "application/octet-stream"),
    row("1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression", ExplicitLe, DeflatedFrame, ENCAPSULATED, "application/x-deflate"),
    row("1.2.840.10008.1.20", "Papyrus 3 Implicit VR Little Endian", ImplicitLe, Native, RETIRED, "application/octet-stream"),
    row("1.2.840.113619.5.2", "GE Private Implicit VR Little Endian with Big Endian Pixel Data", ImplicitLe, NativeSwapped, 0, "application/octet-stream"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_encoding::transfer_syntax::TransferSyntaxIndex as _;
    use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

    #[test]
    fn each_uid_has_one_row_that_is_found_with_its_padding() {
        for row in TRANSFER_SYNTAXES {
            assert_eq!(transfer_syntax(&format!("{}\0", row.uid)), *row);
        }
    }

    #[test]
    fn rows_agree_with_the_registry_of_dicom_rs() {
        for row in TRANSFER_SYNTAXES {
            // Its rows for SMPTE ST 2110 are stubs: that is a real-time stream (PS3.22), not stored.
            let Some(theirs) = TransferSyntaxRegistry.get(row.uid).filter(|_| !row.name.starts_with("SMPTE")) else {
                continue;
            };
            let big = format!("{:?}", theirs.endianness()) == "Big";
            assert_eq!(big, row.encoding == ExplicitBe, "{}", row.uid);
            if row.pixel != Jpip {
                assert_eq!(theirs.is_encapsulated_pixel_data(), row.encapsulated, "{}", row.uid);
            }
        }
    }

    #[test]
    fn a_private_syntax_is_read_as_explicit_little_endian() {
        let private = transfer_syntax("1.2.276.0.7230010.3.1.99");
        assert!(!private.is_known() && !private.deflated);
        assert_eq!((private.encoding, private.pixel), (ExplicitLe, PixelCoding::Unknown));
    }

    #[test]
    fn frames_have_the_media_type_of_their_coding() {
        let media = |uid| transfer_syntax(uid).media_type;
        assert_eq!(media("1.2.840.10008.1.2.4.50"), "image/jpeg");
        assert_eq!(media("1.2.840.10008.1.2.4.80"), "image/jls");
        assert_eq!(media("1.2.840.10008.1.2.4.90"), "image/jp2");
        assert_eq!(media("1.2.840.10008.1.2.4.203"), "image/jphc");
        assert_eq!(media("1.2.840.10008.1.2.5"), "image/dicom-rle");
        assert_eq!(media("1.2.840.10008.1.2.4.102"), "video/mp4");
        assert_eq!(media("1.2.840.10008.1.2.1"), "application/octet-stream");
    }
}
