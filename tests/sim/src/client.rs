//! Clients: they write to whichever node is ready, and read back elsewhere what was acknowledged.

use crate::{
    invariants::read_your_writes,
    oracle::{Ended, Write},
    plan::Chance,
    world::PLACES,
};
use bytes::Bytes;
use parking_lot::Mutex;
use raft_groups::{Node, testing::Journal};
use raft_types::{Command, GroupId, Propose, ProposeError};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;

/// A node as its clients know it.
#[derive(Clone)]
pub struct Handle {
    /// The node.
    pub node: Arc<Node>,
    /// Its rows.
    pub journal: Arc<Journal>,
    /// Set when its process dies: what it still answers then is not heard.
    pub dead: Arc<AtomicBool>,
}

impl Handle {
    fn usable(&self) -> bool {
        !self.dead.load(Ordering::SeqCst) && *self.node.ready().borrow() && self.node.fatal().borrow().is_none()
    }

    /// Writes `text`.
    pub async fn write(&self, group: u32, text: &str, within: Duration) -> Ended {
        let command = Command { head: Bytes::from(text.to_owned()), body: body(text) };
        let ended = match self.node.propose(GroupId(group), command, within).await {
            Ok(proposed) => Ended::Acknowledged(proposed.address.index),
            Err(ProposeError::NoQuorum { .. } | ProposeError::DiskFull | ProposeError::TooLarge { .. }) => {
                Ended::Refused
            }
            Err(ProposeError::Unknown { .. } | ProposeError::Stopped) => Ended::Unknown,
        };
        if self.dead.load(Ordering::SeqCst) { Ended::Unknown } else { ended }
    }

    /// I4: whoever answers a read index has what was acknowledged before.
    async fn read_back(&self, group: u32, index: u64, text: &str) -> Result<(), String> {
        let answered = self.node.read_index(vec![GroupId(group)]).await.is_ok();
        if !answered || self.dead.load(Ordering::SeqCst) {
            return Ok(()); // a node without a majority says so instead of answering
        }
        let commands = self.journal.commands(GroupId(group));
        let found = commands.binary_search_by_key(&index, |command| command.position.index).ok();
        let found = found.map(|at| String::from_utf8_lossy(&commands[at].head));
        read_your_writes::check(group, index, text, found.as_deref())
    }
}

/// The bytes of a block follow from its text.
#[must_use]
pub fn body(text: &str) -> Bytes {
    let length = 1_000 + text.len() * 700;
    text.bytes().cycle().take(length).collect::<Vec<u8>>().into()
}

/// What all clients share.
#[derive(Clone)]
pub struct Office {
    /// Chance.
    pub chance: Arc<Chance>,
    /// The nodes, by place; none for one that is down.
    pub nodes: Arc<Mutex<Vec<Option<Handle>>>>,
    /// What was written.
    pub history: Arc<Mutex<Vec<Write>>>,
    /// The next text.
    pub next_text: Arc<AtomicU64>,
    /// Data groups.
    pub groups: u32,
}

impl Office {
    /// An office for clients of as many nodes as there are places.
    #[must_use]
    pub fn new(chance: Arc<Chance>, groups: u32) -> Self {
        let nodes = Arc::new(Mutex::new(vec![None; PLACES.len()]));
        Self { chance, nodes, history: Arc::default(), next_text: Arc::default(), groups }
    }

    /// A text that was never written.
    #[must_use]
    pub fn text(&self) -> String {
        format!("w{}", self.next_text.fetch_add(1, Ordering::SeqCst))
    }

    /// Any node that can be used now.
    fn any(&self) -> Option<Handle> {
        let usable: Vec<Handle> = self.nodes.lock().iter().flatten().filter(|node| node.usable()).cloned().collect();
        usable.get(self.chance.below(usable.len() as u64) as usize).cloned()
    }

    /// One client, until it is told to stop.
    ///
    /// # Errors
    /// When it does not see what it wrote.
    pub async fn client(self, stop: Arc<AtomicBool>) -> Result<(), String> {
        while !stop.load(Ordering::SeqCst) {
            if let Some(node) = self.any() {
                let (group, text) = (1 + self.chance.below(u64::from(self.groups)) as u32, self.text());
                let ended = node.write(group, &text, Duration::from_secs(4)).await;
                self.history.lock().push(Write { group, text: text.clone(), ended });
                if let Ended::Acknowledged(index) = ended
                    && let Some(other) = self.any()
                {
                    other.read_back(group, index, &text).await?;
                }
            }
            sleep(Duration::from_millis(1 + self.chance.below(200))).await;
        }
        Ok(())
    }

    /// Writes once to `node` for every group, within `within` each; the same text again until it is acknowledged.
    ///
    /// # Errors
    /// I12: names the group that takes no write.
    pub async fn write_all(&self, name: &str, node: &Handle, within: Duration) -> Result<(), String> {
        for group in 1..=self.groups {
            let (text, until) = (self.text(), tokio::time::Instant::now() + within);
            // Whatever came of an earlier try, it is the same write to the oracle.
            let mut unknown = false;
            loop {
                let ended = node.write(group, &text, Duration::from_secs(4)).await;
                let late = tokio::time::Instant::now() > until || node.dead.load(Ordering::SeqCst);
                unknown |= ended == Ended::Unknown;
                if matches!(ended, Ended::Acknowledged(_)) || late {
                    let noted = if ended == Ended::Refused && unknown { Ended::Unknown } else { ended };
                    self.history.lock().push(Write { group, text: text.clone(), ended: noted });
                }
                match ended {
                    Ended::Acknowledged(_) => break,
                    _ if late => return Err(format!("I12: {name} takes no write for g{group}: {ended:?}")),
                    _ => sleep(Duration::from_millis(50)).await,
                }
            }
        }
        Ok(())
    }
}
