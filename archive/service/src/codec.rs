//! Frames decoded by another program: `triptych-codec`, started here and not trusted (`archive/codec`).
//!
//! ```text
//!   Codec::decode ─► permit of a worker ─► idle worker, or a new one ─► request ─► answer ─► idle again
//!                     (at most `workers`)                                │
//!                                                     silence, nonsense, its end: killed, counted; this frame failed
//! ```
//!
//! Invariants
//! - X-1 A worker serves one frame at a time. One that did not answer as the protocol says is never asked again.
//! - X-2 Whoever stops waiting (a peer that went away) takes the worker with it: dropped is killed.
//! - X-3 A frame in memory, coded or native, holds a permit of the frames' budget, from before it is read.

mod worker;

use crate::metrics::Metrics;
use archive_codec_wire::{
    Coding, FRAME_BYTES_MAX, Failure, Image, Photometric, Request, Verb, recipe::RECIPE_BYTES_MAX,
};
use archive_model::{PixelCoding, TransferSyntax};
use parking_lot::Mutex;
use raft_types::{ByteBudget, BytePermit};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use worker::Worker;

/// What an operator may set for the decoding of frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecSettings {
    /// The program. Default none: what is compressed is stored and passed on, and never decoded.
    pub program: Option<PathBuf>,
    /// Workers at the same time. Default 2.
    pub workers: usize,
    /// Memory of each, in MiB. Default 1024.
    pub memory_mib: u64,
    /// How long one frame may take. Default 30 s.
    pub frame_deadline: Duration,
    /// Bytes of frames that are being decoded or sent, all together. Default 256 MiB; a frame that is larger is alone.
    pub frame_bytes_max: u64,
}

impl Default for CodecSettings {
    fn default() -> Self {
        Self {
            program: None,
            workers: 2,
            memory_mib: 1024,
            frame_deadline: Duration::from_secs(30),
            frame_bytes_max: 256 << 20,
        }
    }
}

/// Why a frame was not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There is no program that could.
    #[error(
        "compressed frames are decoded by the program triptych-codec: install it beside triptych, or name it with --codec"
    )]
    Missing,
    /// It cannot be started.
    #[error(
        "{program} cannot be started ({why}): install the triptych-codec of this release there, or name it with --codec"
    )]
    Start {
        /// The program.
        program: String,
        /// The system's reason.
        why: String,
    },
    /// The stream is damaged, or not what the data set says.
    #[error("{0}")]
    Refused(String),
    /// Nothing decodes it.
    #[error("not decoded: {0}")]
    Unsupported(String),
    /// The worker did not answer in time and was killed.
    #[error("its decoder took longer than {} s and was stopped (--codec-seconds)", .0.as_secs())]
    Late(Duration),
    /// The worker ended, or spoke nonsense, and was replaced.
    #[error("its decoder ended, out of memory (--codec-memory-mib) or by a fault of its own: {0}")]
    Lost(String),
}

/// A frame, or a picture of one, and what its samples are.
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) photometric: Photometric,
    pub(crate) planar: bool,
}

/// The workers of a node; cheap to clone.
#[derive(Clone)]
pub(crate) struct Codec {
    inner: Arc<Inner>,
}

struct Inner {
    settings: CodecSettings,
    permits: Semaphore,
    idle: Mutex<Vec<Worker>>,
    frames: ByteBudget,
    metrics: Metrics,
}

/// How frames of a transfer syntax are coded, as workers name it.
pub(crate) fn coding(syntax: &TransferSyntax) -> Option<Coding> {
    Some(match syntax.pixel {
        PixelCoding::Rle => Coding::Rle,
        PixelCoding::Jpeg => Coding::Jpeg,
        PixelCoding::JpegLs => Coding::JpegLs,
        PixelCoding::Jpeg2000 => Coding::Jpeg2000,
        PixelCoding::Htj2k => Coding::Htj2k,
        PixelCoding::JpegXl => Coding::JpegXl,
        PixelCoding::DeflatedFrame => Coding::Deflated,
        PixelCoding::Native if syntax.encapsulated => Coding::Native,
        PixelCoding::Native
        | PixelCoding::NativeSwapped
        | PixelCoding::Jpip
        | PixelCoding::Mpeg2
        | PixelCoding::H264
        | PixelCoding::H265
        | PixelCoding::Unknown => return None,
    })
}

impl Codec {
    pub(crate) fn new(settings: CodecSettings, metrics: Metrics) -> Self {
        let inner = Inner {
            permits: Semaphore::new(settings.workers.max(1)),
            idle: Mutex::default(),
            frames: ByteBudget::new(settings.frame_bytes_max.max(1)),
            settings,
            metrics,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Waits until frames of so many bytes may be held.
    pub(crate) async fn reserve(&self, bytes: u64) -> BytePermit {
        self.inner.frames.acquire(bytes).await
    }

    /// The native frame of `stream`. A permit of [`Codec::reserve`] covers both.
    pub(crate) async fn decode(&self, coding: Coding, image: Image, stream: &[u8]) -> Result<Frame, CodecError> {
        self.timed(Verb::Decode, coding, image, &[], stream).await
    }

    /// The coded frame of `native`, which the worker has decoded again and compared.
    pub(crate) async fn encode(&self, coding: Coding, image: Image, native: &[u8]) -> Result<Frame, CodecError> {
        self.timed(Verb::Encode, coding, image, &[], native).await
    }

    /// A picture of `stream`, made by a recipe. A permit of [`Codec::reserve`] covers all three.
    pub(crate) async fn render(
        &self,
        coding: Coding,
        image: Image,
        recipe: &[u8],
        stream: &[u8],
    ) -> Result<Vec<u8>, CodecError> {
        self.timed(Verb::Render, coding, image, recipe, stream).await.map(|frame| frame.bytes)
    }

    async fn timed(
        &self,
        verb: Verb,
        coding: Coding,
        image: Image,
        recipe: &[u8],
        stream: &[u8],
    ) -> Result<Frame, CodecError> {
        let began = tokio::time::Instant::now();
        let result = self.ask(verb, coding, image, recipe, stream).await;
        let outcome = match &result {
            Ok(_) => "done",
            Err(CodecError::Missing | CodecError::Start { .. }) => "missing",
            Err(CodecError::Refused(_)) => "refused",
            Err(CodecError::Unsupported(_)) => "unsupported",
            Err(CodecError::Late(_)) => "late",
            Err(CodecError::Lost(_)) => "lost",
        };
        self.inner.metrics.codec_frames.with_label_values(&[outcome]).inc();
        self.inner.metrics.codec_seconds.observe(began.elapsed().as_secs_f64());
        result
    }

    async fn ask(
        &self,
        verb: Verb,
        coding: Coding,
        image: Image,
        recipe: &[u8],
        stream: &[u8],
    ) -> Result<Frame, CodecError> {
        let inner = &self.inner;
        let recipe_length = u32::try_from(recipe.len()).ok().filter(|length| u64::from(*length) <= RECIPE_BYTES_MAX);
        let recipe_length = recipe_length
            .ok_or_else(|| CodecError::Refused("its tables and overlays are larger than 64 MiB".into()))?;
        let length = u32::try_from(stream.len()).ok().filter(|length| u64::from(*length) <= FRAME_BYTES_MAX);
        let length = length.ok_or_else(|| CodecError::Refused("a coded frame is larger than 512 MiB".into()))?;
        if let Some(why) = image.nonsense() {
            return Err(CodecError::Refused(why.into()));
        }
        let program = inner.settings.program.as_ref().ok_or(CodecError::Missing)?;
        // Closed never.
        let _permit = inner.permits.acquire().await;
        // One that died while it was idle is not a frame's fault.
        let known = std::iter::from_fn(|| inner.idle.lock().pop()).find_map(Worker::living);
        let mut worker = match known {
            Some(worker) => worker,
            None => {
                inner.metrics.codec_workers.inc();
                Worker::start(program, inner.settings.memory_mib)?
            }
        };
        let request = Request { verb, coding, image, recipe: recipe_length, length };
        let within = inner.settings.frame_deadline;
        let answered = tokio::time::timeout(within, worker.ask(&request, recipe, stream)).await;
        let lost = |why: String| {
            tracing::warn!(why, "a codec worker was given up");
            why
        };
        match answered {
            Err(_) => {
                lost("too late".into());
                Err(CodecError::Late(within))
            }
            Ok(Err(error)) => Err(CodecError::Lost(lost(error))),
            Ok(Ok(outcome)) => {
                inner.idle.lock().push(worker);
                outcome.map_err(|(failure, why)| match failure {
                    Failure::Refused | Failure::Failed => CodecError::Refused(why),
                    Failure::Unsupported => CodecError::Unsupported(why),
                })
            }
        }
    }

    /// Ends the workers that are idle; those that are not end with what they do.
    pub(crate) fn close(&self) {
        self.inner.idle.lock().clear();
    }
}

#[cfg(test)]
mod tests;
