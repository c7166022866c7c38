//! The SQL of a query: which rows, in which order, from where on.

use crate::{
    error::{CatalogError, Step},
    find::Level,
    keys::Column,
};
use archive_model::{
    VR,
    matching::{Moment, Pattern, wildcard_prefix},
    text::capped,
};
use rusqlite::{Connection, Row, types::Value as Sql};

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
pub(crate) fn order_of(level: Level, row: &Row<'_>) -> Result<Vec<Sql>, CatalogError> {
    let first = COLUMNS + 1;
    (first..first + order(level).len()).map(|at| row.get(at).step("read the order")).collect()
}

/// Adds the condition of all rows behind the one that stands at `after`.
pub(crate) fn behind(level: Level, after: &[Sql], conditions: &mut Vec<String>, values: &mut Vec<Sql>) {
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
pub(crate) fn statement(level: Level, condition: &str) -> String {
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
            // The same twice: from an image its series is found, and from a series its images are a range.
            "instance i JOIN series e ON e.id = i.id >> 24 AND i.id >= e.id << 24 AND i.id < (e.id + 1) << 24
             JOIN study t ON t.id = e.study JOIN patient p ON p.id = t.patient"
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
pub(crate) fn narrow(
    column: Column,
    pattern: &Pattern,
    several: bool,
    conditions: &mut Vec<String>,
    values: &mut Vec<Sql>,
) {
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
        // Each of them must match: each may narrow.
        (_, Pattern::All(each)) => each.iter().for_each(|pattern| narrow(column, pattern, several, conditions, values)),
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

/// Names that a fuzzy key may be satisfied with before it narrows nothing: one list of them goes to SQLite.
const NAMES_MAX: usize = 10_000;

/// The patients whose name matches a fuzzy key: a condition that holds for all of them.
pub(crate) struct NamesLike {
    condition: String,
    values: Vec<Sql>,
}

impl NamesLike {
    /// Looks through the distinct names that the index has, about a million a second; `None` if they narrow nothing.
    /// Names that come later are met or not, as all rows that come in between.
    pub(crate) fn of(connection: &Connection, pattern: &Pattern, key: &str) -> Result<Option<Self>, CatalogError> {
        // Groups of a key may match each another group of a name.
        if key.contains('=') {
            return Ok(None);
        }
        let (mut either, mut values, mut count) = (Vec::new(), Vec::new(), 0);
        for column in ["name_a", "name_i", "name_p"] {
            let sql = format!("SELECT DISTINCT {column} FROM study WHERE {column} <> ''");
            let mut statement = connection.prepare_cached(&sql).step("prepare names")?;
            let mut rows = statement.query([]).step("look through names")?;
            let mut alike: Vec<String> = Vec::new();
            while let Some(row) = rows.next().step("look through names")? {
                let name = row
                    .get_ref(0)
                    .step("read a name")?
                    .as_str()
                    .map_err(|error| CatalogError::Damaged(format!("a name of the index: {error}")))?;
                // One group of a folded name is a name, and folded again the same.
                if pattern.matches_text(VR::PN, name) {
                    alike.push(name.to_owned());
                    count += 1;
                }
                if count > NAMES_MAX {
                    return Ok(None);
                }
            }
            either.push(format!("(t.{column} <> '' AND t.{column} IN (SELECT value FROM json_each(?)))"));
            values.push(Sql::Text(serde_json::Value::from(alike).to_string()));
        }
        // A wildcard may stand for the sign between groups.
        if key.contains(['*', '?']) {
            either.extend(["t.name_i <> ''".to_owned(), "t.name_p <> ''".to_owned()]);
        }
        either.push("t.several = 1".to_owned());
        Ok(Some(Self { condition: format!("({})", either.join(" OR ")), values }))
    }

    pub(crate) fn narrow(&self, conditions: &mut Vec<String>, values: &mut Vec<Sql>) {
        conditions.push(self.condition.clone());
        values.extend(self.values.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::open_writer;

    /// Images had a way to their series, and series none to their images: a query for the images of one series went through those
    /// of the whole archive.
    #[test]
    fn images_are_found_from_their_study_and_from_their_uid() {
        let connection = Connection::open_in_memory().expect("memory");
        open_writer(&connection).expect("tables");
        for condition in
            ["t.uid = ?", "t.uid = ? AND e.uid = ?", "i.uid = ?", "e.uid = ?", "(t.pid = ? OR t.pid IS NULL)"]
        {
            let sql = format!("EXPLAIN QUERY PLAN {}", statement(Level::Instance, &format!("WHERE {condition}")));
            let mut plan = connection.prepare(&sql).expect("a statement");
            let count = plan.parameter_count();
            let steps = plan.query_map(rusqlite::params_from_iter(vec![1; count]), |row| row.get::<_, String>(3));
            let steps: Vec<String> = steps.expect("a plan").collect::<Result<_, _>>().expect("a plan");
            assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{condition}: {steps:?}");
        }
    }
}
