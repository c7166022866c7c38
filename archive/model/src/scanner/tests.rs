//! Tests of the pre-validator.
