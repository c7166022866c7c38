//! The words of DICOM that the archive is written in; tables of the standard; and the bounded pre-validator
//! that stands in front of everything which looks inside a data set.
//!
//! ```text
//!   names   uid · ae_title · phi · tags (re-exported)
//!   tables  transfer_syntax · sop_class
//!   values  dataset · charset · text · json · matching
//!   bytes   scanner (bounded, streaming) · pixel · parse · write · recode · file
//! ```

mod ae_title;
mod attribute;
pub mod charset;
mod dataset;
mod file;
mod invalid;
pub mod json;
pub mod matching;
pub mod names;
mod parse;
mod phi;
mod pixel;
mod recode;
mod scanner;
pub mod sop_class;
pub mod text;
mod transfer_syntax;
mod uid;
mod write;

pub use ae_title::{AeTitle, AeTitleError};
pub use attribute::Attribute;
pub use dataset::{DataSet, Element, Value};
pub use dicom_core::{Tag, VR};
pub use dicom_dictionary_std::tags;
pub use file::{FileMeta, FileReader, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, write_file_meta};
pub use invalid::{Invalid, Limits, Place, Warning};
pub use parse::{read_command_set, read_data_set};
pub use phi::Phi;
pub use pixel::{FrameMap, FrameMapError};
pub use recode::{
    COMPRESSED, DEFLATED_LE, Deflater, EXPLICIT_BE, EXPLICIT_LE, Edits, IMPLICIT_LE, NativePixels, RecodeError,
    Recoder, can_decode, can_encode, can_recode, pixel_word_bytes,
};
pub use scanner::{CanonicalDigest, Scanned, Scanner};
pub use sop_class::{STORAGE_CLASSES, SopClass, is_storage, may_be_storage};
pub use transfer_syntax::{Encoding, PixelCoding, TRANSFER_SYNTAXES, TransferSyntax, transfer_syntax};
pub use uid::{Uid, UidError};
pub use write::{write_command_set, write_data_set};
