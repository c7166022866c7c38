//! Records for use cases whose work lives in the log: a worklist, jobs, transactions. Each use case has a kind of its own,
//! and encodes its bodies itself, with a version in front.
//!
//! ```text
//!   put(key, Expect::Absent, body, due) ─► version        get, list: from the rows of this node, behind a read index
//!   put(key, Expect::Version(v), …)     ─► version, or Conflict{current}: read again, decide again
//!   due()                               ─► keys whose time has come in the groups that this node leads
//! ```
//!
//! *Who works on it?* Whoever leads the record's group: a task of every node asks for `due()` now and then. Two leaders may
//! overlap for a moment, so the work is done by halves that may be repeated, and what it comes to is put by compare-and-set.

use crate::{Archive, Freshness, QueryError, StoreError};
use archive_catalog::{Command, Expect, Outcome, Record, RecordName, RefusedWhy};
use bytes::Bytes;
use raft_types::GroupId;
use std::sync::Arc;

/// The records of one kind.
#[derive(Clone)]
pub struct Records {
    archive: Archive,
    kind: &'static str,
}

/// Why a record was not written or read. Each variant is a different thing to do.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Another version is there, or none: read it and decide again.
    #[error("the record is of another version: {current:?}")]
    Conflict {
        /// The version that is there.
        current: Option<u64>,
    },
    /// The key or the body is larger than a record may be.
    #[error("a record has at most 1 MiB, and its key 256 bytes")]
    TooLarge,
    /// It was not written; or, if `Unknown`, nobody knows: read it to find out, or put the same again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was not read.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Archive {
    /// The records of `kind`.
    #[must_use]
    pub fn records(&self, kind: &'static str) -> Records {
        Records { archive: self.clone(), kind }
    }

    /// The groups that this node leads, as far as it knows.
    pub(crate) fn led_groups(&self) -> Vec<GroupId> {
        let status = self.log().status();
        let leads = |leader: &Option<String>| leader.as_ref() == Some(&status.answered_by);
        status.groups.iter().filter(|group| leads(&group.leader)).map(|group| group.id).collect()
    }
}

impl Records {
    fn place(&self, key: &str) -> Result<(RecordName, GroupId), StoreError> {
        let name = RecordName { kind: self.kind.into(), key: key.into() };
        // Before the groups are known nothing can be written, and "not there" would be a guess.
        let group = self.archive.log().group_of(&name.place()).ok_or(StoreError::NoQuorum)?;
        Ok((name, group))
    }

    /// Writes a record if `expect` is what is there; answers its new version, once it is durable on a majority. `due` is
    /// when [`Records::due`] is to answer it.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn put(
        &self,
        key: &str,
        expect: Expect,
        body: Bytes,
        due_unix_ms: Option<u64>,
    ) -> Result<u64, RecordError> {
        let (name, group) = self.place(key)?;
        let at_unix_ms = self.archive.clock().unix_ms();
        // Refused here already: what no catalogue takes need not go through the log.
        if body.len() > raft_types::Command::BODY_BYTES_MAX || key.is_empty() || key.len() > RecordName::KEY_BYTES_MAX {
            return Err(RecordError::TooLarge);
        }
        let command = Command::PutRecord { name, expect, body, due_unix_ms, at_unix_ms };
        match self.archive.propose(group, &command, Bytes::new()).await?.0 {
            Outcome::Recorded { version } => Ok(version),
            other => Err(refused(other)),
        }
    }

    /// Removes a record if it is of `version`. One that is not there any more is a conflict without a version.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn remove(&self, key: &str, version: u64) -> Result<(), RecordError> {
        let (name, group) = self.place(key)?;
        match self.archive.propose(group, &Command::RemoveRecord { name, version }, Bytes::new()).await?.0 {
            Outcome::RecordRemoved => Ok(()),
            other => Err(refused(other)),
        }
    }

    /// The record of that key.
    ///
    /// # Errors
    /// `NoQuorum` when a fresh answer cannot be had.
    pub async fn get(&self, key: &str, freshness: Freshness) -> Result<Option<Record>, RecordError> {
        let (name, group) = self.place(key)?;
        if freshness == Freshness::ReadIndex {
            self.archive.read_index(vec![group]).await?;
        }
        let catalog = Arc::clone(self.archive.catalog());
        Ok(self.archive.look_up(move || catalog.record(group, &name)).await?)
    }

    /// Records by key, those behind `after`: at most `limit` (1000) and about 4 MiB, and none only behind the last.
    ///
    /// # Errors
    /// `NoQuorum` when a fresh answer cannot be had.
    pub async fn list(&self, after: &str, limit: u32, freshness: Freshness) -> Result<Vec<Record>, RecordError> {
        let groups = self.archive.log().groups();
        if groups.is_empty() {
            return Err(QueryError::NoQuorum.into());
        }
        if freshness == Freshness::ReadIndex {
            self.archive.read_index(groups).await?;
        }
        let (catalog, kind, after) = (Arc::clone(self.archive.catalog()), self.kind, after.to_owned());
        Ok(self.archive.look_up(move || catalog.records(kind, &after, limit)).await?)
    }

    /// Keys on which work is due by `until_unix_ms`, in the groups that this node leads and as far as it has applied.
    ///
    /// # Errors
    /// The catalogue's.
    pub async fn due(&self, until_unix_ms: u64, limit: u32) -> Result<Vec<String>, RecordError> {
        let (catalog, kind) = (Arc::clone(self.archive.catalog()), self.kind);
        // Mostly there is nothing: who leads what is asked only then.
        if !self.archive.look_up(move || catalog.has_due_records(kind, until_unix_ms)).await? {
            return Ok(Vec::new());
        }
        let (catalog, groups) = (Arc::clone(self.archive.catalog()), self.archive.led_groups());
        let due = self.archive.look_up(move || catalog.due_records(kind, &groups, until_unix_ms, limit)).await?;
        Ok(due.into_iter().map(|due| due.key).collect())
    }
}

fn refused(outcome: Outcome) -> RecordError {
    match outcome {
        Outcome::Conflict { current } => RecordError::Conflict { current },
        Outcome::Refused(RefusedWhy::RecordTooLarge) => RecordError::TooLarge,
        other => RecordError::Store(StoreError::Refused { why: format!("{other:?}") }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{ServiceSettings, testing};

    #[tokio::test(start_paused = true)]
    async fn records_are_put_by_compare_and_set_and_found_by_key_kind_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let (archive, log) = testing::archive_at(folder.path(), ServiceSettings::default(), testing::TestClock::new());
        let (jobs, others) = (archive.records("job"), archive.records("other"));
        let body = |text: &'static str| Bytes::from_static(text.as_bytes());
        let first = jobs.put("a", Expect::Absent, body("1"), Some(5)).await.unwrap();
        let again = jobs.put("a", Expect::Absent, body("2"), None).await;
        assert!(matches!(again, Err(RecordError::Conflict { current: Some(version) }) if version == first));
        others.put("a", Expect::Absent, body("x"), None).await.unwrap();
        jobs.put("b", Expect::Absent, body("3"), Some(9)).await.unwrap();
        let found = jobs.get("a", Freshness::ReadIndex).await.unwrap().unwrap();
        assert_eq!((found.version, &found.body[..]), (first, &b"1"[..]));
        let keys = |page: Vec<Record>| page.into_iter().map(|record| record.name.key).collect::<Vec<_>>();
        assert_eq!(keys(jobs.list("", 10, Freshness::ReadIndex).await.unwrap()), ["a", "b"]);
        assert_eq!(keys(jobs.list("a", 10, Freshness::Local).await.unwrap()), ["b"]);
        assert_eq!(jobs.due(8, 10).await.unwrap(), ["a"]);
        log.set_leads(false);
        assert!(jobs.due(8, 10).await.unwrap().is_empty(), "another node leads");
        let second = jobs.put("a", Expect::Version(first), body("4"), None).await.unwrap();
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        assert!(matches!(jobs.remove("a", first).await, Err(RecordError::Conflict { .. })));
        jobs.remove("a", second).await.unwrap();
        assert!(matches!(jobs.remove("a", second).await, Err(RecordError::Conflict { current: None })));
        assert_eq!(jobs.get("a", Freshness::Local).await.unwrap(), None);
        assert!(jobs.put("a", Expect::Absent, body("5"), None).await.is_ok());
        let large = jobs.put("c", Expect::Absent, vec![0; (1 << 20) + 1].into(), None).await;
        assert!(matches!(large, Err(RecordError::TooLarge)));
        log.set_quorum(false);
        let refused = jobs.put("c", Expect::Absent, body("6"), None).await;
        assert!(matches!(refused, Err(RecordError::Store(StoreError::NoQuorum))));
        assert!(matches!(jobs.get("a", Freshness::ReadIndex).await, Err(RecordError::Query(QueryError::NoQuorum))));
        assert!(jobs.get("a", Freshness::Local).await.unwrap().is_some());
    }
}
