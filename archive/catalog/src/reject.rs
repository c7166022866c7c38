//! Rejections: what a rejection note (IHE IOCM, RAD-66) names is in no answer any more, by an entry of the log.
//!
//! ```text
//!                     Reject ─► is here?  yes, hide ─► Hidden: its rows move out of the index into `rejection`
//!                                         yes, delete ─► Deleted: its rows go (delete.rs), facts and bytes are kept
//!                                         no ─► Awaited                                       one row an instance
//!   Awaited ── stored ─► Hidden           Hidden · Deleted ── stored again ─► by policy: Keep, Refuse, Restore
//!   Hidden · Deleted · Awaited ── Restore ─► Lifted: rows are back in the index, and what comes is accepted
//!
//!   content = version 1 | postcard(Hidden)      patient, study and series attributes, the instance, its versions
//!           | version 2 | postcard((Hidden, [canonical digest]))    one for each content, in that order; 1 if there are none
//! ```
//!
//! *Out of the index* is what makes it whole: queries, counts, modalities, retrieval, metadata and commitment read the same
//! tables, and none of them has to know of rejections.
//!
//! - J-1 An instance is in the index or hidden, never both: both change in one apply, with the counts.
//! - J-2 What is hidden is kept, byte for byte and with its versions: its blocks are named, so that snapshots, backups, mirrors,
//!   scrub and compaction treat them as any other. Only a note that deletes, or an order to delete, makes them go.
//! - J-3 A note counts for what it names whenever that comes. What comes after a note that deletes is hidden and not thrown
//!   away: nobody has looked at it when its sender was told that it is safe.
//! - J-4 A note acts once on an instance. A copy of its order, or the note sent again, undoes no restore; another note acts anew.
//! - J-5 A copy of a store that was acknowledged before (same content and time of receipt) is no store again: it restores
//!   nothing.
//! - J-6 An admission of hidden content is what it would have been without the note: it is put back, admitted and hidden again in
//!   one apply, so that there is one set of rules for contents and versions.

use crate::{
    Admission, BlockPart, Catalog, InstanceHead, OtherContent, Outcome, RefusedWhy, RejectAction, RejectedAgain,
    Rejection, Source, Target, UploadId,
    apply::Work,
    error::{CatalogError, Step},
    export::{self, CONTENT, Content},
    import::put_version,
    levels::Levels,
    row::{self, decode, encode},
    sabotage::{Sabotage, is},
};
use archive_model::{CanonicalDigest, Uid};
use raft_types::GroupId;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

/// Where an instance stands that a note names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectedState {
    /// It has not come yet: it is hidden as it comes.
    Awaited,
    /// It is kept, and in no answer.
    Hidden,
    /// It is gone.
    Deleted,
    /// The note does not count any more.
    Restored,
}

impl RejectedState {
    /// Its number in rows and snapshots.
    fn number(self) -> i64 {
        match self {
            Self::Awaited => 0,
            Self::Hidden => 1,
            Self::Deleted => 2,
            Self::Restored => 3,
        }
    }

    fn of(number: i64) -> Result<Self, CatalogError> {
        let all = [Self::Awaited, Self::Hidden, Self::Deleted, Self::Restored];
        let found = all.into_iter().find(|state| state.number() == number);
        found.ok_or_else(|| CatalogError::Damaged(format!("a rejection of state {number}")))
    }
}

/// An instance that a note names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID.
    pub series: Uid,
    /// SOP Instance UID.
    pub instance: Uid,
    /// Where it stands.
    pub state: RejectedState,
    /// Bytes that are hidden, or that went; versions included.
    pub bytes: u64,
    /// The note that counts.
    pub rejection: Rejection,
}

/// An instance out of the index.
#[derive(Serialize, Deserialize)]
struct Hidden {
    patient_attrs: Vec<u8>,
    study_attrs: Vec<u8>,
    series_attrs: Vec<u8>,
    instance: export::Instance,
    versions: Vec<export::Version>,
}

impl Hidden {
    fn encode(&self) -> Vec<u8> {
        let canonicals: Vec<&Option<Vec<u8>>> = self.contents().map(|content| &content.canonical).collect();
        // Plain values: nothing here can fail to serialise.
        if canonicals.iter().all(|canonical| canonical.is_none()) {
            return postcard::to_extend(self, vec![1]).unwrap_or_default();
        }
        postcard::to_extend(&(self, canonicals), vec![2]).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CatalogError> {
        match bytes.split_first() {
            Some((1, rest)) => decode("a hidden instance", rest),
            Some((2, rest)) => {
                let (mut hidden, canonicals): (Self, Vec<Option<Vec<u8>>>) = decode("a hidden instance", rest)?;
                let versions = hidden.versions.iter_mut().map(|version| &mut version.content);
                for (content, canonical) in
                    std::iter::once(&mut hidden.instance.content).chain(versions).zip(canonicals)
                {
                    content.canonical = canonical;
                }
                Ok(hidden)
            }
            _ => Err(CatalogError::Damaged("a hidden instance of another release: upgrade this node".into())),
        }
    }

    fn contents(&self) -> impl Iterator<Item = &Content> {
        std::iter::once(&self.instance.content).chain(self.versions.iter().map(|version| &version.content))
    }

    fn bytes(&self) -> i64 {
        self.contents().map(|content| content.length).sum()
    }

    fn blocks(&self) -> Result<Vec<BlockPart>, CatalogError> {
        let parts =
            self.contents().map(|content| decode::<Vec<BlockPart>>("the blocks of an instance", &content.blocks));
        Ok(parts.collect::<Result<Vec<_>, _>>()?.concat())
    }
}

/// Which instance.
#[derive(Clone)]
struct Place {
    study: Uid,
    series: Uid,
    instance: Uid,
}

impl Place {
    fn target(&self) -> Target {
        Target { study: self.study.clone(), series: Some(self.series.clone()), instance: Some(self.instance.clone()) }
    }
}

/// The row of a rejection, without what it hides.
pub(crate) struct Row {
    place: Place,
    state: RejectedState,
    facts: Rejection,
}

impl Work<'_> {
    /// Does what a note says to the instances of a study.
    pub(crate) fn reject(
        &mut self,
        group: GroupId,
        index: u64,
        rejection: &Rejection,
        study: &Uid,
        named: &[(Uid, Vec<Uid>)],
    ) -> Result<Outcome, CatalogError> {
        let (mut hidden, mut deleted, mut awaited) = (0, 0, 0);
        let pairs = named.iter().flat_map(|(series, instances)| instances.iter().map(move |one| (series, one)));
        for (series, instance) in pairs {
            let place = Place { study: study.clone(), series: series.clone(), instance: instance.clone() };
            let known = self.rejection(group, &place)?;
            // J-4.
            if known.as_ref().is_some_and(|known| known.facts.note == rejection.note) {
                continue;
            }
            let state = known.map_or(RejectedState::Restored, |known| known.state);
            match (state, rejection.action) {
                // In the index, or not known at all.
                (RejectedState::Restored, _) if self.id_of(&place)?.is_none() => {
                    self.write(group, &place, rejection, RejectedState::Awaited, None)?;
                    awaited += 1;
                }
                (RejectedState::Restored, RejectAction::Hide) => {
                    self.hide(group, &place, rejection)?;
                    hidden += 1;
                }
                (RejectedState::Restored, RejectAction::Delete) => {
                    let class = self.take_down_class(&place)?;
                    let (_, bytes) = self.take_out(group, &place.target(), Some(index))?;
                    self.write(group, &place, rejection, RejectedState::Deleted, Some((&class, bytes)))?;
                    deleted += 1;
                }
                (RejectedState::Hidden, RejectAction::Delete) => {
                    let (gone, _) = self.delete_hidden(group, index, &place.target())?;
                    self.rename(group, &place, rejection)?;
                    deleted += gone.unsigned_abs();
                }
                // It is where the note wants it: the newest note says what becomes of it from now on.
                (RejectedState::Hidden | RejectedState::Awaited | RejectedState::Deleted, _) => {
                    self.rename(group, &place, rejection)?;
                }
            }
        }
        self.forget_deleted_stores(group, index)?;
        Ok(Outcome::Rejected { hidden, deleted, awaited })
    }

    /// Takes back what notes did to the target.
    pub(crate) fn restore(&mut self, group: GroupId, target: &Target) -> Result<Outcome, CatalogError> {
        let (mut instances, mut lifted) = (0, 0);
        for row in self.rejections_of(group, target)? {
            match row.state {
                RejectedState::Restored => {}
                RejectedState::Hidden => {
                    if self.unhide(group, &row)? {
                        instances += 1;
                    }
                }
                RejectedState::Awaited | RejectedState::Deleted => {
                    self.write(group, &row.place, &row.facts, RejectedState::Restored, None)?;
                    lifted += 1;
                }
            }
        }
        Ok(Outcome::Restored { instances, lifted })
    }

    /// The rejection that counts for an instance that is being stored.
    pub(crate) fn rejected(&self, group: GroupId, head: &InstanceHead) -> Result<Option<Row>, CatalogError> {
        let found = self.rejection(group, &place_of(head))?;
        Ok(found.filter(|row| row.state != RejectedState::Restored))
    }

    /// Stores an instance that a note names.
    pub(crate) fn admit_rejected(
        &mut self,
        group: GroupId,
        rejected: Row,
        head: &InstanceHead,
        blocks: &[BlockPart],
        upload: Option<UploadId>,
        other_content: OtherContent,
    ) -> Result<Outcome, CatalogError> {
        let Row { place, state, facts } = &rejected;
        let hides = match (state, facts.again) {
            (RejectedState::Restored | RejectedState::Awaited, _) => true,
            (RejectedState::Hidden, again) => {
                let Some(hidden) = self.hidden(group, place)? else {
                    return Err(CatalogError::Damaged("a hidden instance has no content".into()));
                };
                let is_copy = |content: &Content| {
                    let own = content.digest == head.digest;
                    own && (again == RejectedAgain::Keep || content.received_ms == head.received_unix_ms as i64)
                };
                // J-5.
                if hidden.contents().any(is_copy) && !is(self.planted, Sabotage::LateCopyRestores) {
                    return Ok(Outcome::Stored(Admission::Same));
                }
                if again == RejectedAgain::Refuse {
                    return Ok(Outcome::Refused(RefusedWhy::Rejected));
                }
                // J-6.
                if !self.unhide(group, &rejected)? {
                    return Ok(Outcome::Refused(RefusedWhy::SeriesFull));
                }
                again == RejectedAgain::Keep
            }
            (RejectedState::Deleted, again) => {
                if self.was_deleted(group, head)? {
                    return Ok(Outcome::Refused(RefusedWhy::Deleted));
                }
                if again == RejectedAgain::Refuse {
                    return Ok(Outcome::Refused(RefusedWhy::Rejected));
                }
                again == RejectedAgain::Keep
            }
        };
        let outcome = self.admit_accepted(group, head, blocks, upload, other_content)?;
        let stored = matches!(outcome, Outcome::Stored(_));
        match state {
            // What was put back for an admission that came to nothing is hidden again.
            RejectedState::Hidden if hides || !stored => self.hide(group, place, facts)?,
            RejectedState::Hidden => {}
            _ if !stored => {}
            _ if hides => self.hide(group, place, facts)?,
            _ => self.write(group, place, facts, RejectedState::Restored, None)?,
        }
        Ok(outcome)
    }

    /// Deletes what is hidden of the target; answers how many instances and bytes.
    pub(crate) fn delete_hidden(
        &mut self,
        group: GroupId,
        index: u64,
        target: &Target,
    ) -> Result<(i64, i64), CatalogError> {
        let (mut instances, mut bytes) = (0, 0);
        for row in self.rejections_of(group, target)? {
            if row.state != RejectedState::Hidden {
                continue;
            }
            let Some(hidden) = self.hidden(group, &row.place)? else { continue };
            for content in hidden.contents() {
                self.run(
                    "INSERT OR REPLACE INTO deleted_store (grp, digest, received_ms, idx) VALUES (?1, ?2, ?3, ?4)",
                    &[&group.0, &content.digest, &content.received_ms, &(index as i64)],
                )?;
            }
            let class = &hidden.instance.content.sop_class;
            self.write(group, &row.place, &row.facts, RejectedState::Deleted, Some((class, hidden.bytes())))?;
            instances += 1;
            bytes += hidden.bytes();
        }
        Ok((instances, bytes))
    }

    /// Moves an instance out of the index (J-1).
    fn hide(&mut self, group: GroupId, place: &Place, facts: &Rejection) -> Result<(), CatalogError> {
        let Some(id) = self.id_of(place)? else {
            return Err(CatalogError::Damaged("an instance to hide is not in the index".into()));
        };
        let hidden = self.take_down(id)?;
        self.take_out(group, &place.target(), None)?;
        let (bytes, blocks) = (hidden.bytes(), encode(&hidden.blocks()?));
        let class = &hidden.instance.content.sop_class;
        self.put(group, place, facts, RejectedState::Hidden, (class, bytes), &blocks, Some(&hidden.encode()))
    }

    /// What the index has of an instance.
    fn take_down(&self, id: i64) -> Result<Hidden, CatalogError> {
        let sql = format!(
            "SELECT t.patient_attrs, t.attrs, e.attrs, i.uid, i.number, i.n_frames, i.versions, i.attrs, {}
             FROM instance i JOIN series e ON e.id = i.id >> 24 JOIN study t ON t.id = e.study WHERE i.id = ?1",
            CONTENT.split(", ").map(|column| format!("i.{column}")).collect::<Vec<_>>().join(", ")
        );
        let mut statement = self.transaction.prepare_cached(&sql).step("prepare to hide")?;
        let take = |row: &rusqlite::Row<'_>| {
            Ok(Hidden {
                patient_attrs: row.get(0)?,
                study_attrs: row.get(1)?,
                series_attrs: row.get(2)?,
                instance: export::Instance {
                    ordinal: 0, // it gets a new one when it comes back
                    uid: row.get(3)?,
                    number: row.get(4)?,
                    n_frames: row.get(5)?,
                    versions: row.get(6)?,
                    attrs: row.get(7)?,
                    content: export::content(row, 8)?,
                },
                versions: Vec::new(),
            })
        };
        let mut hidden = statement.query_row([id], take).step("hide an instance")?;
        let sql = format!("SELECT number, {CONTENT} FROM version WHERE instance = ?1 ORDER BY number");
        let mut statement = self.transaction.prepare_cached(&sql).step("prepare to hide")?;
        let take =
            |row: &rusqlite::Row<'_>| Ok(export::Version { number: row.get(0)?, content: export::content(row, 1)? });
        let rows = statement.query_map([id], take).step("hide versions")?;
        hidden.versions = rows.collect::<rusqlite::Result<_>>().step("hide versions")?;
        Ok(hidden)
    }

    /// Puts a hidden instance back into the index; `false` when its series has no number left for it: then it stays hidden.
    fn unhide(&mut self, group: GroupId, row: &Row) -> Result<bool, CatalogError> {
        let Some(hidden) = self.hidden(group, &row.place)? else { return Ok(false) };
        let Hidden { patient_attrs, study_attrs, series_attrs, instance, versions } = hidden;
        let what = "the attributes of a hidden instance";
        let damaged = || CatalogError::Damaged("a canonical digest has not 33 bytes".into());
        let attrs = Levels {
            patient: decode(what, &patient_attrs)?,
            study: decode(what, &study_attrs)?,
            series: decode(what, &series_attrs)?,
            instance: decode(what, &instance.attrs)?,
        };
        let content = &instance.content;
        let head = InstanceHead {
            study: row.place.study.clone(),
            series: row.place.series.clone(),
            instance: row.place.instance.clone(),
            sop_class: row::uid(content.sop_class.clone())?,
            transfer_syntax: content.syntax.clone(),
            length_bytes: content.length.unsigned_abs(),
            digest: row::digest(&content.digest)?,
            header: content.header.clone().into(),
            keys: Vec::new(), // `attrs` are what they were
            frames: content.frames.clone().map(Into::into),
            source: decode::<Source>("the source of an instance", &content.source)?,
            received_unix_ms: content.received_ms.unsigned_abs(),
            canonical: content
                .canonical
                .as_deref()
                .filter(|_| !is(self.planted, Sabotage::CanonicalIsForgotten))
                .map(|bytes| CanonicalDigest::from_bytes(bytes).ok_or_else(damaged))
                .transpose()?,
        };
        if self.is_full(&head)? {
            return Ok(false);
        }
        let blocks: Vec<BlockPart> = decode("the blocks of an instance", &content.blocks)?;
        let id = self.insert(group, &head, &blocks, &attrs)?;
        for version in &versions {
            put_version(self.transaction, id, version)?;
            self.totals.versions += 1;
            self.totals.bytes += version.content.length;
        }
        self.run("UPDATE instance SET versions = ?2 WHERE id = ?1", &[&id, &instance.versions])?;
        self.write(group, &row.place, &row.facts, RejectedState::Restored, None)?;
        Ok(true)
    }

    /// The SOP class of an instance in the index.
    fn take_down_class(&self, place: &Place) -> Result<String, CatalogError> {
        let id = self.id_of(place)?;
        self.transaction
            .prepare_cached("SELECT sop_class FROM instance WHERE id = ?1")
            .step("prepare a class")?
            .query_row([id], |row| row.get(0))
            .step("look a class up")
    }

    /// The number of an instance in the index.
    fn id_of(&self, place: &Place) -> Result<Option<i64>, CatalogError> {
        self.transaction
            .prepare_cached(
                "SELECT i.id FROM instance i JOIN series e ON e.id = i.id >> 24
                 JOIN study t ON t.id = e.study WHERE i.uid = ?1 AND e.uid = ?2 AND t.uid = ?3",
            )
            .step("prepare a look-up")?
            .query_row(params![place.instance.as_str(), place.series.as_str(), place.study.as_str()], |row| row.get(0))
            .optional()
            .step("look an instance up")
    }

    fn rejection(&self, group: GroupId, place: &Place) -> Result<Option<Row>, CatalogError> {
        let found: Option<(i64, Vec<u8>)> = self
            .transaction
            .prepare_cached(
                "SELECT state, facts FROM rejection WHERE grp = ?1 AND study = ?2 AND series = ?3 AND instance = ?4",
            )
            .step("prepare a rejection")?
            .query_row(params![group.0, place.study.as_str(), place.series.as_str(), place.instance.as_str()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .step("look a rejection up")?;
        let Some((state, facts)) = found else { return Ok(None) };
        Ok(Some(Row {
            place: place.clone(),
            state: RejectedState::of(state)?,
            facts: decode("the facts of a rejection", &facts)?,
        }))
    }

    /// The rejections of a target, by UID.
    fn rejections_of(&self, group: GroupId, target: &Target) -> Result<Vec<Row>, CatalogError> {
        let mut statement = self
            .transaction
            .prepare_cached(
                "SELECT series, instance, state, facts FROM rejection WHERE grp = ?1 AND study = ?2
                 AND (?3 IS NULL OR series = ?3) AND (?4 IS NULL OR instance = ?4) ORDER BY series, instance",
            )
            .step("prepare rejections")?;
        let (series, instance) = (target.series.as_ref(), target.instance.as_ref());
        let values = params![group.0, target.study.as_str(), series.map(Uid::as_str), instance.map(Uid::as_str)];
        let mut rows = statement.query(values).step("read rejections")?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().step("read rejections")? {
            let text = |at| row.get::<_, String>(at).step("read a rejection");
            let facts: Vec<u8> = row.get(3).step("read a rejection")?;
            found.push(Row {
                place: Place {
                    study: target.study.clone(),
                    series: row::uid(text(0)?)?,
                    instance: row::uid(text(1)?)?,
                },
                state: RejectedState::of(row.get(2).step("read a rejection")?)?,
                facts: decode("the facts of a rejection", &facts)?,
            });
        }
        Ok(found)
    }

    fn hidden(&self, group: GroupId, place: &Place) -> Result<Option<Hidden>, CatalogError> {
        let found: Option<Option<Vec<u8>>> = self
            .transaction
            .prepare_cached(
                "SELECT content FROM rejection WHERE grp = ?1 AND study = ?2 AND series = ?3 AND instance = ?4",
            )
            .step("prepare a rejection")?
            .query_row(params![group.0, place.study.as_str(), place.series.as_str(), place.instance.as_str()], |row| {
                row.get(0)
            })
            .optional()
            .step("read a hidden instance")?;
        found.flatten().map(|content| Hidden::decode(&content)).transpose()
    }

    /// Writes the row of a rejection that hides nothing; `gone` are class and bytes of what went.
    fn write(
        &self,
        group: GroupId,
        place: &Place,
        facts: &Rejection,
        state: RejectedState,
        gone: Option<(&str, i64)>,
    ) -> Result<(), CatalogError> {
        let no_blocks = encode(&Vec::<BlockPart>::new());
        self.put(group, place, facts, state, gone.unwrap_or(("", 0)), &no_blocks, None)
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of one row")]
    fn put(
        &self,
        group: GroupId,
        place: &Place,
        facts: &Rejection,
        state: RejectedState,
        (sop_class, bytes): (&str, i64),
        blocks: &[u8],
        content: Option<&[u8]>,
    ) -> Result<(), CatalogError> {
        self.run(
            "INSERT OR REPLACE INTO rejection (grp, study, series, instance, state, sop_class, bytes, rejected_ms, note,
             facts, blocks, content) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            &[
                &group.0,
                &place.study.as_str(),
                &place.series.as_str(),
                &place.instance.as_str(),
                &state.number(),
                &sop_class,
                &bytes,
                &(facts.rejected_unix_ms as i64),
                &facts.note[2].as_str(),
                &encode(facts),
                &blocks,
                &content,
            ],
        )?;
        Ok(())
    }

    /// Another note counts from now on.
    fn rename(&self, group: GroupId, place: &Place, facts: &Rejection) -> Result<(), CatalogError> {
        self.run(
            "UPDATE rejection SET facts = ?5, note = ?6, rejected_ms = ?7
             WHERE grp = ?1 AND study = ?2 AND series = ?3 AND instance = ?4",
            &[
                &group.0,
                &place.study.as_str(),
                &place.series.as_str(),
                &place.instance.as_str(),
                &encode(facts),
                &facts.note[2].as_str(),
                &(facts.rejected_unix_ms as i64),
            ],
        )?;
        Ok(())
    }
}

fn place_of(head: &InstanceHead) -> Place {
    Place { study: head.study.clone(), series: head.series.clone(), instance: head.instance.clone() }
}

impl Catalog {
    /// What notes name, the newest notes first, at most `limit`: of one study or of all, with those whose note does not count
    /// any more if `also_restored`.
    ///
    /// # Errors
    /// SQLite's, or damage.
    pub fn rejections(
        &self,
        study: Option<&Uid>,
        also_restored: bool,
        limit: u32,
    ) -> Result<Vec<Rejected>, CatalogError> {
        rejections(&*self.pool.reader()?, study, also_restored, limit)
    }
}

fn rejections(
    connection: &Connection,
    study: Option<&Uid>,
    also_restored: bool,
    limit: u32,
) -> Result<Vec<Rejected>, CatalogError> {
    let sql = format!(
        "SELECT study, series, instance, state, bytes, facts FROM rejection WHERE (?2 OR state <> 3) {}
         ORDER BY rejected_ms DESC, study, series, instance LIMIT ?3",
        if study.is_some() { "AND study = ?1" } else { "AND ?1 IS NULL" }
    );
    let mut statement = connection.prepare_cached(&sql).step("prepare rejections")?;
    let mut rows = statement.query(params![study.map(Uid::as_str), also_restored, limit]).step("read rejections")?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().step("read rejections")? {
        let uid = |at| row::uid(row.get::<_, String>(at).step("read a rejection")?);
        let facts: Vec<u8> = row.get(5).step("read a rejection")?;
        found.push(Rejected {
            study: uid(0)?,
            series: uid(1)?,
            instance: uid(2)?,
            state: RejectedState::of(row.get(3).step("read a rejection")?)?,
            bytes: row.get::<_, i64>(4).step("read a rejection")?.unsigned_abs(),
            rejection: decode("the facts of a rejection", &facts)?,
        });
    }
    Ok(found)
}
