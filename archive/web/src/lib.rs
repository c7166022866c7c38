//! The face to the web.

#[allow(dead_code)]
mod accept;
#[allow(dead_code)]
mod address;
#[allow(dead_code)]
mod multipart;
