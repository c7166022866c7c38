//! archive-dimse
