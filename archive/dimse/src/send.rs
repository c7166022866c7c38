//! Queued sends as user: C-STORE of some instances over associations of our own, by the same rules as the sub-operations of
//! C-MOVE.

use crate::{
    association::Deadlines,
    delivery::{Delivery, SEND_AHEAD, Told},
    retrieve::{DESTINATION_WITHIN, outcome},
};
use archive_service::{
    Archive, BoxFuture, InstanceRow,
    peers::Destination,
    sends::{Outcome, Sender},
};
use std::sync::atomic::Ordering;

/// Sends instances over new associations.
#[derive(Debug, Clone)]
pub struct InstanceSender {
    deadlines: Deadlines,
    ahead: u16,
}

impl InstanceSender {
    /// One whose associations have these deadlines.
    #[must_use]
    pub fn new(deadlines: Deadlines) -> Self {
        Self { deadlines: Deadlines { artim: deadlines.artim.min(DESTINATION_WITHIN), ..deadlines }, ahead: SEND_AHEAD }
    }

    /// The same, with up to so many objects before answers come.
    #[must_use]
    pub fn ahead(self, ahead: u16) -> Self {
        Self { ahead, ..self }
    }

    async fn all(
        &self,
        archive: &Archive,
        to: &Destination,
        originator: Option<(&str, u16)>,
        rows: &[InstanceRow],
        each: &(dyn Fn(usize, Outcome, &str) -> bool + Send + Sync),
    ) -> Result<(), String> {
        let mut delivery = Delivery::new(archive, to, originator, rows, (self.deadlines, self.ahead), None);
        let stop = delivery.stop();
        while let Some(Told { at, sub, why }) = delivery.next().await {
            if !each(at, outcome(sub), &why) {
                stop.store(true, Ordering::SeqCst);
            }
        }
        // What was not tried is owed still, and no failure of its own.
        match delivery.given_up() {
            Some(why) if !stop.load(Ordering::SeqCst) => Err(why.to_owned()),
            _ => Ok(()),
        }
    }
}

impl Sender for InstanceSender {
    fn send<'a>(
        &'a self,
        archive: &'a Archive,
        to: &'a Destination,
        originator: Option<(&'a str, u16)>,
        rows: &'a [InstanceRow],
        each: &'a (dyn Fn(usize, Outcome, &str) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.all(archive, to, originator, rows, each))
    }
}
