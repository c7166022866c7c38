//! archive-catalog
