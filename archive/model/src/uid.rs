//! Unique identifiers (PS3.5 §9.1): digits and dots, at most 64 characters.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// The greatest length of a UID, in characters.
const UID_CHARS_MAX: usize = 64;

/// A UID that follows PS3.5 §9.1, save that a component may have a leading zero ([`Uid::has_leading_zero`]): such
/// UIDs are in use, and name what they name.
///
/// ```
/// use archive_model::Uid;
/// assert_eq!(Uid::parse("1.2.840\0").unwrap().as_str(), "1.2.840");
/// assert!(Uid::parse("1.02.3").unwrap().has_leading_zero());
/// assert!(Uid::parse("1..2").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Arc<str>);

/// Why a text is no UID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UidError {
    /// No character.
    #[error("is empty")]
    Empty,
    /// More than 64 characters.
    #[error("has {chars} characters, more than 64")]
    TooLong {
        /// How many.
        chars: usize,
    },
    /// A character other than digit and dot.
    #[error("has a character at {at} that is neither digit nor dot")]
    Character {
        /// Its place, counted from 0.
        at: usize,
    },
    /// Two dots in a row, or a dot at an end.
    #[error("has an empty component at {at}")]
    EmptyComponent {
        /// Its place, counted from 0.
        at: usize,
    },
}

impl Uid {
    /// Reads a UID; trailing NUL and space are padding, spaces before it are tolerated.
    ///
    /// # Errors
    /// See [`UidError`].
    pub fn parse(text: &str) -> Result<Self, UidError> {
        let text = text.trim_end_matches(['\0', ' ']).trim_start_matches(' ');
        if text.is_empty() {
            return Err(UidError::Empty);
        }
        if text.len() > UID_CHARS_MAX {
            return Err(UidError::TooLong { chars: text.chars().count() });
        }
        let mut dot_before = true;
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                b'0'..=b'9' => dot_before = false,
                b'.' if dot_before => return Err(UidError::EmptyComponent { at }),
                b'.' => dot_before = true,
                _ => return Err(UidError::Character { at }),
            }
        }
        if dot_before {
            return Err(UidError::EmptyComponent { at: text.len() });
        }
        Ok(Self(Arc::from(text)))
    }

    /// The UID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a component other than `0` begins with `0`, which PS3.5 §9.1 forbids.
    #[must_use]
    pub fn has_leading_zero(&self) -> bool {
        self.0.split('.').any(|component| component.len() > 1 && component.starts_with('0'))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid({})", self.0)
    }
}

impl AsRef<str> for Uid {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Uid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Uid {
    type Err = UidError;

    fn from_str(text: &str) -> Result<Self, UidError> {
        Self::parse(text)
    }
}

impl Serialize for Uid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_not_part_of_a_uid() {
        for padded in ["1.2.3", "1.2.3\0", "1.2.3 ", " 1.2.3", "1.2.3\0\0 "] {
            assert_eq!(Uid::parse(padded).map(|uid| uid.to_string()), Ok("1.2.3".into()));
        }
    }

    #[test]
    fn what_is_not_digits_and_dots_is_refused_with_its_place() {
        assert_eq!(Uid::parse(""), Err(UidError::Empty));
        assert_eq!(Uid::parse("\0"), Err(UidError::Empty));
        assert_eq!(Uid::parse("1.2/../3"), Err(UidError::Character { at: 3 }));
        assert_eq!(Uid::parse("1..2"), Err(UidError::EmptyComponent { at: 2 }));
        assert_eq!(Uid::parse(".1"), Err(UidError::EmptyComponent { at: 0 }));
        assert_eq!(Uid::parse("1."), Err(UidError::EmptyComponent { at: 2 }));
        assert_eq!(Uid::parse(&"1".repeat(65)), Err(UidError::TooLong { chars: 65 }));
        assert!(Uid::parse(&"1".repeat(64)).is_ok());
    }

    #[test]
    fn leading_zeros_are_kept_and_told() {
        let told = |text: &str| Uid::parse(text).map(|uid| uid.has_leading_zero());
        assert_eq!(told("1.02.3"), Ok(true));
        assert_eq!(told("1.0.3"), Ok(false));
        assert_eq!(told("1.20.3"), Ok(false));
    }
}
