//! Queries: C-FIND and QIDO over one index.
//!
//! A query runs in two steps. SQL narrows by the columns that some keys have and puts rows in order; then every key is
//! matched in full by `archive_model::matching`, the one place that knows PS3.4 C.2.2.2. So a column may narrow too
//! little, never too much: where an attribute has several values, its column does not narrow at all.
//!
//! A key that the index does not know is looked for in the headers of images: see `witness.rs`. What is in the index is
//! matched first.
//!
//! | level | order |
//! |---|---|
//! | patient | id, issuer; without an id, study |
//! | study | newest first: date, time, then UID |
//! | series, instance | study, series number, series, instance number, instance |
//!
//! Rows are read page by page, each a short read of its own. A page begins behind the row that the one before ended
//! with, by the columns of the order: rows that come in between are met or not, and no row is met twice or left out.

use crate::{
    Catalog,
    error::{CatalogError, Step},
    keys::{COMPUTED, Column, KEYS, key_of},
    narrow::{NamesLike, behind, narrow, order_of, statement},
    retrieve::PAGE_BYTES,
    row::{Attrs, decode, element, put_all},
    witness::{HEADERS_AT_ONCE, Header, HeaderKeys, Place, Reads, Witness, may_be_stored, zone_of},
};
use archive_model::{
    DataSet, Element, Tag, VR, Value,
    matching::{
        Meaning, Moment, Pattern, all_match, date_plus, matching_items, move_zone, offset_minutes, offset_text,
        patterns,
    },
    tags,
};
use raft_types::GroupId;
use rusqlite::{Connection, Row, params_from_iter, types::Value as Sql};
use std::{collections::BTreeSet, sync::Arc};

/// What is looked for (PS3.4 C.6.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Patients.
    Patient,
    /// Studies.
    Study,
    /// Series.
    Series,
    /// Composite objects.
    Instance,
}

impl Level {
    const NAMES: [(Self, &'static str); 4] =
        [(Self::Patient, "patient"), (Self::Study, "study"), (Self::Series, "series"), (Self::Instance, "image")];

    /// Its name for people and in what is stored: `patient`, `study`, `series` or `image`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(level, _)| *level == self).map_or("", |(_, name)| name)
    }

    /// The level of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, own)| *own == name).map(|(level, _)| *level)
    }
}

/// What is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// The keys of the query.
    Requested,
    /// They, and what QIDO returns unasked.
    Default,
    /// Everything known at the level and above.
    All,
}

/// A query. Keys of upper levels may match more than one, and person names match without case and accents, always.
#[derive(Debug, Clone)]
pub struct Find {
    /// What is looked for.
    pub level: Level,
    /// Keys: a value is matched, an empty one only returned.
    pub keys: DataSet,
    /// What is returned.
    pub include: Include,
    /// At most so many answers.
    pub limit: Option<u64>,
    /// So many are left out first.
    pub offset: u64,
    /// How the keys are read.
    pub meaning: Meaning,
}

impl Find {
    /// The keys that are neither matched nor returned.
    #[must_use]
    pub fn unsupported(&self) -> Vec<Tag> {
        self.keys.iter().map(|key| key.tag).filter(|tag| !is_control(*tag) && !supported(self.level, *tag)).collect()
    }
}

/// Rows that are looked at in one go, at most: bounds the length of a read transaction, as `PAGE_BYTES` does the memory.
const ROWS_AT_ONCE: u64 = 512;

/// Attributes that steer the query instead of being matched.
fn is_control(tag: Tag) -> bool {
    [tags::QUERY_RETRIEVE_LEVEL, tags::SPECIFIC_CHARACTER_SET, tags::INSTANCE_AVAILABILITY, tags::RETRIEVE_AE_TITLE]
        .contains(&tag)
        || tag == tags::TIMEZONE_OFFSET_FROM_UTC
        || tag.element() == 0
}

fn supported(level: Level, tag: Tag) -> bool {
    match key_of(tag) {
        Some(key) => key.level <= level,
        None => may_be_stored(tag),
    }
}

/// Days that a date may be another one in another zone: offsets go from -12 to +14 hours.
const ZONE_DAYS: i64 = 2;

/// A query that runs, page by page.
#[derive(Debug)]
pub struct Search {
    find: Find,
    /// Keys of the index that must match.
    patterns: Vec<(Tag, Pattern)>,
    /// Keys that are looked for in headers.
    headers: HeaderKeys,
    /// What columns say of the keys.
    narrowing: Vec<(Column, Pattern)>,
    /// The names that a fuzzy key is satisfied with: looked for once, with the first page.
    names: Names,
    sop_classes: bool,
    /// Groups whose images cannot be read now.
    unreachable: Arc<BTreeSet<GroupId>>,
    /// Where the row stands that was looked at last: its values of the order.
    after: Option<Vec<Sql>>,
    /// The row whose images are being looked at, and how far.
    inside: Option<(Vec<Sql>, Option<Place>)>,
    /// Headers that were read to match them.
    headers_read: u64,
    skipped: u64,
    sent: u64,
    ended: bool,
}

/// What is known of the names that a fuzzy key is satisfied with.
enum Names {
    /// No such key, or it narrows nothing.
    Any,
    /// They must be looked for: the key, and how it is written.
    Unknown(Pattern, String),
    Like(NamesLike),
}

impl std::fmt::Debug for Names {
    /// Never the names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Any => "Any",
            Self::Unknown(..) => "Unknown",
            Self::Like(_) => "Like",
        })
    }
}

/// What became of a row.
enum Seen {
    No,
    Yes(DataSet, usize),
    /// Not all of its images could be looked at in this page.
    Later(Option<Place>),
}

impl Search {
    /// The answers to `find`, none of them looked for yet.
    ///
    /// # Errors
    /// A key that means nothing.
    pub fn of(find: Find) -> Result<Self, CatalogError> {
        let usable = |key: &&Element| !is_control(key.tag) && supported(find.level, key.tag);
        let (indexed, stored): (Vec<Element>, Vec<Element>) =
            find.keys.iter().filter(usable).cloned().partition(|key| key_of(key.tag).is_some());
        let (indexed, stored) = (indexed.into_iter().collect::<DataSet>(), stored.into_iter().collect::<DataSet>());
        let (mut narrowing, mut names) = (Vec::new(), Names::Any);
        for key in &indexed {
            let pattern = Pattern::of(key, &find.meaning)?;
            if key.tag == tags::PATIENT_NAME
                && let Pattern::Fuzzy(..) = pattern
            {
                names = Names::Unknown(pattern, key_text(key));
            } else if let Some(column) = key_of(key.tag).and_then(|known| known.column) {
                narrowing.push((column, in_any_zone(key.tag, pattern, &find.meaning)));
            }
        }
        let patterns = patterns(&indexed, &find.meaning)?;
        let headers = HeaderKeys::of(&stored, &find.keys, &find.meaning)?;
        let wants_classes = find.include == Include::All || find.keys.get(tags::SOP_CLASSES_IN_STUDY).is_some();
        let sop_classes = wants_classes && find.level >= Level::Study;
        let (headers_read, skipped, sent, ended) = (0, 0, 0, false);
        let (after, inside) = (None, None);
        Ok(Self {
            find,
            patterns,
            headers,
            narrowing,
            names,
            sop_classes,
            unreachable: Arc::default(),
            after,
            inside,
            headers_read,
            skipped,
            sent,
            ended,
        })
    }

    /// The same, with answers that say UNAVAILABLE where images are in one of these groups (0008,0056).
    #[must_use]
    pub fn unreachable(self, groups: Arc<BTreeSet<GroupId>>) -> Self {
        Self { unreachable: groups, ..self }
    }

    /// The next answers, none of them if the rows that were looked at do not match; `None` after the last. Blocking.
    ///
    /// # Errors
    /// SQLite's, damage, or more images to look into than a query may.
    pub fn page(&mut self, catalog: &Catalog) -> Result<Option<Vec<DataSet>>, CatalogError> {
        let wanted = self.find.limit.unwrap_or(u64::MAX);
        if self.ended || self.sent == wanted {
            return Ok(None);
        }
        // The first page is as small as the answer may be.
        let first = wanted.saturating_add(self.find.offset).min(ROWS_AT_ONCE);
        let count = if self.after.is_none() { first } else { ROWS_AT_ONCE };
        let reader = catalog.pool.reader()?;
        // what is said of indexes, and the rows, are of one moment.
        let _moment = reader.unchecked_transaction().step("begin a query")?;
        self.headers.look_for_indexes(&reader)?;
        if let Names::Unknown(pattern, key) = &self.names {
            self.names = NamesLike::of(&reader, pattern, key)?.map_or(Names::Any, Names::Like);
        }
        let max = catalog.query_headers_max();
        let mut reads = Reads { of_page: HEADERS_AT_ONCE, of_query: max.saturating_sub(self.headers_read), max };
        let (sql, values) = self.sql(&reader, count)?;
        let mut statement = reader.prepare_cached(&sql).step("prepare a query")?;
        let mut rows = statement.query(params_from_iter(values)).step("query")?;
        let (mut answers, mut bytes, mut seen) = (Vec::new(), 0, 0);
        while bytes < PAGE_BYTES && self.sent < wanted {
            let Some(row) = rows.next().step("read answers")? else {
                self.ended = seen < count;
                break;
            };
            seen += 1;
            let order = order_of(self.find.level, row)?;
            // Another row may have come in front of it since; then it is its turn later.
            let inside = self.inside.take_if(|(stopped, _)| *stopped == order).and_then(|(_, place)| place);
            match self.look_at(&reader, row, inside, &mut reads)? {
                Seen::Later(place) => {
                    self.inside = Some((order, place));
                    break;
                }
                Seen::No => self.after = Some(order),
                Seen::Yes(..) if self.skipped < self.find.offset => {
                    self.skipped += 1;
                    self.after = Some(order);
                }
                Seen::Yes(candidate, candidate_bytes) => {
                    self.after = Some(order);
                    self.sent += 1;
                    bytes += candidate_bytes;
                    let mut answer = self.answer(candidate);
                    if self.is_unreachable(&reader, row)? {
                        answer.put_text(tags::INSTANCE_AVAILABILITY, VR::CS, "UNAVAILABLE");
                    }
                    answers.push(answer);
                }
            }
        }
        self.headers_read = max.saturating_sub(reads.of_query);
        Ok(Some(answers))
    }

    /// Whether a row matches; then everything known of it, and how many bytes that is.
    fn look_at(
        &self,
        connection: &Connection,
        row: &Row<'_>,
        inside: Option<Place>,
        reads: &mut Reads,
    ) -> Result<Seen, CatalogError> {
        let (mut candidate, mut bytes) = self.candidate(connection, row)?;
        if !all_match(&self.patterns, &candidate) {
            return Ok(Seen::No);
        }
        let level = self.find.level;
        let whole = level == Level::Instance && self.find.include == Include::All;
        if self.headers.is_empty() && !whole {
            return Ok(Seen::Yes(candidate, bytes));
        }
        let id: i64 = row.get(0).step("read an id")?;
        let header = match self.headers.witness(connection, (level, id), inside, reads)? {
            Witness::Found(header) => header,
            Witness::Nobody if self.headers.must_match() => return Ok(Seen::No),
            // Its images went a moment ago: nothing is known of them.
            Witness::Nobody => return Ok(Seen::Yes(candidate, bytes)),
            Witness::Later(place) => return Ok(Seen::Later(place)),
        };
        let Header { whole: header, named, bytes: header_bytes } = *header;
        bytes += header_bytes;
        if whole {
            put_header(&mut candidate, header);
        }
        named.into_iter().for_each(|element| candidate.put(element));
        Ok(Seen::Yes(candidate, bytes))
    }

    /// The statement of the next page, and its values.
    fn sql(&self, connection: &Connection, count: u64) -> Result<(String, Vec<Sql>), CatalogError> {
        let several = connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM study WHERE several = 1)")
            .step("prepare a query")?
            .query_row([], |row| row.get(0))
            .step("look for studies with several values")?;
        let (mut conditions, mut values) = (Vec::new(), Vec::new());
        for (column, pattern) in &self.narrowing {
            narrow(*column, pattern, several, &mut conditions, &mut values);
        }
        if let Names::Like(names) = &self.names {
            names.narrow(&mut conditions, &mut values);
        }
        for narrowing in self.headers.narrowings() {
            if narrowing.is_selective(connection)? {
                narrowing.narrow(self.find.level, &mut conditions, &mut values);
            }
        }
        if let Some(after) = &self.after {
            behind(self.find.level, after, &mut conditions, &mut values);
        }
        let condition =
            if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
        values.push(Sql::Integer(i64::try_from(count).unwrap_or(i64::MAX)));
        Ok((statement(self.find.level, &condition), values))
    }

    /// Everything known of a row, for matching and for the answer, and how many bytes that was.
    fn candidate(&self, connection: &Connection, row: &Row<'_>) -> Result<(DataSet, usize), CatalogError> {
        let mut set = DataSet::new();
        let level = self.find.level;
        let mut bytes = 0;
        let mut attrs = |at: usize| -> Result<Attrs, CatalogError> {
            let encoded = row.get::<_, Vec<u8>>(at).step("read attributes")?;
            bytes += encoded.len();
            decode("attributes", &encoded)
        };
        let mut count = |tag: Tag, at: usize| -> Result<(), CatalogError> {
            let value: i64 = row.get(at).step("read a count")?;
            set.put(Element { tag, vr: VR::IS, value: Value::Text(vec![value.to_string()]) });
            Ok(())
        };
        count(tags::NUMBER_OF_PATIENT_RELATED_STUDIES, 1)?;
        count(tags::NUMBER_OF_PATIENT_RELATED_SERIES, 2)?;
        count(tags::NUMBER_OF_PATIENT_RELATED_INSTANCES, 3)?;
        if level >= Level::Study {
            count(tags::NUMBER_OF_STUDY_RELATED_SERIES, 5)?;
            count(tags::NUMBER_OF_STUDY_RELATED_INSTANCES, 6)?;
        }
        if level >= Level::Series {
            count(tags::NUMBER_OF_SERIES_RELATED_INSTANCES, 9)?;
        }
        put_all(&mut set, &attrs(4)?);
        if level >= Level::Study {
            put_all(&mut set, &attrs(8)?);
            let modalities: String = row.get(7).step("read modalities")?;
            let list: Vec<String> = modalities.split('\\').filter(|text| !text.is_empty()).map(str::to_owned).collect();
            set.put(element(tags::MODALITIES_IN_STUDY, VR::CS, &list));
        }
        if level >= Level::Series {
            put_all(&mut set, &attrs(10)?);
        }
        if level == Level::Instance {
            put_all(&mut set, &attrs(11)?);
        }
        if let Some(zone) = self.find.meaning.zone_minutes.filter(|_| level >= Level::Study) {
            let own = match level {
                Level::Instance => set.text(tags::TIMEZONE_OFFSET_FROM_UTC).and_then(offset_minutes),
                _ => zone_of(connection, level, row.get(0).step("read an id")?)?,
            };
            // Whose zone nobody knows stays as it was written, and says none.
            if let Some(own) = own {
                move_zone(&mut set, zone - own);
                set.put_text(tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, offset_text(zone));
            }
        }
        if self.sop_classes {
            let study: i64 = row.get(12).step("read an id")?;
            set.put(element(tags::SOP_CLASSES_IN_STUDY, VR::UI, &sop_classes(connection, study)?));
        }
        Ok((set, bytes))
    }

    /// Whether some images of a row cannot be read now.
    fn is_unreachable(&self, connection: &Connection, row: &Row<'_>) -> Result<bool, CatalogError> {
        // Almost always.
        if self.unreachable.is_empty() {
            return Ok(false);
        }
        let (column, at) = if self.find.level == Level::Patient { ("patient", 0) } else { ("id", 12) };
        let id: i64 = row.get(at).step("read an id")?;
        let mut statement = connection
            .prepare_cached(&format!("SELECT DISTINCT grp FROM study WHERE {column} = ?1"))
            .step("prepare groups")?;
        let groups = statement.query_map([id], |row| Ok(GroupId(row.get(0)?))).step("read groups")?;
        let groups = groups.collect::<rusqlite::Result<Vec<_>>>().step("read groups")?;
        Ok(groups.iter().any(|group| self.unreachable.contains(group)))
    }

    /// Of sequences that a key looks into, the items that match, with the attributes it names (PS3.4 C.2.2.2.6).
    fn leave_matching_items(&self, answer: &mut DataSet) {
        for key in &self.find.keys {
            let (Value::Items(items), Some(Value::Items(stored))) =
                (&key.value, answer.get(key.tag).map(|element| &element.value))
            else {
                continue;
            };
            let left = matching_items(items, stored, &self.find.meaning);
            answer.put(Element { tag: key.tag, vr: VR::SQ, value: Value::Items(left) });
        }
    }

    /// Leaves what was asked for.
    fn answer(&self, candidate: DataSet) -> DataSet {
        let level = self.find.level;
        let zone = self.find.meaning.zone_minutes.is_some();
        let wanted = |tag: Tag| match self.find.include {
            _ if zone && tag == tags::TIMEZONE_OFFSET_FROM_UTC => true,
            Include::All => true,
            Include::Requested => self.find.keys.get(tag).is_some(),
            Include::Default => {
                self.find.keys.get(tag).is_some() || key_of(tag).is_some_and(|key| returned(key, level))
            }
        };
        let mut answer: DataSet = candidate.into_iter().filter(|element| wanted(element.tag)).collect();
        if self.find.include == Include::Requested {
            self.leave_matching_items(&mut answer);
        }
        // Known, but absent here: zero length (PS3.4 C.2.2.1.3), for keys and for QIDO's own.
        for key in &self.find.keys {
            if answer.get(key.tag).is_none() && !is_control(key.tag) && supported(level, key.tag) {
                answer.put(Element { tag: key.tag, vr: key.vr, value: Value::Empty });
            }
        }
        if self.find.include == Include::Default {
            for key in KEYS.iter().chain(COMPUTED).filter(|key| returned(key, level) && key.vr != VR::SQ) {
                if key.tag != tags::TIMEZONE_OFFSET_FROM_UTC && answer.get(key.tag).is_none() {
                    answer.put(Element { tag: key.tag, vr: key.vr, value: Value::Empty });
                }
            }
        }
        answer
    }
}

/// Puts in attributes of the header that are not in the index. What belongs to an upper level is what its row says, also
/// when it says nothing: columns narrow by that.
fn put_header(set: &mut DataSet, header: DataSet) {
    for element in header {
        let bulk = matches!(element.value, Value::Bulk { .. } | Value::Bytes(_));
        let upper = key_of(element.tag).is_some_and(|key| key.level < Level::Instance);
        if !bulk && !upper && set.get(element.tag).is_none() {
            set.put(element);
        }
    }
}

/// A pattern that holds for a date in whatever zone it was written.
fn in_any_zone(tag: Tag, pattern: Pattern, meaning: &Meaning) -> Pattern {
    match pattern {
        Pattern::Range(Moment::Date, ranges) if tag == tags::STUDY_DATE && meaning.zone_minutes.is_some() => {
            let wider = ranges.into_iter().map(|(from, to)| {
                // An end that is no day of a calendar bounds nothing.
                let moved = |day: &str, days| date_plus(day, days).unwrap_or_default();
                (moved(&from, -ZONE_DAYS), moved(&to, ZONE_DAYS))
            });
            Pattern::Range(Moment::Date, wider.collect())
        }
        pattern => pattern,
    }
}

fn key_text(key: &Element) -> String {
    match &key.value {
        Value::Text(values) => values.join("\\"),
        _ => String::new(),
    }
}

/// Whether QIDO returns the attribute unasked at `level`: those of the level, for studies also the patient's, and the
/// unique keys above.
fn returned(key: &crate::Key, level: Level) -> bool {
    let of_level = key.level == level || (level == Level::Study && key.level == Level::Patient);
    let counts_patient = key.level == Level::Patient && COMPUTED.iter().any(|computed| computed.tag == key.tag);
    let unique = [tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID].contains(&key.tag) && key.level < level;
    (key.default && of_level && !counts_patient) || unique
}

fn sop_classes(connection: &Connection, study: i64) -> Result<Vec<String>, CatalogError> {
    let mut statement = connection
        .prepare_cached(
            "SELECT DISTINCT i.sop_class FROM series e JOIN instance i ON i.id >= e.id << 24 AND i.id < (e.id + 1) << 24
             WHERE e.study = ?1 ORDER BY 1",
        )
        .step("prepare classes")?;
    let rows = statement.query_map([study], |row| row.get(0)).step("read classes")?;
    rows.collect::<rusqlite::Result<_>>().step("read classes")
}
