//! The binary `triptych`.
fn main() {}
