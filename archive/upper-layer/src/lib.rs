//! archive-upper-layer
