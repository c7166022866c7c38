//! Elements of the data set itself that become others on the way, and objects that stay in their encoding but for these.
//!
//! ```text
//!   elements, in order of their tags        │ (7FE0,…) and all behind it
//!   ─ recoded: changed, left out, inserted ─┼─ the same bytes ─►            Recoder::patching
//!   ─ recoded ──────────────────────────────┴─ recoded, decoded, encoded ─►  the others, with Recoder::edited
//! ```
//!
//! - RE-1 An element of the data set itself that is changed or left out appears nowhere with its former value, however often
//!   and in whatever order it comes before the pixel data; elements of the same tag inside of sequences stay.
//! - RE-2 What is appended to a sequence stands behind the items that are there, which stay what they were.
//! - RE-3 An edit that finds no place is an error, never left out.

use super::{Recoder, State};
use crate::{Limits, Tag, VR, transfer_syntax};
use std::collections::BTreeMap;

/// The group of pixel data: what is edited stands before it.
const PIXEL_GROUP: u16 = 0x7FE0;

/// Changes to the elements of the data set itself, before its pixel data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    values: BTreeMap<Tag, (VR, Option<Vec<u8>>)>,
    appended: Option<(Tag, Vec<u8>)>,
}

impl Edits {
    /// `tag` has this value, whether it was there or not: bytes of even length, numbers little endian; of a sequence its items,
    /// in the encoding of the target.
    pub fn put(&mut self, tag: Tag, vr: VR, value: Vec<u8>) {
        self.values.insert(tag, (vr, Some(value)));
    }

    /// `tag` is left out.
    pub fn remove(&mut self, tag: Tag) {
        self.values.insert(tag, (VR::UN, None));
    }

    /// The sequence `tag`, which is there, has one item more behind the others: bytes in the encoding of the target, with the
    /// header of the item.
    pub fn append(&mut self, tag: Tag, item: Vec<u8>) {
        self.appended = Some((tag, item));
    }
}

impl Recoder {
    /// The data set in the encoding that it has, with `edits`; what begins with the pixel data is passed on as it is, compressed
    /// or not. `None` for a deflated one, in whose stream there is no place where something could be changed: it is inflated, changed
    /// and deflated again.
    #[must_use]
    pub fn patching(syntax: &str, edits: &Edits, limits: &Limits) -> Option<Self> {
        let mut recoder = (!transfer_syntax(syntax).deflated).then(|| Self::of(syntax, syntax, limits))?;
        recoder.patching = true;
        Some(recoder.edited(edits))
    }

    /// The same, with `edits`: to be called before the first byte.
    #[must_use]
    pub fn edited(mut self, edits: &Edits) -> Self {
        // What the pixels become wins: rules say nothing of that.
        let mut all = edits.values.clone();
        all.extend(std::mem::take(&mut self.changes).into_iter().map(|(tag, vr, value)| (tag, (vr, value))));
        self.changed = all.keys().copied().collect();
        self.changes = all.into_iter().map(|(tag, (vr, value))| (tag, vr, value)).collect();
        self.append = edits.appended.clone();
        self
    }

    /// Whether all that comes now is passed on as it is.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self.state, State::Rest)
    }

    /// The byte of the data set, inflated, that comes next.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether `tag` begins what is passed on as it is.
    pub(super) fn passes(&self, tag: Tag) -> bool {
        // Above are delimiters of items.
        self.patching && self.levels.len() == 1 && (PIXEL_GROUP..0xFFFE).contains(&tag.0)
    }

    /// That every edit has found its place (RE-3).
    pub(super) fn all_edited(&self) -> Result<(), super::RecodeError> {
        if self.append.is_some() {
            return Err(self.error("a sequence that is to have one item more is not there"));
        }
        Ok(())
    }
}
