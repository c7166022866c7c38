//! The DICOM JSON model.
