//! Character sets: bytes to text and back.
