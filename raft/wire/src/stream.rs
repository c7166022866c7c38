//! One ordered stream over a connection, bounded by credits.
//!
//! ```text
//!   sender                                     receiver
//!   credit = window                            allowed = window
//!   Data: credit -= cost, only if credit > 0   allowed -= cost; a sender that did not wait is cut off
//!                                              consumed += cost; at half a window: Credit(consumed), allowed += it
//!   Credit: credit += it
//! ```
//!
//! A message larger than what is left of the window passes once, so that any message fits any window: at most a window
//! and one message wait at the receiver. Finish follows the last message; Stop says that nobody receives any more.

use crate::{
    frame::{self, Kind},
    link::Link,
};
use parking_lot::Mutex;
use raft_types::{BoxFuture, Message, Stream, WireError};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::Notify;

/// What both ends of a stream's local half share with the connection's reader.
pub(crate) struct Core {
    id: u64,
    window: u64,
    state: Mutex<State>,
    /// There is credit, or no hope of any.
    sendable: Notify,
    /// There is a message, or none will come.
    receivable: Notify,
}

struct State {
    credit: i64,
    allowed: i64,
    consumed: u64,
    arrived: VecDeque<Message>,
    /// The other end sends no more.
    finished: bool,
    /// The other end receives no more.
    stopped: bool,
    /// Nobody here receives any more.
    deaf: bool,
    failed: Option<WireError>,
    halves: u8,
}

impl Core {
    pub(crate) fn new(id: u64, window: u64) -> Arc<Core> {
        let all = i64::try_from(window).unwrap_or(i64::MAX);
        let state = State {
            credit: all,
            allowed: all,
            consumed: 0,
            arrived: VecDeque::new(),
            finished: false,
            stopped: false,
            deaf: false,
            failed: None,
            halves: 1,
        };
        Arc::new(Core { id, window, state: Mutex::new(state), sendable: Notify::new(), receivable: Notify::new() })
    }

    /// A message came. False if the sender had no credit for it.
    pub(crate) fn data(&self, message: Message) -> bool {
        let mut state = self.state.lock();
        if state.allowed <= 0 {
            return false;
        }
        if !state.deaf {
            state.allowed -= frame::cost(&message) as i64; // at most some 16 MiB
            state.arrived.push_back(message);
            drop(state);
            self.receivable.notify_one();
        }
        true
    }

    pub(crate) fn credit(&self, bytes: u64) {
        let mut state = self.state.lock();
        let window = i64::try_from(self.window).unwrap_or(i64::MAX);
        state.credit = state.credit.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX)).min(window);
        drop(state);
        self.sendable.notify_one();
    }

    pub(crate) fn finish(&self) {
        self.state.lock().finished = true;
        self.receivable.notify_one();
    }

    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.sendable.notify_one();
    }

    /// The connection broke, or the stream was refused.
    pub(crate) fn fail(&self, error: WireError) {
        self.state.lock().failed.get_or_insert(error);
        self.sendable.notify_one();
        self.receivable.notify_one();
    }
}

/// One end of a stream, or one half of an end.
pub(crate) struct WireStream {
    link: Arc<Link>,
    core: Arc<Core>,
    sends: bool,
    receives: bool,
}

impl WireStream {
    pub(crate) fn new(link: Arc<Link>, core: Arc<Core>) -> WireStream {
        WireStream { link, core, sends: true, receives: true }
    }

    /// Whether there is credit now.
    fn may_send(&self) -> Result<bool, WireError> {
        let state = self.core.state.lock();
        match &state.failed {
            Some(error) => Err(error.clone()),
            None if state.stopped => Err(self.link.unreachable("the other end has closed the stream")),
            None => Ok(state.credit > 0),
        }
    }

    async fn send_one(&self, message: Message) -> Result<(), WireError> {
        self.link.check_size(&message)?;
        let cost = frame::cost(&message);
        loop {
            while !self.may_send()? {
                self.core.sendable.notified().await;
            }
            // The permit comes after the credit: a stream whose receiver sleeps holds none of the peer's budget.
            let permit = self.link.admit(cost).await?;
            if !self.may_send()? {
                continue;
            }
            self.core.state.lock().credit -= cost as i64; // at most some 16 MiB
            self.link.push(Kind::Data, self.core.id, message, Some(permit));
            return Ok(());
        }
    }

    async fn receive_one(&self) -> Result<Option<Message>, WireError> {
        loop {
            {
                let mut state = self.core.state.lock();
                if let Some(message) = state.arrived.pop_front() {
                    state.consumed += frame::cost(&message);
                    if state.consumed >= self.core.window / 2 {
                        let consumed = std::mem::take(&mut state.consumed);
                        state.allowed += consumed as i64; // at most a window and one message
                        drop(state);
                        self.link.push_credit(self.core.id, consumed);
                    }
                    return Ok(Some(message));
                }
                if state.finished {
                    return Ok(None);
                }
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
            }
            self.core.receivable.notified().await;
        }
    }
}

impl Stream for WireStream {
    fn send(&mut self, message: Message) -> BoxFuture<'_, Result<(), WireError>> {
        Box::pin(self.send_one(message))
    }

    fn receive(&mut self) -> BoxFuture<'_, Result<Option<Message>, WireError>> {
        Box::pin(self.receive_one())
    }

    /// The first half sends, the second receives: dropping the first ends the stream in order for the other end,
    /// dropping the second tells the other end that nobody listens.
    fn split(mut self: Box<Self>) -> (Box<dyn Stream>, Box<dyn Stream>) {
        self.core.state.lock().halves += 1;
        let sender = WireStream {
            link: Arc::clone(&self.link),
            core: Arc::clone(&self.core),
            sends: std::mem::replace(&mut self.sends, false),
            receives: false,
        };
        (Box::new(sender), self)
    }
}

impl Drop for WireStream {
    fn drop(&mut self) {
        if self.sends {
            self.link.push(Kind::Finish, self.core.id, Message::default(), None);
        }
        let mut state = self.core.state.lock();
        let mut arrived = VecDeque::new();
        if self.receives {
            state.deaf = true;
            arrived = std::mem::take(&mut state.arrived);
        }
        state.halves -= 1;
        let last = state.halves == 0;
        drop(state);
        drop(arrived);
        if self.receives {
            self.link.push(Kind::Stop, self.core.id, Message::default(), None);
        }
        if last {
            self.link.forget_stream(self.core.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(bytes: usize) -> Message {
        Message { bodies: vec![Bytes::from(vec![0; bytes])], ..Message::default() }
    }

    #[test]
    fn a_sender_that_ignores_its_credit_is_noticed_within_one_message() {
        let core = Core::new(1, 1000);
        assert!(core.data(message(600)) && core.data(message(600)));
        assert!(!core.data(message(1)), "the window was used up");
    }

    #[test]
    fn credit_never_grows_beyond_the_window() {
        let core = Core::new(1, 1000);
        core.credit(u64::MAX);
        core.credit(5000);
        assert_eq!(core.state.lock().credit, 1000);
    }

    #[test]
    fn what_comes_after_the_receiver_is_gone_is_not_kept() {
        let core = Core::new(1, 1000);
        core.state.lock().deaf = true;
        for _ in 0..10 {
            assert!(core.data(message(600)));
        }
        assert!(core.state.lock().arrived.is_empty());
    }
}
