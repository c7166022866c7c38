//! Queries: C-FIND and QIDO over one index.
//!
//! A query runs in two steps. SQL narrows by the columns that some keys have and puts rows in order; then every key is
//! matched in full by `archive_model::matching`, the one place that knows PS3.4 C.2.2.2. So a column may narrow too
//! little, never too much.
//!
//! | level | order |
//! |---|---|
//! | patient | id, issuer |
//! | study | newest first: date, time, then UID |
//! | series, instance | study, series number, series, instance number, instance |

use crate::{
    Catalog,
    error::{CatalogError, Step},
    keys::{COMPUTED, Column, KEYS, key_of},
    retrieve,
    row::{Attrs, decode, element, put_all},
};
use archive_model::{
    DataSet, Element, Limits, Tag, VR, Value, json,
    matching::{Moment, Pattern, wildcard_prefix},
    tags,
};
use rusqlite::{Connection, Row, params_from_iter, types::Value as Sql};
use std::ops::ControlFlow;

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

/// Which information model asks (PS3.4 C.6.1, C.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// Patients above studies.
    Patient,
    /// Patient attributes belong to the study.
    Study,
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

/// A query.
#[derive(Debug, Clone)]
pub struct Find {
    /// What is looked for.
    pub level: Level,
    /// Which model asks.
    pub root: Root,
    /// Keys: a value is matched, an empty one only returned.
    pub keys: DataSet,
    /// What is returned.
    pub include: Include,
    /// At most so many answers.
    pub limit: Option<u64>,
    /// So many are left out first.
    pub offset: u64,
    /// Person names are always matched without case and accents; nothing more is done for this.
    pub fuzzy: bool,
    /// Keys of upper levels may match more than one.
    pub relational: bool,
}

/// How a query ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FindSummary {
    /// Keys that were neither matched nor returned.
    pub unsupported: Vec<Tag>,
    /// Whether there is more behind the limit.
    pub more: bool,
}

/// Rows that are looked at in one go, at most: bounds RAM and the length of a read transaction.
const ROWS_AT_ONCE: u64 = 512;

impl Catalog {
    /// Runs a query; `sink` takes the answers in order and may stop it. Blocking.
    ///
    /// # Errors
    /// A key that means nothing, SQLite's, or damage.
    pub fn find(
        &self,
        find: &Find,
        sink: &mut dyn FnMut(DataSet) -> ControlFlow<()>,
    ) -> Result<FindSummary, CatalogError> {
        let plan = Plan::of(find)?;
        let mut summary = FindSummary { unsupported: self.unsupported(find), more: false };
        let (mut seen, mut skipped, mut sent) = (0, 0, 0);
        let wanted = find.limit.unwrap_or(u64::MAX);
        // The first page is as small as the answer may be.
        let mut page = wanted.saturating_add(find.offset).saturating_add(1).min(ROWS_AT_ONCE);
        loop {
            let candidates = {
                let reader = self.pool.reader()?;
                plan.page(&reader, seen, page)?
            };
            let count = candidates.len() as u64;
            for candidate in candidates {
                if !plan.matches(&candidate) {
                    continue;
                }
                if skipped < find.offset {
                    skipped += 1;
                    continue;
                }
                if sent == wanted {
                    summary.more = true;
                    return Ok(summary);
                }
                sent += 1;
                if sink(plan.answer(candidate)).is_break() {
                    return Ok(summary);
                }
            }
            if count < page {
                return Ok(summary);
            }
            seen += count;
            page = ROWS_AT_ONCE;
        }
    }

    /// The keys that are neither matched nor returned.
    #[must_use]
    pub fn unsupported(&self, find: &Find) -> Vec<Tag> {
        find.keys.iter().map(|key| key.tag).filter(|tag| !is_control(*tag) && !supported(find.level, *tag)).collect()
    }
}

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

/// A query, ready to run.
struct Plan<'a> {
    find: &'a Find,
    patterns: Vec<(Tag, Pattern)>,
    sql: String,
    values: Vec<Sql>,
    /// The header must be read: some key is not in the index.
    header: bool,
    sop_classes: bool,
}

impl<'a> Plan<'a> {
    fn of(find: &'a Find) -> Result<Self, CatalogError> {
        let mut patterns = Vec::new();
        let (mut conditions, mut values) = (Vec::new(), Vec::new());
        let mut header = find.level == Level::Instance && find.include == Include::All;
        for key in &find.keys {
            if is_control(key.tag) || !supported(find.level, key.tag) {
                continue;
            }
            let pattern = Pattern::of(key)?;
            match key_of(key.tag) {
                Some(known) => {
                    if let Some(column) = known.column {
                        narrow(column, &pattern, &mut conditions, &mut values);
                    }
                }
                None => header = true,
            }
            if pattern != Pattern::Universal {
                patterns.push((key.tag, pattern));
            }
        }
        let condition =
            if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
        let wants_classes = find.include == Include::All || find.keys.get(tags::SOP_CLASSES_IN_STUDY).is_some();
        Ok(Self {
            find,
            patterns,
            sql: statement(find.level, &condition),
            values,
            header,
            sop_classes: wants_classes && find.level >= Level::Study,
        })
    }

    fn page(&self, connection: &Connection, offset: u64, count: u64) -> Result<Vec<DataSet>, CatalogError> {
        let mut statement = connection.prepare_cached(&self.sql).step("prepare a query")?;
        let numbers = [count, offset].map(|number| Sql::Integer(i64::try_from(number).unwrap_or(i64::MAX)));
        let mut rows = statement.query(params_from_iter(self.values.iter().cloned().chain(numbers))).step("query")?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().step("read answers")? {
            found.push(self.candidate(connection, row)?);
        }
        Ok(found)
    }

    /// Everything known of a row, for matching and for the answer.
    fn candidate(&self, connection: &Connection, row: &Row<'_>) -> Result<DataSet, CatalogError> {
        let mut set = DataSet::new();
        let level = self.find.level;
        let attrs = |at: usize| -> Result<Attrs, CatalogError> {
            decode("attributes", &row.get::<_, Vec<u8>>(at).step("read attributes")?)
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
            if self.header {
                self.put_header(&mut set, connection, row.get(0).step("read an id")?)?;
            }
        }
        if self.sop_classes {
            let study: i64 = row.get(12).step("read an id")?;
            set.put(element(tags::SOP_CLASSES_IN_STUDY, VR::UI, &sop_classes(connection, study)?));
        }
        Ok(set)
    }

    /// Attributes of the header that are not in the index.
    fn put_header(&self, set: &mut DataSet, connection: &Connection, id: i64) -> Result<(), CatalogError> {
        let bytes = retrieve::header(connection, id)?;
        let limits = Limits { header_bytes_max: u64::MAX, ..Limits::default() };
        let header =
            json::from_json(&bytes, &limits).map_err(|error| CatalogError::Damaged(format!("a header: {error}")))?;
        for element in &header {
            let bulk = matches!(element.value, Value::Bulk { .. } | Value::Bytes(_));
            if !bulk && set.get(element.tag).is_none() {
                set.put(element.clone());
            }
        }
        Ok(())
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

/// Whether QIDO returns the attribute unasked at `level`: those of the level, for studies also the patient's, and the
/// unique keys above.
fn returned(key: &crate::Key, level: Level) -> bool {
    let of_level = key.level == level || (level == Level::Study && key.level == Level::Patient);
    let counts_patient = key.level == Level::Patient && COMPUTED.iter().any(|computed| computed.tag == key.tag);
    let unique = [tags::STUDY_INSTANCE_UID, tags::SERIES_INSTANCE_UID].contains(&key.tag) && key.level < level;
    (key.default && of_level && !counts_patient) || unique
}

/// The statement of a level. Columns: 0 id, 1–3 patient's counts, 4 patient's attributes, 5–6 study's counts,
/// 7 modalities, 8 study's attributes, 9 series' count, 10 series' attributes, 11 instance's attributes, 12 study's id.
fn statement(level: Level, condition: &str) -> String {
    let study = "t.n_series, t.n_instances, t.modalities, t.attrs";
    let (columns, from, order) = match level {
        Level::Patient => (
            "p.id, p.n_studies, p.n_series, p.n_instances, t.patient_attrs".to_owned(),
            "patient p JOIN study t ON t.patient = p.id
             AND t.uid = (SELECT min(uid) FROM study WHERE patient = p.id)",
            "p.pid, p.issuer",
        ),
        Level::Study => (
            format!("t.id, p.n_studies, p.n_series, p.n_instances, t.patient_attrs, {study}, 0, 0, 0, t.id"),
            "study t JOIN patient p ON p.id = t.patient",
            "t.date DESC, t.time DESC, t.uid",
        ),
        Level::Series => (
            format!(
                "e.id, p.n_studies, p.n_series, p.n_instances, t.patient_attrs, {study}, e.n_instances, e.attrs, 0, t.id"
            ),
            "series e JOIN study t ON t.id = e.study JOIN patient p ON p.id = t.patient",
            "t.uid, e.number IS NULL, e.number, e.uid",
        ),
        Level::Instance => (
            format!(
                "i.id, p.n_studies, p.n_series, p.n_instances, t.patient_attrs, {study}, e.n_instances, e.attrs, i.attrs, t.id"
            ),
            "instance i JOIN series e ON e.id = i.id >> 24 JOIN study t ON t.id = e.study JOIN patient p ON p.id = t.patient",
            "t.uid, e.number IS NULL, e.number, e.uid, i.number IS NULL, i.number, i.uid",
        ),
    };
    format!("SELECT {columns} FROM {from} {condition} ORDER BY {order} LIMIT ? OFFSET ?")
}

/// Adds a condition that holds for every row which `pattern` matches.
fn narrow(column: Column, pattern: &Pattern, conditions: &mut Vec<String>, values: &mut Vec<Sql>) {
    let text = |text: &str| Sql::Text(text.to_owned());
    match (column, pattern) {
        (Column::Text(name) | Column::Uid(name), Pattern::AnyOf(wanted)) if wanted.len() == 1 => {
            // NULL stands for several values, which only the full match can look into.
            let several = if matches!(column, Column::Text(_)) { format!(" OR {name} IS NULL") } else { String::new() };
            conditions.push(format!("({name} = ?{several})"));
            values.push(text(&archive_model::text::capped(&wanted[0])));
        }
        (Column::Uid(name), Pattern::AnyOf(wanted)) => {
            conditions.push(format!("{name} IN (SELECT value FROM json_each(?))"));
            values.push(Sql::Text(serde_json::Value::from(wanted.clone()).to_string()));
        }
        (Column::Text(name), Pattern::Wildcard(pattern)) if !wildcard_prefix(pattern).is_empty() => {
            conditions.push(format!("(({name} >= ? AND {name} < ?) OR {name} IS NULL)"));
            values.extend(between(&archive_model::text::capped(wildcard_prefix(pattern))));
        }
        (Column::Moment(name), Pattern::Range(Moment::Date, from, to)) => {
            for (bound, sign) in [(from, ">="), (to, "<=")] {
                if !bound.is_empty() {
                    conditions.push(format!("{name} {sign} ?"));
                    values.push(text(bound));
                }
            }
            conditions.push(format!("{name} <> ''"));
        }
        (Column::Name, Pattern::Names(names)) if names.len() == 1 && !names[0].contains('=') => {
            conditions.push(
                "(t.name_a = ? OR (t.name_i <> '' AND t.name_i = ?) OR (t.name_p <> '' AND t.name_p = ?))".into(),
            );
            values.extend([text(&names[0]), text(&names[0]), text(&names[0])]);
        }
        (Column::Name, Pattern::NameWildcard(pattern)) => {
            let prefix = wildcard_prefix(pattern);
            if !prefix.is_empty() && !prefix.contains('=') && prefix.len() <= 64 {
                let group = |name: &str| format!("({name} >= ? AND {name} < ?)");
                conditions.push(format!(
                    "({} OR (t.name_i <> '' AND {}) OR (t.name_p <> '' AND {}))",
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
