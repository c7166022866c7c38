//! What retrieval asks for: instances in order, their headers, their frames.

use crate::{
    Catalog, InstanceRow,
    error::{CatalogError, Step},
    head::HEADER_JSON_BYTES_MAX,
    row::{decode, digest, uid},
};
use archive_model::{FrameMap, Uid};
use bytes::Bytes;
use raft_types::GroupId;
use rusqlite::{Connection, Row, params, params_from_iter, types::Value as Sql};

/// Instances by the UIDs above and of them. An empty list means any; all lists empty select nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Patient ID.
    pub patient: Option<String>,
    /// Study Instance UIDs.
    pub studies: Vec<Uid>,
    /// Series Instance UIDs.
    pub series: Vec<Uid>,
    /// SOP Instance UIDs.
    pub instances: Vec<Uid>,
}

/// Headers of a page, at most: a read transaction lasts no longer.
const HEADERS_AT_ONCE: usize = 64;

/// Bytes of headers after which a page is complete: what a slow client may leave waiting.
pub(crate) const PAGE_BYTES: usize = 4 << 20;

const COLUMNS: &str = "i.id, t.uid, e.uid, i.uid, i.sop_class, i.syntax, i.length, i.digest, t.grp, i.blocks, e.number,
    i.number, i.n_frames, i.versions FROM instance i JOIN series e ON e.id = i.id >> 24 JOIN study t ON t.id = e.study";

impl Catalog {
    /// The instances of a selection: by study, series number, series, instance number, instance.
    ///
    /// # Errors
    /// SQLite's, or damage.
    pub fn instances(&self, selection: &Selection) -> Result<Vec<InstanceRow>, CatalogError> {
        let Some((from, values)) = selection.sql() else { return Ok(Vec::new()) };
        let reader = self.pool.reader()?;
        let sql = format!(
            "SELECT {COLUMNS} {from} ORDER BY t.uid, e.number IS NULL, e.number, e.uid, i.number IS NULL, i.number, i.uid"
        );
        let mut statement = reader.prepare_cached(&sql).step("prepare instances")?;
        let mut rows = statement.query(params_from_iter(values)).step("select instances")?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().step("read instances")? {
            found.push(instance_row(row)?);
        }
        Ok(found)
    }

    /// The other contents that are kept under the UID of an instance, in order; none of most.
    ///
    /// # Errors
    /// SQLite's, or damage.
    pub fn other_contents(&self, row: &InstanceRow) -> Result<Vec<InstanceRow>, CatalogError> {
        if row.versions == 0 {
            return Ok(Vec::new());
        }
        let reader = self.pool.reader()?;
        let mut statement = reader
            .prepare_cached(
                "SELECT number, sop_class, syntax, length, digest, blocks FROM version WHERE instance = ?1 ORDER BY number",
            )
            .step("prepare versions")?;
        let mut rows = statement.query([row.id]).step("select versions")?;
        let mut found = Vec::new();
        while let Some(version) = rows.next().step("read versions")? {
            found.push(InstanceRow {
                version: version.get(0).step("read a version")?,
                sop_class: uid(version.get(1).step("read a version")?)?,
                transfer_syntax: version.get(2).step("read a version")?,
                length_bytes: version.get::<_, i64>(3).step("read a version")?.cast_unsigned(),
                digest: digest(&version.get::<_, Vec<u8>>(4).step("read a version")?)?,
                blocks: decode("the blocks of a version", &version.get::<_, Vec<u8>>(5).step("read a version")?)?,
                ..row.clone()
            });
        }
        Ok(found)
    }

    /// Where the frames of an instance lie.
    ///
    /// # Errors
    /// SQLite's, or damage.
    pub fn frames(&self, row: &InstanceRow) -> Result<Option<FrameMap>, CatalogError> {
        let frames: Option<Vec<u8>> = self
            .pool
            .reader()?
            // By digest: the content of `row` may have been replaced meanwhile, and is a version then.
            .prepare_cached(
                "SELECT frames FROM instance WHERE id = ?1 AND digest = ?2
                 UNION ALL SELECT frames FROM version WHERE instance = ?1 AND digest = ?2 LIMIT 1",
            )
            .step("prepare frames")?
            .query_row(params![row.id, row.digest], |row| row.get(0))
            .step("read frames")?;
        frames
            .map(|frames| {
                FrameMap::decode(&frames).map_err(|error| CatalogError::Damaged(format!("a frame map: {error}")))
            })
            .transpose()
    }
}

/// The headers of a selection as DICOM JSON, in the order of [`Catalog::instances`], page by page.
#[derive(Debug)]
pub struct HeaderPages {
    rows: std::vec::IntoIter<InstanceRow>,
}

impl HeaderPages {
    /// The headers of `selection`, none of them read yet.
    ///
    /// # Errors
    /// SQLite's, or damage.
    pub fn of(catalog: &Catalog, selection: &Selection) -> Result<Self, CatalogError> {
        Ok(Self { rows: catalog.instances(selection)?.into_iter() })
    }

    /// The next headers: at least one, until about 4 MiB; `None` after the last. Blocking.
    ///
    /// # Errors
    /// SQLite's, or damage.
    pub fn page(&mut self, catalog: &Catalog) -> Result<Option<Vec<(InstanceRow, Bytes)>>, CatalogError> {
        let reader = catalog.pool.reader()?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        while page.len() < HEADERS_AT_ONCE && bytes < PAGE_BYTES {
            let Some(row) = self.rows.next() else { break };
            let header = header_of(&reader, &row)?;
            bytes += header.len();
            page.push((row, header));
        }
        Ok((!page.is_empty()).then_some(page))
    }
}

impl Selection {
    /// `WHERE …` and its values; `None` when nothing is selected.
    fn sql(&self) -> Option<(String, Vec<Sql>)> {
        let (mut conditions, mut values) = (Vec::new(), Vec::new());
        if let Some(patient) = &self.patient {
            // "No ID" names nobody: alone it would select every patient that has none.
            if patient.trim().is_empty() && [&self.studies, &self.series, &self.instances].iter().all(|l| l.is_empty())
            {
                return None;
            }
            conditions.push("t.patient IN (SELECT id FROM patient WHERE pid = ?)".to_owned());
            values.push(Sql::Text(archive_model::matching::comparable(archive_model::VR::LO, patient)));
        }
        for (column, uids) in [("t.uid", &self.studies), ("e.uid", &self.series), ("i.uid", &self.instances)] {
            if uids.is_empty() {
                continue;
            }
            // One list as JSON instead of a place each: no limit on its length, and one statement for all lengths.
            conditions.push(format!("{column} IN (SELECT value FROM json_each(?))"));
            let list: Vec<&str> = uids.iter().map(Uid::as_str).collect();
            values.push(Sql::Text(serde_json::Value::from(list).to_string()));
        }
        (!conditions.is_empty()).then(|| (format!("WHERE {}", conditions.join(" AND ")), values))
    }
}

fn instance_row(row: &Row<'_>) -> Result<InstanceRow, CatalogError> {
    let text = |at: usize| row.get::<_, String>(at).step("read an instance");
    Ok(InstanceRow {
        id: row.get(0).step("read an instance")?,
        study: uid(text(1)?)?,
        series: uid(text(2)?)?,
        instance: uid(text(3)?)?,
        sop_class: uid(text(4)?)?,
        transfer_syntax: text(5)?,
        length_bytes: row.get::<_, i64>(6).step("read an instance")? as u64,
        digest: digest(&row.get::<_, Vec<u8>>(7).step("read an instance")?)?,
        group: GroupId(row.get(8).step("read an instance")?),
        blocks: decode("the blocks of an instance", &row.get::<_, Vec<u8>>(9).step("read an instance")?)?,
        series_number: row.get(10).step("read an instance")?,
        number: row.get(11).step("read an instance")?,
        frame_count: row.get(12).step("read an instance")?,
        version: 0,
        versions: row.get(13).step("read an instance")?,
    })
}

/// The header of what the UID answers, decompressed.
pub(crate) fn header(connection: &Connection, id: i64) -> Result<Bytes, CatalogError> {
    let compressed: Vec<u8> = connection
        .prepare_cached("SELECT header FROM instance WHERE id = ?1")
        .step("prepare a header")?
        .query_row([id], |row| row.get(0))
        .step("read a header")?;
    decompressed(&compressed)
}

/// The header of the very content of `row`, which may have been replaced meanwhile.
fn header_of(connection: &Connection, row: &InstanceRow) -> Result<Bytes, CatalogError> {
    let compressed: Vec<u8> = connection
        .prepare_cached(
            "SELECT header FROM instance WHERE id = ?1 AND digest = ?2
             UNION ALL SELECT header FROM version WHERE instance = ?1 AND digest = ?2 LIMIT 1",
        )
        .step("prepare a header")?
        .query_row(params![row.id, row.digest], |row| row.get(0))
        .step("read a header")?;
    decompressed(&compressed)
}

pub(crate) fn decompressed(compressed: &[u8]) -> Result<Bytes, CatalogError> {
    let damaged = |why: String| CatalogError::Damaged(format!("a header cannot be decompressed: {why}"));
    // Written by `zstd::bulk`, whose frames say how much is in them: as much is reserved, and no more than was written.
    let said = zstd::zstd_safe::get_frame_content_size(compressed).ok().flatten();
    let length = said.and_then(|said| usize::try_from(said).ok()).filter(|length| *length <= HEADER_JSON_BYTES_MAX);
    let length = length.ok_or_else(|| damaged("its size is not said, or beyond what is written".into()))?;
    let json = zstd::bulk::decompress(compressed, length).map_err(|error| damaged(error.to_string()))?;
    Ok(Bytes::from(json))
}
