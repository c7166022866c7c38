//! C-GET and C-MOVE as provider (PS3.4 C.4.2, C.4.3): one C-STORE sub-operation for each instance.
//!
//! One instance that fails never stops the rest. Pending responses carry the counts after each; the last one names the
//! instances that failed.

use crate::{
    association::{Association, Deadlines, Ended, Received},
    command::{self, Counts, field},
    delivery::{Delivery, Told},
    find::{self, Heard},
    provider::Peer,
    scu::{Proposal, ScuError},
    server::Shared,
    status::{self, Status},
};
use archive_model::{
    COMPRESSED, DataSet, EXPLICIT_BE, EXPLICIT_LE, Element, IMPLICIT_LE, Uid, VR, Value, tags, transfer_syntax,
    write_data_set,
};
use archive_service::{
    Archive, ConvertError, Converting, Freshness, InstanceRow, Level, Listing, ReadError, Reading, Selection,
    coerce::{self, Coerced, Patients},
    peers::{Destination, Peer as Entry, Rule},
    sends::{Moving, Outcome},
};
use archive_upper_layer::negotiate::CONTEXTS_MAX;
use bytes::Bytes;
use std::{collections::BTreeSet, sync::atomic::Ordering, task::Poll, time::Duration};

/// Instances that failed and are named in the final identifier, at most: it stays below 1 MiB.
const FAILED_NAMED_MAX: usize = 10_000;
/// Requestors give up on a C-MOVE that says nothing for 30 s: this often it says that it goes on.
const PENDING_EVERY: Duration = Duration::from_secs(5);
/// Associations to a destination that may be lost in a row before the rest of a C-MOVE fails.
pub(crate) const LOSSES_MAX: u32 = 3;

/// Time for a destination to accept an association, and to answer a release.
pub(crate) const DESTINATION_WITHIN: Duration = Duration::from_secs(10);

/// A retrieval under way.
struct Operation<'a> {
    context: u8,
    request: &'a DataSet,
    counts: Counts,
    failed: Vec<Uid>,
    cancelled: bool,
    /// There may be instances that this node does not know of.
    may_be_stale: bool,
}

/// How one sub-operation ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sub {
    Completed,
    Warning,
    Failed,
}

/// C-GET: the instances come back on the same association.
pub(crate) async fn get(
    shared: &Shared,
    association: &mut Association,
    context: u8,
    request: &DataSet,
    entry: &Entry,
) -> Result<(), Ended> {
    let Listing { rows, may_be_stale } = match select(&shared.archive, association, context, entry).await? {
        Ok(listing) => listing,
        Err(status) => return refuse(shared, association, context, request, "get", &status).await,
    };
    let mut operation = Operation::new(context, request, rows.len(), may_be_stale);
    let mut ahead = None;
    for (number, row) in rows.iter().enumerate() {
        let sub = get_one(shared, association, &mut operation, (row, rows.get(number + 1)), &mut ahead, &entry.coerce)
            .await?;
        operation.done(shared, sub, row);
        operation.hear(association).await?;
        if operation.cancelled {
            break;
        }
        // The requestor reads on anyway: it goes with the next object, in one write.
        association.send_with_next(operation.context, &operation.pending_set());
    }
    operation.finish(shared, association, "get").await
}

/// C-MOVE: the instances go to a third party, over associations of our own.
pub(crate) async fn move_to(
    shared: &Shared,
    association: &mut Association,
    peer: &Peer,
    context: u8,
    request: &DataSet,
    entry: &Entry,
) -> Result<(), Ended> {
    let Listing { rows, may_be_stale } = match select(&shared.archive, association, context, entry).await? {
        Ok(listing) => listing,
        Err(status) => return refuse(shared, association, context, request, "move", &status).await,
    };
    let destination = request.text(tags::MOVE_DESTINATION).unwrap_or_default();
    let Some(destination) = shared.archive.peers().destination(destination) else {
        let status = Status::new(status::UNKNOWN_DESTINATION, "the move destination is not configured (peer set)");
        return refuse(shared, association, context, request, "move", &status).await;
    };
    let mut operation = Operation::new(context, request, rows.len(), may_be_stale);
    // In the log: when this node dies, a peer goes on. Dropped, when this node stops, it is handed over.
    let message = command::message_id(request);
    let mut job = shared.archive.begin_move(&peer.calling, message, &destination, &rows);
    let moved = operation.move_all(shared, association, &mut job, &destination, &rows, (&peer.calling, message)).await;
    match &moved {
        Ok(()) if !operation.cancelled => job.finish(),
        Ok(()) | Err(_) => job.give_up(),
    }
    moved?;
    operation.finish(shared, association, "move").await
}

impl<'a> Operation<'a> {
    fn new(context: u8, request: &'a DataSet, count: usize, may_be_stale: bool) -> Self {
        let remaining = u16::try_from(count).unwrap_or(u16::MAX);
        Self {
            context,
            request,
            counts: Counts { remaining, ..Counts::default() },
            failed: Vec::new(),
            cancelled: false,
            may_be_stale,
        }
    }

    fn done(&mut self, shared: &Shared, sub: Sub, row: &InstanceRow) {
        self.counts.remaining = self.counts.remaining.saturating_sub(1);
        let (count, label) = match sub {
            Sub::Completed => (&mut self.counts.completed, "completed"),
            Sub::Warning => (&mut self.counts.warning, "warning"),
            Sub::Failed => (&mut self.counts.failed, "failed"),
        };
        *count = count.saturating_add(1);
        shared.metrics.suboperations.with_label_values(&[label]).inc();
        if sub == Sub::Failed && self.failed.len() < FAILED_NAMED_MAX {
            self.failed.push(row.instance.clone());
        }
    }

    /// The sub-operations of C-MOVE, until the last or a cancel.
    async fn move_all(
        &mut self,
        shared: &Shared,
        association: &mut Association,
        job: &mut Moving,
        to: &Destination,
        rows: &[InstanceRow],
        originator: (&str, u16),
    ) -> Result<(), Ended> {
        let deadlines = association.deadlines();
        let deadlines = Deadlines { artim: deadlines.artim.min(DESTINATION_WITHIN), ..deadlines };
        let how = (deadlines, shared.settings.send_ahead);
        // The requestor does not wait until the destination has answered a release, which it may never do.
        let mut delivery = Delivery::new(&shared.archive, to, Some(originator), rows, how, Some(&shared.tasks));
        if !rows.is_empty() && delivery.connect().await {
            job.recorded().await;
        }
        while let Some(Told { at, sub, why }) = self.told(association, &mut delivery).await? {
            self.done(shared, sub, &rows[at]);
            job.done(at, outcome(sub), &why);
            self.hear(association).await?;
            self.cancelled |= job.is_cancelled();
            if self.cancelled {
                delivery.stop().store(true, Ordering::SeqCst);
            } else {
                self.pending(association).await?;
            }
        }
        let Some(why) = delivery.given_up().filter(|_| !self.cancelled).map(str::to_owned) else { return Ok(()) };
        for at in delivery.rest() {
            self.done(shared, Sub::Failed, &rows[at]);
            job.done(at, Outcome::Failed, &why);
            self.hear(association).await?;
            self.cancelled |= job.is_cancelled();
            if self.cancelled {
                return Ok(());
            }
            self.pending(association).await?;
        }
        Ok(())
    }

    /// What became of the next instance. Until that is known the requestor hears that it goes on, and may cancel what comes
    /// after it.
    async fn told(
        &mut self,
        association: &mut Association,
        delivery: &mut Delivery<'_>,
    ) -> Result<Option<Told>, Ended> {
        let (id, stop) = (command::message_id(self.request), delivery.stop());
        let told = delivery.next();
        tokio::pin!(told);
        loop {
            tokio::select! {
                biased;
                told = &mut told => return Ok(told),
                received = association.next() => {
                    self.heard(association, received?, id).await?;
                    stop.fetch_or(self.cancelled, Ordering::SeqCst);
                }
                () = tokio::time::sleep(PENDING_EVERY) => self.pending(association).await?,
            }
        }
    }

    /// Looks for a C-CANCEL without waiting.
    async fn hear(&mut self, association: &mut Association) -> Result<(), Ended> {
        let operation = command::message_id(self.request);
        loop {
            let received = {
                // Polled once: even a time-out of zero would wait for the clock's next millisecond.
                let mut next = std::pin::pin!(association.next());
                std::future::poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await
            };
            match received {
                Poll::Ready(received) => self.heard(association, received?, operation).await?,
                Poll::Pending => return Ok(()),
            }
        }
    }

    async fn heard(&mut self, association: &mut Association, received: Received, operation: u16) -> Result<(), Ended> {
        match find::cancel(received, operation) {
            Heard::Cancel => {
                self.cancelled = true;
                Ok(())
            }
            Heard::Nothing => Ok(()),
            Heard::Other(received) => association.hold(received).await,
        }
    }

    async fn pending(&self, association: &mut Association) -> Result<(), Ended> {
        association.send(self.context, &self.pending_set(), None).await
    }

    fn pending_set(&self) -> DataSet {
        let mut set = command::response(self.request, &Status::new(status::PENDING, ""), false);
        command::put_counts(&mut set, self.counts, true);
        set
    }

    async fn finish(self, shared: &Shared, association: &mut Association, service: &str) -> Result<(), Ended> {
        let Counts { completed, failed, warning, .. } = self.counts;
        let status = if self.cancelled {
            Status::new(status::CANCEL, "")
        } else if failed > 0 && completed == 0 && warning == 0 {
            Status::new(status::UNABLE_TO_PERFORM, "no sub-operation succeeded")
        } else if failed > 0 || warning > 0 {
            Status::new(status::SOME_FAILED, "")
        } else if self.may_be_stale {
            // PS3.4 C.4.2.1.5 has no status for this; a warning with a comment is what a requestor notices.
            Status::new(status::SOME_FAILED, "no majority of nodes is up: there may be more instances")
        } else {
            Status::new(status::SUCCESS, "")
        };
        let mut identifier = DataSet::new();
        if !self.failed.is_empty() {
            let uids = self.failed.iter().map(ToString::to_string).collect();
            let tag = tags::FAILED_SOP_INSTANCE_UID_LIST;
            identifier.put(Element { tag, vr: VR::UI, value: Value::Text(uids) });
        }
        let mut set = command::response(self.request, &status, !identifier.is_empty());
        command::put_counts(&mut set, self.counts, self.cancelled);
        let syntax = association.contexts.get(&self.context).map(|context| context.transfer_syntax.clone());
        let bytes = write_data_set(&identifier, transfer_syntax(&syntax.unwrap_or_default()).encoding);
        association.send(self.context, &set, (!identifier.is_empty()).then_some(&bytes[..])).await?;
        shared.metrics.responses.with_label_values(&[service, &format!("{:04x}", status.code)]).inc();
        Ok(())
    }
}

async fn refuse(
    shared: &Shared,
    association: &mut Association,
    context: u8,
    request: &DataSet,
    service: &str,
    status: &Status,
) -> Result<(), Ended> {
    shared.metrics.responses.with_label_values(&[service, &format!("{:04x}", status.code)]).inc();
    association.send(context, &command::response(request, status, false), None).await
}

/// The instances that an identifier names.
async fn select(
    archive: &Archive,
    association: &mut Association,
    context: u8,
    entry: &Entry,
) -> Result<Result<Listing, Status>, Ended> {
    let identifier = match find::identifier(association, context).await? {
        Ok(identifier) => identifier,
        Err(status) => return Ok(Err(status)),
    };
    let class = association.contexts.get(&context).map(|context| context.abstract_syntax.clone()).unwrap_or_default();
    let level = find::level(&class, &identifier, entry.hierarchy);
    let asked = level.and_then(|level| Ok((selection(&identifier, level)?, level)));
    let selections = match asked.and_then(|(selection, level)| stored(selection, level, &entry.coerce)) {
        Ok(selections) => selections,
        Err(status) => return Ok(Err(status)),
    };
    let mut all = Listing { rows: Vec::new(), may_be_stale: false };
    for selection in selections {
        match archive.listing(selection, Freshness::ReadIndex).await {
            Ok(listing) => {
                all.rows.extend(listing.rows);
                all.may_be_stale |= listing.may_be_stale;
            }
            Err(error) => return Ok(Err(Status::from(&error))),
        }
        if all.rows.len() > usize::from(u16::MAX) {
            let status = Status::new(status::UNABLE_TO_COUNT, "more than 65,535 instances; ask for parts of them");
            return Ok(Err(status));
        }
    }
    Ok(Ok(all))
}

/// The selections of what is stored, where a rule shows the caller other patient ids (CO-5).
fn stored(selection: Selection, level: Level, rules: &[Rule]) -> Result<Vec<Selection>, Status> {
    let Some(id) = &selection.patient else { return Ok(vec![selection]) };
    match coerce::patients(id, rules) {
        Patients::These(ids) => {
            Ok(ids.into_iter().map(|id| Selection { patient: Some(id), ..selection.clone() }).collect())
        }
        Patients::Untold if level == Level::Patient => {
            let why = "a rule shows this caller one patient id for many: name the study";
            Err(Status::new(status::MISMATCH, why).naming(tags::PATIENT_ID))
        }
        // Its UIDs say what is wanted.
        Patients::Untold => Ok(vec![Selection { patient: None, ..selection }]),
    }
}

fn selection(identifier: &DataSet, level: Level) -> Result<Selection, Status> {
    let uids = |tag| -> Result<Vec<Uid>, Status> {
        let texts = identifier.texts(tag).iter().filter(|text| !text.trim().is_empty());
        let uids = texts.map(|text| Uid::parse(text)).collect::<Result<_, _>>();
        uids.map_err(|error| Status::new(status::MISMATCH, format!("{tag}: {error}")).naming(tag))
    };
    let patient = identifier.text(tags::PATIENT_ID).map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned);
    let found = Selection {
        patient,
        studies: uids(tags::STUDY_INSTANCE_UID)?,
        series: uids(tags::SERIES_INSTANCE_UID)?,
        instances: uids(tags::SOP_INSTANCE_UID)?,
    };
    let missing = |tag| Err(Status::new(status::MISMATCH, format!("{tag} is needed at this level")).naming(tag));
    match level {
        Level::Patient if found.patient.is_none() => missing(tags::PATIENT_ID),
        Level::Study if found.studies.is_empty() => missing(tags::STUDY_INSTANCE_UID),
        Level::Series if found.series.is_empty() => missing(tags::SERIES_INSTANCE_UID),
        Level::Instance if found.instances.is_empty() => missing(tags::SOP_INSTANCE_UID),
        Level::Patient => Ok(Selection { studies: Vec::new(), series: Vec::new(), instances: Vec::new(), ..found }),
        Level::Study => Ok(Selection { series: Vec::new(), instances: Vec::new(), ..found }),
        Level::Series => Ok(Selection { instances: Vec::new(), ..found }),
        Level::Instance => Ok(found),
    }
}

/// What an instance may be converted to, the best first: plain, and for who takes nothing plain compressed without loss.
const TARGETS: [&str; 7] = {
    let [rle, jpeg_ls, rpcl, htj2k] = COMPRESSED;
    [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE, rle, jpeg_ls, rpcl, htj2k]
};

/// How an instance can be sent: as it is stored, or converted. Where a rule changes something in a deflated one, all of it has to
/// be inflated, and deflated again for who takes nothing else: it is sent in a plain form, if it can be.
pub(crate) fn fitting<'a>(
    archive: &Archive,
    row: &InstanceRow,
    coerced: bool,
    accepted: impl Iterator<Item = (u8, &'a str)>,
) -> Option<(u8, Option<String>)> {
    let mut best: Option<(usize, u8)> = None;
    for (context, syntax) in accepted {
        let is_stored = syntax == row.transfer_syntax;
        if is_stored && !(coerced && transfer_syntax(syntax).deflated) {
            return Some((context, None));
        }
        let rank = TARGETS.iter().position(|target| *target == syntax && archive.may_convert(row, target));
        let rank = rank.or(is_stored.then_some(TARGETS.len()));
        best = best.into_iter().chain(rank.map(|rank| (rank, context))).min();
    }
    best.map(|(rank, context)| (context, TARGETS.get(rank).map(|target| (*target).to_owned())))
}

/// The bytes of an object on their way to a peer.
enum Sending {
    Stored(Reading),
    Converted(Box<Converting>),
}

/// What is known of an object before it is sent.
pub(crate) struct Ready {
    /// Its bytes, as they are stored, are read already.
    pub(crate) begun: Option<Reading>,
    /// What the rules of its receiver change in it.
    pub(crate) coerced: Option<Coerced>,
}

impl Sending {
    /// The instance as it is stored, or in `target`, or with what is changed in it.
    async fn of(
        archive: &Archive,
        row: &InstanceRow,
        target: Option<&str>,
        ready: Ready,
    ) -> Result<Self, ConvertError> {
        Ok(match (ready, target) {
            (Ready { coerced: Some(coerced), .. }, target) => {
                let target = target.unwrap_or(&row.transfer_syntax);
                Self::Converted(Box::new(archive.convert_coerced(row, target, &coerced).await?))
            }
            (Ready { begun: Some(begun), coerced: None }, None) => Self::Stored(begun),
            (Ready { begun: None, coerced: None }, None) => Self::Stored(archive.read(row, 0..row.length_bytes)),
            (Ready { coerced: None, .. }, Some(target)) => {
                Self::Converted(Box::new(archive.convert(row, target).await?))
            }
        })
    }

    fn length_bytes(&self) -> u64 {
        match self {
            Self::Stored(reading) => reading.length_bytes(),
            Self::Converted(converting) => converting.length_bytes(),
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, ConvertError>> {
        match self {
            Self::Stored(reading) => Some(reading.next().await?.map_err(|error: ReadError| error.into())),
            Self::Converted(converting) => converting.next().await,
        }
    }
}

/// What the rules of its receiver change in an instance; an error where it may not be sent, because that cannot be made sure
/// (CO-2).
pub(crate) async fn coerced(
    archive: &Archive,
    row: &InstanceRow,
    rules: &[Rule],
) -> Result<Option<Coerced>, ConvertError> {
    archive.coerced(row, rules).await.inspect_err(|error| {
        tracing::warn!(instance = %row.instance, %error, "an instance is not sent: its rules cannot be applied");
    })
}

/// Sends an instance behind its C-STORE-RQ; `false` when it cannot be read, and then nothing was sent.
pub(crate) async fn send_object(
    archive: &Archive,
    association: &mut Association,
    (context, target): (u8, Option<String>),
    command: &DataSet,
    row: &InstanceRow,
    ready: Ready,
) -> Result<bool, Ended> {
    let mut sending = match Sending::of(archive, row, target.as_deref(), ready).await {
        Ok(sending) => sending,
        Err(error) => {
            tracing::warn!(instance = %row.instance, %error, "an instance cannot be sent");
            return Ok(false);
        }
    };
    let (mut rest_bytes, mut begun) = (sending.length_bytes(), false);
    // No piece is held while the next one is waited for: pieces count against the budget of all readers.
    while let Some(piece) = sending.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                tracing::error!(instance = %row.instance, %error, "an instance could not be read");
                if !begun {
                    return Ok(false);
                }
                association.abort().await;
                return Err(Ended::Broken("an object could not be read to its end".into()));
            }
        };
        if !begun {
            association.send_begin(context, command).await?;
            begun = true;
        }
        rest_bytes = rest_bytes.saturating_sub(piece.len() as u64);
        association.send_piece(context, &piece, rest_bytes == 0).await?;
    }
    Ok(begun)
}

/// How C-GET can send an instance.
fn way_to_get(
    archive: &Archive,
    association: &Association,
    row: &InstanceRow,
    coerced: bool,
) -> Option<(u8, Option<String>)> {
    let accepted = association
        .contexts
        .iter()
        .filter(|(_, context)| context.we_request && context.abstract_syntax == row.sop_class.as_str())
        .map(|(id, context)| (*id, context.transfer_syntax.as_str()));
    fitting(archive, row, coerced, accepted)
}

/// One sub-operation of C-GET. While its answer is waited for, the instance `after` it is read ahead into `ahead`: by then
/// this association holds no memory any more.
async fn get_one(
    shared: &Shared,
    association: &mut Association,
    operation: &mut Operation<'_>,
    (row, after): (&InstanceRow, Option<&InstanceRow>),
    ahead: &mut Option<Reading>,
    rules: &[Rule],
) -> Result<Sub, Ended> {
    let begun = ahead.take();
    let Ok(coerced) = coerced(&shared.archive, row, rules).await else { return Ok(Sub::Failed) };
    let Some(way) = way_to_get(&shared.archive, association, row, coerced.is_some()) else {
        tracing::info!(instance = %row.instance, syntax = row.transfer_syntax, "no accepted context for an instance");
        return Ok(Sub::Failed);
    };
    let id = association.message_id();
    let set = command::store_request(id, row.sop_class.as_str(), row.instance.as_str(), None);
    if !send_object(&shared.archive, association, way, &set, row, Ready { begun, coerced }).await? {
        return Ok(Sub::Failed);
    }
    if let Some(after) = after
        && rules.is_empty()
        && let Some((_, None)) = way_to_get(&shared.archive, association, after, false)
    {
        let mut reading = shared.archive.read(after, 0..after.length_bytes);
        reading.begin();
        *ahead = Some(reading);
    }
    // The answer to it; a cancel may come first.
    let cancelled = command::message_id(operation.request);
    loop {
        if association.is_deaf() {
            association.abort().await;
            return Err(Ended::Broken(
                "an object during a C-GET: its sub-operations could not be answered behind it".into(),
            ));
        }
        match association.next().await? {
            Received::Command { set, data: false, .. }
                if command::command_field(&set) == Some(field::STORE_RQ | field::RESPONSE) =>
            {
                return Ok(judged(command::status_code(&set).unwrap_or(status::PROCESSING_FAILURE)));
            }
            other => operation.heard(association, other, cancelled).await?,
        }
    }
}

/// Why an association to a destination came to nothing, without the words of the destination.
pub(crate) fn reason(error: &ScuError) -> String {
    match error {
        ScuError::Status { status, .. } => format!("status {status:04X}"),
        error @ (ScuError::Unreachable { .. }
        | ScuError::Rejected { .. }
        | ScuError::NotAccepted { .. }
        | ScuError::Ended(_)) => error.to_string(),
    }
}

pub(crate) fn outcome(sub: Sub) -> Outcome {
    match sub {
        Sub::Completed => Outcome::Sent,
        Sub::Warning => Outcome::Warned,
        Sub::Failed => Outcome::Failed,
    }
}

/// PS3.7 Annex C: `Bxxx` and a few others are warnings, `0000` is success, all else failed.
pub(crate) fn judged(status: u16) -> Sub {
    match status {
        0 => Sub::Completed,
        0xB000..=0xBFFF | 0x0001 | 0x0107 | 0x0116 => Sub::Warning,
        _ => Sub::Failed,
    }
}

/// Parts of `rows` that need no more contexts than one association has.
pub(crate) fn by_contexts(rows: &[InstanceRow]) -> Vec<&[InstanceRow]> {
    let mut parts = Vec::new();
    let (mut start, mut seen) = (0, BTreeSet::new());
    for (at, row) in rows.iter().enumerate() {
        let need = (row.sop_class.as_str(), row.transfer_syntax.as_str());
        // Three contexts each: as stored, the plain encodings, and big endian for who takes nothing else.
        if !seen.contains(&need) && (seen.len() + 1) * 3 > CONTEXTS_MAX {
            parts.push(&rows[start..at]);
            (start, seen) = (at, BTreeSet::new());
        }
        seen.insert(need);
    }
    if start < rows.len() {
        parts.push(&rows[start..]);
    }
    parts
}

/// As stored, and in what it can be converted to; where the destination has `permitted` ones, in these only.
pub(crate) fn proposals(archive: &Archive, rows: &[InstanceRow], permitted: &[Uid]) -> Vec<Proposal> {
    let mut wanted = BTreeSet::new();
    for row in rows {
        let (class, stored) = (row.sop_class.as_str(), row.transfer_syntax.as_str());
        if permitted.is_empty() || permitted.iter().any(|syntax| syntax.as_str() == stored) {
            wanted.insert(Proposal::new(class, &[stored]));
        }
        let may = |to: &&str| *to != stored && archive.may_convert(row, to);
        let others: Vec<&str> = permitted.iter().map(Uid::as_str).filter(may).collect();
        if !others.is_empty() {
            wanted.insert(Proposal::new(class, &others));
        }
        if permitted.is_empty() && archive.may_convert(row, EXPLICIT_LE) {
            wanted.insert(Proposal::new(class, &[EXPLICIT_LE, IMPLICIT_LE]));
            wanted.insert(Proposal::new(class, &[EXPLICIT_BE]));
        }
    }
    wanted.into_iter().collect()
}
