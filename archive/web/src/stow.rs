//! STOW-RS (PS3.18 §10.5): parts of a multipart body go into the archive one by one as they arrive.
//!
//! ```text
//!   body ─► Splitter ─► part ─► FileReader ─► Ingest::push … ─► finish (beside the next parts) ─► Outcome
//!                                                                                                  │
//!                               200 all · 202 some, or with warnings · 409 none · 503 try again ◄──┘
//! ```
//!
//! A part that is refused is read to its end and forgotten; the others go on. A client that is cut off before the answer
//! may send everything again: what is stored already is `Same`.

use crate::{
    accept::{Accept, Form, content_type},
    address::base,
    assemble::{Assembly, CannotHold, Held, Made, PartKind},
    multipart::{BadMultipart, Event, PartHead, Splitter},
    qido::{XML, retrieve_url},
    query::Target,
    router::Shared,
    server::Peer,
    status::{self, INCOMPLETE, NOT_DICOM, Problem, Refusal},
};
use archive_model::{
    DataSet, Element, FileReader, Uid, VR, Value,
    json::{no_bulk, to_json},
    tags,
    xml::to_xml,
};
use archive_service::{Admission, Ingest, Level, Offer, Protocol, Source, StoreError, Stored};
use axum::{
    Extension,
    body::{Body, BodyDataStream},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::task::JoinSet;

/// Bytes that an ingest is given at once.
const PIECE_BYTES: usize = 256 << 10;
/// Instances that are committed while the next ones arrive: the log gathers them into one flush.
const FINISHING_MAX: usize = 16;
/// Coercion of data elements (B000): the only warning that says that a retrieve gives something else.
const OTHER_CONTENT: u16 = 45056;

/// What became of one part.
struct Outcome {
    /// Its place in the body.
    at: usize,
    class: Option<String>,
    instance: Option<String>,
    result: Result<Stored, Refusal>,
}

pub(crate) async fn store(
    State(shared): State<Shared>,
    Path(target): Path<Target>,
    peer: Option<Extension<Peer>>,
    request: Request,
) -> Result<Response, Problem> {
    let study = target.study()?;
    let (parts, body) = request.into_parts();
    let kind = Kind::of(&parts.headers)?;
    // Before the body is read: a client need not send what cannot be stored.
    if let Err(error) = shared.archive.admits() {
        return Err(Problem::new(status::refusal(&error).status, error.to_string()));
    }
    let source = Source {
        protocol: Protocol::Stow,
        calling_ae: String::new(),
        called_ae: shared.archive.ae_title().as_str().to_owned(),
        peer: peer.map_or_else(String::new, |Extension(Peer(address))| address.ip().to_string()),
    };
    let mut intake =
        Intake { shared: &shared, study, source, finishing: JoinSet::new(), outcomes: Vec::new(), parts: 0 };
    let mut body = body.into_data_stream();
    match kind {
        Kind::Single => {
            let mut part = intake.begin(None);
            while let Some(piece) = next(&shared, &mut body).await? {
                intake.push(&mut part, piece).await;
            }
            intake.end(part).await;
        }
        Kind::Multipart(boundary) => {
            let splitter = Splitter::new(&boundary, shared.settings.parts_max).map_err(broken)?;
            intake.take_parts(splitter, &mut body).await?;
        }
        Kind::Metadata(boundary) => {
            let splitter = Splitter::new(&boundary, shared.settings.parts_max).map_err(broken)?;
            intake.take_metadata(splitter, &mut body).await?;
        }
    }
    let outcomes = intake.finish().await;
    Ok(answer(outcomes, &parts.headers, &parts.uri))
}

/// How the body is made.
enum Kind {
    /// One file.
    Single,
    /// A file in each part.
    Multipart(String),
    /// Metadata, and bulk values beside.
    Metadata(String),
}

impl Kind {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let unsupported = || {
            let what = "send multipart/related; type=\"application/dicom\" with one file a part, one application/dicom file, or \
                        multipart/related; type=\"application/dicom+json\" (or +xml) with metadata and bulk values";
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what)
        };
        let value = headers.get(header::CONTENT_TYPE).ok_or_else(unsupported)?;
        let value = value.to_str().map_err(|_| unsupported())?;
        let (kind, parameter) = content_type(value);
        match kind.as_str() {
            "application/dicom" => Ok(Self::Single),
            "multipart/related" => {
                let root = parameter("type").map(|root| root.to_ascii_lowercase());
                let boundary = || parameter("boundary").ok_or(BadMultipart::NoBoundary).map_err(broken);
                match root.as_deref() {
                    None | Some("application/dicom") => Ok(Self::Multipart(boundary()?)),
                    Some("application/dicom+json" | "application/dicom+xml") => Ok(Self::Metadata(boundary()?)),
                    Some(_) => Err(unsupported()),
                }
            }
            _ => Err(unsupported()),
        }
    }
}

fn broken(error: BadMultipart) -> Problem {
    let status = match error {
        BadMultipart::TooMany { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        BadMultipart::NoBoundary | BadMultipart::Boundary | BadMultipart::NoPart | BadMultipart::Headers => {
            StatusCode::BAD_REQUEST
        }
    };
    Problem::new(status, error.to_string())
}

fn unnamed() -> Problem {
    Problem::bad(
        "a part is neither metadata nor a bulk value that metadata before it names by Content-Location: nothing was stored; \
         files go in a request of type=\"application/dicom\"",
    )
}

fn cannot_hold(why: CannotHold) -> Problem {
    let status = match why {
        CannotHold::Busy => StatusCode::SERVICE_UNAVAILABLE,
        CannotHold::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
    };
    Problem::new(status, why.to_string())
}

/// The next piece of a body that must go on.
pub(crate) async fn next(shared: &Shared, body: &mut BodyDataStream) -> Result<Option<Bytes>, Problem> {
    match tokio::time::timeout(shared.settings.body_timeout, body.next()).await {
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(_))) => Err(Problem::bad("the body ended too early: send it again, what is stored stays stored")),
        Ok(None) => Ok(None),
        Err(_) => {
            let what = "the body did not go on in time: send it again, what is stored stays stored";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, what))
        }
    }
}

/// One part on its way in.
struct Part {
    at: usize,
    reader: FileReader,
    state: PartState,
}

enum PartState {
    /// The meta group is not complete.
    Meta,
    Open(Box<Ingest>),
    Refused(Refusal),
}

/// All parts of one request.
struct Intake<'a> {
    shared: &'a Shared,
    study: Option<Uid>,
    source: Source,
    finishing: JoinSet<Outcome>,
    outcomes: Vec<Outcome>,
    parts: usize,
}

impl Intake<'_> {
    async fn take_parts(&mut self, mut splitter: Splitter, body: &mut BodyDataStream) -> Result<(), Problem> {
        let mut part = None;
        loop {
            match splitter.next().map_err(broken)? {
                Event::Part(head) => part = Some(self.begin(Some(&head))),
                Event::Data(piece) => {
                    if let Some(part) = &mut part {
                        self.push(part, piece).await;
                    }
                }
                Event::PartEnd => {
                    if let Some(part) = part.take() {
                        self.end(part).await;
                    }
                }
                Event::End => break,
                Event::More => match next(self.shared, body).await? {
                    Some(piece) => splitter.push(&piece),
                    None => splitter.complete(),
                },
            }
        }
        // An epilogue is read, so that the connection can be used again.
        while next(self.shared, body).await?.is_some() {}
        Ok(())
    }

    /// Metadata and bulk values: nothing goes in before all has come (A-0).
    async fn take_metadata(&mut self, mut splitter: Splitter, body: &mut BodyDataStream) -> Result<(), Problem> {
        let shared = self.shared;
        let (budget, most) = (&shared.bulk_held, shared.settings.bulk_held_bytes_max / 2);
        let mut assembly = Assembly::new(shared.archive.limits());
        let mut part = None;
        loop {
            match splitter.next().map_err(broken)? {
                Event::Part(head) => {
                    part = Some((PartKind::of(&head), Held::new(budget, most.saturating_sub(assembly.held_bytes()))));
                }
                Event::Data(piece) => {
                    if let Some((_, held)) = &mut part {
                        held.push(&piece).map_err(cannot_hold)?;
                    }
                }
                Event::PartEnd => match part.take() {
                    Some((kind @ (PartKind::Json | PartKind::Xml), held)) => {
                        let read = assembly.metadata(kind == PartKind::Xml, held);
                        read.map_err(|why| Problem::bad(format!("the metadata cannot be read: {why}")))?;
                    }
                    Some((PartKind::Bulk { names, media_type, syntax }, held)) => {
                        let named = assembly.bulk((&names, &media_type, syntax.as_deref()), held);
                        named.then_some(()).ok_or_else(unnamed)?;
                    }
                    None => {}
                },
                Event::End => break,
                Event::More => match next(self.shared, body).await? {
                    Some(piece) => splitter.push(&piece),
                    None => splitter.complete(),
                },
            }
        }
        if assembly.is_empty() {
            return Err(Problem::bad("no metadata came, and so no instance: nothing was stored"));
        }
        for made in assembly.finish() {
            self.take_made(made).await;
        }
        while next(self.shared, body).await?.is_some() {}
        Ok(())
    }

    /// Stores what was made of metadata and bulk values.
    async fn take_made(&mut self, made: Made) {
        let Made { at, class, instance, data } = made;
        let result = match data {
            None => Err(INCOMPLETE),
            Some((syntax, pieces)) => self.fill(syntax, pieces).await.map_err(|error| refused(at, &error)),
        };
        match result {
            Ok(ingest) => self.end_ingest(ingest, at, class, instance).await,
            Err(refusal) => self.outcomes.push(Outcome { at, class, instance, result: Err(refusal) }),
        }
    }

    async fn fill(&self, transfer_syntax: String, pieces: Vec<Bytes>) -> Result<Box<Ingest>, StoreError> {
        let mut ingest = Box::new(self.shared.archive.store(self.offer(transfer_syntax)).await?);
        for mut piece in pieces {
            while !piece.is_empty() {
                let some = piece.split_to(piece.len().min(PIECE_BYTES));
                ingest.push(some).await?;
            }
        }
        Ok(ingest)
    }

    fn offer(&self, transfer_syntax: String) -> Offer {
        // The data set says what it is; a meta group that disagrees is a slip of its writer.
        Offer {
            sop_class: None,
            instance: None,
            study: self.study.clone(),
            transfer_syntax,
            source: self.source.clone(),
        }
    }

    /// Commits an instance beside the next ones.
    async fn end_ingest(&mut self, ingest: Box<Ingest>, at: usize, class: Option<String>, instance: Option<String>) {
        while self.finishing.len() >= FINISHING_MAX {
            self.gather().await;
        }
        self.finishing.spawn(async move {
            let result = ingest.finish().await.map_err(|error| refused(at, &error));
            Outcome { at, class, instance, result }
        });
    }

    fn begin(&mut self, head: Option<&PartHead>) -> Part {
        let kind = head.and_then(|head| head.get("content-type")).map(|value| content_type(value).0);
        // Senders that say nothing, or "bytes", mean a file.
        let state = match kind.as_deref() {
            None | Some("" | "application/dicom" | "application/octet-stream") => PartState::Meta,
            Some(_) => PartState::Refused(NOT_DICOM),
        };
        self.parts += 1;
        Part { at: self.parts, reader: FileReader::new(self.shared.archive.limits()), state }
    }

    async fn push(&mut self, part: &mut Part, piece: Bytes) {
        if let PartState::Refused(_) = part.state {
            return;
        }
        if let Err(error) = self.feed(part, Some(piece)).await {
            part.state = PartState::Refused(refused(part.at, &error));
        }
    }

    /// Feeds a piece, or the end of the file.
    async fn feed(&mut self, part: &mut Part, piece: Option<Bytes>) -> Result<(), StoreError> {
        let data = match piece {
            Some(piece) => part.reader.push(piece),
            None => part.reader.finish(),
        };
        let data = data.map_err(StoreError::Invalid)?;
        if let (PartState::Meta, Some(meta)) = (&part.state, part.reader.meta()) {
            let offer = self.offer(meta.transfer_syntax.clone());
            part.state = PartState::Open(Box::new(self.shared.archive.store(offer).await?));
        }
        match &mut part.state {
            PartState::Open(ingest) if !data.is_empty() => ingest.push(data).await,
            PartState::Open(_) | PartState::Meta | PartState::Refused(_) => Ok(()),
        }
    }

    async fn end(&mut self, mut part: Part) {
        if !matches!(part.state, PartState::Refused(_))
            && let Err(error) = self.feed(&mut part, None).await
        {
            part.state = PartState::Refused(refused(part.at, &error));
        }
        let meta = part.reader.meta();
        let class = meta.and_then(|meta| meta.sop_class.clone());
        let instance = meta.and_then(|meta| meta.sop_instance.clone());
        let at = part.at;
        match part.state {
            PartState::Open(ingest) => self.end_ingest(ingest, at, class, instance).await,
            PartState::Meta => self.outcomes.push(Outcome { at, class, instance, result: Err(NOT_DICOM) }),
            PartState::Refused(refusal) => self.outcomes.push(Outcome { at, class, instance, result: Err(refusal) }),
        }
    }

    async fn gather(&mut self) {
        match self.finishing.join_next().await {
            Some(Ok(outcome)) => self.outcomes.push(outcome),
            Some(Err(error)) => {
                tracing::error!(%error, "a store ended without an outcome");
                let result = Err(status::refusal(&StoreError::Unknown));
                self.outcomes.push(Outcome { at: usize::MAX, class: None, instance: None, result });
            }
            None => {}
        }
    }

    async fn finish(mut self) -> Vec<Outcome> {
        while !self.finishing.is_empty() {
            self.gather().await;
        }
        self.outcomes.sort_by_key(|outcome| outcome.at);
        self.outcomes
    }
}

fn refused(part: usize, error: &StoreError) -> Refusal {
    tracing::info!(part, %error, "part not stored");
    status::refusal(error)
}

/// The Store Instances Response (PS3.18 §I.2).
fn answer(outcomes: Vec<Outcome>, headers: &HeaderMap, uri: &Uri) -> Response {
    let base = base(headers, uri);
    let status = overall(&outcomes);
    let (mut stored, mut failed) = (Vec::new(), Vec::new());
    let mut study = None;
    for outcome in outcomes {
        let mut item = DataSet::new();
        let number = |value: u16| Value::Integers(vec![value.into()]);
        match outcome.result {
            Ok(done) => {
                item.put_text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, done.sop_class.as_str());
                item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, done.instance.as_str());
                let mut names = DataSet::new();
                names.put_text(tags::STUDY_INSTANCE_UID, VR::UI, done.study.as_str());
                names.put_text(tags::SERIES_INSTANCE_UID, VR::UI, done.series.as_str());
                names.put_text(tags::SOP_INSTANCE_UID, VR::UI, done.instance.as_str());
                let url = |level| retrieve_url(&base, level, &names).unwrap_or_default();
                item.put_text(tags::RETRIEVE_URL, VR::UR, url(Level::Instance));
                if let Admission::Version { .. } = done.admission {
                    item.put(Element { tag: tags::WARNING_REASON, vr: VR::US, value: number(OTHER_CONTENT) });
                }
                study.get_or_insert_with(|| url(Level::Study));
                stored.push(item);
            }
            Err(refusal) => {
                // Only what is a UID is repeated: it comes from the sender.
                let uid = |text: Option<String>| text.and_then(|text| Uid::parse(&text).ok());
                if let Some(class) = uid(outcome.class) {
                    item.put_text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, class.as_str());
                }
                if let Some(instance) = uid(outcome.instance) {
                    item.put_text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, instance.as_str());
                }
                item.put(Element { tag: tags::FAILURE_REASON, vr: VR::US, value: number(refusal.reason) });
                failed.push(item);
            }
        }
    }
    let mut set = DataSet::new();
    set.put_text(tags::RETRIEVE_URL, VR::UR, study.unwrap_or_default());
    for (tag, items) in [(tags::FAILED_SOP_SEQUENCE, failed), (tags::REFERENCED_SOP_SEQUENCE, stored)] {
        if !items.is_empty() {
            set.put(Element { tag, vr: VR::SQ, value: Value::Items(items) });
        }
    }
    // What is stored is stored: who accepts neither gets JSON all the same.
    let forms = [Form::Single("application/dicom+json"), Form::Single("application/json"), Form::Single(XML)];
    let (kind, body) = match Accept::of(headers, &[]).choose(&forms, &[]) {
        Some(Form::Single(XML)) => (XML, to_xml(&set, &no_bulk)),
        Some(Form::Single("application/json")) => ("application/json", to_json(&set, &no_bulk)),
        _ => ("application/dicom+json", to_json(&set, &no_bulk)),
    };
    let mut response =
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static(kind))], Body::from(body)).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

/// The status of the request (PS3.18 table 10.5.3-1).
fn overall(outcomes: &[Outcome]) -> StatusCode {
    let plain = |outcome: &Outcome| match &outcome.result {
        Ok(stored) => !matches!(stored.admission, Admission::Version { .. }),
        Err(_) => false,
    };
    if outcomes.iter().all(plain) {
        return StatusCode::OK;
    }
    let mut refusals = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err());
    if outcomes.iter().any(|outcome| outcome.result.is_ok()) {
        return StatusCode::ACCEPTED;
    }
    // All for the same reason: that one's status. For several reasons: a conflict, unless trying again could help.
    let first = refusals.next().map_or(StatusCode::CONFLICT, |refusal| refusal.status);
    let mut other = StatusCode::CONFLICT;
    let mut same = true;
    for refusal in refusals {
        same &= refusal.status == first;
        if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
            other = refusal.status;
        }
    }
    if same || first == StatusCode::SERVICE_UNAVAILABLE { first } else { other }
}
