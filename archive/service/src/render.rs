//! A frame as a picture: for browsers, thumbnails and reports (PS3.18 §8.3.5, §10.4.1.1.3, §10.4.1.1.4; PS3.4 §N.2).
//!
//! ```text
//!   Archive::render ─► a place in the line, or Busy ─► a turn ─► source.rs   header, tables, the frame's stored bytes
//!                                                            ─► recipe.rs   what the data set and the request say of the picture
//!                                                            ─► triptych-codec: decode, map, scale, encode (archive/codec/src/render.rs)
//! ```
//!
//! Here no sample is looked at: a frame goes to the worker as it is stored, and comes back as PNG or JPEG. So what a frame
//! does to its decoder, or how large it becomes, is one failed request.
//!
//! Invariants
//! - RE-1 At most [`RENDERINGS_MAX`] wait or run; who waits holds no bytes of a frame.
//! - RE-2 Who stops waiting (a client that went away) takes what was done for him with him (X-2).
//! - RE-3 The same tag, the same bytes: it follows from the digest of the instance, the request, and [`PIPELINE_VERSION`].
//! - RE-4 What is kept is found by the digest of a row that was just read: what was deleted or rejected is not shown again.

mod cache;
mod recipe;
mod source;
mod table;
#[cfg(test)]
mod tests;

use crate::{Archive, CodecError, InstanceRow, QueryError, ReadError, codec::coding, decode::Held};
use archive_codec_wire::Coding;
pub use archive_codec_wire::recipe::{Format, Function};
use archive_model::transfer_syntax;
use bytes::Bytes;
pub(crate) use cache::Kept;
use source::Source;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Raised when the same request would give other bytes than before.
const PIPELINE_VERSION: u8 = 1;
/// Renderings that wait or run: two seconds of work, at 5 ms each on one core.
const RENDERINGS_MAX: usize = 256;
/// How long one waits for its turn; then its client is told to come again.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// How long one may take, once it has its turn.
const RENDER_WITHIN: Duration = Duration::from_secs(20);
/// Bytes of a native frame: 8192 × 8192 of 16 bits.
const NATIVE_BYTES_MAX: u128 = 128 << 20;
/// Bytes of a coded one.
const CODED_BYTES_MAX: u64 = 128 << 20;
/// Pixels of a picture, at most; the worker refuses more.
const PICTURE_PIXELS_MAX: u64 = 1 << 26;
/// Bytes of all pictures that are kept, and of one of them.
const KEPT_BYTES_MAX: usize = 16 << 20;
const KEPT_EACH_BYTES_MAX: usize = 64 << 10;

/// What a picture is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Viewing {
    /// How it is coded.
    pub format: Format,
    /// Columns and rows that it must fit into, `u32::MAX` where only the other one binds; none: as large as the image.
    pub viewport: Option<(u32, u32)>,
    /// A part of the image.
    pub region: Option<RegionAsked>,
    /// A window in place of the object's: shape, centre and width.
    pub window: Option<(Function, f64, f64)>,
    /// Whether overlay planes are drawn.
    pub overlays: bool,
    /// Whether the ICC profile of the image goes with it.
    pub profile: bool,
    /// Whether it is small and may be kept for the next one who asks.
    pub keep: bool,
}

/// A part of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RegionAsked {
    /// In its columns and rows; what is not said is the rest of it (PS3.18 §8.3.5.1.4).
    Pixels {
        /// Of its left edge.
        x: Option<f64>,
        /// Of its upper edge.
        y: Option<f64>,
        /// Negative: shown with left and right changed.
        width: Option<f64>,
        /// Negative: shown upside down.
        height: Option<f64>,
    },
    /// From 0 to 1 of it (PS3.18 §9.4.1.2.4).
    Fractions {
        /// Of its left edge.
        left: f64,
        /// Of its upper edge.
        top: f64,
        /// Of its right edge.
        right: f64,
        /// Of its lower edge.
        bottom: f64,
    },
}

/// Which frame is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// This one, counted from 1.
    Frame(u32),
    /// The one that the object names (0028,6010), or the one in the middle.
    Representative,
}

/// A picture.
#[derive(Debug, Clone)]
pub struct Picture {
    /// PNG or JPEG.
    pub bytes: Bytes,
    /// What of the request has no meaning for this image and was disregarded.
    pub disregarded: Vec<&'static str>,
}

/// Why there is no picture. Each is another thing to do.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// It has none.
    #[error("the instance has no picture: {0}")]
    None(&'static str),
    /// It has fewer frames.
    #[error("the instance has {frames} frames, counted from 1: ask for one of them")]
    NoFrame {
        /// How many it has.
        frames: u32,
    },
    /// What is asked for is not in the image.
    #[error("{0}")]
    Bad(&'static str),
    /// Too many are rendered at once.
    #[error("too many pictures are being made: try again in some seconds")]
    Busy,
    /// It takes too long.
    #[error("the picture took longer than {} s and was given up: ask for the frame itself", .0.as_secs())]
    Late(Duration),
    /// The worker gave none.
    #[error("frame {frame} has no picture: {why}")]
    Frame {
        /// Which, counted from 1.
        frame: u32,
        /// Why, and what to do.
        #[source]
        why: CodecError,
    },
    /// Where it lies cannot be looked up now.
    #[error(transparent)]
    Look(#[from] QueryError),
    /// It cannot be read now.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Who renders, and what is kept of it.
pub(crate) struct Renderings {
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    kept: Kept,
}

impl Renderings {
    /// For so many workers: one more is prepared while they work.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(RENDERINGS_MAX)),
            turns: Arc::new(Semaphore::new(workers.max(1) + 1)),
            kept: Kept::new(KEPT_BYTES_MAX),
        }
    }
}

impl Viewing {
    /// Changes when the picture does: of this content, this frame, this request.
    #[must_use]
    pub fn tag(&self, row: &InstanceRow, shown: Shown) -> String {
        let key = blake3::hash(format!("{PIPELINE_VERSION} {:?} {shown:?} {self:?}", row.digest).as_bytes());
        format!("\"{}\"", &key.to_hex()[..32])
    }
}

impl Archive {
    /// Whether an instance has frames that may become pictures: no video, and in a syntax that is decoded here.
    #[must_use]
    pub fn may_render(&self, row: &InstanceRow) -> bool {
        let syntax = transfer_syntax(&row.transfer_syntax);
        let is_native = !syntax.encapsulated && !syntax.pixel.is_video();
        row.frame_count > 0 && (is_native || coding(&syntax).is_some())
    }

    /// A picture of a frame.
    ///
    /// # Errors
    /// See [`RenderError`].
    pub async fn render(&self, row: &InstanceRow, shown: Shown, viewing: &Viewing) -> Result<Picture, RenderError> {
        let key = viewing.tag(row, shown);
        let count = |outcome| self.metrics().renderings.with_label_values(&[outcome]).inc();
        if let Some(bytes) = viewing.keep.then(|| self.renderings().kept.get(&key)).flatten() {
            count("kept");
            return Ok(Picture { bytes, disregarded: Vec::new() });
        }
        let picture = self.make(row, shown, viewing).await;
        count(match &picture {
            Ok(_) => "made",
            Err(RenderError::Busy) => "busy",
            Err(RenderError::Late(_)) => "late",
            Err(RenderError::None(_) | RenderError::NoFrame { .. } | RenderError::Bad(_)) => "none",
            Err(RenderError::Frame { .. } | RenderError::Look(_) | RenderError::Read(_)) => "failed",
        });
        let small = picture.as_ref().ok().filter(|picture| picture.bytes.len() <= KEPT_EACH_BYTES_MAX);
        if let Some(picture) = small.filter(|_| viewing.keep) {
            self.renderings().kept.put(key, Bytes::copy_from_slice(&picture.bytes));
        }
        picture
    }

    async fn make(&self, row: &InstanceRow, shown: Shown, viewing: &Viewing) -> Result<Picture, RenderError> {
        let line = self.renderings();
        let _place = line.places.try_acquire().map_err(|_| RenderError::Busy)?;
        let turn = tokio::time::timeout(TURN_WITHIN, line.turns.acquire()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or(RenderError::Busy)?;
        let made = tokio::time::timeout(RENDER_WITHIN, self.made(row, shown, viewing)).await;
        made.map_err(|_| RenderError::Late(RENDER_WITHIN))?
    }

    async fn made(&self, row: &InstanceRow, shown: Shown, viewing: &Viewing) -> Result<Picture, RenderError> {
        let map = self.frames(row).await?.ok_or(RenderError::None("it has no frames"))?;
        let syntax = transfer_syntax(&row.transfer_syntax);
        if syntax.pixel.is_video() {
            return Err(RenderError::None("it is a video: accept its own media type"));
        }
        let is_native = map.bits(1).is_some();
        let coding = if is_native { Some(Coding::Native) } else { coding(&syntax) };
        let coding = coding.ok_or(RenderError::None("nothing here decodes its transfer syntax"))?;
        let mut source = Source::open(self, row, map).await?;
        let frame = source.frame(shown)?;
        let image = source.image()?;
        if image.native_bytes() > NATIVE_BYTES_MAX {
            return Err(RenderError::None("a frame of it is larger than 128 MiB: retrieve it as it is"));
        }
        source.fetch_tables(frame, viewing).await?;
        let (recipe, disregarded) = recipe::recipe(&source, &image, frame, viewing)?;
        let recipe = recipe.encode();
        let coded = source.frame_bytes(frame);
        if coded > CODED_BYTES_MAX {
            return Err(RenderError::None("a frame of it is larger than 128 MiB: retrieve it as it is"));
        }
        let (columns, rows) = viewing.viewport.unwrap_or((image.columns, image.rows));
        let picture = (u64::from(columns) * u64::from(rows)).min(PICTURE_PIXELS_MAX) * 3;
        let mut permit = self.codec().reserve(coded + recipe.len() as u64 + picture).await;
        let stream = source.read_frame(&image, frame).await?;
        let bytes = self.codec().render(coding, image, &recipe, &stream).await;
        let bytes = bytes.map_err(|why| RenderError::Frame { frame, why })?;
        permit.shrink((bytes.len() as u64).min(permit.bytes()));
        Ok(Picture { bytes: Bytes::from_owner(Held { bytes, _permit: Arc::new(permit) }), disregarded })
    }
}
