//! An attribute as people name it: by keyword, by tag, or, of a vendor, by group, creator and number in its block.

use crate::{Tag, names};
use std::{fmt, str::FromStr};

/// Characters of a private creator, at most (its VR is LO).
const CREATOR_CHARS_MAX: usize = 64;

/// An attribute of the data set itself, never inside of sequences.
///
/// ```
/// use archive_model::Attribute;
/// for name in ["PatientID", "(0009,\"ACME 1.0\",01)"] {
///     let attribute: Attribute = name.parse().expect("an attribute");
///     assert_eq!(attribute.to_string(), name);
/// }
/// assert!("(0009,1001)".parse::<Attribute>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// One of the standard.
    Standard(Tag),
    /// One of a vendor.
    Private {
        /// Its group, which is odd.
        group: u16,
        /// Who reserved the block.
        creator: String,
        /// Its number in the block.
        element: u8,
    },
}

impl FromStr for Attribute {
    type Err = String;

    /// `PatientID`, `(0010,0020)` or `(0009,"ACME 1.0",01)`.
    fn from_str(name: &str) -> Result<Self, String> {
        let Some(inner) = name.strip_prefix('(').and_then(|name| name.strip_suffix(')')) else {
            let tag = names::tag_named(name);
            return tag.map(Self::Standard).ok_or_else(|| format!("the dictionary has no keyword `{name}`"));
        };
        let hex = |text: &str, digits: usize| {
            let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u16::from_str_radix(text, 16).ok()).flatten()
        };
        let why = || format!("`{name}` is neither (0010,0020) nor (0009,\"CREATOR\",01)");
        let (group, rest) = inner.split_once(',').ok_or_else(why)?;
        let group = hex(group.trim(), 4).ok_or_else(why)?;
        if let Some((creator, element)) = rest.trim().strip_prefix('"').and_then(|rest| rest.rsplit_once("\",")) {
            let element = hex(element.trim(), 2).and_then(|element| u8::try_from(element).ok()).ok_or_else(why)?;
            let (creator, odd) = (creator.trim().to_owned(), group % 2 == 1);
            let plain = creator.bytes().all(|byte| (b' '..=b'~').contains(&byte) && !matches!(byte, b'\\' | b'"'));
            if !odd || creator.is_empty() || creator.len() > CREATOR_CHARS_MAX || !plain {
                return Err(
                    "a private attribute is of an odd group, and its creator has 1 to 64 ASCII characters".into()
                );
            }
            return Ok(Self::Private { group, creator, element });
        }
        let element = hex(rest.trim(), 4).ok_or_else(why)?;
        if group % 2 == 1 {
            return Err(
                "a private attribute is named by its creator, such as (0009,\"ACME 1.0\",01): where its block lies \
                 differs from object to object"
                    .into(),
            );
        }
        Ok(Self::Standard(Tag(group, element)))
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(tag) => match names::name_of(*tag).filter(|name| names::tag_named(name) == Some(*tag)) {
                Some(name) => f.write_str(name),
                None => write!(f, "({:04X},{:04X})", tag.0, tag.1),
            },
            Self::Private { group, creator, element } => write!(f, "({group:04X},\"{creator}\",{element:02X})"),
        }
    }
}
