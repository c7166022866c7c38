//! Queries and look-ups: fresh by a read index, run off the async threads, streamed with back-pressure.

use crate::{Archive, QueryError};
use archive_catalog::{Find, InstanceRow, Selection, Totals};
use archive_model::{DataSet, FrameMap, Tag};
use bytes::Bytes;
use raft_types::{GroupId, ReadError};
use std::{ops::ControlFlow, sync::Arc};
use tokio::sync::{mpsc, oneshot};

/// Answers that a slow reader may leave waiting; the query pauses behind them.
const ROWS_AHEAD: usize = 64;

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Everything acknowledged before the question is seen (Raft §6.4).
    ReadIndex,
    /// Whatever this node has applied: for dashboards.
    Local,
}

/// The answers of a query, as they are found.
pub struct Matches {
    rows: mpsc::Receiver<Result<DataSet, QueryError>>,
    unsupported: Option<oneshot::Receiver<Vec<Tag>>>,
    known: Vec<Tag>,
}

impl Matches {
    /// The next answer; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<DataSet, QueryError>> {
        self.rows.recv().await
    }

    /// Keys that were neither matched nor answered (FF01). Known before the first answer is taken.
    pub async fn unsupported(&mut self) -> &[Tag] {
        if let Some(receiver) = self.unsupported.take() {
            self.known = receiver.await.unwrap_or_default();
        }
        &self.known
    }
}

/// The headers of instances, as DICOM JSON, in order of retrieval.
pub struct Headers {
    rows: mpsc::Receiver<Result<(InstanceRow, Bytes), QueryError>>,
}

impl Headers {
    /// The next header; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<(InstanceRow, Bytes), QueryError>> {
        self.rows.recv().await
    }
}

impl Archive {
    /// Finds patients, studies, series or instances (PS3.4 C.4.1).
    ///
    /// # Errors
    /// `NoQuorum` when a fresh answer cannot be had.
    pub async fn find(&self, find: Find, freshness: Freshness) -> Result<Matches, QueryError> {
        let studies = find.keys.texts(archive_model::tags::STUDY_INSTANCE_UID).to_vec();
        self.refresh(&studies, freshness).await?;
        let permit = self.query_permit().await?;
        let (sender, rows) = mpsc::channel(ROWS_AHEAD);
        let (tell, unsupported) = oneshot::channel();
        let catalog = Arc::clone(self.catalog());
        self.tasks().spawn_blocking(move || {
            let _permit = permit;
            let keys = catalog.unsupported(&find);
            let _ = tell.send(keys);
            let mut sink = |row| match sender.blocking_send(Ok(row)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()), // nobody listens any more
            };
            if let Err(error) = catalog.find(&find, &mut sink) {
                let _ = sender.blocking_send(Err(QueryError::Failed(error)));
            }
        });
        Ok(Matches { rows, unsupported: Some(unsupported), known: Vec::new() })
    }

    /// The instances of a selection, in order of retrieval.
    ///
    /// Committed rows stay readable without a majority; only an empty answer needs one, because it could be stale.
    ///
    /// # Errors
    /// `NoQuorum` when nothing is found here and no majority can confirm it.
    pub async fn instances(&self, selection: Selection, freshness: Freshness) -> Result<Vec<InstanceRow>, QueryError> {
        let fresh = self.refresh(&uids(&selection), freshness).await;
        let catalog = Arc::clone(self.catalog());
        let rows = self.blocking(move || catalog.instances(&selection).map_err(QueryError::Failed)).await?;
        match fresh {
            Err(error) if rows.is_empty() => Err(error),
            _ => Ok(rows),
        }
    }

    /// The headers of a selection, in order of retrieval; no pixel data is read.
    ///
    /// # Errors
    /// `NoQuorum` when a fresh answer cannot be had.
    pub async fn headers(&self, selection: Selection, freshness: Freshness) -> Result<Headers, QueryError> {
        match self.refresh(&uids(&selection), freshness).await {
            Ok(()) => {}
            Err(QueryError::NoQuorum) if !self.instances(selection.clone(), Freshness::Local).await?.is_empty() => {}
            Err(error) => return Err(error),
        }
        let permit = self.query_permit().await?;
        let (sender, rows) = mpsc::channel(ROWS_AHEAD);
        let catalog = Arc::clone(self.catalog());
        self.tasks().spawn_blocking(move || {
            let _permit = permit;
            let mut sink = |row, header| match sender.blocking_send(Ok((row, header))) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            };
            if let Err(error) = catalog.headers(&selection, &mut sink) {
                let _ = sender.blocking_send(Err(QueryError::Failed(error)));
            }
        });
        Ok(Headers { rows })
    }

    /// Where the frames of an instance lie; none for what has no frames.
    ///
    /// # Errors
    /// The catalogue's.
    pub async fn frames(&self, row: &InstanceRow) -> Result<Option<FrameMap>, QueryError> {
        let (catalog, row) = (Arc::clone(self.catalog()), row.clone());
        self.blocking(move || catalog.frames(&row).map_err(QueryError::Failed)).await
    }

    /// How much is held.
    ///
    /// # Errors
    /// The catalogue's.
    pub async fn totals(&self) -> Result<Totals, QueryError> {
        let catalog = Arc::clone(self.catalog());
        self.blocking(move || catalog.totals().map_err(QueryError::Failed)).await
    }

    /// Waits until everything acknowledged so far, in the groups that `studies` live in (none: all), is applied here.
    async fn refresh(&self, studies: &[String], freshness: Freshness) -> Result<(), QueryError> {
        match freshness {
            Freshness::Local => return Ok(()),
            Freshness::ReadIndex => {}
        }
        // Before the groups are known, "nothing found" would be a guess.
        if self.log().groups().is_empty() {
            return Err(QueryError::NoQuorum);
        }
        let literal = |uid: &String| !uid.is_empty() && !uid.contains(['*', '?']);
        let groups = if studies.is_empty() || !studies.iter().all(literal) {
            self.log().groups()
        } else {
            let mut groups: Vec<GroupId> = studies.iter().map(|uid| self.log().group_of(uid.as_bytes())).collect();
            groups.sort_unstable();
            groups.dedup();
            groups
        };
        self.log().read_index(groups).await.map_err(|error| match error {
            ReadError::NoQuorum { .. } | ReadError::Absent { .. } | ReadError::Damaged { .. } => QueryError::NoQuorum,
            ReadError::OutOfRange { .. } => QueryError::Invalid { why: error.to_string() },
            ReadError::Stopped => QueryError::Stopping,
        })
    }

    async fn query_permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, QueryError> {
        Arc::clone(self.queries()).acquire_owned().await.map_err(|_| QueryError::Stopping)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let permit = self.query_permit().await?;
        let work = move || {
            let _permit = permit;
            work()
        };
        self.tasks().spawn_blocking(work).await.map_err(|_| QueryError::Stopping)?
    }
}

fn uids(selection: &Selection) -> Vec<String> {
    selection.studies.iter().map(ToString::to_string).collect()
}
