//! triptych-tidy
