//! Queries and look-ups: fresh by a read index, run off the async threads, streamed with back-pressure.

use crate::{Archive, QueryError};
use archive_catalog::{Catalog, CatalogError, Find, HeaderPages, InstanceRow, Search, Selection, Totals, Version};
use archive_model::{DataSet, FrameMap, Tag, Uid};
use bytes::Bytes;
use raft_types::{GroupId, ReadError};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// Pages that a slow reader may leave waiting. A page is bounded in bytes (`archive_catalog`); the next one is read while
/// this one is sent.
const PAGES_AHEAD: usize = 1;

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
    rows: Rows<DataSet>,
    unsupported: Vec<Tag>,
}

impl Matches {
    /// The next answer; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<DataSet, QueryError>> {
        self.rows.next().await
    }

    /// Keys that are neither matched nor answered (FF01).
    #[must_use]
    pub fn unsupported(&self) -> &[Tag] {
        &self.unsupported
    }
}

/// The headers of instances, as DICOM JSON, in order of retrieval.
pub struct Headers {
    rows: Rows<(InstanceRow, Bytes)>,
}

impl Headers {
    /// The next header; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<(InstanceRow, Bytes), QueryError>> {
        self.rows.next().await
    }
}

/// The instances of a selection.
#[derive(Debug)]
pub struct Listing {
    /// In order of retrieval.
    pub rows: Vec<InstanceRow>,
    /// No majority could say whether these are all: whoever passes them on says so.
    pub may_be_stale: bool,
}

/// What a source answers: some rows, or none after the last.
type Page<T> = Result<Option<Vec<T>>, CatalogError>;

/// Rows that come in pages.
struct Rows<T> {
    pages: mpsc::Receiver<Result<Vec<T>, QueryError>>,
    page: std::vec::IntoIter<T>,
}

impl<T> Rows<T> {
    async fn next(&mut self) -> Option<Result<T, QueryError>> {
        loop {
            if let Some(row) = self.page.next() {
                return Some(Ok(row));
            }
            match self.pages.recv().await? {
                Ok(page) => self.page = page.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Archive {
    /// Finds patients, studies, series or instances (PS3.4 C.4.1). An answer whose images cannot be read now says so in Instance
    /// Availability; of any other, which is ONLINE, nothing is said.
    ///
    /// # Errors
    /// `NoQuorum` when a fresh answer cannot be had; `Failed` for a key that means nothing.
    pub async fn find(&self, find: Find, freshness: Freshness) -> Result<Matches, QueryError> {
        let studies = find.keys.texts(archive_model::tags::STUDY_INSTANCE_UID).to_vec();
        self.refresh(&studies, freshness).await?;
        let unsupported = find.unsupported();
        let search = Search::of(find).map_err(QueryError::Failed)?.unreachable(self.unreachable().await);
        let rows = self.pages(search, |search, catalog| search.page(catalog));
        Ok(Matches { rows, unsupported })
    }

    /// Reads page after page of `source`. A permit and a thread are held while a page is read, and never while its reader
    /// takes its time.
    fn pages<S: Send + 'static, T: Send + 'static>(
        &self,
        mut source: S,
        page: fn(&mut S, &Catalog) -> Page<T>,
    ) -> Rows<T> {
        let (sender, pages) = mpsc::channel(PAGES_AHEAD);
        let archive = self.clone();
        self.tasks().spawn(async move {
            loop {
                // Before the page is read: what nobody has room for stays on the disk.
                let Ok(place) = sender.reserve().await else { return }; // nobody listens any more
                let catalog = Arc::clone(archive.catalog());
                let work = move || {
                    let found = page(&mut source, &catalog);
                    (source, found)
                };
                let found;
                (source, found) = match archive.blocking(archive.queries(), work).await {
                    Ok(done) => done,
                    Err(error) => return place.send(Err(error)),
                };
                match found {
                    Ok(Some(rows)) => place.send(Ok(rows)),
                    Ok(None) => return,
                    Err(error) => return place.send(Err(QueryError::Failed(error))),
                }
            }
        });
        Rows { pages, page: Vec::new().into_iter() }
    }

    /// The instances of a selection, in order of retrieval: as [`Archive::listing`], for who need not know whether there may
    /// be more.
    ///
    /// # Errors
    /// See [`Archive::listing`].
    pub async fn instances(&self, selection: Selection, freshness: Freshness) -> Result<Vec<InstanceRow>, QueryError> {
        Ok(self.listing(selection, freshness).await?.rows)
    }

    /// The instances of a selection, in order of retrieval.
    ///
    /// A committed instance stays what it is, unless a sender whose policy is to replace sends another content: one that is
    /// asked for by its UID and is here is answered at once, whoever leads. What else a study has, its leader must say. Without
    /// a majority the rows that are here are answered all the same, and are said to be perhaps not all; only an empty answer
    /// is none.
    ///
    /// # Errors
    /// `NoQuorum` when nothing is found here and no majority can confirm it; `Starting` before this node knows whom to ask.
    pub async fn listing(&self, selection: Selection, freshness: Freshness) -> Result<Listing, QueryError> {
        if !selection.instances.is_empty() {
            let (catalog, wanted) = (Arc::clone(self.catalog()), selection.clone());
            let rows = self.look_up(move || catalog.instances(&wanted)).await?;
            if selection.instances.iter().all(|uid| rows.iter().any(|row| row.instance == *uid)) {
                return Ok(Listing { rows, may_be_stale: false });
            }
        }
        let fresh = self.refresh(&uids(&selection), freshness).await;
        let catalog = Arc::clone(self.catalog());
        let rows = self.look_up(move || catalog.instances(&selection)).await?;
        match fresh {
            Ok(()) => Ok(Listing { rows, may_be_stale: false }),
            Err(QueryError::NoQuorum) if !rows.is_empty() => Ok(Listing { rows, may_be_stale: true }),
            Err(error) => Err(error),
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
        let catalog = Arc::clone(self.catalog());
        let source = self.look_up(move || HeaderPages::of(&catalog, &selection)).await?;
        Ok(Headers { rows: self.pages(source, |source, catalog| source.page(catalog)) })
    }

    /// Where the frames of an instance lie; none for what has no frames.
    ///
    /// # Errors
    /// The catalogue's.
    pub async fn frames(&self, row: &InstanceRow) -> Result<Option<FrameMap>, QueryError> {
        let (catalog, row) = (Arc::clone(self.catalog()), row.clone());
        self.look_up(move || catalog.frames(&row)).await
    }

    /// The contents of a study that are kept beside those that its UIDs answer, at most `limit`; with `only` that number of
    /// one instance.
    ///
    /// # Errors
    /// `NoQuorum` when a fresh answer cannot be had.
    pub async fn versions(&self, study: Uid, only: Option<(Uid, u32)>, limit: u32) -> Result<Vec<Version>, QueryError> {
        self.refresh(&[study.to_string()], Freshness::ReadIndex).await?;
        let catalog = Arc::clone(self.catalog());
        self.look_up(move || {
            let only = only.as_ref().map(|(instance, number)| (instance, *number));
            catalog.versions(&study, only, limit)
        })
        .await
    }

    /// How much is held.
    ///
    /// # Errors
    /// The catalogue's.
    pub async fn totals(&self) -> Result<Totals, QueryError> {
        let catalog = Arc::clone(self.catalog());
        self.look_up(move || catalog.totals()).await
    }

    /// Waits until everything acknowledged so far, in the groups that `studies` live in (none: all), is applied here.
    async fn refresh(&self, studies: &[String], freshness: Freshness) -> Result<(), QueryError> {
        match freshness {
            Freshness::Local => return Ok(()),
            Freshness::ReadIndex => {}
        }
        // Before the groups are known, "nothing found" would be a guess.
        if self.log().groups().is_empty() {
            return Err(QueryError::Starting);
        }
        let literal = |uid: &String| !uid.is_empty() && !uid.contains(['*', '?']);
        let groups = if studies.is_empty() || !studies.iter().all(literal) {
            self.log().groups()
        } else {
            let own = studies.iter().map(|uid| self.log().group_of(uid.as_bytes()));
            let mut groups = own.collect::<Option<Vec<GroupId>>>().ok_or(QueryError::Starting)?;
            groups.sort_unstable();
            groups.dedup();
            groups
        };
        self.read_index(groups).await
    }

    /// Waits until everything acknowledged so far in `groups` is applied here.
    pub(crate) async fn read_index(&self, groups: Vec<GroupId>) -> Result<(), QueryError> {
        self.log().read_index(groups).await.map_err(|error| match error {
            ReadError::NoQuorum { .. } | ReadError::Absent { .. } | ReadError::Damaged { .. } => QueryError::NoQuorum,
            ReadError::OutOfRange { .. } => QueryError::Invalid { why: error.to_string() },
            ReadError::Stopped => QueryError::Stopping,
        })
    }

    /// A short question, with permits of its own: long queries do not stand in its way.
    pub(crate) async fn look_up<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
    ) -> Result<T, QueryError> {
        self.blocking(self.look_ups(), work).await?.map_err(QueryError::Failed)
    }

    /// Runs `work` off the async threads, under a permit that ends with it.
    async fn blocking<T: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, QueryError> {
        let permit = Arc::clone(permits).acquire_owned().await.map_err(|_| QueryError::Stopping)?;
        let work = move || {
            let _permit = permit;
            work()
        };
        self.tasks().spawn_blocking(work).await.map_err(|_| QueryError::Stopping)
    }
}

fn uids(selection: &Selection) -> Vec<String> {
    selection.studies.iter().map(ToString::to_string).collect()
}
