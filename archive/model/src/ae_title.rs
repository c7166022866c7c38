//! Application entity titles (PS3.5 table 6.2-1, AE): at most 16 characters, outer spaces without meaning.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{borrow::Borrow, fmt, str::FromStr};

/// A title without its padding. Compared with regard to case (PS3.8 §9.3.2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AeTitle(String);

/// Why a text is no AE title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AeTitleError {
    /// Only spaces: PS3.5 gives that no meaning.
    #[error("an AE title must have a character other than space")]
    Empty,
    /// More than 16 characters.
    #[error("an AE title has at most 16 characters, this one has {chars}")]
    TooLong {
        /// How many.
        chars: usize,
    },
    /// A control character, a backslash, or a character beyond ASCII.
    #[error("the character at {at} may not be in an AE title")]
    Character {
        /// Its place, counted from 0.
        at: usize,
    },
}

impl AeTitle {
    /// Reads a title; outer spaces and trailing NULs are padding.
    ///
    /// # Errors
    /// See [`AeTitleError`].
    pub fn parse(text: &str) -> Result<Self, AeTitleError> {
        let text = text.trim_matches(['\0', ' ']);
        if text.is_empty() {
            return Err(AeTitleError::Empty);
        }
        let allowed = |c: char| (' '..='~').contains(&c) && c != '\\';
        if let Some(at) = text.chars().position(|c| !allowed(c)) {
            return Err(AeTitleError::Character { at });
        }
        if text.len() > 16 {
            return Err(AeTitleError::TooLong { chars: text.len() });
        }
        Ok(Self(text.to_owned()))
    }

    /// The title without padding.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AeTitle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AeTitle({})", self.0)
    }
}

impl AsRef<str> for AeTitle {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for AeTitle {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for AeTitle {
    type Err = AeTitleError;

    fn from_str(text: &str) -> Result<Self, AeTitleError> {
        Self::parse(text)
    }
}

impl Serialize for AeTitle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AeTitle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_spaces_do_not_make_another_title() {
        assert_eq!(AeTitle::parse("  ARCHIVE 1  "), AeTitle::parse("ARCHIVE 1"));
        assert_eq!(AeTitle::parse("A\0\0").map(|title| title.to_string()), Ok("A".into()));
    }

    #[test]
    fn titles_outside_the_repertoire_are_refused() {
        assert_eq!(AeTitle::parse("   "), Err(AeTitleError::Empty));
        assert_eq!(AeTitle::parse("12345678901234567"), Err(AeTitleError::TooLong { chars: 17 }));
        assert_eq!(AeTitle::parse("A\\B"), Err(AeTitleError::Character { at: 1 }));
        assert_eq!(AeTitle::parse("A\nB"), Err(AeTitleError::Character { at: 1 }));
        assert!(AeTitle::parse("1234567890123456").is_ok());
    }

    #[test]
    fn case_counts() {
        assert_ne!(AeTitle::parse("PACS"), AeTitle::parse("pacs"));
    }
}
