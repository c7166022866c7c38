//! archive-web
