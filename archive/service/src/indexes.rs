//! Indexes for attributes of the header, which operators add and remove while the archive runs.
//!
//! ```text
//!   triptych index add ─► Indexes::add ─► Documents::put (compare and set, by a majority)
//!                                               │ every node
//!                                               ▼
//!                       work_on_indexes: learn ─► Catalog::set_extra ─► Catalog::fill_extra, step by step, with rests
//!
//!   document "indexes" = {"version":1,"indexes":[{"attribute":"(0018,0060)","vr":"DS","level":"series"},…]}   by attribute
//! ```
//!
//! The list is a document of the meta group, as the registry of peers is: it is in the log, in its snapshots and in backups, and on
//! every node. The rows are each node's own, made from the headers that it has (`archive_catalog`, X-1…X-5). A node that lost them
//! fills them again.
//!
//! - IX-1 No answer depends on whether a node knows the list: without an index a query takes the slower path.
//! - IX-2 A list that this release cannot read changes nothing: the indexes stay as they are.
//! - IX-3 Who changes the list has seen what he changes (compare and set).
//! - IX-4 The fill takes a step of some 10 ms and rests three times as long: it never has more than a quarter of one core.

use crate::Archive;
use archive_catalog::{ExtraIndex, ExtraState, FillStep};
use archive_model::{Attribute, names};
use bytes::Bytes;
use parking_lot::RwLock;
use raft_types::{Document, DocumentError, Documents};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::Notify, time::Instant};

/// The key of the list among the documents of the cluster.
const KEY: &str = "indexes";
/// The version of the document that this release writes.
const VERSION: u32 = 1;
/// Indexes, at most: each is looked at for every instance that is stored.
const INDEXES_MAX: usize = 32;
/// How often a change is made anew because another one came between.
const TRIES: usize = 8;
/// How long this node may take to hear of it.
const HEAR_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks for what there is to fill, when nothing is known to be: rows may have been imported.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a failure of the catalogue: a full disk, mostly.
const PAUSE: Duration = Duration::from_secs(10);
/// How much longer than a step its rest is.
const RESTS: u32 = 3;

/// Why the list was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// What was asked for cannot be: the sentence says what would be right.
    #[error("{0}")]
    Bad(String),
    /// There is no such index.
    #[error("there is no index of {0}: `triptych index list` lists them")]
    Unknown(Attribute),
    /// Somebody else was first.
    #[error("the indexes were changed meanwhile, they are at version {0} now: look at them and try again")]
    Changed(u64),
    /// It would break a bound of the cluster.
    #[error("{0}")]
    Refused(String),
    /// No majority decided, or this node does not know the list yet: try again.
    #[error("{0}")]
    Undecided(String),
}

/// An index, and how far this node is with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexState {
    /// Which one.
    pub index: ExtraIndex,
    /// Whether queries that this node answers use it.
    pub ready: bool,
    /// Instances that have no rows in it yet.
    pub instances_left: u64,
}

/// What this node knows of the list.
#[derive(Debug, Clone)]
enum Known {
    NotYet,
    Unreadable { version: u64, why: String },
    List { version: u64, indexes: Arc<BTreeMap<Attribute, ExtraIndex>> },
}

/// The list as this node knows it.
pub struct Indexes {
    documents: Arc<dyn Documents>,
    known: RwLock<Known>,
    /// The version that the catalogue has; held while it is given one.
    settled: tokio::sync::Mutex<Option<u64>>,
    /// There may be something to fill.
    changed: Notify,
}

/// The document.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    indexes: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    attribute: String,
    vr: String,
    level: String,
}

/// Only what every version has.
#[derive(Deserialize)]
struct Stamp {
    version: u32,
}

/// An index as people ask for one: a standard attribute has its VR from the dictionary.
///
/// # Errors
/// A sentence that says what would be right.
pub fn index_of(attribute: &str, vr: Option<&str>, level: &str) -> Result<ExtraIndex, IndexError> {
    let index = read(attribute, vr, level)?;
    index.check().map_err(IndexError::Bad)?;
    Ok(index)
}

/// The same without asking whether it is of use: what one release has added another may have in every archive.
fn read(attribute: &str, vr: Option<&str>, level: &str) -> Result<ExtraIndex, IndexError> {
    let attribute: Attribute = attribute.trim().parse().map_err(IndexError::Bad)?;
    let vr = match (vr, &attribute) {
        (Some(vr), _) => {
            let known = vr.trim().to_ascii_uppercase().parse();
            known.map_err(|_| IndexError::Bad(format!("`{vr}` is no value representation, such as LO")))?
        }
        (None, Attribute::Standard(tag)) => names::vr_of(*tag),
        (None, Attribute::Private { .. }) => {
            return Err(IndexError::Bad("no dictionary has the VR of a private attribute: say it, such as LO".into()));
        }
    };
    let level = archive_catalog::Level::named(level.trim());
    let level = level.ok_or_else(|| IndexError::Bad("the level is patient, study, series or image".into()))?;
    Ok(ExtraIndex { attribute, vr, level })
}

fn decode(bytes: &[u8]) -> Result<BTreeMap<Attribute, ExtraIndex>, String> {
    if bytes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let malformed = |error: serde_json::Error| format!("it cannot be read: {error}");
    let stamp: Stamp = serde_json::from_slice(bytes).map_err(malformed)?;
    if stamp.version > VERSION {
        return Err(format!("it is of version {}, and this release reads {VERSION}: upgrade this node", stamp.version));
    }
    let written: Written = serde_json::from_slice(bytes).map_err(malformed)?;
    let one = |entry: Entry| {
        let index = read(&entry.attribute, Some(&entry.vr), &entry.level).map_err(|error| error.to_string())?;
        Ok((index.attribute.clone(), index))
    };
    written.indexes.into_iter().map(one).collect()
}

fn encode(indexes: &BTreeMap<Attribute, ExtraIndex>) -> Bytes {
    let entry = |index: &ExtraIndex| Entry {
        // Never by a keyword, which another edition of the dictionary may change.
        attribute: tag_text(&index.attribute),
        vr: index.vr.to_string().to_owned(),
        level: index.level.name().to_owned(),
    };
    let written = Written { version: VERSION, indexes: indexes.values().map(entry).collect() };
    // Plain values: nothing here can fail to serialise.
    serde_json::to_vec(&written).unwrap_or_default().into()
}

/// An attribute by its numbers.
#[must_use]
pub fn tag_text(attribute: &Attribute) -> String {
    match attribute {
        Attribute::Standard(tag) => format!("({:04X},{:04X})", tag.group(), tag.element()),
        private @ Attribute::Private { .. } => private.to_string(),
    }
}

impl Indexes {
    pub(crate) fn new(documents: Arc<dyn Documents>) -> Self {
        Self { documents, known: RwLock::new(Known::NotYet), settled: Default::default(), changed: Notify::new() }
    }

    /// Takes a document over, unless a newer one is known.
    pub(crate) fn learn(&self, document: &Document) {
        let mut known = self.known.write();
        let held = match &*known {
            Known::NotYet => None,
            Known::Unreadable { version, .. } | Known::List { version, .. } => Some(*version),
        };
        if held >= Some(document.version) {
            return;
        }
        let version = document.version;
        *known = match decode(&document.bytes) {
            Ok(indexes) => {
                tracing::info!(version, indexes = indexes.len(), "the indexes are known");
                Known::List { version, indexes: Arc::new(indexes) }
            }
            Err(why) => {
                tracing::error!(version, why, "the list of indexes cannot be read: they stay as they are");
                Known::Unreadable { version, why }
            }
        };
    }

    fn list(&self) -> Result<(u64, Arc<BTreeMap<Attribute, ExtraIndex>>), IndexError> {
        match &*self.known.read() {
            Known::NotYet => Err(IndexError::Undecided(
                "this node does not know the indexes yet: it has not joined its cluster".into(),
            )),
            Known::Unreadable { why, .. } => Err(IndexError::Undecided(format!("the list of indexes: {why}"))),
            Known::List { version, indexes } => Ok((*version, Arc::clone(indexes))),
        }
    }

    async fn change(
        &self,
        expected: Option<u64>,
        mut change: impl FnMut(&mut BTreeMap<Attribute, ExtraIndex>) -> Result<(), IndexError>,
    ) -> Result<u64, IndexError> {
        for _ in 0..TRIES {
            let (version, indexes) = self.list()?;
            if expected.is_some_and(|expected| expected != version) {
                return Err(IndexError::Changed(version));
            }
            let mut changed = BTreeMap::clone(&indexes);
            change(&mut changed)?;
            if changed == *indexes {
                return Ok(version);
            }
            let bytes = encode(&changed);
            match self.documents.put(KEY, version, bytes.clone()).await {
                Ok(version) => {
                    self.learn(&Document { version, bytes });
                    return Ok(version);
                }
                Err(DocumentError::Changed { version: now }) => {
                    if expected.is_some() {
                        return Err(IndexError::Changed(now));
                    }
                    let newer = self.documents.next(KEY, Some(version));
                    let newer = tokio::time::timeout(HEAR_WITHIN, newer).await;
                    let newer = newer.map_err(|_| IndexError::Undecided("this node lags: try again".into()))?;
                    self.learn(&newer);
                }
                Err(DocumentError::Refused(why)) => return Err(IndexError::Refused(why)),
                Err(error @ DocumentError::Undecided(_)) => return Err(IndexError::Undecided(error.to_string())),
            }
        }
        Err(IndexError::Undecided("others change the indexes all the time: try again".into()))
    }
}

impl Archive {
    /// The indexes that operators have added, by attribute, how far this node is with each, and the version of the list.
    ///
    /// # Errors
    /// `Undecided` while the list is not known, or when the catalogue does not answer.
    pub async fn indexes(&self) -> Result<(u64, Vec<IndexState>), IndexError> {
        let (version, indexes) = self.index_list().list()?;
        let catalog = Arc::clone(self.catalog());
        let looked = self.look_up(move || Ok((catalog.extra()?, catalog.totals()?.instances)));
        let (states, instances) = looked.await.map_err(|error| IndexError::Undecided(error.to_string()))?;
        let state = |index: &ExtraIndex| match states.iter().find(|state| state.index == *index) {
            Some(ExtraState { complete, instances_left, .. }) => {
                IndexState { index: index.clone(), ready: *complete, instances_left: *instances_left }
            }
            // The catalogue is told in a moment.
            None => IndexState { index: index.clone(), ready: false, instances_left: instances },
        };
        Ok((version, indexes.values().map(state).collect()))
    }

    /// Adds an index; it is filled in the background, on every node. Answers the version of the list, and whether it is new.
    /// With `expected` only if the list is at that version.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub async fn add_index(&self, index: ExtraIndex, expected: Option<u64>) -> Result<(u64, bool), IndexError> {
        index.check().map_err(IndexError::Bad)?;
        let mut is_new = true;
        let version = self.index_list().change(expected, |indexes| {
            match indexes.get(&index.attribute) {
                Some(held) if *held == index => {
                    is_new = false;
                    return Ok(());
                }
                Some(held) => {
                    return Err(IndexError::Refused(format!(
                        "there is an index of {} already, as {} at the level {}: remove it first",
                        index.attribute,
                        held.vr.to_string(),
                        held.level.name()
                    )));
                }
                None => {}
            }
            if indexes.len() >= INDEXES_MAX {
                return Err(IndexError::Refused(format!(
                    "there are {INDEXES_MAX} indexes, which is the most: remove one that nobody asks for"
                )));
            }
            is_new = true;
            indexes.insert(index.attribute.clone(), index.clone());
            Ok(())
        });
        let version = version.await?;
        self.settle_indexes().await?;
        Ok((version, is_new))
    }

    /// Removes an index: queries take the slower path at once. Answers the version of the list.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub async fn remove_index(&self, attribute: &Attribute, expected: Option<u64>) -> Result<u64, IndexError> {
        let version = self.index_list().change(expected, |indexes| match indexes.remove(attribute) {
            Some(_) => Ok(()),
            None => Err(IndexError::Unknown(attribute.clone())),
        });
        let version = version.await?;
        self.settle_indexes().await?;
        Ok(version)
    }

    /// Gives the catalogue the list that is known, unless it has it.
    async fn settle_indexes(&self) -> Result<(), IndexError> {
        let list = self.index_list();
        let mut settled = list.settled.lock().await;
        // IX-2.
        let Ok((version, indexes)) = list.list() else { return Ok(()) };
        if *settled == Some(version) {
            return Ok(());
        }
        let catalog = Arc::clone(self.catalog());
        let wanted: Vec<ExtraIndex> = indexes.values().cloned().collect();
        let set = self.look_up(move || catalog.set_extra(&wanted)).await;
        set.map_err(|error| IndexError::Undecided(error.to_string()))?;
        *settled = Some(version);
        list.changed.notify_one();
        Ok(())
    }

    /// Learns of indexes, and fills them, for as long as it is polled: one task of the node.
    pub async fn work_on_indexes(self) {
        tokio::join!(self.follow_indexes(), self.fill_indexes());
    }

    async fn follow_indexes(&self) {
        let mut seen = None;
        loop {
            let document = self.index_list().documents.next(KEY, seen).await;
            self.index_list().learn(&document);
            match self.settle_indexes().await {
                Ok(()) => seen = Some(document.version),
                Err(error) => {
                    tracing::warn!(%error, "the catalogue did not take the indexes: it is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn fill_indexes(&self) {
        let mut steps = 0_u64;
        loop {
            let (catalog, begun) = (Arc::clone(self.catalog()), Instant::now());
            match self.look_up(move || catalog.fill_extra()).await {
                Ok(FillStep::Done) => {
                    steps += 1;
                    // IX-4.
                    tokio::time::sleep((begun.elapsed() * RESTS).max(Duration::from_millis(1))).await;
                }
                Ok(FillStep::Idle) => {
                    if steps > 0 {
                        tracing::info!(steps, "the indexes are full");
                        steps = 0;
                    }
                    tokio::select! {
                        () = self.index_list().changed.notified() => {}
                        () = tokio::time::sleep(LOOK_EVERY) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "indexes are not filled: queries take the slower path, and it is tried again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        ServiceSettings,
        testing::{LocalDocuments, archive_with},
    };

    fn list(text: &[(&str, Option<&str>, &str)]) -> BTreeMap<Attribute, ExtraIndex> {
        let all = text.iter().map(|(attribute, vr, level)| index_of(attribute, *vr, level).unwrap());
        all.map(|index| (index.attribute.clone(), index)).collect()
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let indexes = list(&[("KVP", None, "series"), ("(0009,\"ACME 1.0\",0a)", Some("lo"), "study")]);
        let golden = "{\"version\":1,\"indexes\":[{\"attribute\":\"(0018,0060)\",\"vr\":\"DS\",\"level\":\"series\"},\
            {\"attribute\":\"(0009,\\\"ACME 1.0\\\",0A)\",\"vr\":\"LO\",\"level\":\"study\"}]}";
        assert_eq!(encode(&indexes), golden);
        assert_eq!(decode(golden.as_bytes()), Ok(indexes));
        assert_eq!(decode(b""), Ok(BTreeMap::new()));
        let known = "{\"version\":1,\"indexes\":[{\"attribute\":\"(0010,0020)\",\"vr\":\"LO\",\"level\":\"patient\"}]}";
        assert_eq!(decode(known.as_bytes()).unwrap().len(), 1, "what needs no index any more does no harm");
        assert!(decode(b"{\"version\":2,\"trees\":[]}").unwrap_err().contains("upgrade"));
    }

    #[test]
    fn what_is_asked_for_is_an_index_or_a_sentence_says_why_not() {
        assert_eq!(index_of("(0018,0060)", None, "image").unwrap(), index_of("KVP", Some("DS"), "image").unwrap());
        for (attribute, vr, level, why) in [
            ("KVP", None, "frame", "the level is"),
            ("KVP", Some("XX"), "image", "no value representation"),
            ("KVP", Some("LO"), "image", "has the VR DS"),
            ("PatientID", None, "patient", "needs no other"),
            ("(0009,1001)", Some("LO"), "image", "named by its creator"),
            ("(0009,\"ACME\",01)", None, "image", "say it"),
            ("Nonsense", None, "image", "no keyword"),
        ] {
            let said = index_of(attribute, vr, level).unwrap_err().to_string();
            assert!(said.contains(why), "{attribute}: {said}");
        }
    }

    /// Two nodes over one set of documents: what one adds the other fills, and one that comes later, too.
    #[tokio::test]
    async fn an_index_that_one_node_adds_is_filled_on_every_node_and_goes_with_its_removal() {
        let documents = LocalDocuments::new();
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let nodes = folders.each_ref().map(|folder| {
            let (archive, _) = archive_with(folder.path(), ServiceSettings::default(), Arc::clone(&documents));
            tokio::spawn(archive.clone().work_on_indexes());
            archive
        });
        let until = async |node: &Archive, good: &dyn Fn(&[IndexState]) -> bool| {
            let wait = async {
                loop {
                    if let Ok((_, states)) = node.indexes().await
                        && good(&states)
                    {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time");
        };
        until(&nodes[0], &<[IndexState]>::is_empty).await;
        let kvp = index_of("KVP", None, "series").unwrap();
        assert_eq!(nodes[0].add_index(kvp.clone(), None).await, Ok((1, true)));
        assert_eq!(nodes[0].add_index(kvp.clone(), None).await, Ok((1, false)), "it is there");
        let other = ExtraIndex { level: archive_catalog::Level::Study, ..kvp.clone() };
        assert!(matches!(nodes[0].add_index(other, None).await, Err(IndexError::Refused(_))));
        for node in &nodes {
            until(node, &|states| matches!(states, [state] if state.ready && state.index == kvp)).await;
        }
        let comments = index_of("ImageComments", None, "image").unwrap();
        assert_eq!(nodes[1].add_index(comments.clone(), Some(0)).await, Err(IndexError::Changed(1)));
        assert_eq!(nodes[1].add_index(comments, Some(1)).await, Ok((2, true)));
        assert_eq!(nodes[1].remove_index(&kvp.attribute, None).await, Ok(3));
        assert_eq!(nodes[1].remove_index(&kvp.attribute, None).await, Err(IndexError::Unknown(kvp.attribute)));
        for node in &nodes {
            until(node, &|states| matches!(states, [state] if state.ready && state.index.level.name() == "image"))
                .await;
        }
    }
}
