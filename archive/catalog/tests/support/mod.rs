//! A catalogue with a log in front of it, and instances to put in.

#![allow(dead_code)] // each test file uses its part

use archive_catalog::{
    BlockPart, Catalog, CatalogOptions, Command, Find, Include, InstanceHead, Level, OtherContent, Outcome, Protocol,
    Search, Source, UploadId, instance_head, sabotage::Sabotage,
};
use archive_model::{DataSet, Element, Scanned, Tag, VR, Value, matching::Meaning, tags};
use raft_types::{Committed, CommittedEntry, GroupId, LogPosition, StateMachine, Versioned};
use std::collections::BTreeMap;

/// A catalogue in a folder of its own.
pub(crate) struct Bench {
    pub(crate) catalog: Catalog,
    pub(crate) folder: tempfile::TempDir,
    ends: BTreeMap<GroupId, u64>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(None)
    }

    /// One with a bug on purpose.
    pub(crate) fn with(sabotage: Option<Sabotage>) -> Self {
        Self::of(CatalogOptions { sabotage, ..CatalogOptions::default() })
    }

    pub(crate) fn of(options: CatalogOptions) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let catalog = Catalog::open(folder.path(), options).expect("a catalogue");
        Self { catalog, folder, ends: BTreeMap::new() }
    }

    /// The next entry of `group`.
    pub(crate) fn entry(&mut self, group: GroupId, command: &Command, body_len: u64) -> Committed {
        let index = self.ends.entry(group).or_default();
        *index += 1;
        let position = LogPosition { term: 1, index: *index };
        Committed { group, position, entry: CommittedEntry::Command { head: command.encode(), body_len } }
    }

    /// Commits one command and applies it.
    pub(crate) fn run(&mut self, group: GroupId, command: &Command, body_len: u64) -> Outcome {
        let entry = self.entry(group, command, body_len);
        self.apply(&[entry]).swap_remove(0)
    }

    pub(crate) fn apply(&self, batch: &[Committed]) -> Vec<Outcome> {
        let outcomes = self.catalog.apply(batch).expect("applied");
        outcomes.iter().map(|outcome| Outcome::decode(outcome).expect("an outcome")).collect()
    }

    pub(crate) fn put(&mut self, head: &InstanceHead) -> Outcome {
        let length = head.length_bytes;
        self.run(group_of(head.study.as_str()), &Command::PutSmall { head: head.clone() }, length)
    }

    /// The same, with the canonical digest of `head` if it has one.
    pub(crate) fn put_with(&mut self, head: &InstanceHead) -> Outcome {
        let command = Command::put_small(head.clone(), OtherContent::Keep);
        self.run(group_of(head.study.as_str()), &command, head.length_bytes)
    }

    /// The index of the next entry of `group`.
    pub(crate) fn next_index(&self, group: GroupId) -> u64 {
        self.ends.get(&group).copied().unwrap_or_default() + 1
    }

    /// Skips entries of `group`, as if others had been committed.
    pub(crate) fn skip(&mut self, group: GroupId, entries: u64) {
        *self.ends.entry(group).or_default() += entries;
    }

    pub(crate) fn find(&self, find: &Find) -> Vec<DataSet> {
        let mut search = Search::of(find.clone()).expect("good keys");
        let mut found = Vec::new();
        while let Some(mut page) = search.page(&self.catalog).expect("a page") {
            found.append(&mut page);
        }
        found
    }

    /// A second connection, for what only a test wants to know.
    pub(crate) fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.folder.path().join("catalog.sqlite")).expect("the database")
    }

    /// All rows of all tables as text.
    pub(crate) fn dump(&self) -> String {
        let connection = self.sql();
        let tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1";
        let mut tables = connection.prepare(tables).expect("tables");
        let names: Vec<String> = tables.query_map([], |row| row.get(0)).expect("names").flatten().collect();
        let mut out = String::new();
        for name in names {
            let columns = connection.prepare(&format!("SELECT * FROM {name}")).expect("a table").column_count();
            let order = if columns < 3 { "1" } else { "1, 2, 3" };
            let mut rows = connection.prepare(&format!("SELECT * FROM {name} ORDER BY {order}")).expect("a table");
            let mut rows = rows.query([]).expect("rows");
            while let Some(row) = rows.next().expect("a row") {
                let values = (0..columns).map(|at| format!("{:?}", row.get_ref(at).expect("a value")));
                out += &format!("{name}: {}\n", values.collect::<Vec<_>>().join(" "));
            }
        }
        out
    }
}

/// One of two groups.
pub(crate) fn group_of(study: &str) -> GroupId {
    GroupId(1 + study.bytes().map(u32::from).sum::<u32>() % 2)
}

pub(crate) fn upload(number: u8) -> UploadId {
    UploadId([number; 16])
}

pub(crate) fn block(index: u64, length_bytes: u32) -> BlockPart {
    BlockPart { index, length_bytes }
}

pub(crate) fn text(tag: Tag, vr: VR, values: &[&str]) -> Element {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Element { tag, vr, value: Value::Text(values) }
}

/// The UIDs of an instance, and more.
pub(crate) fn instance(study: &str, series: &str, instance: &str, more: &[Element]) -> DataSet {
    let uid = |tag, uid: &str| text(tag, VR::UI, &[uid]);
    let uids = [
        uid(tags::STUDY_INSTANCE_UID, study),
        uid(tags::SERIES_INSTANCE_UID, series),
        uid(tags::SOP_INSTANCE_UID, instance),
        uid(tags::SOP_CLASS_UID, "1.2.840.10008.5.1.4.1.1.2"),
    ];
    uids.into_iter().chain(more.iter().cloned()).collect()
}

/// The head of a data set of `length_bytes`, with `content` as its digest.
pub(crate) fn head(header: &DataSet, length_bytes: u64, content: u8) -> InstanceHead {
    let scanned = Scanned {
        header: header.clone(),
        frames: None,
        length_bytes,
        inflated: false,
        warnings: Vec::new(),
        canonical: None,
    };
    let source =
        Source { protocol: Protocol::Import, calling_ae: String::new(), called_ae: String::new(), peer: String::new() };
    instance_head(&scanned, "1.2.840.10008.1.2.1", [content; 32], source, 0).expect("a head")
}

/// Everything at `level` that matches `keys`.
pub(crate) fn query(level: Level, keys: &[Element]) -> Find {
    let meaning = Meaning { empty_values: true, ..Meaning::default() };
    Find { level, keys: keys.iter().cloned().collect(), include: Include::Requested, limit: None, offset: 0, meaning }
}

/// A key that asks for an attribute.
pub(crate) fn ask(tag: Tag, vr: VR) -> Element {
    Element { tag, vr, value: Value::Empty }
}
