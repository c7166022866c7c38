//! What the machine is inside of, and what it is doing there.

use super::{fragments::Fragments, header::Coding};
use crate::{DataSet, Element};
use dicom_core::{Tag, VR};

#[derive(Debug)]
pub(crate) struct Level {
    /// Offset that nothing in this level may cross; of an undefined length that of the level around it.
    pub(crate) end: u64,
    /// Whether the level ends at `end`, or at its delimiter.
    pub(crate) defined: bool,
    pub(crate) coding: Coding,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// The items of a sequence.
    Sequence { tag: Tag, items: Vec<DataSet> },
    /// The elements of an item, or of the whole data set.
    Elements { set: DataSet, late: Vec<Element>, last: Tag },
}

#[derive(Debug)]
pub(crate) enum State {
    Header,
    Keep { tag: Tag, vr: VR, left: u64, bytes: Vec<u8> },
    Skip { left: u64, table: Option<Tag> },
    FragmentHeader,
    Fragment { left: u64 },
}

/// The encapsulated element that is passing by.
#[derive(Debug)]
pub(crate) struct Encapsulated {
    pub(crate) tag: Tag,
    pub(crate) vr: VR,
    pub(crate) offset: u64,
    pub(crate) fragments: Fragments,
}

impl Kind {
    /// No elements yet.
    pub(crate) fn elements() -> Self {
        Self::Elements { set: DataSet::new(), late: Vec::new(), last: Tag(0, 0) }
    }
}

/// The next bytes of a value of which `left` are missing.
pub(crate) fn take<'a>(left: &mut u64, piece: &'a [u8]) -> &'a [u8] {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
    *left -= taken as u64;
    &piece[..taken]
}
