//! Queued sends as user: C-STORE of some instances over associations of our own, by the same rules as the sub-operations of
//! C-MOVE.

use crate::{
    association::Deadlines,
    retrieve::{DESTINATION_WITHIN, LOSSES_MAX, by_contexts, move_one, outcome, proposals, reason},
    scu::Requestor,
};
use archive_service::{
    Archive, BoxFuture, InstanceRow,
    peers::Destination,
    sends::{Outcome, Sender},
};

/// Sends instances over new associations.
#[derive(Debug, Clone)]
pub struct InstanceSender {
    deadlines: Deadlines,
}

impl InstanceSender {
    /// One whose associations have these deadlines.
    #[must_use]
    pub fn new(deadlines: Deadlines) -> Self {
        Self { deadlines: Deadlines { artim: deadlines.artim.min(DESTINATION_WITHIN), ..deadlines } }
    }

    async fn all(
        &self,
        archive: &Archive,
        Destination { remote, transfer_syntaxes, coerce, .. }: &Destination,
        originator: Option<(&str, u16)>,
        rows: &[InstanceRow],
        each: &(dyn Fn(usize, Outcome, &str) -> bool + Send + Sync),
    ) -> Result<(), String> {
        let (mut at, mut losses) = (0, 0);
        for part in by_contexts(rows) {
            let proposals = proposals(archive, part, transfer_syntaxes);
            let mut to: Option<Requestor> = None;
            for row in part {
                let open = match &mut to {
                    Some(open) => open,
                    None => {
                        let ours = archive.ae_title();
                        let made =
                            Requestor::connect(&remote.address, ours, &remote.title, &proposals, self.deadlines).await;
                        to.insert(made.map_err(|error| reason(&error))?)
                    }
                };
                let wanted = match move_one(archive, open, (row, coerce), originator).await {
                    Ok((sub, why)) => {
                        losses = 0;
                        each(at, outcome(sub), &why)
                    }
                    Err(error) => {
                        let why = reason(&error);
                        losses += 1;
                        to = None;
                        let wanted = each(at, Outcome::Failed, &why);
                        if losses >= LOSSES_MAX {
                            return Err(why);
                        }
                        wanted
                    }
                };
                if !wanted {
                    if let Some(to) = to {
                        to.release().await;
                    }
                    return Ok(());
                }
                at += 1;
            }
            if let Some(to) = to {
                to.release().await;
            }
        }
        Ok(())
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
