//! One association over a socket: the machine's actions carried out, PDUs read with deadlines, messages written.

use crate::held::Held;
use archive_model::{DataSet, Limits, read_command_set, write_command_set};
use archive_upper_layer::{
    Action, End, Event, Machine, State,
    frame::{self, BadPdu, Frame, Pdv},
    message::{Assembler, BadMessage, Piece},
    negotiate::Context,
    pdu::{AbortRQServiceProviderReason, AbortRQSource, Pdu},
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IoSlice},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// Bytes that one read may bring: a few PDUs.
const READ_BYTES: usize = 256 << 10;
/// Bytes gathered before they are written while an object is sent.
const WRITE_BYTES: usize = 256 << 10;
/// Fragments below this are copied together before they are written.
const FRAGMENT_WORTH_A_PART: usize = 4096;

/// How long the other end may take to close after the last PDU.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Bytes that count as progress inside of a message: as many in each [`Deadlines::progress`] keep an association alive,
/// which a line of 9.6 kb/s passes and a peer that trickles bytes does not.
const PROGRESS_BYTES: usize = 1 << 10;

/// Deadlines of an association. All count progress, not size: a slow line is no reason to hang up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For A-ASSOCIATE-RQ to come whole, for a release to be answered, and for the peer to close at the end
    /// (PS3.8 §9.1.5, ARTIM). Default 30 s.
    pub artim: Duration,
    /// For 1 KiB to arrive inside of a message, and for the peer to take 1 KiB. Default 30 s.
    pub progress: Duration,
    /// Between two messages. Default 300 s.
    pub idle: Duration,
}

impl Default for Deadlines {
    /// 30 s, 30 s, 300 s.
    fn default() -> Self {
        Self { artim: Duration::from_secs(30), progress: Duration::from_secs(30), idle: Duration::from_secs(300) }
    }
}

/// How long one direction has waited for the peer since [`PROGRESS_BYTES`] last came together.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    waited: Duration,
    bytes: usize,
}

impl Progress {
    /// What is left of `deadline`.
    fn left(self, deadline: Duration) -> Duration {
        deadline.saturating_sub(self.waited)
    }

    /// `count` bytes went after `waited`.
    fn went(&mut self, count: usize, waited: Duration) {
        self.bytes += count;
        self.waited += waited;
        if self.bytes >= PROGRESS_BYTES {
            *self = Self::default();
        }
    }
}

/// The event that a PDU is.
fn event_of(frame: &Frame) -> Event {
    match frame {
        Frame::Data(_) | Frame::Other(Pdu::PData { .. }) => Event::DataPdu,
        Frame::Other(Pdu::AssociationRQ(_)) => Event::AssociateRqPdu,
        Frame::Other(Pdu::AssociationAC(_)) => Event::AssociateAcPdu,
        Frame::Other(Pdu::AssociationRJ(_)) => Event::AssociateRjPdu,
        Frame::Other(Pdu::ReleaseRQ) => Event::ReleaseRqPdu,
        Frame::Other(Pdu::ReleaseRP) => Event::ReleaseRpPdu,
        Frame::Other(Pdu::AbortRQ { .. }) => Event::AbortPdu,
        Frame::Other(Pdu::Unknown { .. }) => Event::InvalidPdu,
    }
}

/// What comes from the peer.
#[derive(Debug)]
pub enum Received {
    /// A command set; a data set follows if `data`.
    Command {
        /// Presentation context.
        context: u8,
        /// The command set.
        set: DataSet,
        /// Whether a data set follows.
        data: bool,
    },
    /// A piece of the data set that was announced.
    Data {
        /// Its bytes.
        bytes: Bytes,
        /// Whether it is the last.
        last: bool,
    },
    /// The peer asked to release, and was answered.
    Released,
}

/// Why an association ended otherwise than by release.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The peer sent A-ABORT.
    #[error("the peer aborted")]
    Aborted,
    /// The connection is gone.
    #[error("the connection is gone: {0}")]
    Lost(#[from] io::Error),
    /// The peer broke the protocol; it was sent A-ABORT.
    #[error("the peer broke the protocol: {0}")]
    Broken(String),
    /// A deadline passed; the peer was sent A-ABORT.
    #[error("the peer made no progress for {0:?}")]
    Silent(Duration),
}

impl From<BadMessage> for Ended {
    fn from(error: BadMessage) -> Self {
        Self::Broken(error.to_string())
    }
}

/// An established association.
pub struct Association {
    pub(crate) read: OwnedReadHalf,
    pub(crate) write: OwnedWriteHalf,
    pub(crate) machine: Machine,
    buffer: BytesMut,
    pdvs: VecDeque<Pdv>,
    assembler: Assembler,
    deadlines: Deadlines,
    /// Agreed contexts, by id.
    pub contexts: BTreeMap<u8, Context>,
    /// Longest PDU that the peer takes; 0 is no limit.
    pub pdu_bytes_max: u32,
    /// Operations that the peer may have under way at the same time (PS3.7 D.3.3.3); at least 1.
    pub operations_max: u16,
    held: Held,
    next_message_id: u16,
    gathered: Vec<u8>,
    /// Half a PDU may be out: nothing can follow it (fo-dicom#1359), not even an abort.
    torn: bool,
    arriving: Progress,
    leaving: Progress,
}

impl Association {
    /// An association in Sta1 over an open connection.
    pub(crate) fn over(stream: TcpStream, end: End, deadlines: Deadlines) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        Ok(Self {
            read,
            write,
            machine: Machine::new(end),
            buffer: BytesMut::new(),
            pdvs: VecDeque::new(),
            assembler: Assembler::default(),
            deadlines,
            contexts: BTreeMap::new(),
            pdu_bytes_max: 0,
            operations_max: 1,
            held: Held::default(),
            next_message_id: 1,
            gathered: Vec::new(),
            torn: false,
            arriving: Progress::default(),
            leaving: Progress::default(),
        })
    }

    pub(crate) fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    /// A number for the next request.
    pub(crate) fn message_id(&mut self) -> u16 {
        let id = self.next_message_id;
        self.next_message_id = id.checked_add(1).unwrap_or(1);
        id
    }

    /// The next whole PDU. Cancel safe: bytes that were read stay in the buffer.
    pub(crate) async fn frame(&mut self) -> Result<Frame, Ended> {
        loop {
            match frame::take(&mut self.buffer) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(bad) => return Err(self.bad_pdu(&bad).await),
            }
            let begun = self.assembler.inside() || !self.buffer.is_empty();
            if !begun {
                self.arriving = Progress::default();
            }
            let within = if begun { self.arriving.left(self.deadlines.progress) } else { self.deadlines.idle };
            self.buffer.reserve(READ_BYTES);
            let since = Instant::now();
            match timeout(within, self.read.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => {
                    self.event(Event::TransportClosed);
                    return Err(Ended::Lost(io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(Ok(count)) => {
                    self.arriving.went(count, if begun { since.elapsed() } else { Duration::ZERO });
                }
                Ok(Err(error)) => {
                    self.event(Event::TransportClosed);
                    return Err(Ended::Lost(error));
                }
                Err(_) => {
                    self.abort().await;
                    return Err(Ended::Silent(if begun { self.deadlines.progress } else { within }));
                }
            }
        }
    }

    /// Moves the machine; what the local side may not do is a mistake of ours and only logged.
    pub(crate) fn event(&mut self, event: Event) -> Option<Action> {
        match self.machine.on(event) {
            Ok(action) => Some(action),
            Err(error) => {
                tracing::debug!(%error, "the upper layer was asked for too much");
                None
            }
        }
    }

    async fn bad_pdu(&mut self, bad: &BadPdu) -> Ended {
        let reason = match bad {
            BadPdu::Type(_) => AbortRQServiceProviderReason::UnrecognizedPdu,
            _ => AbortRQServiceProviderReason::InvalidPduParameter,
        };
        let action = self.event(Event::InvalidPdu);
        self.answer_abort(action, reason).await;
        Ended::Broken(bad.to_string())
    }

    /// The next request, or the next piece of one: first what was held while an operation was under way. Cancel safe.
    pub(crate) async fn next_request(&mut self) -> Result<Received, Ended> {
        match self.held.pop() {
            Some(received) => Ok(received),
            None => self.next().await,
        }
    }

    /// Keeps for [`Association::next_request`] what came during an operation and is not about it; ends the association of a
    /// peer that was granted one operation at a time, or has sent more than it was granted.
    pub(crate) async fn hold(&mut self, received: Received) -> Result<(), Ended> {
        let is_request = matches!(received, Received::Command { .. });
        let others = self.held.requests();
        if others + usize::from(is_request) < usize::from(self.operations_max)
            && !matches!(received, Received::Released)
        {
            self.held.push(received);
            return Ok(());
        }
        self.abort().await;
        Err(Ended::Broken(format!("more than the {} operations at a time that were agreed on", self.operations_max)))
    }

    /// Whether nothing is read any more until the operation is over: the peer has sent more than can be held.
    pub(crate) fn is_deaf(&self) -> bool {
        self.held.is_full()
    }

    /// What the peer sends next; nothing while [`Association::is_deaf`]. Cancel safe.
    pub async fn next(&mut self) -> Result<Received, Ended> {
        if self.is_deaf() {
            return std::future::pending().await;
        }
        loop {
            while let Some(pdv) = self.pdvs.pop_front() {
                if let Some(received) = self.piece(pdv).await? {
                    return Ok(received);
                }
            }
            match self.frame().await? {
                Frame::Data(pdvs) => match self.event(Event::DataPdu) {
                    Some(Action::Dt2 | Action::Ar6) => self.pdvs.extend(pdvs),
                    action => return Err(self.unexpected(action).await),
                },
                Frame::Other(Pdu::ReleaseRQ) => match self.event(Event::ReleaseRqPdu) {
                    Some(Action::Ar2) => {
                        self.event(Event::ReleaseResponse);
                        self.write_pdu(&Pdu::ReleaseRP).await?;
                        return Ok(Received::Released);
                    }
                    // Both asked at once (PS3.8 §9.2.2.4): the requestor answers first, the acceptor after that answer.
                    Some(Action::Ar8) => {
                        if self.machine.state() == State::Sta9 {
                            self.event(Event::ReleaseResponse);
                            self.write_pdu(&Pdu::ReleaseRP).await?;
                        }
                    }
                    action => return Err(self.unexpected(action).await),
                },
                Frame::Other(Pdu::ReleaseRP) => match self.event(Event::ReleaseRpPdu) {
                    Some(Action::Ar3) => return Ok(Received::Released),
                    Some(Action::Ar10) => {
                        self.event(Event::ReleaseResponse);
                        self.write_pdu(&Pdu::ReleaseRP).await?;
                        return Ok(Received::Released);
                    }
                    action => return Err(self.unexpected(action).await),
                },
                Frame::Other(Pdu::AbortRQ { .. }) => {
                    self.event(Event::AbortPdu);
                    return Err(Ended::Aborted);
                }
                frame @ Frame::Other(_) => return Err(self.out_of_place(&frame).await),
            }
        }
    }

    /// A PDU that may not come now: what is done is what the table says.
    pub(crate) async fn out_of_place(&mut self, frame: &Frame) -> Ended {
        let action = self.event(event_of(frame));
        self.unexpected(action).await
    }

    async fn unexpected(&mut self, action: Option<Action>) -> Ended {
        self.answer_abort(action, AbortRQServiceProviderReason::UnexpectedPdu).await;
        Ended::Broken("a PDU that has no place now".into())
    }

    /// AA-1 aborts as the user, AA-7 and AA-8 as the provider (PS3.8 Table 9-9).
    async fn answer_abort(&mut self, action: Option<Action>, reason: AbortRQServiceProviderReason) {
        match action {
            Some(Action::Aa1) => self.send_abort(AbortRQSource::ServiceUser).await,
            Some(Action::Aa7 | Action::Aa8) | None => self.send_abort(AbortRQSource::ServiceProvider(reason)).await,
            Some(_) => {}
        }
    }

    pub(crate) async fn piece(&mut self, pdv: Pdv) -> Result<Option<Received>, Ended> {
        let piece = match self.assembler.push(pdv) {
            Ok(piece) => piece,
            Err(error) => {
                self.abort().await;
                return Err(error.into());
            }
        };
        Ok(match piece {
            None => None,
            Some(Piece::Data { bytes, last, .. }) => Some(Received::Data { bytes, last }),
            Some(Piece::Command { context, bytes }) => {
                if !self.contexts.contains_key(&context) {
                    self.abort().await;
                    return Err(Ended::Broken(format!("presentation context {context} was not agreed on")));
                }
                let set = match read_command_set(&bytes, &Limits::default()) {
                    Ok(set) => set,
                    Err(error) => {
                        self.abort().await;
                        return Err(Ended::Broken(format!("the command set: {error}")));
                    }
                };
                let data = crate::command::has_data(&set);
                if data {
                    self.assembler.expect_data(context);
                }
                Some(Received::Command { context, set, data })
            }
        })
    }

    /// The data set that was announced, of at most `bytes_max`; what is longer is read to its end and dropped.
    pub(crate) async fn small_data(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, Ended> {
        let mut whole = Some(Vec::new());
        loop {
            match self.next_request().await? {
                Received::Data { bytes, last } => {
                    whole = whole.filter(|whole: &Vec<u8>| whole.len() + bytes.len() <= bytes_max);
                    if let Some(whole) = &mut whole {
                        whole.extend_from_slice(&bytes);
                    }
                    if last {
                        return Ok(whole);
                    }
                }
                Received::Command { .. } | Received::Released => {
                    return Err(Ended::Broken("a data set was announced and did not come".into()));
                }
            }
        }
    }

    /// Reads the rest of a data set that is of no use any more.
    pub(crate) async fn drain_data(&mut self) -> Result<(), Ended> {
        self.small_data(0).await.map(|_| ())
    }

    pub(crate) async fn write_pdu(&mut self, pdu: &Pdu) -> Result<(), Ended> {
        let bytes = frame::encode(pdu).map_err(|error| Ended::Broken(error.to_string()))?;
        self.write_all(&bytes).await
    }

    /// Writes whole PDUs. Dropped half-way it leaves the association torn.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.write_parts(&mut [IoSlice::new(bytes)]).await
    }

    async fn write_parts(&mut self, mut parts: &mut [IoSlice<'_>]) -> Result<(), Ended> {
        self.torn = true;
        // Empty ones in front would look like a peer that takes nothing.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let since = Instant::now();
            match timeout(self.leaving.left(self.deadlines.progress), self.write.write_vectored(parts)).await {
                Ok(Ok(0)) => return Err(Ended::Lost(io::ErrorKind::WriteZero.into())),
                Ok(Ok(count)) => {
                    self.leaving.went(count, since.elapsed());
                    IoSlice::advance_slices(&mut parts, count);
                }
                Ok(Err(error)) => return Err(Ended::Lost(error)),
                Err(_) => return Err(Ended::Silent(self.deadlines.progress)),
            }
        }
        self.torn = false;
        Ok(())
    }

    /// Writes a whole message, in one write.
    pub(crate) async fn send(&mut self, context: u8, command: &DataSet, data: Option<&[u8]>) -> Result<(), Ended> {
        self.send_with_next(context, command);
        if let Some(data) = data {
            frame::put_data(&mut self.gathered, context, false, true, data, self.pdu_bytes_max);
        }
        self.flush().await
    }

    /// A message without a data set that goes with whatever is written next: an answer for which nobody waits.
    pub(crate) fn send_with_next(&mut self, context: u8, command: &DataSet) {
        self.event(Event::DataRequest);
        frame::put_data(&mut self.gathered, context, true, true, &write_command_set(command), self.pdu_bytes_max);
    }

    /// Begins a message whose data set follows by [`Association::send_piece`].
    pub(crate) async fn send_begin(&mut self, context: u8, command: &DataSet) -> Result<(), Ended> {
        self.send_with_next(context, command);
        Ok(())
    }

    /// The next bytes of the data set. They go out from where they are, between the heads of their PDUs, together with what
    /// was gathered before them.
    pub(crate) async fn send_piece(&mut self, context: u8, piece: &[u8], last: bool) -> Result<(), Ended> {
        let step = frame::fragment_bytes(self.pdu_bytes_max);
        if piece.len() < FRAGMENT_WORTH_A_PART || step < FRAGMENT_WORTH_A_PART {
            return self.gather_piece(context, piece, last).await;
        }
        let count = piece.len().div_ceil(step);
        let head = |number: usize, bytes: &[u8]| {
            frame::data_head(context, false, last && number + 1 == count, bytes.len() as u32)
        };
        let heads: Vec<_> = piece.chunks(step).enumerate().map(|(number, bytes)| head(number, bytes)).collect();
        let mut front = std::mem::take(&mut self.gathered);
        let mut parts = Vec::with_capacity(1 + 2 * count);
        parts.push(IoSlice::new(&front));
        for (head, fragment) in heads.iter().zip(piece.chunks(step)) {
            parts.extend([IoSlice::new(head), IoSlice::new(fragment)]);
        }
        let result = self.write_parts(&mut parts).await;
        front.clear();
        self.gathered = front;
        result
    }

    /// Small pieces, and those for peers that take small PDUs: copied, because a part each would cost more.
    async fn gather_piece(&mut self, context: u8, piece: &[u8], last: bool) -> Result<(), Ended> {
        let step = frame::fragment_bytes(self.pdu_bytes_max);
        let mut pieces = piece.chunks(step).peekable();
        if pieces.peek().is_none() && last {
            frame::put_data(&mut self.gathered, context, false, true, &[], self.pdu_bytes_max);
        }
        while let Some(fragment) = pieces.next() {
            let ends = last && pieces.peek().is_none();
            frame::put_data(&mut self.gathered, context, false, ends, fragment, self.pdu_bytes_max);
            if self.gathered.len() >= WRITE_BYTES {
                self.flush().await?;
            }
        }
        if last { self.flush().await } else { Ok(()) }
    }

    /// Writes what was gathered.
    pub(crate) async fn flush(&mut self) -> Result<(), Ended> {
        let mut out = std::mem::take(&mut self.gathered);
        let result = self.write_all(&out).await;
        out.clear();
        self.gathered = out;
        result
    }

    /// Sends A-ABORT, as the user.
    pub async fn abort(&mut self) {
        self.event(Event::AbortRequest);
        self.send_abort(AbortRQSource::ServiceUser).await;
    }

    async fn send_abort(&mut self, source: AbortRQSource) {
        if self.torn {
            return;
        }
        // The peer may be gone already; there is nothing more to do for it.
        if let Err(error) = self.write_pdu(&Pdu::AbortRQ { source }).await {
            tracing::debug!(%error, "the abort was not sent");
        }
    }

    /// After the last PDU: whoever sent a release response, a rejection or an abort waits for the other to close
    /// (PS3.8 §9.2.3, Sta13). A peer that sees the end of the stream before it has read the last PDU may miss that PDU.
    pub(crate) async fn close(mut self) {
        if self.machine.state() != State::Sta13 {
            return;
        }
        let mut sink = [0; 4096];
        let waiting = async { while matches!(self.read.read(&mut sink).await, Ok(count) if count > 0) {} };
        // Whether the peer closed or not, dropping the halves closes here.
        let _ = timeout(self.deadlines.artim.min(CLOSE_WITHIN), waiting).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kibibyte_begins_the_deadline_anew() {
        let seconds = Duration::from_secs;
        let mut progress = Progress::default();
        // A byte now and then, for ever within the deadline were any byte enough.
        for _ in 0..29 {
            progress.went(1, seconds(1));
        }
        assert_eq!(progress.left(seconds(30)), seconds(1));
        progress.went(1, seconds(2));
        assert_eq!(progress.left(seconds(30)), Duration::ZERO);
        // 9.6 kb/s: 1 KiB in less than a second.
        let mut progress = Progress::default();
        for _ in 0..100 {
            progress.went(1200, seconds(1));
            assert_eq!(progress.left(seconds(30)), seconds(30));
        }
    }
}
