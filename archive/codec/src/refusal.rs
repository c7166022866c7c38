//! Why there is no frame: what kind of answer it is, and a sentence that says no value of an image.

use archive_codec_wire::Failure;

/// A request that ends without a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) failure: Failure,
    pub(crate) why: String,
}

/// The stream is damaged, or not what the data set says.
pub(crate) fn refused(why: impl Into<String>) -> Refusal {
    Refusal { failure: Failure::Refused, why: why.into() }
}

/// The stream may be good, but nothing here decodes it.
pub(crate) fn unsupported(why: impl Into<String>) -> Refusal {
    Refusal { failure: Failure::Unsupported, why: why.into() }
}

/// What a decoder said, in its words.
pub(crate) fn said(decoder: &str, error: &dyn std::fmt::Display) -> Refusal {
    refused(format!("{decoder}: {error}"))
}
