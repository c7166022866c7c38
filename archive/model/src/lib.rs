//! archive-model
