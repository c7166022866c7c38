//! Why bytes cannot be a data set, what was tolerated, and the limits that decide (security reference, table of limits).
//!
//! No text here ever holds a value: only tags, offsets, lengths and limits. It may be logged and sent to a peer.

use dicom_core::Tag;
use std::fmt;

/// Limits of everything that looks inside a data set. The first four are settings of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Sequences and items inside each other; also JSON. Default 64.
    pub depth_max: usize,
    /// Elements and items of an instance, nested ones included. Default 1,000,000.
    pub elements_max: u64,
    /// Bytes of all that is not a bulk value. Default 64 MiB.
    pub header_bytes_max: u64,
    /// Bytes of an instance, inflated. Default 8 GiB.
    pub instance_bytes_max: u64,
    /// Inflated bytes for each deflated one. Default 100.
    pub inflate_ratio_max: u64,
    /// Fragments of one pixel data element, and entries of its offset tables. Default 2^20.
    pub fragments_max: u64,
    /// Values of this length and more are left in the body. Default 4096.
    pub bulk_bytes_min: u64,
    /// Text values of this length and more are left in the body. Default 64 KiB.
    pub text_bulk_bytes_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth_max: 64,
            elements_max: 1_000_000,
            header_bytes_max: 64 << 20,
            instance_bytes_max: 8 << 30,
            inflate_ratio_max: 100,
            fragments_max: 1 << 20,
            bulk_bytes_min: 4096,
            text_bulk_bytes_min: 64 << 10,
        }
    }
}

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The element, if one was begun.
    pub tag: Option<Tag>,
    /// The byte of the data set, from its first; of the inflated data set if it came deflated.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag {
            Some(Tag(group, element)) => write!(f, "({group:04X},{element:04X}) at byte {}", self.offset),
            None => write!(f, "byte {}", self.offset),
        }
    }
}

/// Why bytes are refused. Each variant is another thing for the sender to do; none names a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The bytes end too early.
    #[error("{place}: the data set ends inside this element; send it whole")]
    Truncated {
        /// Where.
        place: Place,
    },
    /// A declared length does not fit into what encloses it.
    #[error("{place}: declares {declared} bytes where {room} are left; correct the length")]
    TooLong {
        /// Where.
        place: Place,
        /// The declared length in bytes.
        declared: u64,
        /// How many bytes the enclosing item, sequence or instance has left.
        room: u64,
    },
    /// More bytes than a limit allows.
    #[error(
        "{place}: {what} exceeds {max} bytes; split it, or see `triptych serve --help` for the limits that are settings"
    )]
    TooLarge {
        /// Where.
        place: Place,
        /// What is too large.
        what: &'static str,
        /// The limit in bytes.
        max: u64,
    },
    /// Nested deeper than the limit.
    #[error("{place}: is nested deeper than {max}; flatten the sequences, or raise `triptych serve --depth`")]
    TooDeep {
        /// Where.
        place: Place,
        /// The limit.
        max: usize,
    },
    /// More elements, fragments or frames than the limit.
    #[error(
        "{place}: has more than {max} {what}; split it, or see `triptych serve --help` for the limits that are settings"
    )]
    TooMany {
        /// Where.
        place: Place,
        /// Of what.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// Cannot be read at all.
    #[error("{place}: {why}; check the encoding and the transfer syntax")]
    Malformed {
        /// Where.
        place: Place,
        /// What is wrong.
        why: &'static str,
    },
    /// The deflated stream is broken, or grows beyond the permitted ratio.
    #[error("{place}: {why}; send it in another transfer syntax")]
    Inflate {
        /// Where, in the deflated bytes.
        place: Place,
        /// What is wrong.
        why: &'static str,
    },
}

/// The kinds of [`Invalid`], for tests that do not ask where.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidKind {
    Truncated,
    TooDeep,
    TooLong,
    TooMany,
    Malformed,
    Inflate,
}

impl Invalid {
    #[cfg(test)]
    pub(crate) fn kind(&self) -> InvalidKind {
        match self {
            Self::Truncated { .. } => InvalidKind::Truncated,
            Self::TooLong { .. } | Self::TooLarge { .. } => InvalidKind::TooLong,
            Self::TooDeep { .. } => InvalidKind::TooDeep,
            Self::TooMany { .. } => InvalidKind::TooMany,
            Self::Malformed { .. } => InvalidKind::Malformed,
            Self::Inflate { .. } => InvalidKind::Inflate,
        }
    }

    /// Where.
    #[must_use]
    pub fn place(&self) -> Place {
        match self {
            Self::Truncated { place }
            | Self::TooLong { place, .. }
            | Self::TooLarge { place, .. }
            | Self::TooDeep { place, .. }
            | Self::TooMany { place, .. }
            | Self::Malformed { place, .. }
            | Self::Inflate { place, .. } => *place,
        }
    }

    /// At most 64 characters for Error Comment (0000,0902), whose VR is LO (PS3.7 §C.4.2).
    #[must_use]
    pub fn comment(&self) -> String {
        let what = match self {
            Self::Truncated { .. } => "ends too early",
            Self::TooLong { .. } => "length exceeds its enclosure",
            Self::TooLarge { .. } => "exceeds a size limit",
            Self::TooDeep { .. } => "nested too deeply",
            Self::TooMany { .. } => "exceeds a count limit",
            Self::Malformed { why, .. } => why,
            Self::Inflate { .. } => "deflate refused",
        };
        format!("{}: {what}", self.place()).chars().filter(|&c| c != '\\').take(64).collect()
    }
}

/// An oddity that was tolerated: the bytes are kept as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub place: Place,
    /// What is odd.
    pub what: &'static str,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_fits_into_an_error_comment() {
        let place = Place { tag: Some(Tag(0x7FE0, 0x0010)), offset: u64::MAX };
        let all = [
            Invalid::Truncated { place },
            Invalid::TooLong { place, declared: u64::MAX, room: u64::MAX },
            Invalid::TooLarge { place, what: "header", max: u64::MAX },
            Invalid::TooDeep { place, max: usize::MAX },
            Invalid::TooMany { place, what: "elements", max: u64::MAX },
            Invalid::Malformed { place, why: "a long reason that has to be cut somewhere before its end is reached" },
            Invalid::Inflate { place, why: "ratio" },
        ];
        for invalid in all {
            let comment = invalid.comment();
            assert!(comment.chars().count() <= 64 && comment.starts_with("(7FE0,0010) at byte 184"), "{comment}");
            assert!(invalid.to_string().contains("(7FE0,0010)"));
        }
    }
}
