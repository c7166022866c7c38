//! The store behind a URL: every call with a time limit, a few tries with growing pauses, and digests compared.
//!
//! A time-out or a 5xx is tried again; "not there" and "not allowed" are answers. What is read and has a digest is compared
//! with it: a mismatch is read again (a proxy may have cut it) and then called damage. What is written is checked before
//! anyone counts on it (B1).

use crate::{GroupEntry, Manifest, TierError, time::parse_unix_ms};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    ClientConfigKey, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum},
    local::LocalFileSystem,
    path::Path,
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// Tries of one call.
const TRIES: u32 = 5;
/// The pause before the second try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// What a call may take, apart from its bytes.
const CALL_WITHIN: Duration = Duration::from_secs(60);
/// The slowest line that is waited for.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;
/// No object of ours is larger: bounds what a damaged manifest may ask for.
const OBJECT_BYTES_MAX: u64 = 160 << 20;

/// How an object that was written is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCheck {
    /// It is read back and its digest compared.
    ReadBack,
    /// The store compared a SHA-256 that was sent along; its length is asked for.
    StoreChecksum,
}

/// Backups of any clusters, in one folder or bucket.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    check: WriteCheck,
    url: String,
}

impl Repository {
    /// The store at `url` for a backup that may be the first: a folder is made.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn create(url: &str) -> Result<Self, TierError> {
        if let Some(folder) = url.strip_prefix("file://").filter(|folder| folder.starts_with('/')) {
            let made = std::fs::create_dir_all(folder);
            made.map_err(|error| TierError::Address { url: url.to_owned(), why: error.to_string() })?;
        }
        Self::open(url)
    }

    /// The store at `url`: `file:///folder`, or `s3://bucket/prefix` with credentials and endpoint from the usual `AWS_…`
    /// variables of the environment.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn open(url: &str) -> Result<Self, TierError> {
        let bad = |why: String| TierError::Address { url: url.to_owned(), why };
        if let Some(folder) = url.strip_prefix("file://") {
            if !folder.starts_with('/') {
                return Err(bad("a folder is named from the root".into()));
            }
            if !std::path::Path::new(folder).is_dir() {
                return Err(bad("there is no such folder".into()));
            }
            let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| bad(error.to_string()))?;
            // Durable before the manifest is written; see B1.
            let store = store.with_fsync(true);
            return Ok(Self::over(Arc::new(store), Path::default(), WriteCheck::ReadBack, url));
        }
        let Some((bucket, prefix)) = url.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        else {
            return Err(bad("this kind of store is not known".into()));
        };
        if bucket.is_empty() {
            return Err(bad("it names no bucket".into()));
        }
        crate::install_tls();
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| bad(error.to_string()))?;
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_checksum_algorithm(Checksum::SHA256)
            // We try again ourselves, so that time-outs and cut bodies count as well.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            // The environment's own settings of the client (`AWS_ALLOW_HTTP`, proxies) stay as they are.
            .with_config(
                AmazonS3ConfigKey::Client(ClientConfigKey::Timeout),
                format!("{} s", time_for(OBJECT_BYTES_MAX).as_secs()),
            )
            .build()
            .map_err(|error| bad(error.to_string()))?;
        Ok(Self::over(Arc::new(store), prefix, WriteCheck::StoreChecksum, url))
    }

    /// Any store.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>, prefix: Path, check: WriteCheck, url: &str) -> Self {
        Self { store, prefix, check, url: url.to_owned() }
    }

    /// The clusters that have something here.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn clusters(&self) -> Result<Vec<Uuid>, TierError> {
        let listed = attempt("list the clusters", 0, || {
            let (store, prefix) = (Arc::clone(&self.store), self.prefix.clone());
            async move { store.list_with_delimiter(Some(&prefix)).await }
        })
        .await?;
        let names = listed.common_prefixes.iter().filter_map(|path| path.filename()?.parse().ok());
        let mut found: Vec<Uuid> = names.collect();
        found.sort_unstable();
        Ok(found)
    }

    /// The backups of one cluster.
    #[must_use]
    pub fn cluster(&self, id: Uuid) -> ClusterStore {
        ClusterStore { repository: self.clone(), root: self.prefix.clone().join(id.to_string()), id }
    }

    /// The backups of the cluster `id`, or of the only one that is here.
    ///
    /// # Errors
    /// When there is none, or several and none was named.
    pub async fn the_cluster(&self, id: Option<Uuid>) -> Result<ClusterStore, TierError> {
        let found = self.clusters().await?;
        let url = &self.url;
        match (id, found.as_slice()) {
            (Some(id), _) if found.contains(&id) => Ok(self.cluster(id)),
            (Some(id), _) => Err(TierError::NoBackup(format!("{url} holds no backup of cluster {id}"))),
            (None, [id]) => Ok(self.cluster(*id)),
            (None, []) => Err(TierError::NoBackup(format!("{url} holds no backup"))),
            (None, several) => {
                let names: Vec<_> = several.iter().map(ToString::to_string).collect();
                Err(TierError::NoBackup(format!(
                    "{url} holds backups of several clusters: name one with --cluster ({})",
                    names.join(", ")
                )))
            }
        }
    }
}

fn time_for(bytes: u64) -> Duration {
    CALL_WITHIN + Duration::from_secs(bytes / BYTES_PER_SECOND_MIN)
}

/// Calls until it works, the answer is final, or the tries are used up.
async fn attempt<T, F>(step: &str, bytes: u64, call: impl Fn() -> F) -> Result<T, TierError>
where
    F: Future<Output = object_store::Result<T>>,
{
    let mut pause = FIRST_PAUSE;
    for number in 1.. {
        let error = match tokio::time::timeout(time_for(bytes), call()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if number >= TRIES || is_final(&error) => {
                return Err(TierError::Store { step: step.to_owned(), source: error });
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) if number >= TRIES => break,
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::info!(step, error, "the store is asked again");
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Err(TierError::TimedOut { step: step.to_owned() })
}

/// Whether asking again cannot help.
fn is_final(error: &object_store::Error) -> bool {
    !matches!(error, object_store::Error::Generic { .. } | object_store::Error::JoinError { .. })
}

/// Backups of one cluster.
#[derive(Debug, Clone)]
pub struct ClusterStore {
    repository: Repository,
    root: Path,
    id: Uuid,
}

impl ClusterStore {
    /// The cluster.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.id
    }

    fn path(&self, object: &str) -> Path {
        object.split('/').fold(self.root.clone(), |path, part| path.join(part))
    }

    /// Writes an object and checks it.
    pub(crate) async fn put(&self, object: &str, parts: &[Bytes], digest: blake3::Hash) -> Result<(), TierError> {
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let (step, path) = (format!("write {object}"), self.path(object));
        for last in [false, false, true] {
            attempt(&step, bytes, || {
                let (store, path) = (Arc::clone(&self.repository.store), path.clone());
                let payload: PutPayload = parts.iter().cloned().collect();
                async move { store.put(&path, payload).await }
            })
            .await?;
            let sound = match self.repository.check {
                WriteCheck::ReadBack => self.digest(object, bytes).await? == (bytes, digest),
                WriteCheck::StoreChecksum => self.head(object).await?.is_some_and(|meta| meta.size == bytes),
            };
            if sound {
                return Ok(());
            }
            tracing::warn!(object, last, "what was written does not read back");
        }
        Err(TierError::damaged(object, "what was written does not read back: this store cannot be relied on"))
    }

    /// Length and digest of an object, read piece by piece.
    async fn digest(&self, object: &str, about_bytes: u64) -> Result<(u64, blake3::Hash), TierError> {
        let path = self.path(object);
        attempt(&format!("read {object}"), about_bytes, || {
            let (store, path) = (Arc::clone(&self.repository.store), path.clone());
            async move {
                let got = store.get(&path).await?;
                let (mut hasher, mut bytes, mut pieces) = (blake3::Hasher::new(), 0, got.into_stream());
                while let Some(piece) = pieces.try_next().await? {
                    hasher.update(&piece);
                    bytes += piece.len() as u64;
                }
                Ok((bytes, hasher.finalize()))
            }
        })
        .await
    }

    async fn head(&self, object: &str) -> Result<Option<ObjectMeta>, TierError> {
        let path = self.path(object);
        let asked = attempt(&format!("ask for {object}"), 0, || {
            let (store, path) = (Arc::clone(&self.repository.store), path.clone());
            async move { store.head(&path).await }
        })
        .await;
        match asked {
            Ok(meta) => Ok(Some(meta)),
            Err(TierError::Store { source: object_store::Error::NotFound { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A whole object, whose digest is not known beforehand; `None` when it is not there.
    pub(crate) async fn get(&self, object: &str) -> Result<Option<Bytes>, TierError> {
        self.read(object, None).await
    }

    /// The last `bytes` of an object, or all of it.
    pub(crate) async fn get_end(&self, object: &str, bytes: u64) -> Result<Option<Bytes>, TierError> {
        self.read(object, Some(bytes)).await
    }

    async fn read(&self, object: &str, end: Option<u64>) -> Result<Option<Bytes>, TierError> {
        let path = self.path(object);
        let read = attempt(&format!("read {object}"), end.unwrap_or(OBJECT_BYTES_MAX), || {
            let (store, path) = (Arc::clone(&self.repository.store), path.clone());
            async move {
                let options = GetOptions { range: end.map(GetRange::Suffix), ..GetOptions::default() };
                let got = store.get_opts(&path, options).await?;
                let expected = got.range.end - got.range.start;
                if expected > OBJECT_BYTES_MAX {
                    return Err(cut(format!("it has {} bytes: no object of a backup is so large", got.meta.size)));
                }
                let bytes = got.bytes().await?;
                if bytes.len() as u64 != expected {
                    return Err(cut(format!("{} bytes came instead of {expected}", bytes.len())));
                }
                Ok(bytes)
            }
        })
        .await;
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(TierError::Store { source: object_store::Error::NotFound { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A whole object with this digest: bytes, or what is wrong with them, and the bytes all the same if some came.
    pub(crate) async fn get_sound(&self, object: &str, blake3: &str) -> Result<Bytes, (TierError, Option<Bytes>)> {
        let mut came = None;
        for number in 0..3 {
            match self.get(object).await {
                Ok(Some(bytes)) => {
                    // Hashing 64 MiB takes some 20 ms: not on a thread that others wait for.
                    let hashing = bytes.clone();
                    let digest = tokio::task::spawn_blocking(move || blake3::hash(&hashing)).await;
                    if digest.is_ok_and(|digest| digest.to_hex().as_str() == blake3) {
                        return Ok(bytes);
                    }
                    tracing::warn!(object, number, "an object does not have its digest");
                    came = Some(bytes);
                }
                Ok(None) => return Err((TierError::damaged(object, "it is not there"), None)),
                Err(error) => return Err((error, came)),
            }
        }
        Err((TierError::damaged(object, "its digest is another one"), came))
    }

    /// Everything below a folder: names below the cluster's folder, and lengths.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<(String, ObjectMeta)>, TierError> {
        let (path, root) = (self.path(folder), format!("{}/", self.root));
        let listed: Vec<ObjectMeta> = attempt(&format!("list {folder}"), 0, || {
            let (store, path) = (Arc::clone(&self.repository.store), path.clone());
            async move { store.list(Some(&path)).try_collect().await }
        })
        .await?;
        let named = listed.into_iter().filter_map(|meta| {
            let name = meta.location.as_ref().strip_prefix(&root)?.to_owned();
            Some((name, meta))
        });
        let mut named: Vec<_> = named.collect();
        named.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(named)
    }

    /// Removes objects; one that is not there is removed already.
    pub(crate) async fn remove(&self, objects: &[String]) -> Result<(), TierError> {
        let removals = futures::stream::iter(objects.to_vec()).map(|object| {
            let path = self.path(&object);
            async move {
                let removed = attempt(&format!("remove {object}"), 0, || {
                    let (store, path) = (Arc::clone(&self.repository.store), path.clone());
                    async move { store.delete(&path).await }
                })
                .await;
                match removed {
                    Err(TierError::Store { source: object_store::Error::NotFound { .. }, .. }) => Ok(()),
                    other => other,
                }
            }
        });
        removals.buffer_unordered(8).try_collect().await
    }

    /// The ids of all backups, oldest first.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn backups(&self) -> Result<Vec<String>, TierError> {
        let listed = self.list("backups").await?;
        let ids = listed.into_iter().filter_map(|(name, _)| {
            let id = name.strip_prefix("backups/")?.strip_suffix(".json")?;
            started_unix_ms(id).map(|at| (at, id.to_owned()))
        });
        let mut ids: Vec<(u64, String)> = ids.collect();
        ids.sort_unstable();
        Ok(ids.into_iter().map(|(_, id)| id).collect())
    }

    /// The manifest of a backup.
    ///
    /// # Errors
    /// When it is not there, damaged, or cannot be read.
    pub async fn manifest(&self, id: &str) -> Result<Manifest, TierError> {
        let object = format!("backups/{id}.json");
        let bytes = self.get(&object).await?;
        let bytes = bytes.ok_or_else(|| TierError::NoBackup(format!("there is no backup {id}")))?;
        let manifest = Manifest::decode(&object, &bytes)?;
        if manifest.id != id || manifest.cluster_id != self.id {
            return Err(TierError::damaged(object, "it is the manifest of another backup"));
        }
        Ok(manifest)
    }

    /// The id of a backup: the newest, that of this id, or the newest that was begun not after this time.
    ///
    /// # Errors
    /// When there is none.
    pub async fn pick(&self, at: Option<&str>) -> Result<String, TierError> {
        let ids = self.backups().await?;
        let none = || TierError::NoBackup(format!("{} holds no backup of cluster {}", self.repository.url, self.id));
        let Some(at) = at else { return ids.last().cloned().ok_or_else(none) };
        if ids.iter().any(|id| id == at) {
            return Ok(at.to_owned());
        }
        let until = parse_unix_ms(at).ok_or_else(|| {
            TierError::NoBackup(format!(
                "--at {at}: neither the id of a backup nor a time such as 2026-11-26T00:30:00Z (UTC)"
            ))
        })?;
        let found = ids.iter().rev().find(|id| started_unix_ms(id).is_some_and(|started| started <= until)).cloned();
        found.ok_or_else(|| {
            TierError::NoBackup(format!("--at {at}: the oldest backup is newer; see `triptych backup list`"))
        })
    }

    /// Part `number` of the rows of `group`, checked.
    pub(crate) async fn rows_part(&self, group: &GroupEntry, number: usize) -> Result<crate::rows::Part, TierError> {
        let (at, entry) = (group.applied.unwrap_or_default(), &group.rows[number]);
        let object = GroupEntry::rows_object(group.group, at, number, &entry.blake3);
        let bytes = self.get_sound(&object, &entry.blake3).await.map_err(|(error, _)| error)?;
        let part = u32::try_from(number).unwrap_or(u32::MAX);
        crate::rows::Part::open(&object, bytes, (group.group, at, part, number + 1 == group.rows.len()))
    }
}

/// When the backup with this id was begun.
pub(crate) fn started_unix_ms(id: &str) -> Option<u64> {
    id.split_once('-')?.0.parse().ok()
}

fn cut(why: String) -> object_store::Error {
    object_store::Error::Generic { store: "backup", source: why.into() }
}
