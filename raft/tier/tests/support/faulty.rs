//! A store over one in memory that fails as object stores do.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use rand::{Rng, SeedableRng};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// 503: nothing was done.
    Unavailable,
    /// No answer at all; a put was done.
    Silent,
    /// The answer to a put is lost, and the put as well.
    LostPut,
    /// A put stores a flipped byte.
    AlteredPut,
    /// A read ends early.
    CutRead,
    /// A read gives a flipped byte.
    AlteredRead,
}

pub(crate) struct Faulty {
    pub(crate) inner: Arc<InMemory>,
    /// Call number from which on the store refuses everything, as after a crash of the caller.
    pub(crate) dies_at: u64,
    pub(crate) calls: AtomicU64,
    pub(crate) puts: AtomicU64,
    pub(crate) gets: AtomicU64,
    pub(crate) putting: AtomicU64,
    pub(crate) putting_max: AtomicU64,
    pub(crate) slow: Option<Duration>,
    pub(crate) chance: parking_lot::Mutex<rand_chacha::ChaCha8Rng>,
    /// Of a hundred calls so many are met by a fault.
    pub(crate) percent: u32,
}

impl Faulty {
    pub(crate) fn new(inner: &Arc<InMemory>) -> Self {
        Self {
            inner: Arc::clone(inner),
            dies_at: u64::MAX,
            calls: AtomicU64::new(0),
            puts: AtomicU64::new(0),
            gets: AtomicU64::new(0),
            putting: AtomicU64::new(0),
            putting_max: AtomicU64::new(0),
            slow: None,
            chance: parking_lot::Mutex::new(rand_chacha::ChaCha8Rng::seed_from_u64(1)),
            percent: 0,
        }
    }

    pub(crate) fn troubled(inner: &Arc<InMemory>, seed: u64, percent: u32) -> Self {
        let chance = parking_lot::Mutex::new(rand_chacha::ChaCha8Rng::seed_from_u64(seed));
        Self { chance, percent, ..Self::new(inner) }
    }

    fn fault(&self, of: &[Fault]) -> Result<Fault> {
        if self.calls.fetch_add(1, SeqCst) >= self.dies_at {
            return Err(Error::PermissionDenied { path: "dead".into(), source: "the caller died".into() });
        }
        let mut chance = self.chance.lock();
        let met = chance.random_range(0..100) < self.percent;
        let fault = if met { of[chance.random_range(0..of.len())] } else { Fault::None };
        match fault {
            Fault::Unavailable => Err(Error::Generic { store: "faulty", source: "503 Slow Down".into() }),
            other => Ok(other),
        }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

/// Puts flip one bit and reads another: twice the same would be none.
fn flipped(bytes: &[u8], bit: u8) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= bit;
    }
    bytes.into()
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.puts.fetch_add(1, SeqCst);
        let now = self.putting.fetch_add(1, SeqCst) + 1;
        self.putting_max.fetch_max(now, SeqCst);
        if let Some(slow) = self.slow {
            tokio::time::sleep(slow).await;
        }
        let put = async {
            match self.fault(&[Fault::Unavailable, Fault::Silent, Fault::LostPut, Fault::AlteredPut])? {
                Fault::LostPut => Ok(PutResult { e_tag: None, version: None, extensions: Default::default() }),
                Fault::AlteredPut => {
                    let bytes = payload.iter().flat_map(|part| part.to_vec()).collect::<Vec<_>>();
                    self.inner.put_opts(location, flipped(&bytes, 4).into(), options).await
                }
                Fault::Silent => {
                    self.inner.put_opts(location, payload, options).await?;
                    std::future::pending().await
                }
                _ => self.inner.put_opts(location, payload, options).await,
            }
        };
        // Also when the caller gives up.
        struct Left<'a>(&'a AtomicU64);
        impl Drop for Left<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, SeqCst);
            }
        }
        let _left = Left(&self.putting);
        put.await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("objects are put whole")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.gets.fetch_add(1, SeqCst);
        let fault = self.fault(&[Fault::Unavailable, Fault::Silent, Fault::CutRead, Fault::AlteredRead])?;
        if fault == Fault::Silent {
            return std::future::pending().await;
        }
        let got = self.inner.get_opts(location, options).await?;
        if fault == Fault::None {
            return Ok(got);
        }
        let (meta, range, attributes, extensions) =
            (got.meta.clone(), got.range.clone(), got.attributes.clone(), got.extensions.clone());
        let bytes = got.bytes().await?;
        let bytes = if fault == Fault::CutRead { bytes.slice(..bytes.len() / 2) } else { flipped(&bytes, 8) };
        let payload = GetResultPayload::Stream(futures::stream::once(async move { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.fault(&[Fault::Unavailable]) {
            Ok(_) => self.inner.delete_stream(locations),
            Err(error) => futures::stream::once(async move { Err(error) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fault(&[Fault::Unavailable]) {
            Ok(_) => self.inner.list(prefix),
            Err(error) => futures::stream::once(async move { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.fault(&[Fault::Unavailable])?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unreachable!("nothing is copied")
    }
}
