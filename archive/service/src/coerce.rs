//! What a peer is shown in place of what is stored: its coercion rules, applied when an object or an answer leaves to it.
//!
//! ```text
//!   C-MOVE, C-GET   row ─► header, as far as the pixel data ─► changed? ─no─► the stored bytes
//!                                                                 │ yes
//!                          stored bytes ─► Recoder with Edits ◄───┘   header rewritten, the rest streamed
//!   C-FIND          keys ─► what of them the index can match ─► answers ─► rules ─► matched with the keys ─► peer
//! ```
//!
//! Invariants
//! - CO-1 What is stored is read, and never changed: `?as=received` and every peer without rules get it byte for byte.
//! - CO-2 An attribute that a rule changes leaves to that peer with no other value than the rule makes. An object for which that
//!   cannot be made sure is not sent: its sub-operation fails. A destination that is not listed has the rules of `*`.
//! - CO-3 An object of which no rule changes anything leaves as it would without rules.
//! - CO-4 What was changed in an object is recorded in it (Original Attributes Sequence, PS3.3 §C.12.1.1.9), behind the records
//!   that it has: former values as they were, in the object's own character set; what was not there, as empty.
//! - CO-5 A peer asks for what it is shown: its keys are matched with coerced values, and never with stored ones.
//!
//! A crash in the middle leaves nothing: an object is coerced anew for each sub-operation, and no result is kept. Digital
//! signatures in an object (FFFA,FFFA) that cover what was changed do not verify any more; the record says what they covered.

mod query;
#[cfg(test)]
mod tests;

pub use query::{Asked, Patients, patients, shown};

use crate::{
    Archive, ConvertError, Converting, InstanceRow,
    convert::lenient,
    peers::{Action, Attribute, Rule, When},
};
use archive_model::{
    DataSet, Edits, Element, Encoding, Scanner, Tag, VR, Value,
    charset::{self, Charset},
    matching::date_plus,
    names, tags, transfer_syntax, write_data_set,
};
use std::collections::BTreeMap;

/// What a length of 2 bytes can say, rounded down to even: a text that becomes longer has no place in all encodings.
const VALUE_BYTES_MAX: usize = 65_534;
/// Former values that were left in the body are recorded up to this length each.
const RECORDED_BYTES_MAX: u64 = 1 << 20;

/// What the rules of a peer make of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Coerced {
    values: Vec<(Tag, VR, Option<Vec<u8>>)>,
    /// The item of the Original Attributes Sequence.
    record: DataSet,
    /// The sequence is there already.
    recorded_before: bool,
}

impl Archive {
    /// What `rules` make of an object that is sent; `None` when they change nothing.
    ///
    /// # Errors
    /// When what is before its pixel data cannot be read, or when a rule cannot be applied for certain.
    pub async fn coerced(&self, row: &InstanceRow, rules: &[Rule]) -> Result<Option<Coerced>, ConvertError> {
        let rules: Vec<&Rule> = rules.iter().filter(|rule| rule.is_for(When::Retrieve)).collect();
        if rules.is_empty() {
            return Ok(None);
        }
        let mut header = self.header_before_pixels(row).await?;
        let changes = changes(&header, &rules)?;
        if changes.is_empty() {
            return Ok(None);
        }
        for change in &changes {
            self.fetch(row, &mut header, change.tag).await?;
        }
        let catalog = std::sync::Arc::clone(self.catalog());
        let of = row.clone();
        let source = self.look_up(move || catalog.source(&of)).await?;
        let source = source.map(|source| source.calling_ae).unwrap_or_default();
        let (by, now) = (self.ae_title().as_str(), moment(self.clock().unix_ms()));
        coerced(&header, changes, (by, source.trim(), &now)).map(Some)
    }

    /// The object in `to`, perhaps its own syntax, with what was changed in it.
    ///
    /// # Errors
    /// See [`ConvertError`].
    pub async fn convert_coerced(
        &self,
        row: &InstanceRow,
        to: &str,
        coerced: &Coerced,
    ) -> Result<Converting, ConvertError> {
        self.convert_with(row, to, &coerced.edits(transfer_syntax(to).encoding)?).await
    }

    /// Elements of the data set itself before its pixel data; text that is not ASCII is bytes.
    async fn header_before_pixels(&self, row: &InstanceRow) -> Result<DataSet, ConvertError> {
        let mut scanner = Scanner::new(&transfer_syntax(&row.transfer_syntax), &lenient());
        let mut reading = self.read(row, 0..row.length_bytes);
        while !scanner.is_at_pixels() {
            let Some(piece) = reading.next().await else { break };
            scanner.push(&piece?).map_err(|_| ConvertError::Coerce("what is before its pixel data cannot be read"))?;
        }
        Ok(scanner.gathered())
    }

    /// Brings a value that was left in the body into the header.
    async fn fetch(&self, row: &InstanceRow, header: &mut DataSet, tag: Tag) -> Result<(), ConvertError> {
        let Some(Element { vr, value: Value::Bulk { offset, length }, .. }) = header.get(tag).cloned() else {
            return Ok(());
        };
        let syntax = transfer_syntax(&row.transfer_syntax);
        // Where it lies in a deflated object is not where it is read; words of big endian ones would have to be turned.
        if length > RECORDED_BYTES_MAX || syntax.deflated || syntax.encoding == Encoding::ExplicitBe {
            return Err(ConvertError::Coerce("a value that a rule changes is too large to be recorded"));
        }
        // Copied piece by piece: no piece is held while the next one waits for the budget of all readers.
        let (mut reading, mut bytes) = (self.read(row, offset..offset.saturating_add(length)), Vec::new());
        while let Some(piece) = reading.next().await {
            bytes.extend_from_slice(&piece?);
        }
        header.put(Element { tag, vr, value: Value::Bytes(bytes.into()) });
        Ok(())
    }
}

/// An attribute of an object that becomes another.
struct Change {
    tag: Tag,
    vr: VR,
    value: Option<Vec<u8>>,
    /// Who has reserved the block, for a private one.
    creator: Option<Tag>,
}

/// What the rules change, by tag.
fn changes(header: &DataSet, rules: &[&Rule]) -> Result<Vec<Change>, ConvertError> {
    let words = Charset::of(header.texts(tags::SPECIFIC_CHARACTER_SET));
    let mut by_tag: BTreeMap<Tag, (Option<Tag>, Vec<&Rule>)> = BTreeMap::new();
    for rule in rules {
        for (tag, creator) in places(header, rule.attribute()) {
            by_tag.entry(tag).or_insert((creator, Vec::new())).1.push(rule);
        }
    }
    let mut changes = Vec::new();
    for (tag, (creator, rules)) in by_tag {
        let element = header.get(tag);
        let vr = vr_of(tag, element);
        let before = element.map(|element| text(element, vr, words)).transpose()?;
        let Some(before) = known(before, &rules)? else { continue };
        let after = in_turn(&rules, vr, before.clone());
        if after == before {
            continue;
        }
        let value = match after {
            None => None,
            Some(text) if text.is_empty() => Some(Vec::new()),
            Some(text) => Some(bytes(&text, vr, words)?),
        };
        changes.push(Change { tag, vr, value, creator });
    }
    Ok(changes)
}

/// What rules make of a value, each of what the one before made.
fn in_turn(rules: &[&Rule], vr: VR, mut value: Option<String>) -> Option<String> {
    for rule in rules {
        value = rule.applied(vr, value);
    }
    value
}

/// Where an attribute of a rule stands in this object.
fn places(header: &DataSet, attribute: &Attribute) -> Vec<(Tag, Option<Tag>)> {
    match attribute {
        Attribute::Standard(tag) => vec![(*tag, None)],
        Attribute::Private { group, creator, element } => {
            let reserves = |own: &&Element| {
                let is_creator = own.tag.0 == *group && (0x10..=0xFF).contains(&own.tag.1);
                is_creator
                    && match &own.value {
                        Value::Text(texts) => texts.iter().any(|text| text.trim() == creator),
                        Value::Bytes(bytes) => bytes.trim_ascii() == creator.as_bytes(),
                        _ => false,
                    }
            };
            let found = header.iter().filter(reserves);
            found.map(|own| (Tag(*group, own.tag.1 << 8 | u16::from(*element)), Some(own.tag))).collect()
        }
    }
}

/// The VR that a value is written with: that of the object where it is text, else that of the dictionary.
fn vr_of(tag: Tag, element: Option<&Element>) -> VR {
    let own = element.map(|element| element.vr);
    own.filter(|vr| is_text(*vr) || tag.0 % 2 == 1).unwrap_or_else(|| names::vr_of(tag))
}

fn is_text(vr: VR) -> bool {
    use VR::{AE, AS, CS, DA, DS, DT, IS, LO, LT, PN, SH, ST, TM, UC, UI, UR, UT};
    matches!(vr, AE | AS | CS | DA | DS | DT | IS | LO | LT | PN | SH | ST | TM | UC | UI | UR | UT)
}

/// A value before the rules.
enum Before {
    Text(String),
    /// It is no text, or not read: it has a value, and that is all that is known.
    Other,
}

fn text(element: &Element, vr: VR, words: Charset) -> Result<Before, ConvertError> {
    Ok(match &element.value {
        Value::Empty => Before::Text(String::new()),
        Value::Text(texts) => Before::Text(texts.join("\\")),
        Value::Items(items) if items.is_empty() => Before::Text(String::new()),
        Value::Bytes(bytes) if is_text(vr) => Before::Text(charset::split(&words.decode(bytes, vr), vr).join("\\")),
        Value::Integers(_)
        | Value::Floats(_)
        | Value::Tags(_)
        | Value::Bytes(_)
        | Value::Bulk { .. }
        | Value::Items(_) => Before::Other,
    })
}

/// What rules begin with. What is no text can be set, cleared and removed, whatever it is; `Some(None)` is an attribute that is
/// not there.
fn known(before: Option<Before>, rules: &[&Rule]) -> Result<Option<Option<String>>, ConvertError> {
    match before {
        None => Ok(Some(None)),
        Some(Before::Text(text)) => Ok(Some(Some(text))),
        Some(Before::Other) => {
            let blind = |rule: &&&Rule| matches!(rule.action(), Action::Set(_) | Action::Clear | Action::Remove);
            match rules.first() {
                None => Ok(None),
                // No value of a text: whatever a rule makes of it is another one.
                Some(first) if blind(&first) => Ok(Some(Some("\u{0}".into()))),
                Some(_) => Err(ConvertError::Coerce("a value that a rule maps or lengthens is no text")),
            }
        }
    }
}

/// A text as the object has it: in its own character set, of even length.
fn bytes(text: &str, vr: VR, words: Charset) -> Result<Vec<u8>, ConvertError> {
    // What was no character when it was read is none to be written either.
    let readable = !text.contains(char::REPLACEMENT_CHARACTER);
    let mut bytes = words
        .encode(text, vr)
        .filter(|_| readable)
        .ok_or(ConvertError::Coerce("a text cannot be written again in the character set of the object"))?;
    if bytes.len() % 2 == 1 {
        bytes.push(if vr == VR::UI { 0 } else { b' ' });
    }
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(ConvertError::Coerce("a value becomes longer than 65,534 bytes"));
    }
    Ok(bytes)
}

/// Changes, and the record of them: by whom, from whom the object came, and when.
fn coerced(
    header: &DataSet,
    changes: Vec<Change>,
    (by, source, now): (&str, &str, &str),
) -> Result<Coerced, ConvertError> {
    let recorded_before = match header.get(tags::ORIGINAL_ATTRIBUTES_SEQUENCE).map(|own| &own.value) {
        None => false,
        Some(Value::Items(_) | Value::Empty) => true,
        Some(_) => return Err(ConvertError::Coerce("its record of earlier changes is no sequence")),
    };
    let mut former = DataSet::new();
    for change in &changes {
        let none = || Element { tag: change.tag, vr: change.vr, value: Value::Empty };
        let element = header.get(change.tag).cloned().unwrap_or_else(none);
        if has_bulk(&element.value) {
            return Err(ConvertError::Coerce("a sequence that a rule changes has values too large to be recorded"));
        }
        former.put(element);
        if let Some(creator) = change.creator.and_then(|creator| header.get(creator)) {
            former.put(creator.clone());
        }
    }
    let mut record = DataSet::new();
    let value = Value::Items(vec![former]);
    record.put(Element { tag: tags::MODIFIED_ATTRIBUTES_SEQUENCE, vr: VR::SQ, value });
    record.put_text(tags::ATTRIBUTE_MODIFICATION_DATE_TIME, VR::DT, now);
    record.put_text(tags::MODIFYING_SYSTEM, VR::LO, by);
    record.put_text(tags::SOURCE_OF_PREVIOUS_VALUES, VR::LO, source);
    record.put_text(tags::REASON_FOR_THE_ATTRIBUTE_MODIFICATION, VR::CS, "COERCE");
    let values = changes.into_iter().map(|change| (change.tag, change.vr, change.value)).collect();
    Ok(Coerced { values, record, recorded_before })
}

fn has_bulk(value: &Value) -> bool {
    match value {
        Value::Bulk { .. } => true,
        // As deep as headers are read, which is bounded.
        Value::Items(items) => items.iter().flatten().any(|element| has_bulk(&element.value)),
        _ => false,
    }
}

impl Coerced {
    /// The edits that make it, in an encoding.
    fn edits(&self, encoding: Encoding) -> Result<Edits, ConvertError> {
        let mut edits = Edits::default();
        for (tag, vr, value) in &self.values {
            match value {
                Some(value) => edits.put(*tag, *vr, value.clone()),
                None => edits.remove(*tag),
            }
        }
        let tag = tags::ORIGINAL_ATTRIBUTES_SEQUENCE;
        let sequence = Element { tag, vr: VR::SQ, value: Value::Items(vec![self.record.clone()]) };
        let written = write_data_set(&[sequence].into_iter().collect(), encoding);
        // Tag, VR and length of the sequence. Texts in it are ASCII, or bytes of the object: nothing else is written before.
        let header_bytes = if encoding == Encoding::ImplicitLe { 8 } else { 12 };
        let item = written.get(header_bytes..).map(<[u8]>::to_vec);
        let item = item.ok_or(ConvertError::Coerce("what was changed cannot be recorded"))?;
        if self.recorded_before {
            edits.append(tag, item);
        } else {
            edits.put(tag, VR::SQ, item);
        }
        Ok(edits)
    }
}

/// A moment as DT, in UTC.
fn moment(unix_ms: u64) -> String {
    let (days, of_day) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let date = i64::try_from(days).ok().and_then(|days| date_plus("19700101", days));
    let (hours, minutes) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (seconds, milliseconds) = (of_day / 1000 % 60, of_day % 1000);
    let date = date.unwrap_or_else(|| "19700101".into());
    format!("{date}{hours:02}{minutes:02}{seconds:02}.{milliseconds:03}+0000")
}
