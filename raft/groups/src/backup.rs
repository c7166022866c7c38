//! What a backup reads of a node: the rows of a group at one moment, from here or, where the group does not live here, from
//! its leader. Bodies are read as anybody reads them, here or from a peer.

use crate::{
    node::Node,
    rows::export,
    rpc::{ReadIndexAnswer, ReadIndexCall, RowsPart, method},
    types::{decode, encode},
};
use bytes::Bytes;
use raft_types::{Applied, Class, Exported, GroupId, Message, Propose, Stream};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// How long a replica may take to say whether it leads.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// Pieces that wait while the store is slower.
const PIECES_AHEAD: usize = 4;

/// Rows as they come; `None` is their end, and a channel that closes without it lost them.
pub type RowsReceiver = mpsc::Receiver<Result<Option<Exported>, String>>;

impl Node {
    /// The rows of `group` as of a moment at which everything is applied that was acknowledged before this call.
    ///
    /// # Errors
    /// When no leader can be reached: the rows here could be old.
    pub async fn rows_of(self: &Arc<Self>, group: GroupId) -> Result<RowsReceiver, String> {
        if self.group(group).is_some() {
            self.read_index(vec![group]).await.map_err(|error| error.to_string())?;
            return Ok(export(Arc::clone(&self.machine), self.options.blocking(), group).await);
        }
        let leader = self.leader_of(group).await.ok_or_else(|| format!("{group} has no reachable leader"))?;
        let first = Message { method: method::ROWS_PULL, group, head: Bytes::new(), bodies: Vec::new() };
        let stream = self.wire.open(&leader, Class::Read, first).await.map_err(|error| error.to_string())?;
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        self.spawn(|_| forward(stream, sender));
        Ok(receiver)
    }

    /// The replica that leads a group which does not live here.
    async fn leader_of(&self, group: GroupId) -> Option<String> {
        let meta = self.meta.state();
        for peer in meta.replicas(group).iter().filter_map(|id| meta.name_of(*id)) {
            let head = encode(&ReadIndexCall { groups: vec![group] });
            let request = Message { method: method::READ_INDEX, group: GroupId::META, head, bodies: Vec::new() };
            let asked = tokio::time::timeout(ASK_WITHIN, self.wire.call(peer, Class::Urgent, request)).await;
            let Ok(Ok(answer)) = asked else { continue };
            // Only a leader that a majority confirms answers with an index, and it has applied that far.
            let answer = decode::<ReadIndexAnswer>("read index", &answer.head);
            if answer.is_ok_and(|answer| answer.indexes.iter().any(|(found, _)| *found == group)) {
                return Some(peer.to_owned());
            }
        }
        None
    }
}

/// Hands over the parts of a peer's export.
async fn forward(mut stream: Box<dyn Stream>, sender: mpsc::Sender<Result<Option<Exported>, String>>) {
    let mut pieces = 0;
    loop {
        let part = match stream.receive().await {
            Ok(Some(message)) => {
                decode("rows", &message.head).map(|part| (part, message.bodies)).map_err(|error| error.to_string())
            }
            Ok(None) => Err("the peer ended before its rows did".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let next = match part {
            Ok((RowsPart::At { position, membership }, _)) => {
                vec![Ok(Some(Exported::At(Applied { position, membership })))]
            }
            Ok((RowsPart::Piece, bodies)) => {
                pieces += 1;
                bodies.into_iter().map(|piece| Ok(Some(Exported::Piece(piece)))).collect()
            }
            Ok((RowsPart::End { pieces: all }, _)) if all == pieces => vec![Ok(None)],
            Ok((RowsPart::End { .. }, _)) => vec![Err("not all rows came".to_owned())],
            Err(why) => vec![Err(why)],
        };
        for next in next {
            let last = !matches!(next, Ok(Some(_)));
            if sender.send(next).await.is_err() || last {
                return; // the backup was given up, or knows why
            }
        }
    }
}
