//! Names of attributes, from the dictionary of PS3.6.

use crate::{Tag, VR};
use dicom_core::dictionary::{DataDictionary as _, DataDictionaryEntry as _};
use dicom_dictionary_std::StandardDataDictionary;

/// The attribute of a keyword such as `PatientName`.
#[must_use]
pub fn tag_named(keyword: &str) -> Option<Tag> {
    StandardDataDictionary.by_name(keyword).map(|entry| entry.tag())
}

/// The keyword of an attribute.
#[must_use]
pub fn name_of(tag: Tag) -> Option<&'static str> {
    StandardDataDictionary.by_tag(tag).map(|entry| entry.alias())
}

/// The value representation of an attribute; UN when it is not in the dictionary.
#[must_use]
pub fn vr_of(tag: Tag) -> VR {
    crate::scanner::dictionary_vr(tag, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_and_tags_find_each_other() {
        assert_eq!(tag_named("PatientName"), Some(crate::tags::PATIENT_NAME));
        assert_eq!(name_of(crate::tags::PATIENT_NAME), Some("PatientName"));
        assert_eq!((tag_named("Nonsense"), vr_of(crate::tags::PATIENT_NAME)), (None, VR::PN));
    }
}
