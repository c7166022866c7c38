//! The words of DICOM that the archive is written in; tables of the standard; and the bounded pre-validator
//! that stands in front of everything which looks inside a data set.

mod dataset;

pub use dataset::{DataSet, Element, Value};
pub use dicom_core::{Tag, VR};
pub use dicom_dictionary_std::tags;
