//! Keys that the index does not know: they are looked for in the headers of the images below a row.
//!
//! ```text
//!   study 1.2 ─┬─ series 1.2.1 ─┬─ image  header: no          a row matches if one image below it matches all of
//!              │                └─ image  header: no          these keys; the answer has the values of the first
//!              └─ series 1.2.2 ─── image  header: YES ──►     one that does, its witness
//! ```
//!
//! - Any image, and not the first alone: what a study holds is found by what any part of it says, as with Modalities in
//!   Study. One image for all keys, because two images that each have half of what is asked for are not what is meant.
//! - The values are those of the witness, so that no answer contradicts its query. Without a key that must match, it is
//!   the first image.
//! - The order is that of UIDs of studies and series, and in a series the order of arrival: the same on every node.
//! - It is slow, 0.2 ms a header, so it is bounded: a query may read [`CatalogOptions::query_headers_max`]
//!   headers to match them, and is refused beyond, with what narrows it. A key that is only returned costs one header an
//!   answer, which its reader waits for anyway, and is not counted.
//! - An index that an operator has added (`extra.rs`) says which rows, and which images below them, need no look at all. What
//!   it finds is looked into all the same, and counts as what is only returned.
//! - A page reads [`HEADERS_AT_ONCE`] of them and goes on where it stopped, so that no read transaction lasts, and a
//!   cancelled query ends.
//!
//! [`CatalogOptions::query_headers_max`]: crate::CatalogOptions::query_headers_max

use crate::{
    error::{CatalogError, Step},
    extra::{self, Narrowing},
    find::Level,
    retrieve,
    row::{Attrs, decode, ids_of, number_of},
};
use archive_model::{
    Attribute, DataSet, Element, Limits, Tag, VR, Value,
    charset::Charset,
    json,
    matching::{BadPattern, Meaning, Pattern, all_match, move_zone, offset_minutes, patterns},
    names, tags,
};
use bytes::Bytes;
use rusqlite::{Connection, params};
use std::ops::ControlFlow;

/// Headers that a page reads to match them.
pub(crate) const HEADERS_AT_ONCE: usize = 256;

/// Attributes that answers have and images have not (PS3.4 C.3.4), and that are not computed here.
const NEVER_STORED: &[Tag] = &[
    tags::QUERY_RETRIEVE_VIEW,
    Tag(0x0008, 0x0063), // Anatomic Regions in Study Code Sequence
    Tag(0x0008, 0x3001), // Alternate Representation Sequence
    Tag(0x0008, 0x3002), // Available Transfer Syntax UID
    Tag(0x0088, 0x0130), // Storage Media File-set ID
    Tag(0x0088, 0x0140), // Storage Media File-set UID
    tags::RETRIEVE_URL,
];

/// Whether a header can have the attribute as something to match or to return.
pub(crate) fn may_be_stored(tag: Tag) -> bool {
    let binary = matches!(names::vr_of(tag), VR::OB | VR::OD | VR::OF | VR::OL | VR::OV | VR::OW);
    let elsewhere = matches!(tag.group(), 0x0000 | 0x0002 | 0x7FE0 | 0xFFFC | 0xFFFE);
    !binary && !elsewhere && tag.element() != 0 && !NEVER_STORED.contains(&tag)
}

/// A key of the header.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) tag: Tag,
    /// Whose private attribute it is: then its block is where the header has that creator (PS3.5 §7.8.1).
    pub(crate) creator: Option<String>,
    /// It is the creator itself, and stands in the answer as it stands in the key.
    pub(crate) is_creator: bool,
}

/// All of them in a query.
#[derive(Debug, Default)]
pub(crate) struct HeaderKeys {
    wanted: Vec<Wanted>,
    patterns: Vec<(Tag, Pattern)>,
    /// What the JSON of a header that matches must contain: it is not read further without.
    needles: Vec<String>,
    zone: Option<i32>,
    /// Those of the patterns that an index can know, with the attribute that each is for.
    indexable: Vec<(Attribute, Pattern)>,
    /// What indexes that are complete say of them, at the moment of this page.
    narrowings: Vec<Narrowing>,
}

/// The header of an image, as far as keys ask for it.
pub(crate) struct Header {
    /// Everything in it.
    pub(crate) whole: DataSet,
    /// What the keys name, under the tags that they name.
    pub(crate) named: DataSet,
    /// How long its JSON is.
    pub(crate) bytes: usize,
}

/// Where a search for a witness stopped: behind this image. Study and series are empty where the row has but one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    study: String,
    series: String,
    instance: i64,
}

impl Default for Place {
    /// In front of all images.
    fn default() -> Self {
        Self { study: String::new(), series: String::new(), instance: -1 }
    }
}

/// What came of a search for a witness.
pub(crate) enum Witness {
    Found(Box<Header>),
    Nobody,
    /// The page is full: go on behind this place, or from the beginning.
    Later(Option<Place>),
}

/// How many headers may still be read to match them.
#[derive(Debug)]
pub(crate) struct Reads {
    pub(crate) of_page: usize,
    pub(crate) of_query: u64,
    pub(crate) max: u64,
}

impl HeaderKeys {
    /// The keys of `keys`, all of which are looked for in headers. `all` are all keys of the query: private creators
    /// among them say whose a private attribute is.
    pub(crate) fn of(keys: &DataSet, all: &DataSet, meaning: &Meaning) -> Result<Self, BadPattern> {
        let creator_in = |block: Tag| {
            let creator = all.text(block).map(str::trim);
            creator.filter(|creator| !creator.is_empty() && !creator.contains(['*', '?']))
        };
        let is_private = |tag: Tag| tag.group() % 2 == 1 && tag.element() >= 0x1000;
        let block_of = |tag: Tag| Tag(tag.group(), tag.element() >> 8);
        let creator_of = |tag: Tag| if is_private(tag) { creator_in(block_of(tag)) } else { None };
        let is_creator = |tag: Tag| {
            creator_in(tag).is_some() && all.iter().any(|key| is_private(key.tag) && block_of(key.tag) == tag)
        };
        let wanted = keys.iter().map(|key| {
            let is_creator = is_creator(key.tag);
            let creator = if is_creator { creator_in(key.tag) } else { creator_of(key.tag) };
            Wanted { tag: key.tag, creator: creator.map(str::to_owned), is_creator }
        });
        let wanted: Vec<Wanted> = wanted.collect();
        // A creator says where the attributes of its block are looked for, and is no key beside them.
        let words = all.texts(tags::SPECIFIC_CHARACTER_SET);
        let matched = keys.iter().filter(|key| !is_creator(key.tag)).map(|key| in_utf_8(key, words)).collect();
        let patterns = patterns(&matched, meaning)?;
        let needed = patterns.iter().filter(|(tag, pattern)| !pattern.wants_nothing() && creator_of(*tag).is_none());
        let needles = needed.map(|(tag, _)| format!("\"{}\":", json::tag_key(*tag))).collect();
        let attribute_of = |tag: Tag| match creator_of(tag) {
            _ if tag.group().is_multiple_of(2) => Some(Attribute::Standard(tag)),
            Some(creator) => Some(Attribute::Private {
                group: tag.group(),
                creator: creator.to_owned(),
                element: (tag.element() & 0xFF) as u8,
            }),
            // Without its creator it is that of any vendor.
            None => None,
        };
        let indexable = patterns.iter().filter_map(|(tag, pattern)| Some((attribute_of(*tag)?, pattern.clone())));
        let indexable = indexable.collect();
        Ok(Self { wanted, patterns, needles, zone: meaning.zone_minutes, indexable, narrowings: Vec::new() })
    }

    /// Sees which indexes are complete now: to be called in the read transaction of each page.
    pub(crate) fn look_for_indexes(&mut self, connection: &Connection) -> Result<(), CatalogError> {
        self.narrowings.clear();
        if self.indexable.is_empty() {
            return Ok(());
        }
        for extra in extra::load(connection)?.iter().filter(|extra| extra.is_complete()) {
            let own = self.indexable.iter().filter(|(attribute, _)| *attribute == extra.index.attribute);
            let zone = self.zone.is_some();
            self.narrowings.extend(own.flat_map(|(_, pattern)| extra::narrowings(extra, pattern, zone)));
        }
        Ok(())
    }

    /// What indexes say of the keys: each holds for every image that matches.
    pub(crate) fn narrowings(&self) -> &[Narrowing] {
        &self.narrowings
    }

    /// Whether an index says that no image below has what is asked for.
    fn excluded(&self, connection: &Connection, level: Level, row: i64) -> Result<bool, CatalogError> {
        for narrowing in &self.narrowings {
            if narrowing.excludes(connection, level, row)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a header must be read at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether headers are read to match them.
    pub(crate) fn must_match(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// The header of one image; `None` if it does not match.
    pub(crate) fn header(&self, connection: &Connection, instance: i64) -> Result<Option<Header>, CatalogError> {
        let json = retrieve::header(connection, instance)?;
        let text = std::str::from_utf8(&json).map_err(|_| CatalogError::Damaged("a header is not UTF-8".into()))?;
        if !self.needles.iter().all(|needle| text.contains(needle)) {
            return Ok(None);
        }
        let mut whole = read(&json)?;
        if let Some(zone) = self.zone {
            let own = whole.text(tags::TIMEZONE_OFFSET_FROM_UTC).and_then(offset_minutes);
            own.into_iter().for_each(|own| move_zone(&mut whole, zone - own));
        }
        let named = self.wanted.iter().filter_map(|wanted| wanted.of(&whole)).collect();
        if !all_match(&self.patterns, &named) {
            return Ok(None);
        }
        Ok(Some(Header { whole, named, bytes: json.len() }))
    }

    /// Looks for a witness of the row `id` of a level, behind `from`.
    pub(crate) fn witness(
        &self,
        connection: &Connection,
        row: (Level, i64),
        from: Option<Place>,
        reads: &mut Reads,
    ) -> Result<Witness, CatalogError> {
        let mut last = from.clone();
        let mut found = Witness::Nobody;
        if !self.narrowings.is_empty() {
            for (level, row) in extra::above(connection, row.0, row.1)? {
                if self.excluded(connection, level, row)? {
                    return Ok(found);
                }
            }
        }
        let passed_over = |level, row| self.excluded(connection, level, row);
        images_below(connection, row, &from.unwrap_or_default(), &passed_over, &mut |place| {
            if self.must_match() && !reads.take()? {
                found = Witness::Later(last.take());
                return Ok(ControlFlow::Break(()));
            }
            if let Some(header) = self.header(connection, place.instance)? {
                // What an index has found is read as what is only returned is.
                if self.must_match() && !self.narrowings.is_empty() {
                    reads.of_query += 1;
                }
                found = Witness::Found(Box::new(header));
                return Ok(ControlFlow::Break(()));
            }
            last = Some(place);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }
}

impl Reads {
    /// Counts one header; false when it is for the next page.
    pub(crate) fn take(&mut self) -> Result<bool, CatalogError> {
        if self.of_query == 0 {
            return Err(CatalogError::TooManyHeaders { max: self.max });
        }
        if self.of_page == 0 {
            return Ok(false);
        }
        self.of_query -= 1;
        self.of_page -= 1;
        Ok(true)
    }
}

impl Wanted {
    /// The element of a header that is meant, under the tag of the key.
    pub(crate) fn of(&self, header: &DataSet) -> Option<Element> {
        let tag = match &self.creator {
            None => self.tag,
            Some(creator) => {
                let is_theirs =
                    |block: &u16| header.text(Tag(self.tag.group(), *block)).map(str::trim) == Some(creator.as_str());
                let block = (0x10..=0xFF).find(is_theirs)?;
                if self.is_creator {
                    return Some(Element { tag: self.tag, vr: VR::LO, value: Value::Text(vec![creator.clone()]) });
                }
                Tag(self.tag.group(), block << 8 | self.tag.element() & 0xFF)
            }
        };
        let element = header.get(tag)?;
        let bulk = match &element.value {
            Value::Bulk { .. } => true,
            // Private text that came without its VR is shown; numbers of other VRs are retrieved, not answered.
            Value::Bytes(_) => element.vr != VR::UN,
            _ => false,
        };
        (!bulk).then(|| Element { tag: self.tag, ..element.clone() })
    }
}

/// A key that came without its VR, and so is still bytes of the character sets that the query declares.
fn in_utf_8(key: &Element, words: &[String]) -> Element {
    match &key.value {
        // ESC changes the set: then bytes below 0x80 are no ASCII either.
        Value::Bytes(bytes) if key.vr == VR::UN && !words.is_empty() && !is_plain(bytes) => {
            let text = Charset::of(words).decode(bytes, VR::LO);
            Element { value: Value::Bytes(text.into_bytes().into()), ..key.clone() }
        }
        _ => key.clone(),
    }
}

fn is_plain(bytes: &[u8]) -> bool {
    const ESCAPE: u8 = 0x1B;
    bytes.iter().all(|byte| byte.is_ascii() && *byte != ESCAPE)
}

pub(crate) fn read(json: &Bytes) -> Result<DataSet, CatalogError> {
    let limits = Limits { header_bytes_max: u64::MAX, ..Limits::default() };
    json::from_json(json, &limits).map_err(|error| CatalogError::Damaged(format!("a header: {error}")))
}

/// Goes through the images below a row, in order, behind a place, until `visit` has enough. Each step is a range of an
/// index: a page that stops where it is full has read no more than it looked at. What `passed_over` says is passed over.
fn images_below(
    connection: &Connection,
    (level, id): (Level, i64),
    from: &Place,
    passed_over: &dyn Fn(Level, i64) -> Result<bool, CatalogError>,
    visit: &mut dyn FnMut(Place) -> Result<ControlFlow<()>, CatalogError>,
) -> Result<(), CatalogError> {
    let list = |sql: &str, above: i64, from: &str| -> Result<Vec<(i64, String)>, CatalogError> {
        let mut statement = connection.prepare_cached(sql).step("prepare images")?;
        let rows = statement.query_map(params![above, from], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.step("look for images")?.collect::<rusqlite::Result<_>>().step("look for images")
    };
    let studies = match level {
        Level::Patient => {
            list("SELECT id, uid FROM study WHERE patient = ?1 AND uid >= ?2 ORDER BY uid", id, &from.study)?
        }
        Level::Study => vec![(id, String::new())],
        Level::Series => {
            return of_series(connection, (id, Place::default()), from.instance, passed_over, visit).map(|_| ());
        }
        Level::Instance => return visit(Place { instance: id, ..Place::default() }).map(|_| ()),
    };
    for (study_id, study) in studies {
        if level == Level::Patient && passed_over(Level::Study, study_id)? {
            continue;
        }
        let inside = study == from.study;
        let begin = if inside { from.series.as_str() } else { "" };
        for (id, series) in
            list("SELECT id, uid FROM series WHERE study = ?1 AND uid >= ?2 ORDER BY uid", study_id, begin)?
        {
            if passed_over(Level::Series, id)? {
                continue;
            }
            let after = if inside && series == from.series { from.instance } else { -1 };
            let place = Place { study: study.clone(), series, instance: -1 };
            if of_series(connection, (id, place), after, passed_over, visit)?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The images of one series, which has a number and a place, behind an image.
fn of_series(
    connection: &Connection,
    (series, place): (i64, Place),
    after: i64,
    passed_over: &dyn Fn(Level, i64) -> Result<bool, CatalogError>,
    visit: &mut dyn FnMut(Place) -> Result<ControlFlow<()>, CatalogError>,
) -> Result<ControlFlow<()>, CatalogError> {
    let (first, behind) = ids_of(series);
    let sql = "SELECT id FROM instance WHERE id > ?1 AND id < ?2 ORDER BY id";
    let mut statement = connection.prepare_cached(sql).step("prepare images")?;
    let mut rows = statement.query(params![after.max(first - 1), behind]).step("look for images")?;
    while let Some(row) = rows.next().step("read images")? {
        let instance = row.get(0).step("read an image")?;
        if passed_over(Level::Instance, instance)? {
            continue;
        }
        if visit(Place { instance, ..place.clone() })?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The zone of the dates and times of a row: what its first image says.
pub(crate) fn zone_of(connection: &Connection, level: Level, id: i64) -> Result<Option<i32>, CatalogError> {
    let mut first = None;
    images_below(connection, (level, id), &Place::default(), &|_, _| Ok(false), &mut |place| {
        first = Some(place.instance);
        Ok(ControlFlow::Break(()))
    })?;
    let Some(instance) = first else { return Ok(None) };
    let attrs: Vec<u8> = connection
        .prepare_cached("SELECT attrs FROM instance WHERE id = ?1")
        .step("prepare attributes")?
        .query_row([instance], |row| row.get(0))
        .step("read attributes")?;
    let attrs: Attrs = decode("attributes", &attrs)?;
    let zone = number_of(tags::TIMEZONE_OFFSET_FROM_UTC);
    let values = attrs.iter().find(|(number, _)| *number == zone).map(|(_, values)| values);
    Ok(values.and_then(|values| offset_minutes(values.first()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_header_has_is_told_apart() {
        for tag in [tags::PIXEL_DATA, Tag(0x0008, 0x0063), Tag(0x0002, 0x0010), Tag(0x0011, 0), tags::RETRIEVE_URL] {
            assert!(!may_be_stored(tag), "{tag}");
        }
        for tag in [tags::IMAGE_COMMENTS, Tag(0x0011, 0x1001), tags::REFERENCED_IMAGE_SEQUENCE, tags::KVP] {
            assert!(may_be_stored(tag), "{tag}");
        }
    }
}
