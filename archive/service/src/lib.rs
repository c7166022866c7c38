//! archive-service
