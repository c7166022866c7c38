//! Queries: C-FIND and QIDO over one index.
//!
//! A query runs in two steps. SQL narrows by the columns that some keys have and puts rows in order; then every key is
//! matched in full by `archive_model::matching`, the one place that knows PS3.4 C.2.2.2. So a column may narrow too
//! little, never too much: where an attribute has several values, its column does not narrow at all.
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
    retrieve::{self, PAGE_BYTES},
    row::{Attrs, decode, element, put_all},
};
use archive_model::{
    DataSet, Element, Limits, Tag, VR, Value, json,
    matching::{Moment, Pattern, wildcard_prefix},
    tags,
    text::capped,
};
use rusqlite::{Connection, Row, params_from_iter, types::Value as Sql};

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
        None => level == Level::Instance,
    }
}

/// A query that runs, page by page.
#[derive(Debug)]
pub struct Search {
    find: Find,
    patterns: Vec<(Tag, Pattern)>,
    /// What columns say of the keys.
    narrowing: Vec<(Column, Pattern)>,
    /// The header must be read: some key is not in the index.
    header: bool,
    sop_classes: bool,
    /// Where the row stands that was looked at last: its values of the order.
    after: Option<Vec<Sql>>,
    skipped: u64,
    sent: u64,
    ended: bool,
}

impl Search {
    /// The answers to `find`, none of them looked for yet.
    ///
    /// # Errors
    /// A key that means nothing.
    pub fn of(find: Find) -> Result<Self, CatalogError> {
        let (mut patterns, mut narrowing) = (Vec::new(), Vec::new());
        let mut header = find.level == Level::Instance && find.include == Include::All;
        for key in &find.keys {
            if is_control(key.tag) || !supported(find.level, key.tag) {
                continue;
            }
            let pattern = Pattern::of(key)?;
            match key_of(key.tag) {
                Some(known) => narrowing.extend(known.column.map(|column| (column, pattern.clone()))),
                None => header = true,
            }
            if pattern != Pattern::Universal {
                patterns.push((key.tag, pattern));
            }
        }
        let wants_classes = find.include == Include::All || find.keys.get(tags::SOP_CLASSES_IN_STUDY).is_some();
        let sop_classes = wants_classes && find.level >= Level::Study;
        let (skipped, sent, ended) = (0, 0, false);
        Ok(Self { find, patterns, narrowing, header, sop_classes, after: None, skipped, sent, ended })
    }

    /// The next answers, none of them if the rows that were looked at do not match; `None` after the last. Blocking.
    ///
    /// # Errors
    /// SQLite's, or damage.
    pub fn page(&mut self, catalog: &Catalog) -> Result<Option<Vec<DataSet>>, CatalogError> {
        let wanted = self.find.limit.unwrap_or(u64::MAX);
        if self.ended || self.sent == wanted {
            return Ok(None);
        }
        // The first page is as small as the answer may be.
        let first = wanted.saturating_add(self.find.offset).min(ROWS_AT_ONCE);
        let count = if self.after.is_none() { first } else { ROWS_AT_ONCE };
        let reader = catalog.pool.reader()?;
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
            self.after = Some(order_of(self.find.level, row)?);
            let (candidate, candidate_bytes) = self.candidate(&reader, row)?;
            if !self.matches(&candidate) {
                continue;
            }
            if self.skipped < self.find.offset {
                self.skipped += 1;
                continue;
            }
            self.sent += 1;
            bytes += candidate_bytes;
            answers.push(self.answer(candidate));
        }
        Ok(Some(answers))
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
        if self.header {
            bytes += put_header(&mut set, connection, row.get(0).step("read an id")?)?;
        }
        if self.sop_classes {
            let study: i64 = row.get(12).step("read an id")?;
            set.put(element(tags::SOP_CLASSES_IN_STUDY, VR::UI, &sop_classes(connection, study)?));
        }
        Ok((set, bytes))
    }

    fn matches(&self, candidate: &DataSet) -> bool {
        self.patterns.iter().all(|(tag, pattern)| pattern.matches(candidate.get(*tag)))
    }

    /// Leaves what was asked for.
    fn answer(&self, candidate: DataSet) -> DataSet {
        let level = self.find.level;
        let wanted = |tag: Tag| match self.find.include {
            Include::All => true,
            Include::Requested => self.find.keys.get(tag).is_some(),
            Include::Default => {
                self.find.keys.get(tag).is_some() || key_of(tag).is_some_and(|key| returned(key, level))
            }
        };
        let mut answer: DataSet = candidate.iter().filter(|element| wanted(element.tag)).cloned().collect();
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

/// Puts in attributes of the header that are not in the index; answers how many bytes the header has. What belongs to an
/// upper level is what its row says, also when it says nothing: columns narrow by that.
fn put_header(set: &mut DataSet, connection: &Connection, id: i64) -> Result<usize, CatalogError> {
    let bytes = retrieve::header(connection, id)?;
    let limits = Limits { header_bytes_max: u64::MAX, ..Limits::default() };
    let header =
        json::from_json(&bytes, &limits).map_err(|error| CatalogError::Damaged(format!("a header: {error}")))?;
    for element in header {
        let bulk = matches!(element.value, Value::Bulk { .. } | Value::Bytes(_));
        let upper = key_of(element.tag).is_some_and(|key| key.level < Level::Instance);
        if !bulk && !upper && set.get(element.tag).is_none() {
            set.put(element);
        }
    }
    Ok(bytes.len())
}

/// Whether QIDO returns the attribute unasked at `level`: those of the level, for studies also the patient's, and the
/// unique keys above.
fn returned(key: &crate::Key, level: Level) -> bool {
    let of_level = key.level == level || (level == Level::Study && key.level == Level::Patient);
    let counts_patient = key.level == Level::Patient && COMPUTED.iter().any(|computed| computed.tag == key.tag);
    let unique = [tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID].contains(&key.tag) && key.level < level;
    (key.default && of_level && !counts_patient) || unique
}

/// The values that put the rows of a level in order; all of them ascend but date and time of studies.
fn order(level: Level) -> &'static [&'static str] {
    match level {
        Level::Patient => &["p.pid", "p.issuer", "p.study"],
        Level::Study => &["t.date", "t.time", "t.uid"],
        Level::Series => &["t.uid", "e.number IS NULL", "ifnull(e.number, 0)", "e.uid"],
        Level::Instance => &[
            "t.uid",
            "e.number IS NULL",
            "ifnull(e.number, 0)",
            "e.uid",
            "i.number IS NULL",
            "ifnull(i.number, 0)",
            "i.uid",
        ],
    }
}

/// The values of the order of a row: they stand behind all other columns.
fn order_of(level: Level, row: &Row<'_>) -> Result<Vec<Sql>, CatalogError> {
    let first = COLUMNS + 1;
    (first..first + order(level).len()).map(|at| row.get(at).step("read the order")).collect()
}

/// Adds the condition of all rows behind the one that stands at `after`.
fn behind(level: Level, after: &[Sql], conditions: &mut Vec<String>, values: &mut Vec<Sql>) {
    // The first comparison alone says less, and is one that an index knows.
    match (level, after) {
        (Level::Study, [date, time, uid]) => {
            conditions.push("t.date <= ? AND (t.date < ? OR t.time < ? OR (t.time = ? AND t.uid > ?))".into());
            values.extend([date, date, time, time, uid].map(Clone::clone));
        }
        _ => {
            let columns = order(level);
            let places = vec!["?"; columns.len()].join(", ");
            conditions.push(format!("{} >= ? AND ({}) > ({places})", columns[0], columns.join(", ")));
            values.extend(after.iter().take(1).chain(after).cloned());
        }
    }
}

/// The number of the last column of every statement before those of the order.
const COLUMNS: usize = 12;

/// The statement of a level. Columns: 0 id, 1–3 patient's counts, 4 patient's attributes, 5–6 study's counts,
/// 7 modalities, 8 study's attributes, 9 series' count, 10 series' attributes, 11 instance's attributes, 12 study's id,
/// from 13 the order.
fn statement(level: Level, condition: &str) -> String {
    let study = "t.n_series, t.n_instances, t.modalities, t.attrs";
    let (id, own) = match level {
        Level::Patient => ("p.id", "0, 0, 0, 0, 0, 0, 0, 0".to_owned()),
        Level::Study => ("t.id", format!("{study}, 0, 0, 0, t.id")),
        Level::Series => ("e.id", format!("{study}, e.n_instances, e.attrs, 0, t.id")),
        Level::Instance => ("i.id", format!("{study}, e.n_instances, e.attrs, i.attrs, t.id")),
    };
    let from = match level {
        Level::Patient => {
            "patient p JOIN study t ON t.patient = p.id AND t.uid = (SELECT min(uid) FROM study WHERE patient = p.id)"
        }
        Level::Study => "study t JOIN patient p ON p.id = t.patient",
        Level::Series => "series e JOIN study t ON t.id = e.study JOIN patient p ON p.id = t.patient",
        Level::Instance => {
            "instance i JOIN series e ON e.id = i.id >> 24 JOIN study t ON t.id = e.study JOIN patient p ON p.id = t.patient"
        }
    };
    let keys = order(level).join(", ");
    let order = match level {
        Level::Study => "t.date DESC, t.time DESC, t.uid",
        Level::Patient | Level::Series | Level::Instance => &keys,
    };
    format!(
        "SELECT {id}, p.n_studies, p.n_series, p.n_instances, t.patient_attrs, {own}, {keys} FROM {from} {condition}
         ORDER BY {order} LIMIT ?"
    )
}

/// Adds a condition that holds for every row which `pattern` matches. `several` says that some study has several values
/// where its column has the first.
fn narrow(column: Column, pattern: &Pattern, several: bool, conditions: &mut Vec<String>, values: &mut Vec<Sql>) {
    let text = |text: &str| Sql::Text(text.to_owned());
    let or_several = if several { " OR t.several = 1" } else { "" };
    match (column, pattern) {
        (Column::Text(name) | Column::Uid(name), Pattern::AnyOf(wanted)) => {
            // NULL stands for several values, which only the full match can look into.
            let or_null = if matches!(column, Column::Text(_)) { format!(" OR {name} IS NULL") } else { String::new() };
            if let [one] = wanted.as_slice() {
                conditions.push(format!("({name} = ?{or_null})"));
                values.push(text(&capped(one)));
            } else {
                conditions.push(format!("({name} IN (SELECT value FROM json_each(?)){or_null})"));
                let wanted: Vec<String> = wanted.iter().map(|one| capped(one)).collect();
                values.push(Sql::Text(serde_json::Value::from(wanted).to_string()));
            }
        }
        (Column::Text(name), Pattern::Wildcard(patterns)) => {
            if let Some(prefix) = only_prefix(patterns) {
                conditions.push(format!("(({name} >= ? AND {name} < ?) OR {name} IS NULL)"));
                values.extend(between(&capped(prefix)));
            }
        }
        (Column::Moment(name), Pattern::Range(Moment::Date, ranges)) => {
            let mut either = Vec::new();
            for (from, to) in ranges {
                let mut both = vec![format!("{name} <> ''")];
                for (bound, sign) in [(from, ">="), (to, "<=")] {
                    if !bound.is_empty() {
                        both.push(format!("{name} {sign} ?"));
                        values.push(text(bound));
                    }
                }
                either.push(both.join(" AND "));
            }
            // One range alone stays a condition that an index knows.
            match either.as_slice() {
                [one] if !several => conditions.push(one.clone()),
                _ => conditions.push(format!("(({}){or_several})", either.join(") OR ("))),
            }
        }
        (Column::Name, Pattern::Names(names)) if names.len() == 1 && !names[0].contains('=') => {
            conditions.push(format!(
                "(t.name_a = ? OR (t.name_i <> '' AND t.name_i = ?) OR (t.name_p <> '' AND t.name_p = ?){or_several})"
            ));
            values.extend([text(&names[0]), text(&names[0]), text(&names[0])]);
        }
        (Column::Name, Pattern::NameWildcard(patterns)) => {
            if let Some(prefix) = only_prefix(patterns).filter(|prefix| !prefix.contains('=') && prefix.len() <= 64) {
                let group = |name: &str| format!("({name} >= ? AND {name} < ?)");
                conditions.push(format!(
                    "({} OR (t.name_i <> '' AND {}) OR (t.name_p <> '' AND {}){or_several})",
                    group("t.name_a"),
                    group("t.name_i"),
                    group("t.name_p")
                ));
                for _ in 0..3 {
                    values.extend(between(prefix));
                }
            }
        }
        _ => {}
    }
}

/// What a value must begin with to match the one pattern there is.
fn only_prefix(patterns: &[String]) -> Option<&str> {
    match patterns {
        [one] => Some(wildcard_prefix(one)).filter(|prefix| !prefix.is_empty()),
        _ => None,
    }
}

/// The bounds of all texts that begin with `prefix`.
fn between(prefix: &str) -> [Sql; 2] {
    [Sql::Text(prefix.to_owned()), Sql::Text(format!("{prefix}\u{10ffff}"))]
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
